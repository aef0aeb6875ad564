"""No walk through a log blocks the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from quorate.record.batch import BatchHeader, parse_header
from quorate_quorum.log import segment as segment_module
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.segment import CHUNK_BATCHES_MAX
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.builders import (
    BATCHES,
    PATH,
    Seen,
    batch,
    filled,
    new_disk,
)


class Turns:
    """Counts batch headers that are parsed in one turn of the loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = self.all = 0
        monkeypatch.setattr(segment_module, "parse_header", self._parse)

    def _parse(self, data: bytes, position: int = 0, *, begins_at: int = 0) -> BatchHeader:
        self.now += 1
        self.all += 1
        self.most = max(self.most, self.now)
        return parse_header(data, position, begins_at=begins_at)

    async def during(self, work: Awaitable[object]) -> None:
        """Do the work; afterwards `most` is the largest count of one turn."""
        self.now = self.most = self.all = 0
        task = asyncio.ensure_future(work)
        while not task.done():
            self.now = 0
            await asyncio.sleep(0)
        task.result()


async def without_indexes(disk: SimulatedDisk, log: Log) -> Log:
    """Open the log again after its indexes and snapshots were removed."""
    await log.close(clean=True)
    for name in await disk.list(PATH):
        if name.endswith((".index", ".timeindex", ".snapshot")):
            await disk.remove(f"{PATH}/{name}")
    return await Log.open(disk, PATH, LogConfig())


WALKS: dict[str, Callable[[SimulatedDisk, Log], Awaitable[object]]] = {
    "open": lambda disk, log: Log.open(disk, PATH, LogConfig(), observer=Seen()),
    "verify": lambda disk, log: Log.open(disk, PATH, LogConfig(verify_all=True)),
    "cut": lambda disk, log: log.truncate(BATCHES - 1),
    "deep cut": lambda disk, log: log.truncate(3),
    "lookup": lambda disk, log: log.offset_for_time(10**9, end=BATCHES),
    "describe": lambda disk, log: log.segments(),
}


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("is_indexed", [True, False])
async def test_no_walk_through_a_log_looks_at_many_batches_in_one_turn(
    walk: str, is_indexed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = await new_disk()
    log = await filled(disk, LogConfig(snapshot_batches=10**9))
    if not is_indexed:
        log = await without_indexes(disk, log)
    turns = Turns(monkeypatch)
    await turns.during(WALKS[walk](disk, log))
    assert turns.most <= CHUNK_BATCHES_MAX + 4
    if walk in ("open", "verify", "cut"):
        assert is_indexed is False or turns.all >= BATCHES, "there was something to walk through"


async def test_many_batches_of_one_append_are_noted_in_turns() -> None:
    disk = await new_disk()
    seen = Seen()
    log = await Log.open(disk, PATH, LogConfig(), observer=seen)
    appending = asyncio.ensure_future(log.append([batch(offset) for offset in range(BATCHES)]))
    most = before = 0
    while not appending.done():
        await asyncio.sleep(0)
        most, before = max(most, seen.observed - before), seen.observed
        assert log.log_end_offset in (0, BATCHES), "an append is seen whole or not at all"
    assert 0 < most <= 512
