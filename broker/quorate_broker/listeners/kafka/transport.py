"""Joins the machine of a connection to the transport of an event loop, and runs its requests."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Protocol

import structlog

from quorate.aio.clock import loop_ms
from quorate_broker.listeners.kafka.budget import ReadBudget
from quorate_broker.listeners.kafka.call import Client, Refusal
from quorate_broker.listeners.kafka.connection import Connection, Limits, Request
from quorate_broker.listeners.kafka.dispatch import Answer, Dispatcher

log = structlog.get_logger(__name__)

#: The interval at which a connection looks at the time.
TICK_S = 5.0
#: How long the transport may take to send the last answers after the end.
LINGER_S = 5.0


class Host(Protocol):
    """The listener that accepted the connection."""

    limits: Limits
    shared: bytearray
    budget: ReadBudget
    dispatcher: Dispatcher

    def arrived(self, transport: Transport, address: str) -> Client | str:
        """Return the client, or why the connection is refused."""

    def left(self, transport: Transport, address: str) -> None:
        """Take note that the connection is closed."""


class Transport(asyncio.BufferedProtocol):
    """One connection. The machine decides; this class reads, writes and calls the handlers."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self.machine = Connection(
            host.limits, host.shared, host.budget, loop_ms(), self._memory_again
        )
        self.address = ""
        self._wire: Any = None
        self._client: Client | None = None
        self._is_reading = True
        self._is_closed = False
        self._worker: asyncio.Task[None] | None = None
        self._has_work = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = transport
        self.address = _address_of(transport.get_extra_info("peername"))
        limits = self._host.limits
        self._wire.set_write_buffer_limits(
            high=limits.unsent_high_bytes, low=limits.unsent_low_bytes
        )
        found = self._host.arrived(self, self.address)
        if isinstance(found, str):
            self.machine.end(found, loop_ms())
            self._look()
            return
        self._client = found
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.machine.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self.machine.received(nbytes, loop_ms())
        self._look()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.machine.unsent(is_high=True, now_ms=loop_ms())
        self._look()

    def resume_writing(self) -> None:
        self.machine.unsent(is_high=False, now_ms=loop_ms())
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self.machine.lost("the client closed it" if exc is None else str(exc))
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._worker is not None:
            self._worker.cancel()
        if self._client is not None:
            self._client.close()
            self._host.left(self, self.address)

    # what the listener calls

    def end(self, reason: str) -> None:
        """Begin no more requests. The connection is closed when the owed answers have left."""
        self.machine.end(reason, loop_ms())
        self._look()

    def abort(self) -> None:
        """Close the connection at once."""
        self._wire.abort()

    # inside

    def _look(self) -> None:
        """Do what the machine wants now."""
        machine = self.machine
        output = machine.take_output()
        if output and not self._is_closed:
            self._wire.writelines(output)
        if machine.is_over:
            self._close()
            return
        wants = machine.wants_reading
        if wants != self._is_reading:
            self._is_reading = wants
            if wants:
                self._wire.resume_reading()
            else:
                self._wire.pause_reading()
        self._has_work.set()
        if self._worker is None and machine.has_queued:
            self._worker = self._loop.create_task(self._work())

    def _close(self) -> None:
        if self._is_closed or self._wire.is_closing():
            return
        reason = self.machine.end_reason
        log.info("kafka connection ended", client=self.address, reason=reason, repeats=True)
        self._wire.close()
        self._loop.call_later(LINGER_S, self._wire.abort)

    def _tick(self) -> None:
        self.machine.tick(loop_ms(), self._wire.get_write_buffer_size())
        self._look()
        if self.machine.is_over:
            self._wire.abort()
        else:
            self._timer = self._loop.call_later(TICK_S, self._tick)

    def _memory_again(self) -> None:
        self.machine.look_again(loop_ms())
        self._look()

    async def _work(self) -> None:
        """Handle the requests, one after the other, until the connection is over."""
        machine = self.machine
        while not machine.is_over:
            request = machine.next_request()
            if request is None:
                self._has_work.clear()
                await self._has_work.wait()
            else:
                await self._handle(request)

    async def _handle(self, request: Request) -> None:
        assert self._client is not None
        try:
            answer = await self._host.dispatcher.handle(
                request, self._client, partial(self.machine.handled, request)
            )
        except Exception as error:
            self._failed(request, error)
            return
        finally:
            self.machine.handled(request)
        if isinstance(answer, asyncio.Future):
            self.machine.accepted(request)
            answer.add_done_callback(lambda done: self._answered_later(request, done))
        else:
            self.machine.answered(request, answer, loop_ms())
            self._look()

    def _answered_later(self, request: Request, done: asyncio.Future[Answer]) -> None:
        if self.machine.is_over or done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._failed(request, error)
            return
        self.machine.answered(request, done.result(), loop_ms())
        self._look()

    def _failed(self, request: Request, error: BaseException) -> None:
        """Close the connection, because the request has no answer."""
        reason = str(error)
        if not isinstance(error, Refusal):
            reason = "a request failed"
            log.error(
                "a kafka request failed",
                client=self.address,
                api_key=request.api_key,
                version=request.version,
                failure=type(error).__name__,
                exc_info=error,
                repeats=True,
            )
        self.machine.answered(request, None, loop_ms())
        self.machine.end(reason, loop_ms())
        self._look()


def _address_of(peer: Any) -> str:
    """Return the host of a peer; empty if the transport does not know it."""
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""
