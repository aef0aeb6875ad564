"""What the blocking clients share: an asynchronous client, and the loop in which it runs."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from quorate import argument_names
from quorate.argument_names import named
from quorate.cluster.client import Client
from quorate.sync.background import Background, Voice, background

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
C = TypeVar("C", bound=Client)


class BlockingClient(Generic[C]):
    """A client whose calls block, for programs without an event loop. Use it in a `with` statement.

    Several threads may use it. Its work runs in one background thread, which all blocking clients
    of the process share. A client that the program never closes is closed at the interpreter's
    exit.
    """

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        # The constructors take settings as **settings, so Python's error would say nothing of them
        argument_names.bound(cls.__name__, inspect.signature(cls), args, settings)
        return super().__new__(cls)

    def __init__(self, client: C) -> None:
        self._client = client
        client._statement = "with"
        self._what = client._what
        self._background: Background = background()
        self._voices = threading.local()
        self._ending: weakref.finalize[..., Any] | None = None

    @named
    def start(self) -> None:
        """Connect. See the asynchronous client of the same name for what it raises."""
        self._run(self._client.start)
        self._opened()

    @named
    def stop(self) -> None:
        """Close the client. It is safe to call this twice."""
        self._closing()
        self._run(self._client.stop)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def close_at_exit(self, timeout_s: float) -> None:
        """Close a client that the program left open. Called at the interpreter's exit."""
        self._closing()

        async def stop() -> None:
            async with asyncio.timeout(timeout_s):
                await self._client.stop()

        self._run(stop)

    # -- inside

    def _run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run a call in the loop, in the task that stands for the calling thread."""
        self._background.check(self._what)
        voice = self._of_thread().voice
        if (
            voice.is_waiting
        ):  # in the handler of a signal: behind its own call it would wait for ever
            return self._background.run(call)
        return voice.run(call)

    def _of_thread(self) -> OfThread:
        """Return what the client has for the calling thread. It ends with the thread."""
        found: OfThread | None = getattr(self._voices, "found", None)
        if found is None:
            found = self._voices.found = self._new_thread(Voice(self._background, self._what))
        return found

    def _new_thread(self, voice: Voice) -> OfThread:
        return OfThread(voice)

    def _last_call(self) -> Callable[[], Awaitable[None]]:
        """Return what closes a client that was dropped. It must not refer to this object."""
        return self._client.stop

    def _opened(self) -> None:
        self._background.clients.add(self)
        if self._ending is None:
            self._ending = weakref.finalize(
                self, _forgotten, self._what, self._last_call(), self._background
            )
            # the exit of the interpreter closes open clients, and needs no warning
            self._ending.atexit = False

    def _closing(self) -> None:
        self._background.clients.discard(self)
        if self._ending is not None:
            self._ending.detach()


class OfThread:
    """What a client has for one thread. It is dropped with the thread, and with the client."""

    def __init__(self, voice: Voice) -> None:
        self.voice = voice

    def __del__(self) -> None:
        self.voice.end(self.last_call)

    async def last_call(self) -> None:
        """Do what is left to do in the loop."""


def _forgotten(what: str, last: Callable[[], Awaitable[None]], owner: Background) -> None:
    """Close a client that was garbage collected while it was open, and warn."""
    if not owner.is_of_this_process:
        return
    warnings.warn(
        f"quorate.sync: an open {what} was dropped and never stopped; use it in a `with`"
        " statement, or call stop()",
        ResourceWarning,
        stacklevel=2,
    )
    owner.end_later(last)


def blocking(
    method: Callable[Concatenate[Any, P], Awaitable[R]],
) -> Callable[Concatenate[Any, P], R]:
    """Return a method that runs the asynchronous one in the loop, and waits for it."""

    @functools.wraps(method)
    def call(self: BlockingClient[Any], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._run(lambda: method(self._client, *args, **kwargs))

    # a wrapper is no coroutine function, whatever it wraps
    del call.__wrapped__
    call.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return call


def direct(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Return a method that runs one that does not wait in the loop, where its state lives.

    Callbacks run in the loop. They may call the method: a listener of a consumer has to seek before
    the first record.
    """

    async def in_loop(client: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return method(client, *args, **kwargs)

    functools.update_wrapper(in_loop, method)
    of_other_threads = blocking(in_loop)

    @functools.wraps(of_other_threads)
    def call(self: BlockingClient[Any], /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._background.is_here():
            return method(self._client, *args, **kwargs)
        return of_other_threads(self, *args, **kwargs)

    del call.__wrapped__
    return call
