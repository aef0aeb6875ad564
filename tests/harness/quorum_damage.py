"""Damage to what was synced: a bit of the log, of the quorum-state, of the newest snapshot."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass

from quorate.errors import CorruptRecordError
from quorate.record.batch import complete_prefix, split
from quorate_quorum.log.log import SYNCED_FILE
from quorate_quorum.log.slots import SlotFile
from quorate_quorum.raft.bootstrap import metadata_directory
from quorate_quorum.raft.storage import QUORUM_STATE
from quorate_testing.simulated.disk import SimulatedDisk
from tests.harness.quorum_machines import DATA

DIRECTORY = metadata_directory(DATA)


@dataclass(frozen=True, slots=True)
class Damage:
    """A byte that a flipped bit has changed."""

    disk: SimulatedDisk
    path: str
    position: int
    value: int

    @property
    def is_there(self) -> bool:
        """Whether nobody has removed it, or written it again."""
        if self.path not in dict(self.disk.files()):
            return False
        content = self.disk.content(self.path)
        return self.position < len(content) and content[self.position] == self.value


async def flip_below_the_sync(disk: SimulatedDisk, chance: random.Random) -> Damage | None:
    """Flip a bit of a voter's disk while it is down; None if there is nothing to flip."""
    synced = SlotFile(disk, f"{DIRECTORY}/{SYNCED_FILE}")
    await synced.load()
    end = synced.value[0] if synced.value is not None else 0
    files = [path for path, size in disk.files() if size]
    snapshots = [path for path in files if path.endswith(".snapshot")]
    wholes = [path for path in (f"{DIRECTORY}/{QUORUM_STATE}", *snapshots[-1:]) if path in files]
    places = [
        (path, start, size)
        for path in files
        if path.startswith(DIRECTORY) and path.endswith(".log")
        for start, size in _batches_below(disk.content(path), end)
    ]
    if wholes and chance.random() < 0.4:
        path = chance.choice(wholes)
        places = [(path, 0, len(disk.content(path)))]
    if not places:
        return None
    path, start, size = chance.choice(places)
    position = start + chance.randrange(size)
    disk.flip_bit(path, position, chance.randrange(8))
    return Damage(disk, path, position, disk.content(path)[position])


def _batches_below(content: bytes, end: int) -> list[tuple[int, int]]:
    """Return where the batches lie whose records are all below that offset."""
    found = []
    start = 0
    with contextlib.suppress(CorruptRecordError):  # an earlier flip above the sync
        for header, _ in split(content[: complete_prefix(content)]):
            if header.end_offset <= end:
                found.append((start, header.size))
            start += header.size
    return found
