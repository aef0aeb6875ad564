"""The two ends of a call without gRPC: how much is in flight, and what travels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from quorate_testing.call import CREDIT_BYTES, WINDOW_BYTES, End


class Call:
    """A call whose messages arrive at once. `posted` has the name of each thing that travelled."""

    def __init__(self) -> None:
        self.posted: list[str] = []
        self.writer, self.reader = End(self._post), End(self._post)
        self.writer.peer, self.reader.peer = self.reader, self.writer

    def _post(self, size: int, deliver: Callable[..., None], *arguments: Any) -> None:
        self.posted.append(deliver.__name__)
        deliver(*arguments)


@pytest.mark.parametrize("size", [1000, CREDIT_BYTES - 1, CREDIT_BYTES, 3 * WINDOW_BYTES])
async def test_a_reader_that_goes_on_never_stops_the_writer_for_good(size: int) -> None:
    call = Call()
    count = 5 * WINDOW_BYTES // size + 5

    async def write() -> None:
        for _ in range(count):
            await call.writer.write(bytes(size))

    writing = asyncio.create_task(write())
    for _ in range(count):
        assert await call.reader.read() == bytes(size)
    await writing


async def test_a_writer_waits_while_the_window_is_full() -> None:
    call = Call()
    half = bytes(WINDOW_BYTES // 2)
    await call.writer.write(half)
    await call.writer.write(half)
    writing = asyncio.create_task(call.writer.write(b"more"))
    await asyncio.sleep(0)
    assert not writing.done()
    await call.reader.read()
    await writing


async def test_a_reader_gives_no_credit_for_each_small_message() -> None:
    """Each credit would be one more thing for a simulated network to deliver."""
    call = Call()
    for _ in range(100):
        await call.writer.write(b"small")
        await call.reader.read()
    assert call.posted == ["arrived"] * 100
