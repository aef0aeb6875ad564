"""Damage to brokers' disks: flipped bits, lost directories, and how much of it at a time."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from quorate.errors import CorruptRecordError
from quorate.record.batch import complete_prefix, split
from quorate_testing.simulated.cluster import SimulatedNode
from quorate_testing.simulated.disk import SimulatedDisk
from tests.harness.cluster_shape import Shape

#: What is hit, and the names of the files in a replica's directory that hold it.
PARTS: dict[str, tuple[str, ...]] = {
    "log": (".log",),
    "index": (".index", ".timeindex"),
    "checkpoint": ("high-watermark", "synced", "leader-epoch-checkpoint", ".snapshot"),
    "metadata": ("partition.metadata",),
}


@dataclass(frozen=True, slots=True)
class Damage:
    """A byte that a flipped bit has changed."""

    disk: SimulatedDisk
    path: str
    position: int
    value: int

    @property
    def directory(self) -> str:
        """The directory of the replica that was hit."""
        return self.path.rpartition("/")[0]

    @property
    def is_there(self) -> bool:
        """Whether the changed byte is still on the disk: not removed, not written again."""
        if self.path not in dict(self.disk.files()):
            return False
        content = self.disk.content(self.path)
        return self.position < len(content) and content[self.position] == self.value


@dataclass(slots=True)
class Damages:
    """Which brokers may lack what they acknowledged, until all replicas are in sync again."""

    shape: Shape
    all_in_sync: Callable[[], bool]
    now_s: Callable[[], float]
    hurt: dict[str, list[Damage]] = field(default_factory=dict)
    #: Disks of brokers whose next sync was made to fail: the damage comes with that sync.
    failing: list[SimulatedDisk] = field(default_factory=list)
    #: Whether more brokers were hurt at one time than the cluster is promised to survive.
    exceeded: bool = False
    _last_s: float = -1.0

    def may_hurt(self, node: SimulatedNode) -> bool:
        """Whether this broker may be hurt now; it then counts as hurt."""
        now_s = self.now_s()
        # all_in_sync() can not see damage of this same instant yet.
        if now_s > self._last_s and self.all_in_sync() and not self.is_any_there():
            self.hurt.clear()
        allowed = 3 if self.shape.beyond else self.shape.damaged_max
        if node.name not in self.hurt and len(self.hurt) >= allowed:
            return False
        self._last_s = now_s
        self.hurt.setdefault(node.name, [])
        self.exceeded |= len(self.hurt) > self.shape.damaged_max
        return True

    def note(self, node: SimulatedNode, damage: Damage) -> None:
        """Remember what was done to a broker that may be hurt."""
        self.hurt[node.name].append(damage)

    def is_damaged(self, node: SimulatedNode, directory: str) -> bool:
        """Whether a flipped bit is still in that directory of a broker."""
        damages = self.hurt.get(node.name, ())
        return any(one.directory == directory and one.is_there for one in damages)

    def is_any_there(self) -> bool:
        """Whether a flipped bit is still on a disk, or a sync that was made to fail is to come."""
        self.failing = [disk for disk in self.failing if disk.has_failing_sync]
        hurt = (damage.is_there for damages in self.hurt.values() for damage in damages)
        return bool(self.failing) or any(hurt)


def replica_directories(disk: SimulatedDisk, topic: str) -> list[str]:
    """Return the directories of a topic's replicas on a disk."""
    found = {path.rpartition("/")[0] for path, _ in disk.files()}
    return sorted(one for one in found if _is_replica(one, f"{topic}-"))


def _is_replica(directory: str, start: str) -> bool:
    log_dir, _, name = directory.rpartition("/")
    is_numbered = name.startswith(start) and name.removeprefix(start).isdigit()
    return is_numbered and log_dir.count("/") == 1


def flip(disk: SimulatedDisk, topic: str, part: str, chance: random.Random) -> Damage | None:
    """Flip a bit in a file of one replica; None if there is nothing to flip."""
    directories = replica_directories(disk, topic)
    if not directories:
        return None
    inside = chance.choice(directories) + "/"
    paths = [
        path
        for path, size in disk.files()
        if size and path.startswith(inside) and path.endswith(PARTS[part])
    ]
    if not paths:
        return None
    path = chance.choice(paths)
    content = disk.content(path)
    start, size = _newest_batch(content) if part == "log" and chance.random() < 0.5 else (0, 0)
    position = start + chance.randrange(size or len(content))
    disk.flip_bit(path, position, chance.randrange(8))
    return Damage(disk, path, position, disk.content(path)[position])


def _newest_batch(content: bytes) -> tuple[int, int]:
    """Return where the last whole batch lies."""
    start = size = 0
    with contextlib.suppress(CorruptRecordError):  # an earlier flip
        for header, _ in split(content[: complete_prefix(content)]):
            start, size = start + size, header.size
    return start, size
