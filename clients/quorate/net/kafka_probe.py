"""Finds out whether what listens at an address speaks the Kafka protocol."""

from __future__ import annotations

import asyncio
import struct
from typing import Final

from quorate.net.grpc_library import split_endpoint, target_of

#: The status of a PeerError: the peer is a listener for Kafka clients.
SPEAKS_KAFKA: Final = "SPEAKS_KAFKA"
TIMEOUT_S: Final = 1.0
CORRELATION_ID: Final = 0x51756F72
#: ApiVersions, the request that every listener for Kafka clients answers first.
REQUEST: Final = struct.pack(
    ">"
    "i"  # length of what follows
    "h"  # api_key: ApiVersions
    "h"  # api_version
    "i"  # correlation_id
    "h",  # length of the client id: null
    10,
    18,
    0,
    CORRELATION_ID,
    -1,
)
ANSWER: Final = struct.Struct(
    ">"
    "i"  # length of what follows
    "i"  # correlation_id
    "h"  # error_code
)
LENGTH_MAX: Final = 1 << 20


async def speaks_kafka(endpoint: str) -> bool:
    """Return whether a listener for Kafka clients answers at the endpoint within TIMEOUT_S."""
    try:
        host, port = split_endpoint(target_of(endpoint))
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host.strip("[]"), port)
            try:
                writer.write(REQUEST)
                answer = await reader.readexactly(ANSWER.size)
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        return False
    length, correlation_id, _error_code = ANSWER.unpack(answer)
    return bool(correlation_id == CORRELATION_ID and ANSWER.size - 4 <= length <= LENGTH_MAX)
