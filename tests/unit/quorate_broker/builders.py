"""Brokers without servers: Replicas, fetchers and ISR keepers over one in-process network, and a
controller of a few lines that tests drive by hand.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from quorate.errors import QuorumUnavailableError
from quorate.net.network import Network
from quorate.record.batch import BatchBuilder, records, split
from quorate.v1.common_pb2 import Error, ErrorCode
from quorate_broker.files.replica_files import LogDirectory
from quorate_broker.registration import Registration
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.produce_queue import Produced
from quorate_broker.replicas.reconciler import Reconciler
from quorate_broker.replicas.replicas import Replicas
from quorate_broker.replication.fetcher import Fetchers
from quorate_broker.replication.isr import IsrKeeper
from quorate_broker.replication.service import ReplicaService
from quorate_broker.retention.keeper import RetentionKeeper
from quorate_quorum.log.identity import Identity, write_identity
from quorate_quorum.log.run_file import THIS_RUN, UNKNOWN, Run
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import EMPTY
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev
from quorate_testing.in_process import InProcessNetwork
from quorate_testing.simulated.disk import SimulatedDisk
from tests.harness.addresses import listening_at

TOPIC_ID = bytes(range(16))
TOPIC = "invoice"
NOW_MS = 1_700_000_000_000


def batch_of(
    *values: bytes,
    producer_id: int = -1,
    epoch: int = -1,
    sequence: int = -1,
    timestamp_ms: int = NOW_MS,
    key: bytes | None = b"k",
) -> memoryview:
    builder = BatchBuilder(producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)
    for value in values:
        builder.append(timestamp_ms, key, value)
    return memoryview(builder.build())


def values_of(batches: bytes) -> list[bytes]:
    return [bytes(record.value or b"") for _, batch in split(batches) for record in records(batch)]


def directory_id(broker_id: int) -> bytes:
    return bytes([broker_id]) * 16


class Broker:
    """One broker's replicas and what drives them; its disk outlives its processes."""

    def __init__(self, world: World, broker_id: int) -> None:
        self.world = world
        self.id = broker_id
        self.disk = SimulatedDisk(random.Random(broker_id))
        self.endpoint = f"broker-{broker_id}:9092"
        self.quorum_generation = 1
        self.failures: list[str] = []
        self.incarnations = 0

    async def start(self) -> None:
        """Begin a new incarnation: load, register."""
        self.incarnations += 1
        self.incarnation = bytes([self.id, self.incarnations]) * 8
        identity = Identity("cluster", self.id, directory_id(self.id), 1)
        await write_identity(self.disk, "/data", identity)
        config = BrokerConfig(
            node_id=self.id,
            listeners=(self.endpoint,),
            log_dirs=("/data",),
            replica_lag_time_max_ms=self.world.lag_ms,
            replica_fetch_wait_max_ms=50,
            log_cleaner_backoff_ms=10,
        )
        network = self.world.network_of(f"broker-{self.id}")
        environment = Environment(network, self.disk, lambda: NOW_MS, random.Random(self.id))
        client: Any = self
        registration = Registration("cluster", self.id, self.incarnation)
        self.replicas = Replicas(config, environment, client, registration)
        self.reconciler = Reconciler(self.replicas, self.failures.append)
        self.replicas.directories = {directory_id(self.id): LogDirectory("/data", self._last_run)}
        self.retention = RetentionKeeper(self.replicas, self.failures.append)
        self.fetchers = Fetchers(self.replicas, self.failures.append)
        self.isr = IsrKeeper(self.replicas, client, self.failures.append)
        self.replicas.subscribe(self.fetchers)
        self.replicas.subscribe(self.isr)
        self.service = ReplicaService(self.replicas)
        self.replicas.subscribe(self.service)
        self.listener = await network.serve(self.endpoint, [self.service])
        await self.reconciler.load(self.world.image)
        self.isr.start()
        self.retention.start()
        self.world.running[self.id] = self

    def registered(self, epoch: int) -> None:
        self.replicas.registration = self.replicas.registration.given(epoch)

    @property
    def _last_run(self) -> Run:
        return UNKNOWN if self.incarnations == 1 else replace(THIS_RUN, has_begun=True)

    async def stop(self, *, clean: bool = False) -> None:
        """End this incarnation. A stop that is not clean loses what a process has."""
        self.world.running.pop(self.id, None)
        self.service.stop()
        await self.listener.stop(0)
        await self.isr.stop()
        await self.fetchers.stop()
        await self.retention.stop()
        await self.reconciler.close(clean=clean)
        if not clean:
            self.disk.crash_process()

    # what Replicas and IsrKeeper use of QuorumClient

    async def alter_partitions(
        self, request: wire.AlterPartitionsRequest
    ) -> wire.AlterPartitionsResponse:
        return await self.world.alter_partitions(request)

    # for tests

    @property
    def partition(self) -> Partition:
        return self.replicas.get(TOPIC_ID, 0)

    def produce(
        self, *values: bytes, acks: int = -1, timeout_ms: int = 10_000, **producer: int
    ) -> asyncio.Future[Produced]:
        return self.partition.as_leader().queue.produce(
            batch_of(*values, **producer),  # type: ignore[arg-type]
            acks=acks,
            timeout_ms=timeout_ms,
            appended=lambda: None,
        )

    async def stored(self) -> list[bytes]:
        """Return the values of all records in the log, committed or not."""
        log = self.partition.log
        found: list[bytes] = []
        offset = log.log_start_offset
        while offset < log.log_end_offset:
            chunk = await log.read(offset, end=log.log_end_offset, bytes_max=1 << 20)
            found.extend(values_of(chunk))
            offset = max(header.end_offset for header, _ in split(chunk))
        return found


class World:
    """The brokers, the image, and a controller that does what the test says."""

    def __init__(
        self,
        *,
        brokers: int = 3,
        lag_ms: int = 10_000,
        network_of: Callable[[str], Network] | None = None,
        topic: str = TOPIC,
        racks: Mapping[int, str] | None = None,
    ) -> None:
        self.racks = racks or {}
        self.lag_ms = lag_ms
        self.topic = topic
        shared = InProcessNetwork()
        #: The network as a host sees it, by the host's name.
        self.network_of = network_of or (lambda _: shared)
        self.image = EMPTY
        self.running: dict[int, Broker] = {}
        self.brokers = {broker_id: Broker(self, broker_id) for broker_id in range(1, brokers + 1)}
        self.altered: list[tuple[int, ...]] = []
        #: Called with each AlterPartition; may raise, or wait.
        self.on_alter: Callable[[wire.AlterPartition], Any] | None = None
        #: The brokers that hear of a change of the ISR; None: all.
        self.hearing: Sequence[int] | None = None
        self._committing = asyncio.Lock()

    async def start(self, *, min_isr: int = 2, configs: Mapping[str, str] | None = None) -> None:
        """Start all brokers, and a topic of one partition led by the first."""
        for broker in self.brokers.values():
            await broker.start()
            await self.register(broker)
        ids = tuple(self.brokers)
        settings = {**(configs or {}), "min.insync.replicas": str(min_isr)}
        await self.commit(
            ev.MetadataEvent(topic=ev.Topic(topic_id=TOPIC_ID, name=self.topic)),
            *(
                ev.MetadataEvent(config=ev.Config(topic_id=TOPIC_ID, name=name, value=value))
                for name, value in settings.items()
            ),
            ev.MetadataEvent(
                partition=ev.Partition(
                    topic_id=TOPIC_ID,
                    partition=0,
                    replicas=[
                        ev.Replica(broker_id=id, directory_id=directory_id(id)) for id in ids
                    ],
                    isr=ids,
                    leader=ids[0],
                    recovered_epoch=-1,
                )
            ),
        )

    async def stop(self) -> None:
        for broker in list(self.running.values()):
            await broker.stop(clean=True)
        for broker in self.brokers.values():
            assert broker.failures == []

    @property
    def state(self) -> PartitionImage:
        found = self.image.partition(TOPIC_ID, 0)
        assert found is not None
        return found

    async def caught_up(self, *ids: int) -> None:
        """Wait until these brokers have all that the leader has."""
        leader = self.brokers[self.state.leader].partition
        replicas = [self.brokers[broker_id] for broker_id in ids]
        await until(
            lambda: all(one.partition.log_end_offset == leader.log_end_offset for one in replicas)
        )

    async def commit(self, *events: ev.MetadataEvent, to: Sequence[int] | None = None) -> None:
        """Commit events as one batch; `to`: only these brokers hear of it (none ever later)."""
        async with self._committing:
            await self._commit(*events, to=to)

    async def _commit(self, *events: ev.MetadataEvent, to: Sequence[int] | None) -> None:
        delta = MetadataDelta(self.image)
        offset = self.image.offset
        for event in events:
            delta.replay(event, offset=offset)
            offset += 1
        self.image = delta.finish(offset, max(self.image.epoch, 0))
        for broker in list(self.running.values()):
            if to is None or broker.id in to:
                await broker.reconciler.apply(delta, self.image)

    async def register(self, broker: Broker) -> None:
        await self.commit(
            ev.MetadataEvent(
                register_broker=ev.RegisterBroker(
                    broker_id=broker.id,
                    broker_epoch=self.image.offset,
                    incarnation=broker.incarnation,
                    rack=self.racks.get(broker.id, ""),
                    **listening_at(broker.endpoint),
                    directories=[ev.Directory(directory_id=directory_id(broker.id))],
                    fenced=True,
                )
            )
        )
        broker.registered(self.image.brokers[broker.id].epoch)
        await self.fence(broker.id, fenced=False)

    async def fence(self, broker_id: int, *, fenced: bool = True) -> None:
        epoch = self.image.brokers[broker_id].epoch
        await self.commit(
            ev.MetadataEvent(
                broker_change=ev.BrokerChange(
                    broker_id=broker_id, broker_epoch=epoch, fenced=fenced
                )
            )
        )

    async def fail_directory(self, broker_id: int) -> None:
        """Commit that the log directory of a broker has failed."""
        change = ev.BrokerChange(
            broker_id=broker_id,
            broker_epoch=self.image.brokers[broker_id].epoch,
            failed_directories=[directory_id(broker_id)],
        )
        await self.commit(ev.MetadataEvent(broker_change=change))

    async def change(self, *, to: Sequence[int] | None = None, **fields: Any) -> None:
        """Commit a change of the partition; a new leader, or raise_epoch, raises leader_epoch."""
        async with self._committing:
            await self._change(to, fields)

    async def _change(self, to: Sequence[int] | None, fields: dict[str, Any]) -> None:
        old = self.state
        event = ev.PartitionChange(
            topic_id=TOPIC_ID, partition=0, partition_epoch=old.partition_epoch + 1
        )
        if "leader" in fields or fields.pop("raise_epoch", False):
            event.leader_epoch = old.leader_epoch + 1
        if fields.pop("recovered", False):
            event.recovered_epoch = old.leader_epoch + 1
        for name, value in fields.items():
            if name in ("isr", "elr", "last_isr", "removing"):
                getattr(event, name).SetInParent()
                getattr(event, name).brokers.extend(value)
            else:
                setattr(event, name, value)
        await self._commit(ev.MetadataEvent(partition_change=event), to=to)

    async def alter_partitions(
        self, request: wire.AlterPartitionsRequest
    ) -> wire.AlterPartitionsResponse:
        answers = []
        for wanted in request.partitions:
            self.altered.append(tuple(member.broker_id for member in wanted.isr))
            if self.on_alter is not None:
                found = self.on_alter(wanted)
                if found is not None:
                    await found
            answers.append(await self._alter(wanted))
        return wire.AlterPartitionsResponse(request_id=request.request_id, partitions=answers)

    async def _alter(self, wanted: wire.AlterPartition) -> wire.AlteredPartition:
        async with self._committing:
            code = self._refusal(wanted)
            if code == ErrorCode.ERROR_CODE_NONE:
                isr = [member.broker_id for member in wanted.isr]
                resigned = {} if self.state.leader in isr else {"leader": isr[0]}
                await self._change(self.hearing, {"isr": isr, **resigned})
        return wire.AlteredPartition(
            topic_id=wanted.topic_id,
            partition=wanted.partition,
            error=Error(code=code),
            leader=self.state.leader,
            leader_epoch=self.state.leader_epoch,
            partition_epoch=self.state.partition_epoch,
            isr=self.state.isr,
        )

    def _refusal(self, wanted: wire.AlterPartition) -> ErrorCode.ValueType:
        if wanted.partition_epoch != self.state.partition_epoch:
            return ErrorCode.ERROR_CODE_STALE_PARTITION_EPOCH
        for member in wanted.isr:
            broker = self.image.brokers[member.broker_id]
            if broker.fenced or broker.epoch != member.broker_epoch:
                return ErrorCode.ERROR_CODE_INELIGIBLE_REPLICA
        return ErrorCode.ERROR_CODE_NONE


def no_controller(_: wire.AlterPartition) -> None:
    raise QuorumUnavailableError("cut off")


async def until(condition: Callable[[], bool], *, what: str = "it") -> None:
    """Wait until a condition holds; fail after ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (any condition, not an event)
            await asyncio.sleep(0.002)
