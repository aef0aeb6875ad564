"""The publisher: images are carried out one at a time, in order, and only then applied."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from quorate.errors import RequestTimedOutError
from quorate_broker.publisher import Publisher
from quorate_quorum.metadata.image import MetadataImage


class FakeReplicas:
    def __init__(self) -> None:
        self.done: list[tuple[str, int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = 0
        self.error: Exception | None = None

    async def load(self, image: MetadataImage) -> None:
        await self._work("load", image)

    async def apply(self, delta: object, image: MetadataImage) -> None:
        await self._work("apply", image)

    async def _work(self, what: str, image: MetadataImage) -> None:
        self.under_way += 1
        assert self.under_way == 1, "one at a time"
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.done.append((what, image.offset))
        self.under_way -= 1


class Follower:
    def __init__(self, **options: Any) -> None:
        self.replicas = FakeReplicas()
        self.applied: list[int] = []
        self.failures: list[str] = []
        self.publisher = Publisher(
            cast(Any, self.replicas),
            applied=lambda image: self.applied.append(image.offset),
            fail=self.failures.append,
            **options,
        )

    def change(self, offset: int) -> None:
        self.publisher.image_changed(cast(Any, None), MetadataImage(offset=offset))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_images_are_carried_out_in_order_after_the_first_is_loaded() -> None:
    follower = Follower()
    follower.change(3)  # before start: the image of the start will hold it
    follower.replicas.gate.clear()
    follower.publisher.start(MetadataImage(offset=5))
    for offset in (6, 7, 9):
        follower.change(offset)
    await settle()
    assert follower.publisher.applied_offset == 0
    follower.replicas.gate.set()
    await settle()
    assert follower.replicas.done == [("load", 5), ("apply", 6), ("apply", 7), ("apply", 9)]
    assert follower.applied == [5, 6, 7, 9]
    await follower.publisher.stop()
    await follower.publisher.stop()
    assert not follower.failures


async def test_who_waits_for_an_offset_is_woken_when_it_is_carried_out() -> None:
    follower = Follower()
    follower.publisher.start(MetadataImage(offset=5))
    waiting = asyncio.create_task(follower.publisher.wait_applied(8, timeout_ms=60_000))
    follower.change(7)
    await settle()
    assert not waiting.done()
    follower.change(8)
    await waiting
    await follower.publisher.wait_applied(2, timeout_ms=0)
    with pytest.raises(RequestTimedOutError, match="did not reach 99"):
        await follower.publisher.wait_applied(99, timeout_ms=1)
    await follower.publisher.stop()


async def test_an_image_that_cannot_be_carried_out_stops_the_node() -> None:
    follower = Follower()
    follower.publisher.start(MetadataImage(offset=5))
    await settle()
    follower.replicas.error = AssertionError("broken")
    follower.change(6)
    await settle()
    assert follower.publisher.applied_offset == 5
    [reason] = follower.failures
    assert "broken" in reason
    await follower.publisher.stop()


async def test_the_queue_is_bounded() -> None:
    follower = Follower(queue_max=2)
    follower.replicas.gate.clear()
    follower.publisher.start(MetadataImage(offset=0))
    for offset in (1, 2, 3):
        follower.change(offset)
    assert len(follower.failures) == 1
    await follower.publisher.stop()
