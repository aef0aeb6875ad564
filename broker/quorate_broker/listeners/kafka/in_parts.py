"""Encodes a long response in several turns of the event loop.

The response is a list of many items, and nothing but fixed fields before it. The items of each part
are encoded alone, and the parts are put together behind the count of all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from struct import Struct
from typing import Any, Final, TypeVar

from quorate_broker.listeners.kafka.codec import EncodedBody, is_flexible, messages_of
from quorate_broker.listeners.kafka.wire import Piece, varint

T = TypeVar("T")

_COUNT: Final = Struct(">i")
NO_TAGS: Final = b"\0"


async def encoded_in_parts(
    api_key: int,
    version: int,
    response_of: Callable[[Sequence[T]], Any],
    parts: AsyncIterator[Sequence[T]],
) -> EncodedBody:
    """Return the body of `response_of` all items, which come in parts: one part a turn.

    The items must be the last field of the response, and its only list.
    """
    encode = messages_of(api_key).RESPONSE_ENCODERS[version]
    flexible = is_flexible(api_key, version)
    tail = NO_TAGS if flexible else b""

    def count(items: int) -> bytes:
        return varint(items + 1) if flexible else _COUNT.pack(items)

    def encoded(items: Sequence[T]) -> bytes:
        return b"".join(encode(response_of(items)))

    empty = encoded(())
    head = empty[: len(empty) - len(count(0)) - len(tail)]
    found: list[Piece] = []
    total = 0
    async for items in parts:
        part = encoded(items)
        found.append(part[len(head) + len(count(len(items))) : len(part) - len(tail)])
        total += len(items)
        await asyncio.sleep(0)
    return EncodedBody([head + count(total), *found, tail])
