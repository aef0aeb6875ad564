"""Callers share the syncs of a directory, and each gets one that began after its call."""

from __future__ import annotations

import asyncio

import pytest

from quorate_quorum.disk import SyncError
from quorate_quorum.log.shared_syncs import SharedSyncs


class Syncs:
    """Counts the syncs that began. Each takes until `finish` is called."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.waiting: list[asyncio.Future[None]] = []
        self.shared = SharedSyncs(self._sync)

    async def _sync(self, path: str) -> None:
        self.begun.append(path)
        self.waiting.append(asyncio.get_running_loop().create_future())
        await self.waiting[-1]

    def ask(self, path: str) -> asyncio.Task[None]:
        return asyncio.create_task(self.shared.sync(path))

    async def finish(self, error: Exception | None = None) -> None:
        first = self.waiting.pop(0)
        if error is None:
            first.set_result(None)
        else:
            first.set_exception(error)
        await settled()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_hundred_calls_during_a_sync_share_one() -> None:
    syncs = Syncs()
    first = syncs.ask("/a")
    await settled()
    others = [syncs.ask("/a") for _ in range(100)]
    await settled()
    assert syncs.begun == ["/a"]
    await syncs.finish()
    assert first.done()
    assert not any(one.done() for one in others), "their changes may be later than the first sync"
    assert syncs.begun == ["/a", "/a"]
    await syncs.finish()
    await asyncio.gather(first, *others)
    last = syncs.ask("/a")
    await settled()
    assert syncs.begun == ["/a"] * 3
    await syncs.finish()
    await last


async def test_directories_do_not_wait_for_each_other() -> None:
    syncs = Syncs()
    asked = [syncs.ask("/a"), syncs.ask("/b")]
    await settled()
    assert syncs.begun == ["/a", "/b"]
    await syncs.finish()
    await syncs.finish()
    await asyncio.gather(*asked)


async def test_every_call_gets_the_error_of_its_own_sync() -> None:
    syncs = Syncs()
    first = syncs.ask("/a")
    await settled()
    others = [syncs.ask("/a") for _ in range(2)]
    await settled()
    await syncs.finish()
    await syncs.finish(SyncError(5, "for the test"))
    await first
    for one in others:
        with pytest.raises(SyncError):
            await one


async def test_a_cancelled_call_takes_the_sync_from_no_other() -> None:
    syncs = Syncs()
    first, second = syncs.ask("/a"), syncs.ask("/a")
    await settled()
    assert syncs.begun == ["/a"], "no sync had begun when the second call came"
    first.cancel()
    await syncs.finish()
    await second
    assert first.cancelled()


async def test_a_call_in_the_turn_in_which_a_sync_ends_gets_the_next_one() -> None:
    """The broker failed: the sync that the call wanted to wait for was gone."""
    syncs = Syncs()
    first = syncs.ask("/a")
    await settled()
    ends = syncs.waiting[0]

    async def call_then() -> None:
        await ends
        await syncs.shared.sync("/a")

    second = asyncio.create_task(call_then())
    await settled()
    await syncs.finish()
    assert first.done()
    assert syncs.begun == ["/a", "/a"]
    await syncs.finish()
    await second
