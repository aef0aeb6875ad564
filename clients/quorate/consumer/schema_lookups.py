"""Waits for the schema of a record that a deserializer can't read without it.

A deserializer runs in the event loop and must not wait. If it has to look for a schema, it raises
UnknownSchemaError with a future. The consumer waits for the future and reads the record again.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import nullcontext
from typing import Final

from quorate.consumer.group.group import ConsumerGroup
from quorate.errors import DeserializationError, UnknownSchemaError

#: The longest wait. After it the program gets the error, and its next read looks again.
LOOKUP_MAX_S: Final = 30.0


async def may_read_again(
    error: DeserializationError, timeout_s: float, group: ConsumerGroup | None
) -> bool:
    """Wait until the schema that a record needs was looked for; return False if it still is.

    Raise the error if no schema is looked for.
    """
    cause = error.__cause__
    lookup = cause.lookup if isinstance(cause, UnknownSchemaError) else None
    if lookup is None:
        raise error
    with nullcontext() if group is None else group.waiting():
        return await _is_over(lookup, timeout_s)


async def _is_over(lookup: Future[None], timeout_s: float) -> bool:
    if lookup.done():
        return True
    future = asyncio.wrap_future(lookup)
    # the callback also holds if this task is cancelled; the look-up goes on for others
    future.add_done_callback(_take_note)
    done, _ = await asyncio.wait([future], timeout=timeout_s)
    return bool(done)


def _take_note(future: asyncio.Future[None]) -> None:
    """Look at an error, so that asyncio does not report it. The deserializer raises it."""
    if not future.cancelled():
        future.exception()
