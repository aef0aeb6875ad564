"""meta.properties: a directory says whose it is, or the node does not start."""

from __future__ import annotations

from typing import cast

import pytest

from quorate_quorum.disk import Disk
from quorate_quorum.log.identity import (
    Identity,
    NotFormattedError,
    UnreadableIdentityError,
    WrongIdentityError,
    read_identity,
    write_identity,
)
from quorate_quorum.node.config import ConfigError

IDENTITY = Identity("cluster-1", 7, bytes(range(16)), 3)
PATH = "data/meta.properties"


class OneFile:
    """Enough of a File to be read and appended to."""

    def __init__(self, disk: FewFiles, path: str) -> None:
        self._disk = disk
        self.path = path

    @property
    def size(self) -> int:
        return len(self._disk.files[self.path])

    async def append(self, pieces: tuple[bytes, ...]) -> int:
        self._disk.files[self.path] += b"".join(pieces)
        return 0

    async def read_at(self, position: int, length: int) -> bytes:
        return self._disk.files[self.path][position : position + length]

    async def sync(self) -> None:
        self._disk.log.append(f"sync {self.path}")

    async def close(self) -> None:
        pass


class FewFiles:
    """Enough of a Disk for a small file."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.log: list[str] = []

    async def open(self, path: str, *, create: bool = False) -> OneFile:
        if create:
            self.files.setdefault(path, b"")
        return OneFile(self, path)

    async def exists(self, path: str) -> bool:
        return path in self.files

    async def size(self, path: str) -> int:
        if path not in self.files:
            raise FileNotFoundError(path)
        return len(self.files[path])

    async def make_directory(self, path: str) -> None:
        self.log.append(f"make {path}")

    async def rename(self, source: str, target: str) -> None:
        self.files[target] = self.files.pop(source)
        self.log.append(f"rename {target}")

    async def remove(self, path: str) -> None:
        del self.files[path]

    async def sync_directory(self, path: str) -> None:
        self.log.append(f"sync {path}")


async def said(disk: FewFiles, kind: type[ConfigError], **wanted: object) -> str:
    with pytest.raises(kind) as raised:
        await read_identity(cast(Disk, disk), "data", **wanted)  # type: ignore[arg-type]
    return str(raised.value)


@pytest.fixture
async def disk() -> FewFiles:
    found = FewFiles()
    await write_identity(cast(Disk, found), "data", IDENTITY)
    return found


async def test_what_was_written_is_read(disk: FewFiles) -> None:
    assert await read_identity(cast(Disk, disk), "data") == IDENTITY
    wanted = await read_identity(cast(Disk, disk), "data", cluster_id="cluster-1", node_id=7)
    assert wanted == IDENTITY
    assert disk.files[PATH].startswith(
        b"version=2\ncluster.id=cluster-1\nnode.id=7\n"
        b"directory.id=000102030405060708090a0b0c0d0e0f\nquorum.generation=3\ncrc32c="
    )


async def test_it_is_durable_when_written(disk: FewFiles) -> None:
    assert disk.log == ["make data", f"sync {PATH}.tmp", f"rename {PATH}", "sync data"]


async def test_another_one_replaces_it(disk: FewFiles) -> None:
    disk.files[PATH + ".tmp"] = b"left by a crash"
    other = Identity("cluster-1", 7, bytes(range(16)), 4)
    await write_identity(cast(Disk, disk), "data", other)
    assert await read_identity(cast(Disk, disk), "data") == other
    assert list(disk.files) == [PATH]


async def test_a_directory_that_is_not_formatted_says_how() -> None:
    assert await said(FewFiles(), NotFormattedError) == (
        "data is not formatted: it has no meta.properties. If this node is new, run "
        "`quorate storage format`; if it is not, its disk is missing"
    )


async def test_another_clusters_directory_is_refused(disk: FewFiles) -> None:
    assert await said(disk, WrongIdentityError, cluster_id="cluster-2") == (
        f"{PATH} belongs to cluster cluster-1, and this node to cluster-2: "
        "point log.dirs elsewhere, or bring the right disk"
    )


async def test_another_nodes_directory_is_refused(disk: FewFiles) -> None:
    assert await said(disk, WrongIdentityError, node_id=8) == (
        f"{PATH} belongs to node 7, and node.id is 8: "
        "point log.dirs elsewhere, or set node.id right"
    )


async def test_the_format_from_before_listeners_had_names_is_refused(disk: FewFiles) -> None:
    disk.files[PATH] = disk.files[PATH].replace(b"version=2", b"version=1")
    assert await said(disk, UnreadableIdentityError) == (
        f"{PATH} has version '1', from before brokers could have several listeners: this release "
        "reads version 2 only and converts nothing. Format a new directory"
    )


async def test_a_newer_version_is_refused(disk: FewFiles) -> None:
    disk.files[PATH] = disk.files[PATH].replace(b"version=2", b"version=3") + b"new.name=x\n"
    assert await said(disk, UnreadableIdentityError) == (
        f"{PATH} has version '3'; this release reads version 2 only. "
        "A newer release may have written it: run that one"
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"version=2\n", b"", "has no version; every release writes one, so it is damaged"),
        (b"node.id=7\n", b"", "node.id is missing"),
        (b"node.id=7", b"node.id=seven", "node.id must be a whole number of at most 9 digits"),
        (b"node.id=7", b"node.id=-7", "not '-7'"),
        (b"node.id=7", b"node.id=7\nnode.id=8", "line 4 is 'node.id=8'; allowed are name=value"),
        (b"node.id=7", b"node.id", "line 3 is 'node.id'; allowed are name=value, each name once"),
        (b"node.id=7", b"node.id=8", "is damaged: its crc32c says"),
        (b"cluster.id=cluster-1", b"cluster.id=", "cluster.id must be 1 to 64 of the characters"),
        (b"directory.id=00", b"directory.id=0", "directory.id must be 32 hex digits"),
        (b"directory.id=00", b"directory.id=01", "is damaged"),
        (b"generation=3", b"generation=x", "quorum.generation must be a whole number"),
        (b"crc32c=", b"other=1\ncrc32c=", "other is no name of version 2"),
        (b"crc32c=", b"crc32c=x", "crc32c must be 8 hex digits"),
    ],
)
async def test_garbage_is_named(disk: FewFiles, old: bytes, new: bytes, words: str) -> None:
    disk.files[PATH] = disk.files[PATH].replace(old, new)
    message = await said(disk, UnreadableIdentityError)
    assert message.startswith(PATH)
    assert words in message


async def test_an_empty_one_is_damaged_not_of_another_release(disk: FewFiles) -> None:
    disk.files[PATH] = b""
    assert await said(disk, UnreadableIdentityError) == (
        f"{PATH} is empty; every release writes one, so it is damaged: put back a copy, or take "
        "this directory for lost and format a new one"
    )


async def test_every_flipped_bit_is_found(disk: FewFiles) -> None:
    whole = disk.files[PATH]
    for bit in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        disk.files[PATH] = bytes(flipped)
        try:
            assert await read_identity(cast(Disk, disk), "data") == IDENTITY
        except UnreadableIdentityError:
            continue
        assert bytes(flipped).split() == whole.split(), "only a line's end may be read either way"


async def test_every_cut_is_found(disk: FewFiles) -> None:
    whole = disk.files[PATH]
    for size in range(len(whole) - 1):
        disk.files[PATH] = whole[:size]
        await said(disk, UnreadableIdentityError)


async def test_a_huge_file_is_not_read(disk: FewFiles) -> None:
    disk.files[PATH] = bytes(5000)
    assert (
        await said(disk, UnreadableIdentityError) == f"{PATH} has 5000 bytes; at most 4096 are ours"
    )


@pytest.mark.parametrize("error", [NotADirectoryError, PermissionError])
async def test_what_is_no_directory_of_ours_is_a_wrong_configuration(
    disk: FewFiles, error: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def size(path: str) -> int:
        raise error(1, "said the system", path)

    monkeypatch.setattr(disk, "size", size)
    assert await said(disk, NotFormattedError) == (
        "data cannot be used: said the system. log.dirs names directories that this process may "
        "read and write"
    )
