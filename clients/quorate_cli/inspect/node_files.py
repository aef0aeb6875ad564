"""Tells the kind of a node's file, and whether a running node uses it."""

from __future__ import annotations

import os
import stat

from quorate_broker.files import inventory
from quorate_broker.files.replica_files import METADATA_FILE
from quorate_quorum.log import epochs as epoch_file
from quorate_quorum.log import run_file
from quorate_quorum.log.directory import (
    CLEANED_FILE,
    COMPACTED_FILE,
    CORRUPT_FILE,
    CUTTING_FILE,
    DAMAGED_FILE,
    HIGH_WATERMARK_FILE,
    LOG_START_FILE,
    SYNCED_FILE,
)
from quorate_quorum.log.identity import FILE_NAME as IDENTITY_FILE
from quorate_quorum.log.identity import METADATA_DIRECTORY
from quorate_quorum.log.real_disk import LOCK_FILE
from quorate_quorum.log.replacement import CLEANED, SWAP
from quorate_quorum.log.segment import CHECKSUM, INDEX, LOG, SNAPSHOT, TIME_INDEX, offset_of
from quorate_quorum.raft.driver.quorum_state import QUORUM_STATE
from quorate_quorum.snapshots import file as snapshot


class NotOursError(ValueError):
    """The path is no file or directory of a node."""


def kind_of(path: str) -> str:
    """Return the kind of a file, by its name.

    >>> kind_of("/data/t-0/00000000000000000042.index")
    'offset-index'
    >>> kind_of("holiday.jpg")
    'unknown'
    """
    name = path.rpartition("/")[2]
    if name in _NAMED:
        return _NAMED[name]
    if snapshot.id_of(name) is not None:
        return "snapshot"
    if snapshot.id_of_part(name) is not None:
        return "snapshot-part"
    for ending, kind in _ENDINGS.items():
        if offset_of(name, ending) is not None:
            return kind
    return "unknown"


_NAMED = {
    IDENTITY_FILE: "identity",
    run_file.RUN_FILE: "run",
    run_file.MARKER_FILE: "marker",
    METADATA_FILE: "partition-metadata",
    epoch_file.FILE_NAME: "epochs",
    QUORUM_STATE: "quorum-state",
    SYNCED_FILE: "slots",
    HIGH_WATERMARK_FILE: "slots",
    LOG_START_FILE: "slots",
    CLEANED_FILE: "slots",
    COMPACTED_FILE: "marker",
    CORRUPT_FILE: "marker",
    CUTTING_FILE: "marker",
    DAMAGED_FILE: "marker",
    inventory.FILE_NAME: "inventory",
    LOCK_FILE: "marker",
}
_ENDINGS = {
    LOG: "segment",
    INDEX: "offset-index",
    TIME_INDEX: "time-index",
    SNAPSHOT: "producer-snapshot",
    CHECKSUM: "segment-checksum",
    LOG + CLEANED: "compaction-part",
    LOG + SWAP: "compaction-part",
    INDEX + CLEANED: "compaction-part",
    TIME_INDEX + CLEANED: "compaction-part",
    CHECKSUM + SWAP: "compaction-part",
}


def is_metadata_log(path: str) -> bool:
    """Return whether a path is the metadata log's directory, or a file in it."""
    parts = os.path.abspath(path).split("/")
    return METADATA_DIRECTORY in parts[-2:]


def is_directory(path: str) -> bool:
    """Return whether a path is a directory.

    Raises NotOursError if there is nothing at the path, or something that is no file either.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise NotOursError(f"{path}: there is no such file or directory") from None
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise NotOursError(f"{path} is neither a file nor a directory")
    return stat.S_ISDIR(mode)


def check_ours(path: str) -> bool:
    """Return whether a path is a directory. Raise NotOursError if it has no file of a node."""
    if not is_directory(path):
        if kind_of(path) == "unknown":
            raise NotOursError(
                f"{path} has no name of a node's file; known are segments (.log), indexes, "
                f"snapshots, {', '.join(sorted(_NAMED))}"
            )
        return False
    found = directories(path)
    within = [inner for inner, names in found[1:] if IDENTITY_FILE in names]
    if within:
        raise NotOursError(f"{path} is no log directory; name one of those in it: {within[0]}")
    if all(kind_of(one) == "unknown" for _, names in found for one in names):
        raise NotOursError(f"{path} is no log directory, nor one of a partition: it has no log")
    return True


def directories(path: str) -> list[tuple[str, list[str]]]:
    """Return a directory and the logs in it, each with the names of its files."""
    found: list[tuple[str, list[str]]] = []
    below: list[str] = []
    names: list[str] = []
    for name in sorted(os.listdir(path)):
        (below if os.path.isdir(f"{path}/{name}") else names).append(name)
    # Files about the whole directory come first. The files of batches, whose names begin with a
    # digit, come after them.
    names.sort(key=lambda name: (name[:1].isdigit(), name))
    found.append((path, names))
    for name in below:
        inner = f"{path}/{name}"
        held = sorted(one for one in os.listdir(inner) if os.path.isfile(f"{inner}/{one}"))
        held.sort(key=lambda one: (one[:1].isdigit(), one))
        if any(kind_of(one) != "unknown" for one in held):
            found.append((inner, held))
    return found


def is_locked(path: str) -> bool:
    """Return whether a running node has locked the log directory of this path.

    This function reads the kernel's list of locks. If it took the lock for a moment instead, a node
    that starts at this moment would fail. Returns False where there is no such list (other systems,
    other containers).
    """
    here = os.path.abspath(path)
    for directory in (here, os.path.dirname(here), os.path.dirname(os.path.dirname(here))):
        try:
            inode = os.stat(f"{directory}/{LOCK_FILE}").st_ino
            with open("/proc/locks", encoding="ascii") as locks:
                held = [line.split() for line in locks]
        except OSError:
            continue
        return any("FLOCK" in words and _ends_in(words, f":{inode}") for words in held)
    return False


def _ends_in(words: list[str], ending: str) -> bool:
    return any(word.endswith(ending) for word in words)
