"""The content of a disk: durable bytes and names, and others that a power loss may remove."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

#: A device writes this many bytes completely or not at all.
SECTOR = 512


@dataclass(eq=False, slots=True)
class Write:
    """A change of a file: bytes written at a position."""

    position: int
    data: bytes


@dataclass(eq=False, slots=True)
class Truncate:
    """A change of a file: it is cut or extended to a size."""

    size: int


@dataclass(eq=False, slots=True)
class Inode:
    """A file's content: the cached bytes, the durable bytes, and the changes between them."""

    cached: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Write | Truncate] = field(default_factory=list)
    #: The time at which the content last changed, by the loop's clock, which all machines of a
    #: world share.
    changed_s: float = field(default_factory=lambda: now_s())

    def do(self, change: Write | Truncate) -> None:
        self.changed_s = now_s()
        apply(self.cached, change)
        self.pending.append(change)


@dataclass(frozen=True, slots=True)
class Entry:
    """A change of a directory: `name` now means `node`, and the name `gone` is removed."""

    name: str | None
    node: Inode | Directory | None
    gone: str | None = None


@dataclass(eq=False, slots=True)
class Directory:
    """The names in a directory: cached, durable, and the changes between them."""

    cached: dict[str, Inode | Directory] = field(default_factory=dict)
    durable: dict[str, Inode | Directory] = field(default_factory=dict)
    pending: list[Entry] = field(default_factory=list)

    def do(self, change: Entry) -> None:
        enter(self.cached, change)
        self.pending.append(change)

    def sync(self, covered: int) -> None:
        """Make the first `covered` changes durable."""
        for change in self.pending[:covered]:
            enter(self.durable, change)
        del self.pending[:covered]


def copy(directory: Directory, copies: dict[int, Inode | Directory]) -> Directory:
    """Return a copy of a directory with all that is in it.

    `copies`: by the id of the original, because a node can have several names.
    """
    made = copies[id(directory)] = Directory()

    def of(node: Inode | Directory) -> Inode | Directory:
        found = copies.get(id(node))
        if found is None:
            if isinstance(node, Directory):
                return copy(node, copies)
            found = copies[id(node)] = Inode(
                bytearray(node.cached), bytearray(node.durable), list(node.pending), node.changed_s
            )
        return found

    made.cached = {name: of(node) for name, node in directory.cached.items()}
    made.durable = {name: of(node) for name, node in directory.durable.items()}
    made.pending = [
        Entry(one.name, None if one.node is None else of(one.node), one.gone)
        for one in directory.pending
    ]
    return made


def now_s() -> float:
    """Return the running loop's time; 0 if no loop runs yet."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return 0.0


def lose_power(directory: Directory, chance: random.Random) -> None:
    """Return to the durable content and any part of the changes that no sync has covered."""
    for change in directory.pending:
        if chance.random() < 0.5:
            enter(directory.durable, change)
    directory.pending.clear()
    directory.cached = dict(directory.durable)
    for name in sorted(directory.cached):
        node = directory.cached[name]
        if isinstance(node, Directory):
            lose_power(node, chance)
        else:
            _lose_bytes(node, chance)


def _lose_bytes(inode: Inode, chance: random.Random) -> None:
    for change in inode.pending:
        fate = chance.random()
        if fate < 0.4:
            apply(inode.durable, change)
        elif fate < 0.7 and isinstance(change, Write):
            _apply_sectors(inode.durable, change, chance)
    inode.pending.clear()
    inode.cached = bytearray(inode.durable)


def _apply_sectors(content: bytearray, write: Write, chance: random.Random) -> None:
    """Keep some sectors of a write. The file's new size may be kept or lost."""
    end = write.position + len(write.data)
    if chance.random() < 0.5 and len(content) < end:
        content.extend(bytes(end - len(content)))
    start = write.position
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        if chance.random() < 0.5:
            first = start - write.position
            apply(content, Write(start, write.data[first : first + stop - start]))
        start = stop


def apply(content: bytearray, change: Write | Truncate) -> None:
    """Carry out a change of a file's bytes."""
    if isinstance(change, Truncate):
        if change.size < len(content):
            del content[change.size :]
        else:
            content.extend(bytes(change.size - len(content)))
        return
    if len(content) < change.position:
        content.extend(bytes(change.position - len(content)))
    content[change.position : change.position + len(change.data)] = change.data


def enter(entries: dict[str, Inode | Directory], change: Entry) -> None:
    """Carry out a change of a directory's names."""
    if change.gone is not None:
        entries.pop(change.gone, None)
    if change.name is not None and change.node is not None:
        entries[change.name] = change.node
