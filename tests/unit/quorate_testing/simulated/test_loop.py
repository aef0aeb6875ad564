"""Virtual time, and processes that are killed and paused in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys

import pytest

from quorate_testing.simulated.loop import (
    SimulatedLoop,
    SimulationError,
    current_process,
    simulate,
)

TRACE = """
import asyncio
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from quorate_testing.simulated.network import SimulatedNetwork
from tests.unit.quorate.net.services import ECHO, EchoService

async def world(loop):
    trace = []
    network = SimulatedNetwork(loop, loop.chance)
    network.set_links(loss=0.2)
    listener = await network.host("server").serve("server:0", [EchoService()])
    async def client(name):
        connection = network.host(name).connect(listener.endpoint)
        for number in range(20):
            await connection.unary(ECHO, str(number), timeout_ms=60_000)
            trace.append((name, number, loop.time()))
    async def stopper():
        try:
            await asyncio.sleep(2)
        finally:
            trace.append("failed")
    try:
        async with asyncio.TaskGroup() as group:
            for name in "abcdefgh":
                group.create_task(client(name))
            group.create_task(stopper())
            async def fail():
                await asyncio.sleep(1.5)
                raise ValueError
            group.create_task(fail())
    except* ValueError:
        pass
    return trace

print(simulate(world, seed=SEED))
"""


def trace_of(seed: int, hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", TRACE.replace("SEED", str(seed))],
        env=dict(os.environ, PYTHONHASHSEED=hash_seed),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_seed_gives_the_same_run_whatever_the_hash_seed() -> None:
    first = trace_of(seed=5, hash_seed="1")
    assert len(first) > 200
    assert trace_of(seed=5, hash_seed="2") == first
    assert trace_of(seed=6, hash_seed="1") != first


def test_time_is_virtual_and_exact() -> None:
    async def world(loop: SimulatedLoop) -> list[float]:
        times = []
        for _ in range(3):
            await asyncio.sleep(1000)
            times.append(loop.time())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        return [*times, loop.time()]

    assert simulate(world, 1) == [1000, 2000, 3000, 3005]


def test_callbacks_run_in_the_order_in_which_they_became_ready() -> None:
    async def world(loop: SimulatedLoop) -> list[int]:
        seen: list[int] = []
        for number in range(5):
            loop.call_later(1, seen.append, number)
        loop.call_later(0.5, seen.append, -1)
        loop.call_soon(seen.append, -3)
        loop.call_soon_threadsafe(seen.append, -2)
        await asyncio.sleep(2)
        return seen

    assert simulate(world, 1) == [-3, -2, -1, 0, 1, 2, 3, 4]


async def tick(loop: SimulatedLoop, seen: list[float | str]) -> None:
    try:
        while True:
            await asyncio.sleep(1)
            seen.append(loop.time())
    finally:
        seen.append("cleaned up")


def test_a_killed_process_does_nothing_more_until_all_is_over() -> None:
    seen: list[float | str] = []

    async def world(loop: SimulatedLoop) -> list[float | str]:
        process = loop.process("a")
        deaths: list[str] = []
        process.at_death(lambda: deaths.append("a"))
        process.spawn(tick(loop, seen))
        await asyncio.sleep(2.5)
        process.kill()
        process.kill()
        await asyncio.sleep(10)
        assert deaths == ["a"]
        assert loop.process("a") is not process
        with pytest.raises(SimulationError, match="dead"):
            process.spawn(tick(loop, seen))
        return list(seen)

    assert simulate(world, 1) == [1, 2]
    assert seen == [1, 2, "cleaned up"]


def test_what_a_process_starts_belongs_to_it() -> None:
    async def world(loop: SimulatedLoop) -> None:
        process = loop.process("a")
        found = []

        async def child() -> None:
            found.append(current_process())
            loop.call_soon(lambda: found.append(current_process()))

        async def parent() -> None:
            await asyncio.create_task(child())

        process.spawn(parent())
        await asyncio.sleep(1)
        assert found == [process, process]
        assert current_process() is None

    simulate(world, 1)


def test_a_process_that_kills_itself_stops_at_its_next_await() -> None:
    async def world(loop: SimulatedLoop) -> list[str]:
        seen = []
        process = loop.process("a")

        async def suicide() -> None:
            process.kill()
            seen.append("last words")
            await asyncio.sleep(0)
            seen.append("never")

        process.spawn(suicide())
        await asyncio.sleep(5)
        return list(seen)

    assert simulate(world, 1) == ["last words"]


def test_a_paused_process_goes_on_where_it_was() -> None:
    async def world(loop: SimulatedLoop) -> list[float | str]:
        seen: list[float | str] = []
        process = loop.process("a")
        process.spawn(tick(loop, seen))
        await asyncio.sleep(1.5)
        process.pause()
        await asyncio.sleep(3)
        assert seen == [1]
        process.resume()
        await asyncio.sleep(2)
        return list(seen)

    assert simulate(world, 1) == [1, 4.5, 5.5]


def test_a_process_killed_while_paused_never_goes_on() -> None:
    async def world(loop: SimulatedLoop) -> list[float | str]:
        seen: list[float | str] = []
        process = loop.process("a")
        process.spawn(tick(loop, seen))
        process.pause()
        await asyncio.sleep(3)
        process.kill()
        process.resume()
        await asyncio.sleep(3)
        return list(seen)

    assert simulate(world, 1) == []


def test_wall_clocks_jump_and_drift_alone() -> None:
    async def world(loop: SimulatedLoop) -> None:
        a, b = loop.process("a"), loop.process("b")
        start_ms = a.wall_clock_ms()
        a.jump_clock(-5000)
        assert a.wall_clock_ms() == start_ms - 5000
        a.set_clock_rate(2)
        await asyncio.sleep(10)
        assert a.wall_clock_ms() == start_ms - 5000 + 20_000
        a.set_clock_rate(1)
        await asyncio.sleep(10)
        assert a.wall_clock_ms() == start_ms - 5000 + 30_000
        assert b.wall_clock_ms() == start_ms + 20_000

    simulate(world, 1)


def test_a_process_whose_clock_drifts_waits_longer_or_shorter_and_does_not_know() -> None:
    """Here no wall clock is wrong, but the clock that timers go by."""

    async def world(loop: SimulatedLoop) -> list[float]:
        found: list[float] = []

        async def sleeper() -> None:
            own = loop.time()
            await asyncio.sleep(3)
            found.extend([loop.time() - own, loop.world_time()])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(3):
                    await asyncio.sleep(10)
            found.extend([loop.time() - own, loop.world_time()])

        process = loop.process("slow")
        await asyncio.sleep(1)
        process.set_clock_rate(0.5)
        task = process.spawn(sleeper())
        await asyncio.sleep(7)
        assert loop.time() == loop.world_time() == 8.0
        process.set_clock_rate(3.0)
        await task
        return found

    # What waits already keeps its moment: the last second and a half took 5 s of the world's.
    assert simulate(world, 1) == pytest.approx([3.0, 7.0, 3.0 + 0.5 + 15.0, 13.0])


@pytest.mark.parametrize("rate", [0.3, 0.7, 1.1, 1.9])
def test_no_timer_comes_before_its_time_by_a_clock_that_drifts(rate: float) -> None:
    async def sleeper(loop: SimulatedLoop) -> None:
        for number in range(500):
            due = loop.time() + 0.001 * number / 7
            await asyncio.sleep(due - loop.time())
            assert loop.time() >= due

    async def world(loop: SimulatedLoop) -> None:
        process = loop.process("drifts")
        process.set_clock_rate(rate)
        await process.spawn(sleeper(loop))

    simulate(world, 1)


def test_a_failure_that_nobody_waits_for_ends_the_simulation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def world(loop: SimulatedLoop) -> None:
        async def fail() -> None:
            raise ValueError("unseen")

        loop.process("a").spawn(fail())
        await asyncio.sleep(1000)

    with pytest.raises(SimulationError, match="unseen") as caught:
        simulate(world, 77)
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.__notes__ == ["seed 77"]
    assert "seed 77" in capsys.readouterr().err


def test_a_callback_that_fails_ends_the_simulation() -> None:
    async def world(loop: SimulatedLoop) -> None:
        loop.call_later(1, lambda: 1 // 0)
        await asyncio.sleep(1000)

    with pytest.raises(SimulationError, match="ZeroDivisionError"):
        simulate(world, 1)


def test_waiting_for_what_cannot_come_is_named() -> None:
    async def world(loop: SimulatedLoop) -> None:
        loop.process("a").spawn(asyncio.Event().wait(), name="patience")
        await asyncio.Event().wait()

    with pytest.raises(SimulationError, match=r"nothing can ever happen.*patience"):
        simulate(world, 1)


def test_a_loop_that_never_waits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorate_testing.simulated.loop.CALLBACKS_AT_ONCE_MAX", 1000)

    async def world(loop: SimulatedLoop) -> None:
        while loop.is_running():  # noqa: ASYNC110
            await asyncio.sleep(0)

    with pytest.raises(SimulationError, match="time stands still"):
        simulate(world, 1)


def test_a_simulation_ends_in_bounded_time() -> None:
    async def world(loop: SimulatedLoop) -> None:
        while loop.is_running():  # noqa: ASYNC110
            await asyncio.sleep(1)

    with pytest.raises(SimulationError, match="goes on after"):
        simulate(world, 1, time_max_s=100)


def test_what_does_not_end_when_cancelled_is_an_error() -> None:
    async def world(loop: SimulatedLoop) -> None:
        async def stubborn() -> None:
            while True:
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    continue

        loop.process("a").spawn(stubborn(), name="stubborn")

        await asyncio.sleep(3)

    with pytest.raises(SimulationError, match="stubborn"):
        simulate(world, 1)


def test_there_are_no_threads() -> None:
    async def world(loop: SimulatedLoop) -> None:
        with pytest.raises(SimulationError, match="no threads"):
            await asyncio.to_thread(print)

    simulate(world, 1)


def test_what_must_always_hold_is_checked_at_each_instant() -> None:
    async def world(loop: SimulatedLoop) -> list[float]:
        instants: list[float] = []
        values = [0, 0]
        loop.on_instant = lambda: (
            instants.append(loop.time()) if values[0] == values[1] else pytest.fail("differ")
        )
        for _ in range(3):
            await asyncio.sleep(1)
            values[0] += 1
            await asyncio.sleep(0)  # between instants only: they differ here, and may
            values[1] += 1
        return instants

    assert simulate(world, 1) == [0, 1, 2]


def test_what_a_check_raises_ends_the_run() -> None:
    async def world(loop: SimulatedLoop) -> None:
        def check() -> None:
            if loop.time() >= 5:
                raise ValueError("violated")

        loop.on_instant = check
        loop.process("a").spawn(tick(loop, []))
        await asyncio.sleep(100)

    with pytest.raises(ValueError, match="violated"):
        simulate(world, 1)
