"""Brokers as a client sees them: leaders, logs in memory, metadata; a test moves them by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, TypeVar

from quorate.errors import (
    FencedLeaderEpochError,
    LogTruncatedError,
    NotLeaderError,
    OffsetOutOfRangeError,
    OverloadedError,
    QuorateError,
    UnknownTopicError,
    to_wire,
)
from quorate.errors import StreamBrokenError as Broken
from quorate.net.frame import Frame
from quorate.net.methods import (
    COMMIT_OFFSETS,
    FETCH,
    FETCH_OFFSETS,
    FIND_COORDINATORS,
    INIT_PRODUCER_ID,
    LIST_OFFSETS,
    MEMBERSHIP,
    METADATA,
    PRODUCE,
)
from quorate.net.network import (
    Handler,
    Method,
    Peer,
    current_chance,
    current_network,
    current_wall_clock_ms,
)
from quorate.record.batch import BatchBuilder, BatchHeader, check, parse_header, records, stamp
from quorate.record.record import RawRecord
from quorate.v1 import admin_pb2, common_pb2, groups_pb2
from quorate.v1 import records_pb2 as wire
from quorate_broker.replica.divergence import divergence
from quorate_broker.replica.producers import Producers
from quorate_quorum.log.epochs import EpochCache
from quorate_testing.in_process import InProcessListener, InProcessNetwork
from quorate_testing.simulated.loop import simulate
from tests.harness.addresses import listener
from tests.harness.fake_coordinator import FakeCoordinator

T = TypeVar("T")
START_MS = 1_700_000_000_000


@dataclass
class FakePartition:
    leader: int = 0
    leader_epoch: int = 1
    start: int = 0
    batches: list[tuple[BatchHeader, bytes]] = field(default_factory=list)
    producers: Producers = field(default_factory=Producers)

    @property
    def end(self) -> int:
        return self.batches[-1][0].end_offset if self.batches else self.start

    def append(self, batch: bytes) -> int:
        """Append under the rules of the five-batch window; return the base offset."""
        header = replace(check(batch, from_producer=True), base_offset=self.end)
        original = self.producers.staging().check(header)
        if original is not None:
            return original.base_offset
        stamped = bytearray(batch)
        stamp(stamped, base_offset=header.base_offset, leader_epoch=self.leader_epoch)
        self.producers.observe(header)
        self.batches.append((header, bytes(stamped)))
        return header.base_offset

    @property
    def epochs(self) -> EpochCache:
        return EpochCache(
            (parse_header(data).leader_epoch, h.base_offset) for h, data in self.batches
        )

    def cut(self, end: int) -> None:
        """Lose all from `end` on, as after an election of a replica that had no more."""
        self.batches = [one for one in self.batches if one[0].end_offset <= end]
        assert self.end == end, "batches are cut whole"
        self.leader_epoch += 1

    def write(self, *values: bytes | None, key: bytes | None = None) -> None:
        builder = BatchBuilder()
        for value in values:
            builder.append(START_MS + self.end + builder.count, key, value)
        self.append(builder.build())

    def records(self) -> list[RawRecord]:
        return [record for _, batch in self.batches for record in records(batch)]

    def values(self) -> list[bytes | None]:
        return [record.value for record in self.records()]


@dataclass
class FakeTopic:
    topic_id: bytes
    partitions: list[FakePartition]
    created_ms: int


#: What a fault says of one batch: None (go on), an error, or "lose" (append, and say nothing).
Fault = Callable[[str, int, bytes], QuorateError | str | None]


class FakeBroker:
    """One endpoint; `paused` it is silent, as after SIGSTOP."""

    def __init__(self, cluster: FakeCluster, broker_id: int) -> None:
        self.cluster = cluster
        self.id = broker_id
        self.endpoint = f"b{broker_id}:9092"
        self.listener: InProcessListener | None = None
        self.running = asyncio.Event()
        self.running.set()
        self.produced: list[wire.ProduceHeader] = []
        self.fetched: list[wire.FetchRequest] = []
        self.listed: list[wire.ListOffsetsRequest] = []
        self.metadata_asked = 0

    async def start(self) -> None:
        self.listener = await self.cluster.network.serve(
            self.endpoint, [self], cluster_id=self.cluster.cluster_id
        )

    async def kill(self) -> None:
        assert self.listener is not None
        self.listener.kill()
        self.listener = None

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {
            METADATA: self.metadata,
            PRODUCE: self.produce,
            FETCH: self.fetch,
            LIST_OFFSETS: self.list_offsets,
            INIT_PRODUCER_ID: self.init_producer_id,
            FIND_COORDINATORS: self.find_coordinators,
            MEMBERSHIP: self.membership,
            COMMIT_OFFSETS: self.commit_offsets,
            FETCH_OFFSETS: self.fetch_offsets,
        }

    async def find_coordinators(
        self, request: groups_pb2.FindCoordinatorsRequest, peer: Peer
    ) -> groups_pb2.FindCoordinatorsResponse:
        await self.running.wait()
        return self.cluster.coordinator.find(request)

    async def membership(
        self, requests: AsyncIterator[groups_pb2.MemberHeartbeat], peer: Peer
    ) -> AsyncIterator[groups_pb2.MemberState]:
        async for state in self.cluster.coordinator.membership(self.id, requests):
            await self.running.wait()
            yield state

    async def commit_offsets(
        self, request: groups_pb2.CommitOffsetsRequest, peer: Peer
    ) -> groups_pb2.CommitOffsetsResponse:
        await self.running.wait()
        return await self.cluster.coordinator.commit(self.id, request)

    async def fetch_offsets(
        self, request: groups_pb2.FetchOffsetsRequest, peer: Peer
    ) -> groups_pb2.FetchOffsetsResponse:
        await self.running.wait()
        return self.cluster.coordinator.fetch(self.id, request)

    async def metadata(
        self, request: admin_pb2.MetadataRequest, peer: Peer
    ) -> admin_pb2.MetadataResponse:
        await self.running.wait()
        self.metadata_asked += 1
        return self.cluster.metadata(request)

    async def init_producer_id(
        self, request: wire.InitProducerIdRequest, peer: Peer
    ) -> wire.InitProducerIdResponse:
        await self.running.wait()
        self.cluster.producer_ids += 1
        return wire.InitProducerIdResponse(producer_id=self.cluster.producer_ids, producer_epoch=0)

    async def produce(
        self, requests: AsyncIterator[Frame[wire.ProduceHeader]], peer: Peer
    ) -> AsyncIterator[wire.ProduceResponse]:
        async for frame in requests:
            await self.running.wait()
            self.produced.append(frame.header)
            position, results = 0, []
            for index, part in enumerate(frame.header.partitions):
                batch = bytes(frame.payload[position : position + part.size])
                position += part.size
                result = self._produce(frame.header, index, part, batch)
                if result is not None:
                    results.append(result)
            if self.cluster.delay_s:
                await asyncio.sleep(self.cluster.delay_s)
            if self.cluster.break_next:
                self.cluster.break_next = False
                raise Broken("broken by the test")
            if results:
                yield wire.ProduceResponse(results=results)

    def _produce(
        self, header: wire.ProduceHeader, index: int, part: wire.ProducePartition, batch: bytes
    ) -> wire.ProduceResult | None:
        result = wire.ProduceResult(
            request_id=header.request_id, index=index, base_offset=-1, log_append_time_ms=-1
        )
        try:
            name, found = self.cluster.find(part.topic_id, part.partition)
            if found.leader != self.id:
                if self.cluster.hints:
                    result.leader.CopyFrom(self.cluster.hint(found))
                raise NotLeaderError(f"{self.endpoint} does not lead")
            fault = self.cluster.fault(name, part.partition, batch)
            if isinstance(fault, QuorateError):
                raise fault
            result.base_offset = found.append(batch)
            if fault == "lose":
                return None
        except QuorateError as error:
            result.error.CopyFrom(to_wire(error))
        return result

    async def fetch(
        self, requests: AsyncIterator[wire.FetchRequest], peer: Peer
    ) -> AsyncIterator[Frame[wire.FetchHeader]]:
        session: dict[tuple[bytes, int], wire.FetchPartition] = {}
        async for request in requests:
            self.fetched.append(request)
            for one in request.forgotten:
                session.pop((one.topic_id, one.partition), None)
            refused = self._name(session, request)
            await self.running.wait()
            if self.cluster.delay_s:
                await asyncio.sleep(self.cluster.delay_s)
            answer = await self._fetched(request, session, bool(refused))
            answer.header.partitions.extend(refused)
            yield answer

    def _name(
        self, session: dict[tuple[bytes, int], wire.FetchPartition], request: wire.FetchRequest
    ) -> list[wire.FetchedPartition]:
        """Add the named partitions to the session; return the refusals of those without room."""
        refused = []
        for one in request.partitions:
            key = (one.topic_id, one.partition)
            if key in session or len(session) < self.cluster.session_partitions_max:
                session[key] = one
                continue
            part = wire.FetchedPartition(
                topic_id=one.topic_id, partition=one.partition, fetch_offset=one.fetch_offset
            )
            part.error.CopyFrom(to_wire(OverloadedError("no room")))
            refused.append(part)
        return refused

    async def _fetched(
        self,
        request: wire.FetchRequest,
        session: dict[tuple[bytes, int], wire.FetchPartition],
        is_urgent: bool,
    ) -> Frame[wire.FetchHeader]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + request.max_wait_ms / 1000
        while True:
            parts, pieces = [], []
            left = request.max_bytes
            for asked in list(session.values()):
                part, data = self._fetch_one(asked, min(asked.max_bytes, left))
                left -= len(data)
                if data or part.error.code:
                    parts.append(part)
                    pieces.append(data)
            if parts or is_urgent or loop.time() >= deadline:
                header = wire.FetchHeader(request_id=request.request_id, partitions=parts)
                return Frame(header, pieces)
            await asyncio.sleep(0.01)

    def _fetch_one(
        self, asked: wire.FetchPartition, bytes_max: int
    ) -> tuple[wire.FetchedPartition, bytes]:
        topic_id, number, offset = asked.topic_id, asked.partition, asked.fetch_offset
        part = wire.FetchedPartition(topic_id=topic_id, partition=number, fetch_offset=offset)
        try:
            _, found = self.cluster.find(topic_id, number)
            if found.leader != self.id:
                part.leader.CopyFrom(self.cluster.hint(found))
                raise NotLeaderError(f"{self.endpoint} does not lead")
            if 0 <= asked.leader_epoch < found.leader_epoch:
                part.leader.CopyFrom(self.cluster.hint(found))
                raise FencedLeaderEpochError(f"the leader_epoch is {found.leader_epoch}")
            last_epoch = asked.last_fetched_epoch if asked.HasField("last_fetched_epoch") else -1
            left = divergence(found.epochs, found.start, found.end, offset, last_epoch)
            if left is not None:
                part.divergence.epoch, part.divergence.end_offset = left
                raise LogTruncatedError(f"{offset} after epoch {last_epoch}: {left}")
            if not found.start <= offset <= found.end:
                raise OffsetOutOfRangeError(f"{offset} is not in [{found.start}, {found.end}]")
        except QuorateError as error:
            part.error.CopyFrom(to_wire(error))
            return part, b""
        batches = [batch for header, batch in found.batches if header.end_offset > offset]
        data = b""
        for batch in batches:
            if data and len(data) + len(batch) > bytes_max:
                break
            data += batch
        data = self.cluster.spoil(data)
        part.high_watermark, part.log_start_offset, part.size = found.end, found.start, len(data)
        return part, data

    async def list_offsets(
        self, request: wire.ListOffsetsRequest, peer: Peer
    ) -> wire.ListOffsetsResponse:
        self.listed.append(request)
        await self.running.wait()
        if self.cluster.delay_s:
            await asyncio.sleep(self.cluster.delay_s)
        response = wire.ListOffsetsResponse()
        for asked in request.partitions:
            one = response.partitions.add(
                topic_id=asked.topic_id, partition=asked.partition, offset=-1, timestamp_ms=-1
            )
            one.leader_epoch = -1
            try:
                _, found = self.cluster.find(asked.topic_id, asked.partition)
                if found.leader != self.id:
                    raise NotLeaderError(f"{self.endpoint} does not lead")
            except QuorateError as error:
                one.error.CopyFrom(to_wire(error))
                continue
            one.high_watermark = found.end
            if asked.timestamp_ms == -2:
                one.offset = found.start
            elif asked.timestamp_ms == -1:
                one.offset, one.leader_epoch = found.end, found.epochs.epoch_at(found.end - 1)
            else:
                for record in found.records():
                    if record.timestamp_ms >= asked.timestamp_ms:
                        one.offset, one.timestamp_ms = record.offset, record.timestamp_ms
                        break
        return response


class FakeCluster:
    def __init__(self, brokers: int = 2) -> None:
        self.network = InProcessNetwork()
        self.brokers = [FakeBroker(self, number) for number in range(brokers)]
        self.topics: dict[str, FakeTopic] = {}
        self.producer_ids = 0
        self.hints = True
        self.delay_s = 0.0
        self.break_next = False
        self.session_partitions_max = 10_000
        self.fault: Fault = lambda _topic, _partition, _batch: None
        self.spoil: Callable[[bytes], bytes] = lambda data: data
        self.image_offset = 0
        self.topics_made = 0
        self.cluster_id = "fake"
        self.coordinator = FakeCoordinator(
            lambda: {
                name: (topic.topic_id, len(topic.partitions)) for name, topic in self.topics.items()
            }
        )
        #: Brokers that have no listener for the clients, and the error that tells it.
        self.hindrances: dict[int, QuorateError] = {}

    async def start(self) -> None:
        for broker in self.brokers:
            await broker.start()

    async def become_another(self, *, brokers: Sequence[FakeBroker] | None = None) -> None:
        """Brokers of another cluster take these addresses (by default all); open streams break."""
        self.start_anew()
        for broker in self.brokers if brokers is None else brokers:
            await broker.kill()
            await broker.start()

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.endpoint for broker in self.brokers)

    def add_topic(self, name: str, partitions: int = 1) -> FakeTopic:
        self.image_offset += 1
        self.topics_made += 1
        topic = FakeTopic(
            bytes([self.topics_made]) * 16,
            [FakePartition(number % len(self.brokers)) for number in range(partitions)],
            self.now_ms,
        )
        self.topics[name] = topic
        return topic

    def start_anew(self) -> None:
        """Become another, empty cluster at the same addresses; its ids begin from 0."""
        self.topics.clear()
        self.cluster_id += "'"
        self.image_offset = self.producer_ids = 0

    @property
    def now_ms(self) -> int:
        """The brokers' clocks, which are an hour behind those of clients."""
        return START_MS - 3_600_000 + int(asyncio.get_running_loop().time() * 1000)

    def delete_topic(self, name: str) -> None:
        self.image_offset += 1
        del self.topics[name]

    def move(self, name: str, partition: int, leader: int) -> None:
        self.image_offset += 1
        found = self.topics[name].partitions[partition]
        found.leader, found.leader_epoch = leader, found.leader_epoch + 1

    def find(self, topic_id: bytes, partition: int) -> tuple[str, FakePartition]:
        for name, topic in self.topics.items():
            if topic.topic_id == topic_id and partition < len(topic.partitions):
                return name, topic.partitions[partition]
        raise UnknownTopicError(f"no topic {topic_id.hex()} with partition {partition}")

    def hint(self, partition: FakePartition) -> common_pb2.LeaderHint:
        return common_pb2.LeaderHint(
            leader=partition.leader,
            leader_epoch=partition.leader_epoch,
            listener=listener(f"b{partition.leader}:9092") if partition.leader >= 0 else None,
        )

    def metadata(self, request: admin_pb2.MetadataRequest) -> admin_pb2.MetadataResponse:
        response = admin_pb2.MetadataResponse(
            cluster_id=self.cluster_id,
            controller=0,
            image_offset=self.image_offset,
            now_ms=self.now_ms,
        )
        is_known = request.HasField("known_image_offset")
        if is_known and request.known_image_offset == self.image_offset:
            response.unchanged = True
            return response
        for broker in self.brokers:
            if broker.id not in self.hindrances:
                response.brokers.add(broker_id=broker.id, listener=listener(broker.endpoint))
        for name in sorted(self.topics) if request.all_topics else request.topics:
            told = response.topics.add(name=name)
            topic = self.topics.get(name)
            if topic is None:
                told.error.CopyFrom(to_wire(UnknownTopicError(name)))
                continue
            told.topic_id, told.created_ms = topic.topic_id, topic.created_ms
            for number, one in enumerate(topic.partitions):
                hindrance = self.hindrances.get(one.leader)
                told.partitions.add(
                    partition=number,
                    leader=one.leader,
                    leader_epoch=one.leader_epoch,
                    error=None if hindrance is None else to_wire(hindrance),
                )
        return response


def with_cluster(
    program: Callable[[FakeCluster], Coroutine[Any, Any, T]], *, brokers: int = 2, seed: int = 1
) -> T:
    """Run a program beside a fake cluster in virtual time; clients in it reach that cluster."""

    async def run(loop: asyncio.AbstractEventLoop) -> T:
        cluster = FakeCluster(brokers)
        await cluster.start()
        current_network.set(cluster.network)
        current_chance.set(Random(seed))
        current_wall_clock_ms.set(lambda: START_MS + int(loop.time() * 1000))
        return await program(cluster)

    return simulate(run, seed)
