"""Changes of partitions share a stream; each of them is one try."""

from __future__ import annotations

import asyncio

import pytest

from quorate.errors import (
    NetworkError,
    QuorumUnavailableError,
)
from quorate_quorum.v1 import controller_pb2 as wire
from tests.unit.quorate_quorum.client.builders import (
    World,
    in_a_world,
)


def alter(partition: int) -> wire.AlterPartitionsRequest:
    request = wire.AlterPartitionsRequest(broker_id=1, request_id=77)
    request.partitions.add(partition=partition)
    return request


def test_many_alters_share_a_stream_and_each_gets_its_own_answer() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        answers = await asyncio.gather(*(world.client.alter_partitions(alter(n)) for n in range(6)))
        assert [answer.partitions[0].partition for answer in answers] == list(range(6))
        assert {answer.request_id for answer in answers} == {77}
        assert world.voters[0].asked.count("alter") == 1

    in_a_world(program)


def test_an_alter_is_one_try() -> None:
    async def program(world: World) -> None:
        with pytest.raises(QuorumUnavailableError, match="no controller"):
            await world.client.alter_partitions(alter(0))
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        asking = asyncio.ensure_future(world.client.alter_partitions(alter(0)))
        await asyncio.sleep(0.1)
        world.voters[0].kill()
        with pytest.raises(NetworkError):
            await asking
        world.lead(1, 2)
        await asyncio.sleep(1)
        await asyncio.gather(*(world.client.alter_partitions(alter(n)) for n in range(2)))

    in_a_world(program)


def test_an_alter_without_an_answer_ends_and_the_next_has_a_new_stream() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        with pytest.raises(NetworkError, match="5000 ms"):
            await world.client.alter_partitions(alter(0))  # answered in pairs only
        await asyncio.gather(*(world.client.alter_partitions(alter(n)) for n in range(2)))
        assert world.voters[0].asked.count("alter") == 2

    in_a_world(program)
