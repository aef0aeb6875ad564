"""The identity of a log directory: the file `meta.properties`, from `quorate storage format`.

    version=2
    cluster.id=...
    node.id=1
    directory.id=32 hex digits
    quorum.generation=1
    crc32c=8 hex digits        of all lines before

Both servers read this file before anything else. A node refuses to start if the file is missing or
of another version: a voter whose data is gone, and that starts empty, would have forgotten its
votes and its acknowledgements (KAFKA-15412).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from crc32c import crc32c

from quorate_quorum.disk import Disk, read_whole, replace_whole
from quorate_quorum.node.config import ConfigError

FILE_NAME: Final = "meta.properties"
#: The name of the metadata log, as if it were a topic. No topic may have it: its files would be
#: taken for those of the quorum.
METADATA_LOG: Final = "__cluster_metadata"
#: The directory of the metadata log. `storage format` makes it in a voter's log directory, never in
#: a broker's.
METADATA_DIRECTORY: Final = f"{METADATA_LOG}-0"
VERSION: Final = 2
BYTES_MAX: Final = 4096
#: The highest generation. No quorum is recovered so often, so a file with a higher generation is
#: damaged.
GENERATION_MAX: Final = 10**9
CLUSTER_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VALUES: Final = {
    "cluster.id": (CLUSTER_ID, "1 to 64 of the characters a-z A-Z 0-9 _ -"),
    "node.id": (re.compile(r"[0-9]{1,9}"), "a whole number of at most 9 digits"),
    "directory.id": (re.compile(r"[0-9a-f]{32}"), "32 hex digits"),
    "quorum.generation": (re.compile(r"[0-9]{1,18}"), "a whole number of at most 18 digits"),
    "crc32c": (re.compile(r"[0-9a-f]{8}"), "8 hex digits"),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """The cluster and node to which a directory belongs.

    `directory_id` is 16 random bytes that `storage format` draws, so a replaced disk has another
    id. `quorum_generation` is 0 in a broker's directory until the broker learns it.
    """

    cluster_id: str
    node_id: int
    directory_id: bytes
    quorum_generation: int


class NotFormattedError(ConfigError):
    """A log directory has no meta.properties."""


class WrongIdentityError(ConfigError):
    """A log directory belongs to another cluster or node."""


class UnreadableIdentityError(ConfigError):
    """A meta.properties is damaged, or another release wrote it."""


async def read_identity(
    disk: Disk, directory: str, *, cluster_id: str | None = None, node_id: int | None = None
) -> Identity:
    """Return the identity of a directory, which must have the given `cluster_id` and `node_id`.

    None: any. Raises NotFormattedError, UnreadableIdentityError, WrongIdentityError, or OSError.
    """
    path = f"{directory}/{FILE_NAME}"
    try:
        size = await disk.size(path)
    except FileNotFoundError:
        raise NotFormattedError(
            f"{directory} is not formatted: it has no {FILE_NAME}. If this node is new, run "
            f"`quorate storage format`; if it is not, its disk is missing"
        ) from None
    except (NotADirectoryError, PermissionError) as error:
        raise NotFormattedError(
            f"{directory} cannot be used: {error.strerror}. log.dirs names directories that this "
            "process may read and write"
        ) from None
    if size > BYTES_MAX:
        raise UnreadableIdentityError(f"{path} has {size} bytes; at most {BYTES_MAX} are ours")
    identity = _parse(path, await read_whole(disk, path))
    if cluster_id is not None and identity.cluster_id != cluster_id:
        raise WrongIdentityError(
            f"{path} belongs to cluster {identity.cluster_id}, and this node to {cluster_id}: "
            "point log.dirs elsewhere, or bring the right disk"
        )
    if node_id is not None and identity.node_id != node_id:
        raise WrongIdentityError(
            f"{path} belongs to node {identity.node_id}, and node.id is {node_id}: "
            "point log.dirs elsewhere, or set node.id right"
        )
    return identity


async def is_of_voter(disk: Disk, directory: str) -> bool:
    """Return whether a directory was formatted for a voter; False if for a broker."""
    return await disk.exists(f"{directory}/{METADATA_DIRECTORY}")


async def write_identity(disk: Disk, directory: str, identity: Identity) -> None:
    """Write or replace the identity durably. Make the directory if it does not exist."""
    assert CLUSTER_ID.fullmatch(identity.cluster_id), identity.cluster_id
    assert len(identity.directory_id) == 16
    assert 0 <= identity.node_id < 10**9
    assert 0 <= identity.quorum_generation <= GENERATION_MAX
    lines = (
        f"version={VERSION}\n"
        f"cluster.id={identity.cluster_id}\n"
        f"node.id={identity.node_id}\n"
        f"directory.id={identity.directory_id.hex()}\n"
        f"quorum.generation={identity.quorum_generation}\n"
    ).encode()
    await disk.make_directory(directory)
    await replace_whole(disk, f"{directory}/{FILE_NAME}", lines + b"crc32c=%08x\n" % crc32c(lines))


def _parse(path: str, data: bytes) -> Identity:
    values: dict[str, str] = {}
    for number, line in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        name, equals, value = line.partition("=")
        if not equals or name in values:
            raise UnreadableIdentityError(
                f"{path}: line {number} is {line[:80]!r}; allowed are name=value, each name once"
            )
        values[name] = value
    version = values.pop("version", None)
    if version is None:
        raise UnreadableIdentityError(
            f"{path} {'has no version' if data else 'is empty'}; every release writes one, so it "
            "is damaged: put back a copy, or take this directory for lost and format a new one"
        )
    if version == "1":
        raise UnreadableIdentityError(
            f"{path} has version '1', from before brokers could have several listeners: this"
            f" release reads version {VERSION} only and converts nothing. Format a new directory"
        )
    if version != str(VERSION):
        raise UnreadableIdentityError(
            f"{path} has version {version[:20]!r}; this release reads version {VERSION} only. "
            "A newer release may have written it: run that one"
        )
    unknown = sorted(values.keys() - _VALUES.keys())
    if unknown:
        raise UnreadableIdentityError(f"{path}: {unknown[0][:80]} is no name of version {VERSION}")
    for name, (pattern, allowed) in _VALUES.items():
        if name not in values:
            raise UnreadableIdentityError(f"{path}: {name} is missing")
        if not pattern.fullmatch(values[name]):
            raise UnreadableIdentityError(
                f"{path}: {name} must be {allowed}, not {values[name][:80]!r}"
            )
    covered = data[: data.rindex(b"crc32c=")]
    if f"{crc32c(covered):08x}" != values["crc32c"]:
        raise UnreadableIdentityError(
            f"{path} is damaged: its crc32c says {values['crc32c']}, "
            f"and its bytes have {crc32c(covered):08x}"
        )
    return Identity(
        cluster_id=values["cluster.id"],
        node_id=int(values["node.id"]),
        directory_id=bytes.fromhex(values["directory.id"]),
        quorum_generation=int(values["quorum.generation"]),
    )
