"""The topic of the schemas, with a producer and a consumer that a test holds in its hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from quorate import ConfigDescription, Record, RecordMetadata, TopicPartition
from quorate.aio.bell import Bell
from quorate.schema_registry.catalog import Proposal
from quorate.schema_registry.topic import SchemaTopic
from quorate.serializers import AvroSchema

NAME = "schemas"
S = "orders-value"
TIMEOUT_MS = 60_000


class Cluster:
    """A log of one partition; the consumer gets of it what the test lets it read."""

    def __init__(self) -> None:
        self.log: list[tuple[bytes, bytes | None]] = []
        self.readable = 0
        self.read = 0
        self.changed = Bell()

    def let_read_all(self) -> None:
        self.readable = len(self.log)
        self.changed.ring()

    # -- the admin

    async def __aenter__(self) -> Cluster:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing."""

    async def list_topics(self, *, internal: bool) -> list[str]:
        return [NAME]

    async def describe_configs(self, name: str) -> list[ConfigDescription]:
        return [ConfigDescription("cleanup.policy", "compact", "topic")]

    async def describe_topics(self, names: list[str]) -> dict[str, Any]:
        class Described:
            partitions = (0,)

        return {NAME: Described}

    # -- the producer and the consumer

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""

    async def send(self, topic: str, value: bytes | None, key: bytes, *, partition: int) -> None:
        self.log.append((key, value))
        self.changed.ring()

    async def send_and_wait(
        self, topic: str, value: bytes | None, key: bytes, *, partition: int
    ) -> RecordMetadata:
        await self.send(topic, value, key, partition=partition)
        return RecordMetadata(topic, partition, len(self.log) - 1, 0)

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {partitions[0]: self.readable}

    async def position(self, partition: TopicPartition) -> int:
        return self.read

    async def getmany(self, *, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        while self.read == self.readable:
            await self.changed.next_ring()
        first, self.read = self.read, self.readable
        records = [
            Record(NAME, 0, offset, 0, "create", *self.log[offset], (), 1)  # type: ignore[arg-type]
            for offset in range(first, self.read)
        ]
        return {TopicPartition(NAME, 0): records}


@asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[SchemaTopic]:
    one = cast(Any, cluster)
    topic = SchemaTopic(NAME, one, one, one)
    await topic.start(TIMEOUT_MS)
    try:
        yield topic
    finally:
        await topic.stop()


def proposed(topic: SchemaTopic, schema: str, proposal_id: str) -> Proposal:
    found = topic.catalog.propose_schema(S, AvroSchema(schema), proposal_id)
    assert isinstance(found, Proposal)
    return found


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_proposal_is_answered_only_after_it_was_read() -> None:
    cluster = Cluster()
    async with running(cluster) as topic:
        proposal = proposed(topic, "int", "a")
        writing = asyncio.create_task(topic.write(proposal, TIMEOUT_MS))
        await settle()
        assert not writing.done()
        assert topic.catalog.versions(S) == []
        cluster.let_read_all()
        await writing
        assert [one.version for one in topic.catalog.versions(S)] == [1]
        assert cluster.log == [(proposal.key, proposal.value)]


async def test_a_proposal_that_lost_is_deleted() -> None:
    cluster = Cluster()
    async with running(cluster) as topic:
        first, second = proposed(topic, "int", "a"), proposed(topic, "long", "b")
        cluster.log.append((first.key, first.value))
        writing = asyncio.create_task(topic.write(second, TIMEOUT_MS))
        await settle()
        cluster.let_read_all()
        await writing
        assert cluster.log[1:] == [(second.key, second.value), (second.key, None)]
        assert [one.schema for one in topic.catalog.versions(S)] == [AvroSchema("int")]
