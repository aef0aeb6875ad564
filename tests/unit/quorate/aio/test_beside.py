"""Work beside a block ends with the block, and its failure is the block's."""

from __future__ import annotations

import asyncio

import pytest

from quorate.aio.beside import beside


async def test_the_work_is_cancelled_at_the_end_of_the_block() -> None:
    events: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            events.append("ended")

    async with beside(work(), "work"):
        await asyncio.sleep(0)
        events.append("block")
    assert events == ["block", "ended"]


async def fails() -> None:
    raise KeyError("work")


async def test_a_failure_of_the_work_is_raised_after_the_block() -> None:
    events: list[str] = []

    async def run() -> None:
        async with beside(fails(), "work"):
            await asyncio.sleep(0)
            events.append("block")

    with pytest.raises(KeyError, match="work"):
        await run()
    assert events == ["block"]


async def test_a_failure_of_the_block_comes_first() -> None:
    async def run() -> None:
        async with beside(fails(), "work"):
            await asyncio.sleep(0)
            raise ValueError("block")

    with pytest.raises(ValueError, match="block"):
        await run()
