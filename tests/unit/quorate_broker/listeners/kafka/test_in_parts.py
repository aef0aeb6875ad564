"""A response that is encoded in parts has the bytes of one that is encoded at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from quorate_broker.listeners.kafka.codec import encode_response
from quorate_broker.listeners.kafka.in_parts import encoded_in_parts
from quorate_broker.listeners.kafka.messages.describe_configs import (
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)
from quorate_broker.listeners.kafka.versions import DESCRIBE_CONFIGS, served


def response(results: Sequence[DescribeConfigsResult]) -> DescribeConfigsResponse:
    return DescribeConfigsResponse(7, results)


def result(number: int) -> DescribeConfigsResult:
    synonyms = [DescribeConfigsSynonym("log.x", None, 5)]
    entry = DescribeConfigsResourceResult("x", str(number), False, 1, synonyms=synonyms)
    return DescribeConfigsResult(0, None, 2, f"topic-{number}", [entry] * (number % 3))


@pytest.mark.parametrize("count", [0, 1, 7, 126, 127, 128, 300])
@pytest.mark.parametrize("version", served(DESCRIBE_CONFIGS))
async def test_the_bytes_are_the_same(version: int, count: int) -> None:
    results = [result(number) for number in range(count)]

    async def parts() -> AsyncIterator[Sequence[DescribeConfigsResult]]:
        for first in range(0, count, 130):
            yield results[first : first + 130]

    body = await encoded_in_parts(DESCRIBE_CONFIGS, version, response, parts())
    assert b"".join(encode_response(DESCRIBE_CONFIGS, version, 9, body)) == b"".join(
        encode_response(DESCRIBE_CONFIGS, version, 9, response(results))
    )
