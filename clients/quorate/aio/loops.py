"""The event loops that Quorate makes itself: for nodes, and for blocking clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the factory of event loops: uvloop's; None means the standard one."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def is_noise_of_grpc(error: BaseException) -> bool:
    """Return whether grpc itself left an error unhandled, after a broken call or an early read."""
    return isinstance(error, BlockingIOError) or type(error).__module__.partition(".")[0] == "grpc"


def report_unless_noise(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what nothing awaited. An exception handler for a loop; drops the noise of grpc."""
    error = context.get("exception")
    if error is None or not is_noise_of_grpc(error):
        loop.default_exception_handler(context)
