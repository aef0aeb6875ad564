"""The administrators of a simulated cluster: each is the main program of a process of its own."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from quorate import Admin, Consumer
from quorate.errors import (
    InvalidPartitionsError,
    OutcomeUnknownError,
    QuorateError,
    QuorumUnavailableError,
    TopicExistsError,
    UnknownTopicError,
)
from quorate_broker.server import BrokerServer
from tests.harness.cluster_clients import TOPIC, Clients, started
from tests.harness.cluster_shape import TOPIC_CODECS, Shape
from tests.harness.invariants import partitions_of

T = TypeVar("T")

#: The most partitions of a topic that grows.
PARTITIONS_MAX = 9


class Administrators:
    """Creates the topic, gives it partitions, deletes it and makes it again, trims, configures."""

    def __init__(self, clients: Clients, chance: random.Random) -> None:
        self.clients, self.shape, self.chance = clients, clients.shape, chance
        self.history = clients.history
        self.done: Counter[str] = Counter()
        #: Called before the topic is deleted.
        self.on_delete: Callable[[], None] = lambda: None
        #: Held while the topic is deleted and made again, or grows.
        self._one_at_a_time = asyncio.Lock()
        self._servers = clients.cluster.bootstrap_servers
        self._now_s = clients.cluster.loop.time

    async def create_topic(self) -> None:
        """Make the topic with as many partitions as clients know."""
        async with Admin(bootstrap_servers=self._servers) as admin:

            async def create() -> None:
                shape = self.shape
                try:
                    await admin.create_topic(
                        TOPIC, self.clients.partitions, shape.replication_factor, configs_of(shape)
                    )
                except TopicExistsError:
                    if not shape.recreates:
                        raise

            await self.clients.again(create)

    async def trim(self, until_s: float) -> None:
        """Delete the oldest records now and then, up to any offset that the log has."""
        async with (
            Admin(bootstrap_servers=self._servers, request_timeout_ms=5000) as admin,
            Consumer(bootstrap_servers=self._servers) as consumer,
        ):
            while self._now_s() < until_s:
                await asyncio.sleep(self.chance.uniform(0.5, 3))
                try:
                    ends = await consumer.end_offsets(self.clients.all_partitions())
                    before = {one: self.chance.randint(0, end) for one, end in ends.items()}
                    for one, offset in before.items():
                        asked = self.history.trim_asked
                        asked[one.partition] = max(asked.get(one.partition, 0), offset)
                    starts = await admin.delete_records(before)
                except QuorateError as error:
                    self.history.told[f"trim: {type(error).__name__}"] += 1
                    continue
                self.done["trims"] += len(starts)
                done = self.history.trimmed
                for one in starts:
                    done[one.partition] = max(done.get(one.partition, 0), before[one])

    async def grow(self, until_s: float) -> None:
        """Give the topic more partitions, now and then."""
        clients = self.clients
        async with Admin(bootstrap_servers=self._servers, request_timeout_ms=5000) as admin:
            while clients.partitions < PARTITIONS_MAX:
                await asyncio.sleep(self.chance.uniform(1, 8))
                if self._now_s() > until_s:
                    return
                async with self._one_at_a_time:
                    count = min(PARTITIONS_MAX, clients.partitions + self.chance.randint(1, 2))
                    await clients.again(partial(self._grow_to, admin, count))
                    self.done["partitions added"] += count - clients.partitions
                    clients.partitions = count

    async def _grow_to(self, admin: Admin, count: int) -> None:
        """Give the topic so many partitions. It is no error if an earlier try has done it."""
        try:
            await _may_be_asked_again(admin.create_partitions(TOPIC, count))
        except InvalidPartitionsError:
            if len((await admin.describe_topics([TOPIC]))[TOPIC].partitions) != count:
                raise

    async def churn(self, until_s: float) -> None:
        """Delete the topic and make it again, now and then, and once at the end."""
        while self._now_s() < until_s:
            await asyncio.sleep(self.chance.uniform(1, 8))
            async with self._one_at_a_time:
                await self._recreate()
            await self._until_forgotten()
            self.history.first_of_topic = self.clients.number

    async def _recreate(self) -> None:
        async with Admin(bootstrap_servers=self._servers) as admin:

            async def delete() -> None:
                try:
                    await admin.delete_topics([TOPIC])
                except UnknownTopicError:
                    return  # an earlier try did it

            self.history.next_at_deletion = self.clients.number
            # Until the old topic is forgotten, an acknowledgement may be of either.
            self.history.first_of_topic = 1 << 62
            self.on_delete()
            await self.clients.again(delete)
        await asyncio.sleep(self.chance.choice((0.0, 0.0, 0.5)))
        await self.create_topic()
        self.done["topics made again"] += 1

    async def _until_forgotten(self) -> None:
        """Wait until no broker leads the topic that was deleted.

        A broker that is cut off does not hear of it. A leader without followers acknowledges
        meanwhile what clients write that do not know the new topic.
        """
        while self._leads_old_topic():  # noqa: ASYNC110  (virtual time)
            await asyncio.sleep(0.05)

    def _leads_old_topic(self) -> bool:
        image = self.clients.cluster.image()
        topic = None if image is None else image.topic_named(TOPIC)
        return topic is None or any(
            one.is_leader and one.topic == TOPIC and one.topic_id != topic.id
            for node in self.clients.cluster.brokers
            if isinstance(node.server, BrokerServer)
            for one in partitions_of(node.server)
        )

    async def configure(self, until_s: float) -> None:
        """Change a setting of the topic now and then; at the end, what it must have is as at first.

        No value promises less than the shape: min.insync.replicas does not go below it, and records
        are not kept for a shorter time.
        """
        choices = changes_of(self.shape)
        async with Admin(bootstrap_servers=self._servers, request_timeout_ms=5000) as admin:
            while self._now_s() < until_s:
                await asyncio.sleep(self.chance.uniform(0.3, 3))
                name = self.chance.choice(list(choices))
                value = self.chance.choice(choices[name])
                try:
                    if value is None:
                        await admin.alter_configs(TOPIC, remove=[name])
                    else:
                        await admin.alter_configs(TOPIC, set={name: value})
                except QuorateError as error:
                    self.done[f"not configured: {type(error).__name__}"] += 1
                else:
                    self.done["configurations changed"] += 1

    async def configure_at_last(self) -> None:
        """Give the topic the settings that the end of a run goes by."""
        servers = self._servers
        async with started(lambda: Admin(bootstrap_servers=servers)) as admin:
            wanted = {"min.insync.replicas": str(self.shape.min_isr)}
            await self.clients.again(
                lambda: _may_be_asked_again(admin.alter_configs(TOPIC, set=wanted))
            )


def configs_of(shape: Shape) -> dict[str, str | float]:
    """Return the settings with which the topic is made."""
    configs: dict[str, str | float] = {
        "min.insync.replicas": shape.min_isr,
        "flush.on.ack": shape.syncs_on_ack,
        "compression.type": shape.topic_codec,
    }
    if shape.compacts:
        configs["cleanup.policy"] = "compact,delete" if shape.retention_ms else "compact"
        configs["min.cleanable.dirty.ratio"] = 0.01
        configs["max.compaction.lag.ms"] = 1000
        configs["delete.retention.ms"] = 1000
    if shape.retention_ms:
        configs["retention.ms"] = shape.retention_ms
        configs["segment.ms"] = shape.retention_ms // 4
    return configs


def changes_of(shape: Shape) -> dict[str, list[str | None]]:
    """Return the settings that change, with their values; None: as the cluster has it."""
    choices: dict[str, list[str | None]] = {
        "min.insync.replicas": [
            str(count) for count in range(shape.min_isr, shape.replication_factor + 1)
        ],
        "segment.ms": ["200", "1000", "4000", None],
        "compression.type": list(TOPIC_CODECS),
        "message.timestamp.type": ["CreateTime", "LogAppendTime"],
        "flush.ms": ["0", "500", None],
        "max.message.bytes": [None, "2000000"],
    }
    if shape.retention_ms:
        choices["retention.ms"] = [str(shape.retention_ms), str(2 * shape.retention_ms)]
    if shape.compacts:
        choices["cleanup.policy"] = ["compact", "compact,delete", "delete"]
        choices["max.compaction.lag.ms"] = ["500", "2000"]
    if shape.unclean:
        choices["unclean.leader.election.enable"] = ["true", "false"]
    return choices


async def _may_be_asked_again(call: Awaitable[T]) -> T:
    """Await a call that does no harm if it is done twice."""
    try:
        return await call
    except OutcomeUnknownError as error:
        raise QuorumUnavailableError(f"ask again: {error}") from error
