"""Tasks that are ready all at once are spread over the turns of the event loop."""

from __future__ import annotations

import asyncio

from quorate.aio.turns import Turns


async def turns_of(turns: Turns, asked: list[int]) -> list[int]:
    """Return in which turn of the loop each of these tasks was let in."""
    loop = asyncio.get_running_loop()
    turn = 0

    def count() -> None:
        nonlocal turn
        turn += 1
        counting = loop.call_soon(count)
        handles.append(counting)

    handles = [loop.call_soon(count)]

    async def work(units: int) -> int:
        await turns.take(units)
        return turn

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(units)) for units in asked]
    handles[-1].cancel()
    return [task.result() for task in tasks]


async def test_no_turn_does_more_than_its_share() -> None:
    found = await turns_of(Turns(3), [1] * 10)
    assert found == sorted(found)
    assert max(found.count(turn) for turn in found) <= 3


async def test_tasks_that_ask_again_do_no_more_in_a_turn() -> None:
    """As many workers as units: all of them are let in at once, and ask again in the same turn."""
    turns, turn, found = Turns(3), 0, []

    async def worker() -> None:
        for _ in range(10):
            await turns.take()
            found.append(turn)

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(worker()) for _ in range(3)]
        while not all(one.done() for one in workers):
            turn += 1
            await asyncio.sleep(0)
    assert max(found.count(one) for one in found) <= 3


async def test_what_is_larger_than_a_share_has_a_turn_of_its_own() -> None:
    found = await turns_of(Turns(3), [1, 5, 1, 2, 3])
    assert found == sorted(found)
    assert found[0] < found[1] < found[2] == found[3] < found[4]


async def test_work_that_comes_alone_does_not_wait() -> None:
    turns = Turns(2)
    taking = turns.take()
    try:
        taking.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


async def test_a_cancelled_wait_takes_nothing() -> None:
    turns = Turns(1)
    first = asyncio.create_task(turns.take())
    given_up = asyncio.create_task(turns.take())
    served = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(first, served)
    assert given_up.cancelled()
