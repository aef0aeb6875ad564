"""Where the nodes of a cluster in a test log: where the program of the test does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import MutableMapping
from typing import Any

import structlog

from quorate_testing.simulated.loop import SimulatedLoop, current_process


class _WithoutNoise(logging.Filter):
    """Drops what asyncio tells of the event loops of gRPC, which wake one another for nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not (isinstance(error, BlockingIOError) and "Poller" in record.getMessage())


_without_noise = _WithoutNoise()


def log_where_the_program_does() -> None:
    """Log with `logging`, if the program has no configuration of structlog."""
    with contextlib.suppress(ValueError):
        logging.getLogger("asyncio").addFilter(_without_noise)
    if not structlog.is_configured():
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                _stamped,
                structlog.processors.format_exc_info,
                structlog.processors.KeyValueRenderer(key_order=["event"]),
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
        )


def _stamped(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Add the virtual time and the process to a line of a simulation."""
    with contextlib.suppress(RuntimeError):
        loop = asyncio.get_running_loop()
        if isinstance(loop, SimulatedLoop):
            process = current_process()
            event["virtual_s"] = round(loop.world_time(), 6)
            event["on"] = "world" if process is None else process.name
    return event
