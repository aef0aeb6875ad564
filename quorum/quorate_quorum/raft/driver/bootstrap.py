"""The first batch of the metadata log (the bootstrap batch), and the formatting of voters' disks.

The batch has the same bytes on every initial voter: offset 0, epoch 0, timestamp 0, nothing
random. It is committed by definition. Voters exchange its hash, and refuse a voter with another
hash: that voter was formatted for another quorum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from quorate.errors import StorageError
from quorate.record import batch as record_batch
from quorate_quorum.disk import Disk
from quorate_quorum.log.events import encode_events
from quorate_quorum.log.identity import FILE_NAME, METADATA_DIRECTORY, Identity, write_identity
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.metadata_log import open_metadata_log
from quorate_quorum.node.config import ConfigError
from quorate_quorum.node.features import METADATA_VERSION, SUPPORTED
from quorate_quorum.node.listeners import is_wildcard, place_of, wrong_address
from quorate_quorum.raft.machine.voters import Voter
from quorate_quorum.v1 import events_pb2


def bootstrap_batch(voters: Sequence[Voter], configs: Mapping[str, str]) -> bytes:
    """Return the bootstrap batch: features, voters by id, cluster configs by name.

    A new cluster begins at the highest metadata.version that this program knows.
    """
    level = SUPPORTED[METADATA_VERSION].highest
    feature = events_pb2.Feature(name=METADATA_VERSION, level=level)
    members = events_pb2.Voters(
        voters=[
            events_pb2.Voter(id=v.id, directory_id=v.directory_id, endpoint=v.endpoint)
            for v in sorted(voters, key=lambda voter: voter.id)
        ]
    )
    events = [
        events_pb2.MetadataEvent(feature=feature),
        events_pb2.MetadataEvent(voters=members),
        *(
            events_pb2.MetadataEvent(config=events_pb2.Config(name=name, value=configs[name]))
            for name in sorted(configs)
        ),
    ]
    return encode_events(events, base_offset=0, epoch=0, timestamp_ms=0)


def bootstrap_hash(batch: bytes) -> bytes:
    """Return the SHA-256 of the bootstrap batch. A voter refuses peers with another hash."""
    return hashlib.sha256(batch).digest()


def metadata_directory(log_dir: str) -> str:
    """Return the directory of the metadata log."""
    return f"{log_dir}/{METADATA_DIRECTORY}"


async def format_voter(
    disk: Disk,
    log_dir: str,
    identity: Identity,
    voters: Sequence[Voter],
    configs: Mapping[str, str],
) -> bytes:
    """Format an empty directory for an initial voter, durably. Return the bootstrap hash.

    The identity is written last. So a crash before the end leaves a directory that counts as not
    formatted, and it can be formatted again.

    ConfigError if the directory is formatted already, holds another metadata log, or the voters are
    invalid. OSError or StorageError if the disk fails.
    """
    _check(identity, voters)
    if await disk.exists(f"{log_dir}/{FILE_NAME}"):
        raise ConfigError(f"{log_dir} is formatted already: {FILE_NAME} is there")
    await make_durably(disk, log_dir)
    batch = bootstrap_batch(voters, configs)
    log = await open_metadata_log(
        disk, metadata_directory(log_dir), LogConfig(track_synced=True, verify_all=True)
    )
    clean = False
    try:
        held = await log.read(0, end=log.log_end_offset, bytes_max=len(batch) + 1)
        if log.log_end_offset and held != batch:
            raise ConfigError(f"{log_dir} holds a metadata log: it is no empty disk")
        if not held:
            await log.append(((record_batch.check(batch), (batch,)),))
            await log.sync()
        clean = True
    finally:
        await log.close(clean=clean)
    await write_identity(disk, log_dir, identity)
    return bootstrap_hash(batch)


async def format_new_voter(disk: Disk, log_dir: str, identity: Identity) -> None:
    """Format an empty directory durably, for a node that will be added as a voter.

    The identity has quorum_generation 0: `join` replaces it by the quorum's generation. OSError or
    StorageError if the disk fails.
    """
    await make_durably(disk, metadata_directory(log_dir))
    await write_identity(disk, log_dir, identity)


async def make_durably(disk: Disk, directory: str) -> None:
    """Make a directory and its missing parents, and sync their names against a power loss."""
    path = directory.rstrip("/")
    made: list[str] = []
    while path and not await disk.exists(path):
        made.append(path)
        path = path.rpartition("/")[0]
    await disk.make_directory(directory)
    for one in made:
        parent = one.rpartition("/")[0]
        await disk.sync_directory(parent or ("/" if one.startswith("/") else "."))


def _check(identity: Identity, voters: Sequence[Voter]) -> None:
    ids = [voter.id for voter in voters]
    if len(set(ids)) != len(ids):
        raise ConfigError(f"voter ids must differ, not {ids}")
    for voter in voters:
        if len(voter.directory_id) != 16:
            raise ConfigError(
                f"voter {voter.id}: a directory id has 16 bytes, not {len(voter.directory_id)}"
            )
    if len({voter.directory_id for voter in voters}) < len(ids):
        raise ConfigError(f"every voter has a directory id of its own: {_told(voters)}")
    _check_addresses(voters)
    if (identity.node_id, identity.directory_id) not in [(v.id, v.directory_id) for v in voters]:
        raise ConfigError(
            f"node {identity.node_id} with directory {identity.directory_id.hex()} is none of the"
            f" initial voters {ids}"
        )


def _check_addresses(voters: Sequence[Voter]) -> None:
    """Refuse addresses that can't be dialled: in the log, they would reach every node for ever."""
    for voter in voters:
        wrong = wrong_address(voter.endpoint, port_min=1)
        if wrong is not None:
            raise ConfigError(f"voter {voter.id}: {wrong}")
        if is_wildcard(voter.endpoint.rpartition(":")[0].strip("[]")):
            raise ConfigError(f"voter {voter.id}: {voter.endpoint} is no address to dial")
    if len({place_of(voter.endpoint) for voter in voters}) < len(voters):
        raise ConfigError(f"voters must listen at different addresses: {_told(voters)}")


def _told(voters: Sequence[Voter]) -> str:
    return ", ".join(f"{one.id}@{one.endpoint}:{one.directory_id.hex()}" for one in voters)


async def read_bootstrap_hash(log: Log) -> bytes:
    """Return the hash of the log's bootstrap batch; empty if the log does not hold that batch."""
    if log.log_end_offset == 0 or log.log_start_offset > 0:
        return b""
    truncations = log.truncations
    data = await log.read(0, end=log.log_end_offset, bytes_max=1)
    if truncations != log.truncations:
        return b""  # nothing was read: a snapshot replaced the log meanwhile
    for header, batch in record_batch.split(data):
        return bootstrap_hash(bytes(batch)) if header.leader_epoch == 0 else b""
    raise StorageError("the metadata log can't be read at offset 0")
