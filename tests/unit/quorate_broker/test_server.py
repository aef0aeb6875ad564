"""Whole brokers under a real controller (on a fake Raft), in virtual time, on simulated disks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from itertools import count
from typing import Any

import pytest

from quorate.errors import PeerError, StreamBrokenError
from quorate.net.frame import Frame
from quorate.net.methods import (
    CREATE_TOPICS,
    DELETE_TOPICS,
    DESCRIBE_CLUSTER,
    DESCRIBE_HEALTH,
    FETCH,
    INIT_PRODUCER_ID,
    LIST_OFFSETS,
    METADATA,
    PRODUCE,
)
from quorate.net.network import Answered, Connection, Method
from quorate.record.batch import BatchBuilder, records, split
from quorate.v1 import admin_pb2 as admin
from quorate.v1 import records_pb2 as wire
from quorate.v1.common_pb2 import ErrorCode
from quorate_broker.server import BrokerServer
from quorate_quorum.controller.driver.controller import Controller
from quorate_quorum.controller.driver.service import ControllerService
from quorate_quorum.log.identity import Identity, write_identity
from quorate_quorum.log.run_file import read_run
from quorate_quorum.metadata.watch import Watch
from quorate_quorum.node.config import BrokerConfig, ConfigError
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.server import NodeFailed
from quorate_quorum.raft.driver.bootstrap import format_new_voter
from quorate_quorum.v1.events_pb2 import BrokerChange, MetadataEvent, UnregisterBroker
from quorate_testing.call_connection import CallConnection
from quorate_testing.in_process import InProcessListener, InProcessNetwork
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.configs import voter_config
from tests.harness.fake_raft import FakeRaft

CLUSTER = "c1"
VOTER = "v100:9093"


class Dialled(InProcessNetwork):
    """A network that notes the endpoints that were called."""

    def __init__(self) -> None:
        super().__init__()
        self.endpoints: set[str] = set()

    def connect(self, endpoint: str, **options: Any) -> CallConnection:
        self.endpoints.add(endpoint)
        return super().connect(endpoint, **options)


class World:
    """Voter 100 with a fake Raft and a real controller; brokers on disks of their own."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.network = Dialled()
        self.seeds = count(1)
        self.failures: list[str] = []
        self.disks: dict[int, SimulatedDisk] = {}
        self.brokers: dict[int, BrokerServer] = {}
        self.controller = Controller(voter_config(), self.environment(0), self.failures.append)
        self.raft = FakeRaft(self.controller, endpoint=VOTER)
        self.controller.attach(self.raft, lambda: admin.DescribeQuorumResponse(leader=100))
        self.watch = Watch(CLUSTER, 1, self.raft, self.raft.epoch_at, voter_config())
        self.controller.when_news(self.watch.wake)

    async def start_voter(self) -> None:
        self.raft.format()
        self.voter = await self.network.serve(
            VOTER, [ControllerService(CLUSTER, 1, self.controller), self.watch]
        )
        self.raft.lead(1)

    def environment(self, node_id: int) -> Environment:
        disk = self.disks.setdefault(node_id, SimulatedDisk(random.Random(node_id)))
        return Environment(
            network=self.network,
            disk=disk,
            wall_clock_ms=lambda: 1_700_000_000_000 + int(self.loop.time() * 1000),
            chance=random.Random(next(self.seeds)),
        )

    def config(self, node_id: int, **fields: Any) -> BrokerConfig:
        options: dict[str, Any] = {
            "node_id": node_id,
            "listeners": (f"b{node_id}:9092",),
            "log_dirs": ("/data",),
            "quorum_bootstrap_servers": (VOTER,),
        }
        return BrokerConfig(**{**options, **fields})

    async def format(self, node_id: int, cluster_id: str = CLUSTER) -> None:
        disk = self.environment(node_id).disk
        identity = Identity(cluster_id, node_id, bytes([node_id]) * 16, 0)
        await write_identity(disk, "/data", identity)

    async def start(self, node_id: int, **fields: Any) -> BrokerServer:
        broker = BrokerServer(self.config(node_id, **fields), self.environment(node_id))
        await broker.start()
        self.brokers[node_id] = broker
        return broker

    async def brokers_up(self, brokers: int) -> None:
        for node_id in range(brokers):
            await self.format(node_id)
            await self.start(node_id)
        for broker in self.brokers.values():
            await broker.unfenced()

    def client(self, node_id: int = 0) -> Connection:
        return self.network.connect(f"b{node_id}:9092")

    async def create(self, name: str, partitions: int = 1, **configs: str) -> bytes:
        request = admin.CreateTopicsRequest(timeout_ms=5000)
        topic_id = name.encode().ljust(16, b"\0")
        request.topics.add(
            name=name,
            topic_id=topic_id,
            num_partitions=partitions,
            replication_factor=-1,
            configs={key.replace("_", "."): value for key, value in configs.items()},
        )
        response = await self.client().unary(CREATE_TOPICS, request, timeout_ms=10_000)
        assert response.topics[0].error.code == ErrorCode.ERROR_CODE_NONE, response
        return topic_id

    def leader(self, topic_id: bytes, partition: int = 0) -> int:
        return self.controller.image.topics[topic_id].partitions[partition].leader

    async def until(self, holds: Callable[[], bool], seconds: float = 20) -> float:
        started = self.loop.time()
        while not holds():
            assert self.loop.time() < started + seconds, "it never came to hold"
            await asyncio.sleep(0.01)
        return self.loop.time() - started

    async def kill(self, node_id: int) -> None:
        """As by kill -9: the port refuses, the disk keeps what was written."""
        broker = self.brokers.pop(node_id)
        for listener in broker._listeners.values():
            assert isinstance(listener, InProcessListener)
            listener.kill()
        self.disks[node_id].crash_process()
        broker.fail("killed")
        with pytest.raises(NodeFailed, match="killed"):
            await broker.stopped()

    async def stop(self) -> None:
        for broker in self.brokers.values():
            await broker.stop()
        await self.network.close()
        assert not self.failures


def in_a_world(program: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def run(loop: SimulatedLoop) -> None:
        world = World(loop)
        await world.start_voter()
        try:
            await program(world)
        finally:
            await world.stop()

    simulate(run, seed=1, time_max_s=600)


def batch(*values: bytes) -> bytes:
    builder = BatchBuilder()
    for value in values:
        builder.append(1_700_000_000_000, b"k", value)
    return builder.build()


class Producing:
    """A Produce stream."""

    def __init__(self, connection: Connection) -> None:
        self._queue: asyncio.Queue[Frame[wire.ProduceHeader]] = asyncio.Queue()
        self._stream = connection.stream(PRODUCE, self._requests())
        self._sent = 0
        self._results: list[wire.ProduceResult] = []

    async def _requests(self) -> AsyncIterator[Frame[wire.ProduceHeader]]:
        while True:
            yield await self._queue.get()

    def send(self, topic_id: bytes, payload: bytes, partition: int = 0, acks: int = -1) -> None:
        self._sent += 1
        header = wire.ProduceHeader(request_id=self._sent, acks=acks, timeout_ms=5000)
        header.partitions.add(
            topic_id=topic_id, partition=partition, leader_epoch=-1, size=len(payload)
        )
        self._queue.put_nowait(Frame(header, (payload,)))

    async def result(self) -> wire.ProduceResult:
        while not self._results:
            self._results.extend((await anext(self._stream)).results)
        return self._results.pop(0)

    async def close(self) -> None:
        await self._stream.aclose()


async def produce(world: World, topic_id: bytes, payload: bytes, **options: Any) -> Any:
    producing = Producing(world.client(world.leader(topic_id, options.get("partition", 0))))
    producing.send(topic_id, payload, **options)
    result = await producing.result()
    await producing.close()
    return result


async def fetch_all(
    world: World, topic_id: bytes, count: int, *, partition: int = 0, offset: int = 0
) -> list[bytes]:
    """Read so many records, following positions as a client does."""
    queue: asyncio.Queue[wire.FetchRequest] = asyncio.Queue()

    async def requests() -> AsyncIterator[wire.FetchRequest]:
        while True:
            yield await queue.get()

    found: list[bytes] = []
    number = 0
    connection = world.client(world.leader(topic_id, partition))
    async with aclosing(connection.stream(FETCH, requests())) as stream:
        while len(found) < count:
            number += 1
            request = wire.FetchRequest(
                request_id=number, max_wait_ms=500, min_bytes=1, max_bytes=1 << 20
            )
            request.partitions.add(
                topic_id=topic_id,
                partition=partition,
                fetch_offset=offset,
                leader_epoch=-1,
                max_bytes=1 << 20,
            )
            queue.put_nowait(request)
            answer = await anext(stream)
            for one in answer.header.partitions:
                assert one.error.code == ErrorCode.ERROR_CODE_NONE, one
            for header, whole in split(answer.payload):
                found += [record.value or b"" for record in records(whole)]
                offset = header.end_offset
    return found


def test_a_record_goes_in_and_comes_out() -> None:
    async def program(world: World) -> None:
        await world.brokers_up(1)
        topic_id = await world.create("invoice", 2)
        result = await produce(world, topic_id, batch(b"9.50", b"1.20"), partition=1)
        assert (result.error.code, result.base_offset) == (0, 0)
        result = await produce(world, topic_id, batch(b"3.00"), partition=1)
        assert result.base_offset == 2
        assert await fetch_all(world, topic_id, 3, partition=1) == [b"9.50", b"1.20", b"3.00"]

        for timestamp_ms, offset in ((-2, 0), (-1, 3)):
            listed = wire.ListOffsetsRequest()
            listed.partitions.add(
                topic_id=topic_id, partition=1, timestamp_ms=timestamp_ms, leader_epoch=-1
            )
            offsets = await world.client().unary(LIST_OFFSETS, listed, timeout_ms=1000)
            assert [one.offset for one in offsets.partitions] == [offset]

        given = [
            await world.client().unary(
                INIT_PRODUCER_ID, wire.InitProducerIdRequest(producer_id=-1), timeout_ms=5000
            )
            for _ in range(2)
        ]
        assert given[0].producer_id >= 0
        assert given[1].producer_id == given[0].producer_id + 1

    in_a_world(program)


def test_three_brokers_replicate_what_they_acknowledge() -> None:
    async def program(world: World) -> None:
        await world.brokers_up(3)
        topic_id = await world.create("invoice", 3)
        for partition in range(3):
            result = await produce(world, topic_id, batch(b"a", b"b"), partition=partition)
            assert (result.error.code, result.base_offset) == (0, 0)
        for broker in world.brokers.values():
            ends = [partition.log_end_offset for partition in broker.replicas.all()]
            assert len(ends) == 3
        for partition in range(3):
            assert await fetch_all(world, topic_id, 2, partition=partition) == [b"a", b"b"]

    in_a_world(program)


def test_acknowledged_records_survive_the_death_of_their_leader() -> None:
    async def program(world: World) -> None:
        await world.brokers_up(3)
        topic_id = await world.create("invoice")
        for value in (b"a", b"b", b"c"):
            assert not (await produce(world, topic_id, batch(value))).error.code
        old = world.leader(topic_id)
        await world.kill(old)
        await world.until(lambda: world.leader(topic_id) not in (-1, old))
        assert await fetch_all(world, topic_id, 3) == [b"a", b"b", b"c"]
        assert (await produce(world, topic_id, batch(b"d"))).base_offset == 3

        await world.start(old)
        await world.brokers[old].unfenced()
        image = world.controller.image
        await world.until(
            lambda: len(world.controller.image.topics[topic_id].partitions[0].isr) == 3
        )
        assert world.controller.image.offset > image.offset
        assert world.brokers[old].replicas.get(topic_id, 0).log_end_offset == 4

    in_a_world(program)


def test_a_clean_stop_moves_leaders_first_and_is_marked() -> None:
    async def program(world: World) -> None:
        await world.brokers_up(3)
        topic_id = await world.create("invoice")
        assert not (await produce(world, topic_id, batch(b"a"))).error.code
        leader = world.leader(topic_id)
        stopping = world.brokers.pop(leader)
        begun = world.loop.time()
        await stopping.stop()
        await stopping.stop()
        await stopping.stopped()
        assert world.loop.time() - begun < 3
        assert world.leader(topic_id) not in (-1, leader)
        assert (await read_run(world.disks[leader], "/data")).marker_present
        assert await fetch_all(world, topic_id, 1) == [b"a"]
        assert world.controller.image.brokers[leader].fenced

        await world.start(leader)
        await world.brokers[leader].unfenced()

    in_a_world(program)


def test_a_clean_stop_without_a_quorum_takes_a_second_and_loses_nothing() -> None:
    async def program(world: World) -> None:
        await world.brokers_up(1)
        topic_id = await world.create("invoice")
        assert not (await produce(world, topic_id, batch(b"a"))).error.code
        assert isinstance(world.voter, InProcessListener)
        world.voter.kill()
        begun = world.loop.time()
        await world.brokers[0].stop()
        assert world.loop.time() - begun < 2
        assert (await read_run(world.disks[0], "/data")).marker_present

        world.voter = await world.network.serve(
            VOTER, [ControllerService(CLUSTER, 1, world.controller), world.watch]
        )
        await world.start(0)
        await world.brokers[0].unfenced()
        assert await fetch_all(world, topic_id, 1) == [b"a"]

    in_a_world(program)


def test_a_broker_answers_probes_before_there_is_a_controller() -> None:
    async def program(world: World) -> None:
        assert isinstance(world.voter, InProcessListener)
        world.voter.kill()
        await world.format(0)
        broker = BrokerServer(world.config(0), world.environment(0))
        starting = asyncio.create_task(broker.start())
        await asyncio.sleep(1)
        assert not starting.done()
        found = await world.network.probe("b0:9092", timeout_ms=1000)
        assert found == Answered(0, broker.incarnation)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await broker.stopped()
        assert broker.endpoint == ""
        await broker.environment.disk.lock("/data")  # nothing is left open

    in_a_world(program)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("empty", "not formatted"),
        ("cluster", "refused"),
        ("node", "node"),
        ("voter", "/data is the disk of voter 0: start it with quorate-quorum"),
        ("port", "in use"),
        ("directory", "in use by another process"),
    ],
)
def test_a_broker_that_cannot_start_says_why(case: str, said: str) -> None:
    async def program(world: World) -> None:
        node_id = 0
        fields: dict[str, Any] = {}
        if case == "cluster":
            await world.format(0, "another")
        elif case == "node":
            await world.format(0)
            disk = world.disks[0]
            await write_identity(disk, "/data", Identity(CLUSTER, 5, b"d" * 16, 0))
        elif case == "voter":
            identity = Identity(CLUSTER, 0, b"d" * 16, 0)
            world.disks[0] = SimulatedDisk(random.Random(5))
            await format_new_voter(world.disks[0], "/data", identity)
        elif case == "port":
            await world.brokers_up(1)
            await world.format(1)
            node_id, fields = 1, {"listeners": ("b0:9092",)}
        elif case == "directory":
            await world.brokers_up(1)
            fields = {"listeners": ("b9:9092",)}
        broker = BrokerServer(world.config(node_id, **fields), world.environment(node_id))
        with pytest.raises(ConfigError, match=said):
            await broker.start()

    in_a_world(program)


def test_a_second_process_with_the_same_id_is_refused() -> None:
    async def program(world: World) -> None:
        await world.brokers_up(1)
        disk = SimulatedDisk(random.Random(5))
        await write_identity(disk, "/data", Identity(CLUSTER, 0, b"x" * 16, 0))
        world.disks[7] = disk
        twin = BrokerServer(world.config(0, listeners=("b9:9092",)), world.environment(7))
        with pytest.raises(ConfigError, match="refused"):
            await twin.start()
        assert not world.brokers[0].is_fenced

    in_a_world(program)


def test_a_failure_inside_stops_the_broker_and_says_why() -> None:
    async def program(world: World) -> None:
        await world.brokers_up(1)
        broker = world.brokers.pop(0)
        broker.fail("an invariant broke")
        broker.fail("and another")
        with pytest.raises(NodeFailed, match="an invariant broke"):
            await broker.stopped()
        assert not (await read_run(world.disks[0], "/data")).marker_present
        with pytest.raises(NodeFailed):
            await broker.unfenced()

    in_a_world(program)


def test_a_topic_that_is_made_again_under_its_name_is_another_one() -> None:
    """A client that still sends to the old topic id gets UNKNOWN_TOPIC."""

    async def program(world: World) -> None:
        await world.brokers_up(1)
        old = await world.create("invoice")
        assert not (await produce(world, old, batch(b"old"))).error.code
        removed = admin.DeleteTopicsRequest(topics=["invoice"], timeout_ms=5000)
        answer = await world.client().unary(DELETE_TOPICS, removed, timeout_ms=10_000)
        assert answer.topics[0].error.code == ErrorCode.ERROR_CODE_NONE
        request = admin.CreateTopicsRequest(timeout_ms=5000)
        request.topics.add(
            name="invoice", topic_id=b"n" * 16, num_partitions=1, replication_factor=1
        )
        await world.client().unary(CREATE_TOPICS, request, timeout_ms=10_000)
        producing = Producing(world.client())
        producing.send(old, batch(b"late"))
        assert (await producing.result()).error.code == ErrorCode.ERROR_CODE_UNKNOWN_TOPIC
        producing.send(b"n" * 16, batch(b"new"))
        assert (await producing.result()).base_offset == 0
        await producing.close()
        assert await fetch_all(world, b"n" * 16, 1) == [b"new"]

    in_a_world(program)


def test_hostile_produce_is_refused_by_partition_and_the_broker_lives() -> None:
    async def program(world: World) -> None:
        await world.brokers_up(1)
        topic_id = await world.create("invoice", max_message_bytes="2048")
        good = batch(b"good")
        cases: list[tuple[bytes, int]] = [
            (b"", ErrorCode.ERROR_CODE_CORRUPT_RECORD),
            (b"\x00" * 60, ErrorCode.ERROR_CODE_CORRUPT_RECORD),
            (b"\xff" * 200, ErrorCode.ERROR_CODE_CORRUPT_RECORD),
            (good[:-1], ErrorCode.ERROR_CODE_CORRUPT_RECORD),
            (good + b"\x00", ErrorCode.ERROR_CODE_CORRUPT_RECORD),
            (good + good, ErrorCode.ERROR_CODE_CORRUPT_RECORD),
            (good[:-1] + bytes([good[-1] ^ 1]), ErrorCode.ERROR_CODE_CORRUPT_RECORD),
            (batch(b"x" * 4096), ErrorCode.ERROR_CODE_RECORD_TOO_LARGE),
        ]
        producing = Producing(world.client())
        for payload, code in cases:
            producing.send(topic_id, payload)
            result = await producing.result()
            assert result.error.code == code, (payload[:20], result)
        producing.send(topic_id, good)
        assert (await producing.result()).base_offset == 0
        await producing.close()
        assert await fetch_all(world, topic_id, 1) == [b"good"]

    in_a_world(program)


def test_noise_in_place_of_a_message_ends_that_call_only() -> None:
    async def program(world: World) -> None:
        await world.brokers_up(1)
        noise = random.Random(4)
        methods: list[Method[Any, Any]] = [
            *(PRODUCE, FETCH, METADATA, CREATE_TOPICS, LIST_OFFSETS, INIT_PRODUCER_ID)
        ]
        for method in methods:
            raw: Method[Any, Any] = Method(
                method.path,
                lambda data: data,
                method.decode_request,
                method.encode_response,
                method.decode_response,
                method.streams_requests,
                method.streams_responses,
            )
            for _ in range(5):
                data = noise.randbytes(noise.randint(1, 100))
                try:
                    if not raw.streams_requests:
                        await world.client().unary(raw, data, timeout_ms=2000)
                        continue

                    async def once(data: bytes = data) -> AsyncIterator[bytes]:
                        yield data

                    async with aclosing(world.client().stream(raw, once())) as stream:
                        async for _response in stream:
                            pass
                except (PeerError, StreamBrokenError):
                    pass
        described = await world.client().unary(
            DESCRIBE_CLUSTER, admin.DescribeClusterRequest(), timeout_ms=1000
        )
        assert not described.brokers[0].fenced

    in_a_world(program)


def test_a_broker_fenced_by_silence_goes_on_and_is_unfenced_again() -> None:
    async def program(world: World) -> None:
        await world.brokers_up(3)
        topic_id = await world.create("invoice")
        assert not (await produce(world, topic_id, batch(b"a"))).error.code
        silent = world.leader(topic_id)
        broker = world.brokers[silent]
        assert broker._rooms is not None
        lifecycle = broker._rooms.lifecycle
        epoch = lifecycle.registration.broker_epoch
        await lifecycle.heartbeats.stop()
        await world.until(lambda: broker.is_fenced)
        await world.until(lambda: world.leader(topic_id) not in (-1, silent))
        lifecycle.heartbeats.start(broker._rooms.publisher)
        await broker.unfenced()
        assert lifecycle.registration.broker_epoch == epoch
        assert not (await produce(world, topic_id, batch(b"b"))).error.code
        await world.until(
            lambda: len(world.controller.image.topics[topic_id].partitions[0].isr) == 3
        )
        assert await fetch_all(world, topic_id, 2) == [b"a", b"b"]

    in_a_world(program)


def test_a_broker_whose_registration_was_removed_registers_again() -> None:
    async def program(world: World) -> None:
        await world.brokers_up(1)
        broker = world.brokers[0]
        assert broker._rooms is not None
        epoch = broker._rooms.lifecycle.registration.broker_epoch
        fence = BrokerChange(broker_id=0, broker_epoch=epoch, fenced=True)
        unregister = UnregisterBroker(broker_id=0, broker_epoch=epoch)
        events = [
            MetadataEvent(broker_change=fence),
            MetadataEvent(unregister_broker=unregister),
        ]
        world.raft.lose(101, 2)
        world.raft.know_leader(100, VOTER, 3)
        world.raft._append(3, events)  # appended directly, not by a decision of the controller
        world.raft.commit()
        world.raft.lead(4)
        await world.until(lambda: broker.is_fenced)
        await broker.unfenced()
        assert broker._rooms.lifecycle.registration.broker_epoch > epoch
        topic_id = await world.create("invoice")
        assert not (await produce(world, topic_id, batch(b"a"))).error.code

    in_a_world(program)


def test_a_failed_sync_costs_the_directory_and_the_last_one_the_broker() -> None:
    """The failure is noted on the disk for the next start, and nothing was acknowledged."""

    async def program(world: World) -> None:
        await world.brokers_up(1)
        topic_id = await world.create("invoice", flush_on_ack="true")
        assert not (await produce(world, topic_id, batch(b"a"))).error.code
        world.disks[0].fail_next_sync()
        producing = Producing(world.client())
        producing.send(topic_id, batch(b"b"))
        with pytest.raises((StreamBrokenError, StopAsyncIteration, AssertionError)):
            assert (await producing.result()).error.code == ErrorCode.ERROR_CODE_NONE
        await producing.close()
        broker = world.brokers.pop(0)
        with pytest.raises(NodeFailed, match="last log directory failed"):
            await broker.stopped()
        run = await read_run(world.disks[0], "/data")
        assert (run.sync_failed, run.marker_present) == (True, False)

    in_a_world(program)


def listening(node_id: int, *, is_external: bool = True) -> dict[str, Any]:
    """Return settings of two listeners, the second between brokers; or of the second alone."""
    external = (f"external=grpc://e{node_id}:9092",) if is_external else ()
    return {
        "listeners": (*external, f"internal=grpc://b{node_id}:9092"),
        "inter_broker_listener_name": "internal",
    }


async def metadata_at(world: World, endpoint: str) -> admin.MetadataResponse:
    request = admin.MetadataRequest(all_topics=True)
    return await world.network.connect(endpoint).unary(METADATA, request, timeout_ms=5000)


@pytest.mark.parametrize(("listener", "letter"), [("internal", "b"), ("external", "e")])
def test_a_client_is_told_addresses_of_the_listener_that_it_came_in_by(
    listener: str, letter: str
) -> None:
    async def program(world: World) -> None:
        for node_id in range(2):
            await world.format(node_id)
            await world.start(node_id, **listening(node_id))
        for broker in world.brokers.values():
            await broker.unfenced()
        topic_id = await world.create("invoice", min_insync_replicas="2")
        assert not (await produce(world, topic_id, batch(b"a"))).error.code

        response = await metadata_at(world, f"{letter}0:9092")
        told = {one.broker_id: one.listener for one in response.brokers}
        assert [told[i].endpoint for i in range(2)] == [f"{letter}0:9092", f"{letter}1:9092"]
        assert {(one.name, one.protocol, one.tls) for one in told.values()} == {
            (listener, "grpc", False)
        }
        client = world.network.connect(f"{letter}0:9092")
        cluster = await client.unary(
            DESCRIBE_CLUSTER, admin.DescribeClusterRequest(), timeout_ms=5000
        )
        assert [one.listener for one in cluster.brokers] == [told[0], told[1]]

        leader = world.leader(topic_id)
        producing = Producing(world.network.connect(f"{letter}{1 - leader}:9092"))
        producing.send(topic_id, batch(b"b"))
        result = await producing.result()
        assert result.error.code == ErrorCode.ERROR_CODE_NOT_LEADER
        assert (result.leader.leader, result.leader.listener) == (leader, told[leader])
        await producing.close()

        await world.kill(1 - leader)
        await world.until(lambda: world.controller.image.brokers[1 - leader].fenced)
        health = await world.network.connect(f"{letter}{leader}:9092").unary(
            DESCRIBE_HEALTH, admin.DescribeHealthRequest(timeout_ms=3000), timeout_ms=5000
        )
        assert [one.endpoint for one in health.nodes] == [told[1 - leader].endpoint]

    in_a_world(program)


def test_nodes_reach_each_other_by_the_inter_broker_listener_only() -> None:
    async def program(world: World) -> None:
        for node_id in range(2):
            await world.format(node_id)
            await world.start(node_id, **listening(node_id))
        for broker in world.brokers.values():
            await broker.unfenced()
        topic_id = await world.create("invoice", min_insync_replicas="2")
        assert not (await produce(world, topic_id, batch(b"a"))).error.code  # by a replica's fetch
        await world.kill(1)
        await world.until(lambda: world.controller.image.brokers[1].fenced)
        assert {endpoint[0] for endpoint in world.network.endpoints} <= {"b", "v"}
        assert world.controller.image.brokers[0].endpoint == "b0:9092"
        assert [str(one) for one in world.controller.image.brokers[0].listeners] == [
            "external=grpc://e0:9092",
            "internal=grpc://b0:9092",
        ]

    in_a_world(program)


def test_a_broker_without_the_listener_of_a_client_is_not_told_to_it() -> None:
    async def program(world: World) -> None:
        for node_id in range(2):
            await world.format(node_id)
            await world.start(node_id, **listening(node_id, is_external=node_id == 0))
        for broker in world.brokers.values():
            await broker.unfenced()
        response = await metadata_at(world, "e0:9092")
        assert [one.broker_id for one in response.brokers] == [0]
        cluster = await world.network.connect("e0:9092").unary(
            DESCRIBE_CLUSTER, admin.DescribeClusterRequest(), timeout_ms=5000
        )
        assert [one.listener.endpoint for one in cluster.brokers] == ["e0:9092", ""]

        topic_id = await world.create("invoice", partitions=4)
        (topic,) = (await metadata_at(world, "e0:9092")).topics
        assert {one.leader for one in topic.partitions} == {0, 1}
        for one in topic.partitions:
            assert one.leader == world.leader(topic_id, one.partition)
            if one.leader == 0:
                assert not one.HasField("error")
            else:
                assert one.error.code == ErrorCode.ERROR_CODE_LISTENER_NOT_FOUND
                assert "broker 1 leads and has no listener named 'external'" in one.error.message
        (topic,) = (await metadata_at(world, "b0:9092")).topics
        assert not any(one.HasField("error") for one in topic.partitions)

    in_a_world(program)


def test_listeners_without_a_port_register_the_ports_that_they_got() -> None:
    async def program(world: World) -> None:
        await world.format(0)
        listeners = ("b0:0", "out=grpc://[::1]:0")
        broker = await world.start(0, listeners=listeners, broker_host="h0")
        await broker.unfenced()
        registered = world.controller.image.brokers[0]
        bound = [broker.endpoint_of("grpc"), broker.endpoint_of("out")]
        assert [one.endpoint for one in registered.listeners] == bound
        assert (bound[0].rpartition(":")[0], bound[1].rpartition(":")[0]) == ("b0", "[::1]")
        assert not any(endpoint.endswith(":0") for endpoint in bound)
        assert registered.endpoint == broker.endpoint == bound[0]
        response = await metadata_at(world, bound[1])
        assert [one.listener.endpoint for one in response.brokers] == [bound[1]]

    in_a_world(program)


def test_a_broker_that_cannot_open_one_of_its_listeners_opens_none() -> None:
    async def program(world: World) -> None:
        await world.brokers_up(1)
        await world.format(1)
        with pytest.raises(ConfigError, match=r"can't listen: .*in use \(to listen on b0:9092\)"):
            await world.start(1, listeners=("b1:9092", "out=grpc://b0:9092"))
        taken = await world.network.serve("b1:9092", [])
        await taken.stop(0)

    in_a_world(program)
