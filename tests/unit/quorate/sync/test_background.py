"""A call of a blocking client, and the exceptions that the handlers of signals raise in it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from types import FrameType
from typing import Any

import pytest

from quorate.sync import background as module
from quorate.sync.background import Background, Voice

WAIT_S = 60


@pytest.fixture
def background() -> Iterator[Background]:
    made = Background()
    yield made
    made.close()


class Interrupts:
    """Raises KeyboardInterrupt at the n-th line of Voice.run that the thread comes to."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.has_raised = False

    def trace(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if frame.f_code is not Voice.run.__code__:
            return None
        return self._line

    def _line(self, _frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line" and not self.has_raised:
            self.left -= 1
            if self.left < 0:
                self.has_raised = True
                raise KeyboardInterrupt
        return self._line


def interrupted(voice: Voice, number: int, gate: asyncio.Event, outcome: Future[str]) -> None:
    """Run a call that ends when `gate` opens, and interrupt it at a line. Run a second call."""

    async def wait() -> None:
        await gate.wait()

    async def second() -> str:
        return "second"

    interrupts = Interrupts(number)
    try:
        sys.settrace(interrupts.trace)
        try:
            voice.run(wait)
        except KeyboardInterrupt:
            assert interrupts.has_raised
        finally:
            sys.settrace(None)
        outcome.set_result(f"{interrupts.has_raised} {voice.run(second)}")
    except BaseException as error:
        outcome.set_exception(error)


def test_a_signal_at_any_line_of_a_call_leaves_the_next_call_free(
    background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    await_end = module._await_end
    gates: list[asyncio.Event] = []

    def open_gate(done: Future[Any]) -> None:
        if sys.gettrace() is not None:  # the first call, and no line before this was interrupted
            background.loop.call_soon_threadsafe(gates[-1].set)
        await_end(done)

    monkeypatch.setattr(module, "_await_end", open_gate)
    number = 0
    while True:
        outcome: Future[str] = Future()
        voice = Voice(background, "test")
        gates.append(asyncio.Event())
        arguments = (voice, number, gates[-1], outcome)
        threading.Thread(target=interrupted, args=arguments, daemon=True).start()
        found = outcome.result(WAIT_S)
        if found == "False second":
            break
        assert found == "True second"
        number += 1
    assert number > 5


def test_a_call_that_a_signal_stops_before_it_begins_is_never_carried_out(
    background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes after the call is in the queue, and before the loop was told of it."""
    carried_out = []

    async def never() -> None:
        carried_out.append("never")
        await asyncio.Event().wait()

    async def nothing() -> str:
        return "goes on"

    voice = Voice(background, "test")
    assert voice.run(nothing) == "goes on"
    real = background.loop.call_soon_threadsafe
    signals = iter([KeyboardInterrupt])

    class Loop:
        @staticmethod
        def call_soon_threadsafe(*arguments: Any) -> None:
            for signal in signals:
                raise signal
            real(*arguments)

    monkeypatch.setattr(voice, "_loop", Loop)
    with pytest.raises(KeyboardInterrupt):
        voice.run(never)
    assert voice.run(nothing) == "goes on"
    assert carried_out == []


def test_an_exception_of_any_handler_cancels_the_call(
    background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler of SIGTERM that calls sys.exit() raises SystemExit in the middle of a wait."""
    cancelled = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def exits(_done: Future[Any]) -> None:
        raise SystemExit(3)

    voice = Voice(background, "test")
    monkeypatch.setattr(module, "_await_end", exits)
    started = threading.Event()

    async def begin() -> None:
        started.set()
        await wait()

    with pytest.raises(SystemExit):
        voice.run(begin)
    assert cancelled.is_set() or not started.is_set()
