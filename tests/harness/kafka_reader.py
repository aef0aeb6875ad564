"""A consumer of the Kafka protocol that reads in its rack (KIP-392), in the simulated world.

It acts as Kafka's clients do: the leader names a replica in its rack, from which it reads on. It
goes back to the leader when that replica refuses, is silent or gone, and after a while.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from quorate.record.batch import records, split
from quorate_broker.listeners.kafka import errors
from quorate_broker.listeners.kafka.messages.fetch import (
    FetchPartition,
    FetchRequest,
    FetchTopic,
    PartitionData,
)
from quorate_broker.listeners.kafka.messages.metadata import MetadataRequest, MetadataRequestTopic
from quorate_broker.listeners.kafka.versions import FETCH, METADATA
from quorate_testing.simulated.sockets import Ports
from tests.harness.invariants import Violation
from tests.harness.kafka_connection import ConnectionLost, KafkaConnection, connect

WAIT_MS = 200
ANSWER_S = 2.0
BACKOFF_S = 0.05
PAUSE_MAX_S = 0.03
#: How long it stays with a replica. Kafka's clients: until their metadata are old, 5 minutes.
STAY_S = 8.0
#: Small enough for several answers until a reader has caught up.
BYTES_MAX = 400
NONE = -1
#: The errors after which a client looks for the leader.
STALE = frozenset(
    (
        errors.UNKNOWN_TOPIC_OR_PARTITION,
        errors.LEADER_NOT_AVAILABLE,
        errors.NOT_LEADER_OR_FOLLOWER,
        errors.KAFKA_STORAGE_ERROR,
        errors.LISTENER_NOT_FOUND,
        errors.FENCED_LEADER_EPOCH,
        errors.UNKNOWN_LEADER_EPOCH,
        errors.OFFSET_NOT_AVAILABLE,
    )
)


class LookAgain(Exception):
    """The leader must be looked up again."""


@dataclass(eq=False)
class KafkaReader:
    """Reads one partition from its beginning until it is cancelled.

    Raises Violation for an answer that no client may get.
    """

    ports: Ports
    endpoints: list[str]
    topic: str
    partition: int
    rack: str
    chance: random.Random
    #: All that was read, in the order of the answers: offset and value.
    read: list[tuple[int, bytes]] = field(default_factory=list)
    #: What happened: how often it was sent to a follower, and why it went back to the leader.
    counts: Counter[str] = field(default_factory=Counter)
    #: The replica from which the leader told it to read; NONE: it asks the leader.
    replica: int = NONE
    _leader: int = NONE
    _leader_epoch: int = NONE
    #: The leader_epoch of the last record that was read.
    _last_epoch: int = NONE
    _addresses: dict[int, str] = field(default_factory=dict)

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self._look()
                    connection = await connect(self.ports, self._address())
            except (ConnectionLost, LookAgain, TimeoutError):
                self._go_back("it could not be reached")
                await asyncio.sleep(BACKOFF_S)
                continue
            try:
                await self._read(connection)
            except (ConnectionLost, TimeoutError):
                self._go_back("it was silent or gone")
                await asyncio.sleep(BACKOFF_S)
            except LookAgain:
                await asyncio.sleep(BACKOFF_S)
            finally:
                connection.close()

    def _go_back(self, why: str) -> None:
        if self.replica != NONE:
            self.counts[f"back to the leader: {why}"] += 1
            self.replica = NONE

    async def _look(self) -> None:
        """Learn the leader and the addresses. What is older than the known epoch is passed over."""
        connection = await connect(self.ports, self.chance.choice(self.endpoints))
        asked = MetadataRequest([MetadataRequestTopic(name=self.topic)])
        try:
            answer = await connection.ask(METADATA, 9, asked)
        finally:
            connection.close()
        self._addresses |= {one.node_id: f"{one.host}:{one.port}" for one in answer.brokers}
        (topic,) = answer.topics
        for one in topic.partitions:
            is_known = one.partition_index == self.partition and not one.error_code
            if is_known and one.leader_epoch >= self._leader_epoch:
                self._leader, self._leader_epoch = one.leader_id, one.leader_epoch
                return
        raise LookAgain

    def _address(self) -> str:
        found = self._addresses.get(self._leader if self.replica == NONE else self.replica)
        if found is None:
            raise LookAgain
        return found

    async def _read(self, connection: KafkaConnection) -> None:
        """Read from the leader, or from the replica, until it must look again."""
        until_s = asyncio.get_running_loop().time() + STAY_S
        while True:
            async with asyncio.timeout(ANSWER_S):
                answer = await connection.ask(FETCH, 12, self._request())
            self._take(answer.responses[0].partitions[0])
            if self.replica != NONE and asyncio.get_running_loop().time() > until_s:
                self._go_back("it stayed long enough")
                raise LookAgain
            await asyncio.sleep(self.chance.uniform(0, PAUSE_MAX_S))

    def _request(self) -> FetchRequest:
        asked = FetchPartition(
            self.partition,
            current_leader_epoch=self._leader_epoch,
            fetch_offset=len(self.read),
            last_fetched_epoch=self._last_epoch,
            partition_max_bytes=BYTES_MAX,
        )
        topics = [FetchTopic(self.topic, partitions=[asked])]
        return FetchRequest(max_wait_ms=WAIT_MS, min_bytes=1, topics=topics, rack_id=self.rack)

    def _take(self, found: PartitionData) -> None:
        position = len(self.read)
        is_leader = self.replica == NONE
        if found.error_code in STALE:
            self._go_back("it refused")
            raise LookAgain
        if found.error_code == errors.OFFSET_OUT_OF_RANGE and not is_leader:
            self._go_back("it does not have the position")
            raise LookAgain
        if found.error_code != errors.NONE:
            raise Violation(f"at offset {position}: {found}")
        if found.diverging_epoch.end_offset >= 0:
            raise Violation(f"what was read below offset {position} is not in the log: {found}")
        self._take_records(found)
        if is_leader and found.preferred_read_replica >= 0:
            self.counts["sent to a follower"] += 1
            self.replica = found.preferred_read_replica
            raise LookAgain

    def _take_records(self, found: PartitionData) -> None:
        data: Any = found.records or b""
        for header, batch in split(bytes(data)):
            self._last_epoch = header.leader_epoch
            for record in records(batch, header):
                if record.offset < len(self.read):
                    continue
                if record.offset != len(self.read):
                    raise Violation(f"offset {record.offset} came, and {len(self.read)} is next")
                if record.offset >= found.high_watermark:
                    raise Violation(f"offset {record.offset} is not below the mark of {found}")
                self.read.append((record.offset, bytes(record.value or b"")))
                self.counts["read"] += 1
                if self.replica != NONE:
                    self.counts["read from followers"] += 1
