"""Damage to synced bytes: a bit of the log, of the quorum-state or of the newest snapshot."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass

from quorate.errors import CorruptRecordError
from quorate.record.batch import complete_prefix, split
from quorate_quorum.raft.driver.bootstrap import metadata_directory
from quorate_quorum.raft.driver.quorum_state import QUORUM_STATE
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
        """Whether the changed byte is still on the disk: not removed, not written again."""
        if self.path not in dict(self.disk.files()):
            return False
        content = self.disk.content(self.path)
        return self.position < len(content) and content[self.position] == self.value


def flip_below_the_sync(disk: SimulatedDisk, end: int, chance: random.Random) -> Damage | None:
    """Flip a bit of a voter's disk while it is down; None if there is nothing to flip.

    `end` is the synced end that the voter acknowledged, whatever its disk remembers of that.
    """
    files = [path for path, size in disk.files() if size]
    snapshots = [path for path in files if path.endswith(".snapshot")]
    wholes = [path for path in (f"{DIRECTORY}/{QUORUM_STATE}", *snapshots[-1:]) if path in files]
    if wholes and chance.random() < 0.4:
        path = chance.choice(wholes)
        return _flip(disk, path, 0, len(disk.content(path)), chance)
    if chance.random() < 0.5:
        return flip_newest_told(disk, end, chance)
    places = _told(disk, end)
    return _flip(disk, *chance.choice(places), chance) if places else None


def flip_newest_told(disk: SimulatedDisk, end: int, chance: random.Random) -> Damage | None:
    """Flip a bit of the newest record that was acknowledged as synced: others may lack it."""
    places = _told(disk, end)
    return _flip(disk, *places[-1], chance) if places else None


def _flip(disk: SimulatedDisk, path: str, start: int, size: int, chance: random.Random) -> Damage:
    position = start + chance.randrange(size)
    disk.flip_bit(path, position, chance.randrange(8))
    return Damage(disk, path, position, disk.content(path)[position])


def _told(disk: SimulatedDisk, end: int) -> list[tuple[str, int, int]]:
    """Return path, position and size of the batches below `end`, in their order."""
    return [
        (path, start, size)
        for path, _ in disk.files()
        if path.startswith(DIRECTORY) and path.endswith(".log")
        for start, size in _batches_below(disk.content(path), end)
    ]


def _batches_below(content: bytes, end: int) -> list[tuple[int, int]]:
    """Return position and size of the batches that end at or below that offset."""
    found = []
    start = 0
    with contextlib.suppress(CorruptRecordError):  # an earlier flip above the sync
        for header, _ in split(content[: complete_prefix(content)]):
            if header.end_offset <= end:
                found.append((start, header.size))
            start += header.size
    return found
