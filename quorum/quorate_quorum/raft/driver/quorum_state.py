"""The file `quorum-state`: the epoch and vote, which a voter must not forget in a crash."""

from __future__ import annotations

import struct

from crc32c import crc32c

from quorate.errors import StorageError
from quorate_quorum.disk import Disk, read_whole
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.ledger import Below, Ledger
from quorate_quorum.raft.machine.voters import ReplicaKey

QUORUM_STATE = "quorum-state"
VERSION = 1
STATE = struct.Struct(
    ">"
    "B"  # version
    "i"  # epoch
    "?"  # is_behind
    "?"  # whether there is a vote
    "i"  # id of the replica that has the vote
    "16s"  # directory of that replica
    "i"  # first epoch in which this disk voted; 0: none
)
CRC = struct.Struct(">I")  # CRC-32C of all before it


def encode_state(state: HardState) -> bytes:
    """Return the bytes of the quorum-state file."""
    vote = state.voted_for or ReplicaKey(0, b"")
    assert len(vote.directory_id) in (0, 16)
    data = STATE.pack(
        VERSION,
        state.epoch,
        state.is_behind,
        state.voted_for is not None,
        vote.id,
        vote.directory_id,
        state.first_vote_epoch,
    )
    return data + CRC.pack(crc32c(data))


def decode_state(data: bytes) -> HardState:
    """Return the epoch and vote in the file's bytes.

    StorageError if the file has another version or is damaged. A voter that went on with a damaged
    file could vote twice in one epoch.
    """
    if data[:1] != bytes([VERSION]):
        raise StorageError(
            f"{QUORUM_STATE} has version {data[0] if data else 'none'}; this release reads"
            f" version {VERSION} only"
        )
    if len(data) != STATE.size + CRC.size:
        raise StorageError(f"{QUORUM_STATE} has {len(data)} bytes, not {STATE.size + CRC.size}")
    body, (crc,) = data[: STATE.size], CRC.unpack(data[STATE.size :])
    if crc32c(body) != crc:
        raise StorageError(f"{QUORUM_STATE} is damaged: its checksum does not fit")
    _, epoch, is_behind, voted, voter, directory_id, first_vote = STATE.unpack(body)
    vote = ReplicaKey(voter, directory_id) if voted else None
    return HardState(epoch, vote, is_behind, first_vote)


async def read_state(disk: Disk, directory: str) -> HardState:
    """Return epoch and vote. Without a file (the voter never voted), return the defaults."""
    path = f"{directory}/{QUORUM_STATE}"
    if not await disk.exists(path):
        return HardState()
    return decode_state(await read_whole(disk, path))


def check_state(state: HardState, ledger: Ledger, below: Below | None) -> None:
    """Raise StorageError if the log has a newer epoch than the quorum-state file.

    Storage writes the hard state before the records of its epoch, so no crash leaves a newer log.
    If the log is newer, the file does not belong to the log, and this disk's votes are lost. A
    snapshot may have a newer epoch than the file: the snapshot's records are committed, so no vote
    can change them.
    """
    known = state.epoch if below is None else max(state.epoch, below.epoch)
    if ledger.last_epoch > known:
        raise StorageError(
            f"the metadata log holds records of epoch {ledger.last_epoch}, and {QUORUM_STATE}"
            f" says epoch {state.epoch}: the file is missing, or older than the log, and with it"
            " the votes of this disk are lost. Bring the file back, or give this voter a new"
            " disk and add it as a new voter"
        )
