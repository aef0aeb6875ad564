"""Generations: no node follows an older one; a broker follows a newer one and loses nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from quorate.errors import QuorumUnavailableError, WrongClusterError, to_wire
from quorate.net.frame import Frame
from quorate.net.methods import CREATE_TOPICS
from quorate.net.network import Peer
from quorate.net.principal import ANONYMOUS
from quorate.v1.admin_pb2 import CreateTopicsRequest
from quorate_broker.files.directories import LogDirectories
from quorate_broker.files.replica_files import KEPT, METADATA_FILE, PartitionMetadata
from quorate_broker.files.strays import Strays
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.disk import read_whole, replace_whole
from quorate_quorum.generations import ask_generation
from quorate_quorum.log.events import encode_events
from quorate_quorum.log.identity import Identity, read_identity, write_identity
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.recovered import recovered
from quorate_quorum.metadata.voters import VoterImage
from quorate_quorum.metadata.watch import Watch
from quorate_quorum.methods import DESCRIBE_NODE
from quorate_quorum.node.environment import Environment
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev
from quorate_quorum.v1.controller_pb2 import WatchHeader, WatchRequest
from quorate_quorum.v1.raft_pb2 import DescribeNodeResponse
from quorate_testing.in_process import InProcessNetwork
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.configs import voter_config
from tests.harness.fake_raft import AnyFeature
from tests.unit.quorate_broker import builders as partition_world
from tests.unit.quorate_broker.builders import TOPIC, TOPIC_ID, directory_id, until
from tests.unit.quorate_broker.files.builders import D1, D2, config, formatted
from tests.unit.quorate_quorum.client.builders import (
    CLUSTER,
    FakeVoter,
    World,
    client_config,
    in_a_world,
)
from tests.unit.quorate_quorum.metadata.builders import a_voter, in_virtual_time

PEER = Peer("test")


# Watch.


def test_a_watcher_of_an_older_generation_is_told_to_begin_anew() -> None:
    """Whatever offset it has, even one that this voter could compare."""

    async def program(_: Any) -> None:
        raft, _watch = a_voter()
        watch = Watch("c1", 3, raft, raft.epoch_at, voter_config())
        request = WatchRequest(
            cluster_id="c1", quorum_generation=2, from_offset=2, last_applied_epoch=1
        )
        watching: Any = watch.watch(request, PEER)
        async with aclosing(watching) as frames:
            first = await anext(frames)
            assert (first.header.reload, first.header.quorum_generation) == (True, 3)
            second = await anext(frames)
            assert second.header.base_offset == 0
            assert second.pieces

    in_virtual_time(program)


# The client.


class Jumps:
    """An image listener that notes where an image came from another generation."""

    def __init__(self) -> None:
        self.generations: list[int] = []

    def image_changed(self, delta: MetadataDelta, image: MetadataImage) -> None:
        if delta.generation:
            self.generations.append(delta.generation)


async def replaced(world: World, generation: int, *, epoch: int = 1) -> None:
    """Replace the voters: others, of another generation, listen at the same endpoints."""
    for voter in world.voters:
        voter.kill()
    world.voters = [
        await FakeVoter(world.network, 100 + n, generation=generation).start() for n in range(3)
    ]
    world.lead(0, epoch)


def test_a_broker_follows_the_quorum_into_a_newer_generation() -> None:
    """One jump names the new generation; the broker forgets the old controller."""

    async def program(world: World) -> None:
        jumps = Jumps()
        world.client.subscribe(jumps)
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        await replaced(world, 2)
        await until(lambda: world.client.quorum_generation == 2)
        assert jumps.generations == [2]
        await asyncio.sleep(1)
        assert world.client.leader_endpoint == world.voters[0].endpoint
        await world.client.register(wire.RegisterRequest(broker_id=1))

    in_a_world(program)


def test_who_watches_a_lost_majority_that_came_back_hears_of_the_newer_generation() -> None:
    """It was down during the recovery, and two of its three voters go on with the old history."""

    async def program(world: World) -> None:
        survivor = await replaced_alone(world, 2)
        world.client._voters.other_than = others_than(world, survivor)  # type: ignore[method-assign]
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        assert world.client.quorum_generation == 1
        world.client._voters.other_than = lambda _: survivor  # type: ignore[assignment, method-assign]
        await until(lambda: world.client.quorum_generation == 2)

    in_a_world(program)


async def replaced_alone(world: World, generation: int) -> str:
    """Replace the last voter by a recovered one; return its endpoint."""
    world.voters[2].kill()
    told = Told(generation, leader=102)
    survivor = FakeVoter(world.network, 102, generation)
    survivor.raft.lead(5)
    handlers = {**survivor.handlers(), **told.handlers()}
    survivor.handlers = lambda: handlers  # type: ignore[method-assign]
    await survivor.start()
    return survivor.endpoint


def others_than(world: World, survivor: str) -> Any:
    return lambda _: next(v.endpoint for v in world.voters if v.endpoint != survivor)


def test_a_newer_generation_counts_even_where_its_epochs_are_lower() -> None:
    """Epochs are compared within one history only."""

    async def program(world: World) -> None:
        world.lead(0, 40)
        await world.client.start()
        await world.client.wait_applied(3, timeout_ms=1000)
        await replaced(world, 2, epoch=3)
        for _ in range(3):  # past what the old history had shown
            world.voters[0].raft.propose(
                3, [ev.MetadataEvent(feature=ev.Feature(name="x", level=7))]
            )
        await asyncio.sleep(0.01)
        world.replicate(world.voters[0])
        await until(lambda: world.client.quorum_generation == 2)
        assert world.client.image.epoch == 3

    in_a_world(program)


def test_a_newer_generation_that_does_not_begin_with_its_beginning_is_not_followed() -> None:
    """Its batches would be applied on what another history had made."""

    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        for voter in world.voters:
            voter.kill()

        async def watch(request: WatchRequest, peer: Any) -> AsyncIterator[Any]:
            event = ev.MetadataEvent(feature=ev.Feature(name="x", level=9))
            batch = encode_events([event], base_offset=2, epoch=1, timestamp_ms=0)
            yield Frame(WatchHeader(quorum_generation=2, base_offset=2, high_watermark=3), (batch,))
            await asyncio.sleep(1000)

        for voter in world.voters:
            voter.watch.watch = watch  # type: ignore[method-assign]
            await voter.start()
        await asyncio.sleep(3)
        assert (world.client.image.offset, world.client.quorum_generation) == (2, 1)

    in_a_world(program)


def test_nobody_follows_an_older_generation() -> None:
    """The lost voters come back: a broker takes no image, leader or registration from them."""

    async def program(world: World) -> None:
        await world.client.stop()
        environment = Environment(
            network=world.network,
            disk=None,  # type: ignore[arg-type]
            chance=random.Random(7),
            features=AnyFeature(),
        )
        world.client = client = QuorumClient(
            client_config(world.voters),
            environment,
            cluster_id=CLUSTER,
            fail=world.failures.append,
            quorum_generation=2,  # as its directories say
        )
        await client.start()
        refused = to_wire(WrongClusterError("this quorum's generation is 1, not 2"))
        for voter in world.voters:
            voter.registered = wire.RegisterResponse(error=refused, quorum_generation=1)
        registering = asyncio.ensure_future(client.register(wire.RegisterRequest(broker_id=1)))
        await asyncio.sleep(3)
        assert client.image is EMPTY
        assert not registering.done(), "it waits for the voters of its own history"
        await replaced(world, 2)
        await asyncio.wait_for(registering, 10)
        assert client.image.offset > 0

    in_a_world(program)


def test_a_registration_that_a_newer_generation_refuses_is_asked_again_there() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        refused = to_wire(WrongClusterError("this quorum's generation is 2, not 1"))
        world.voters[0].registered = wire.RegisterResponse(error=refused, quorum_generation=2)
        registering = asyncio.ensure_future(
            world.client.register(wire.RegisterRequest(broker_id=1))
        )
        await asyncio.sleep(1)
        assert not registering.done()
        await replaced(world, 2)
        response = await asyncio.wait_for(registering, 10)
        assert response.quorum_generation == world.client.quorum_generation == 2

    in_a_world(program)


def test_another_cluster_is_refused_for_good() -> None:
    async def program(world: World) -> None:
        refused = to_wire(WrongClusterError("this quorum is of cluster 'c2', not 'c1'"))
        world.voters[0].registered = wire.RegisterResponse(error=refused)
        with pytest.raises(WrongClusterError):
            await world.client.register(wire.RegisterRequest(broker_id=1))

    in_a_world(program)


def test_whatever_a_broker_asks_of_the_controller_names_its_generation() -> None:
    async def program(world: World) -> None:
        leader = world.voters[0]
        seen: dict[str, int] = {}

        async def allocate(request: Any, peer: Any) -> wire.AllocateProducerIdsResponse:
            seen["allocate"] = request.quorum_generation
            return wire.AllocateProducerIdsResponse(count=1000)

        async def alter(requests: AsyncIterator[Any], peer: Any) -> AsyncIterator[Any]:
            async for request in requests:
                seen["alter"] = request.quorum_generation
                yield wire.AlterPartitionsResponse(request_id=request.request_id)

        async def forward(requests: AsyncIterator[Any], peer: Any) -> AsyncIterator[Any]:
            async for message in requests:
                seen["forward"] = message.quorum_generation
                answers = [
                    wire.ForwardResponse(request_id=one.request_id) for one in message.requests
                ]
                yield wire.ForwardResponses(responses=answers)

        leader.kill()
        leader.allocate = allocate  # type: ignore[method-assign]
        leader.alter = alter  # type: ignore[method-assign]
        leader.forward = forward  # type: ignore[method-assign]
        await leader.start()
        client = world.client
        await client.start()
        await client.wait_applied(2, timeout_ms=1000)
        beating = client.heartbeat(wire.HeartbeatRequest, lambda _: None)
        await asyncio.sleep(0.1)
        await client.allocate_producer_ids(1, 5)
        await client.alter_partitions(wire.AlterPartitionsRequest())
        await client.forward(
            CREATE_TOPICS, CreateTopicsRequest(), principal=ANONYMOUS, timeout_ms=1000
        )
        assert seen == {"allocate": 1, "alter": 1, "forward": 1}
        assert leader.beats[-1].quorum_generation == 1
        await beating.close()

    in_a_world(program)


def test_a_voter_of_another_history_is_not_the_controller() -> None:
    """A call that is refused for its generation was not carried out: ask another voter."""

    async def program(world: World) -> None:
        refused = to_wire(WrongClusterError("this quorum's generation is 2, not 1"))
        leader = world.voters[0]
        asked: list[str] = []

        async def alter(requests: AsyncIterator[Any], peer: Any) -> AsyncIterator[Any]:
            async for request in requests:
                yield wire.AlterPartitionsResponse(request_id=request.request_id, error=refused)

        async def heartbeat(requests: AsyncIterator[Any], peer: Any) -> AsyncIterator[Any]:
            asked.append("heartbeat")
            yield wire.HeartbeatResponse(error=refused, leader_id=100, leader_endpoint="v100:9093")

        async def forward(requests: AsyncIterator[Any], peer: Any) -> AsyncIterator[Any]:
            asked.append("forward")
            yield wire.ForwardResponses(error=refused)

        leader.kill()
        leader.alter = alter  # type: ignore[method-assign]
        leader.heartbeat = heartbeat  # type: ignore[method-assign]
        leader.forward = forward  # type: ignore[method-assign]
        await leader.start()
        client = world.client
        await client.start()
        await client.wait_applied(2, timeout_ms=1000)
        with pytest.raises(WrongClusterError):
            await client.alter_partitions(wire.AlterPartitionsRequest())
        with pytest.raises(QuorumUnavailableError):
            await client.forward(
                CREATE_TOPICS, CreateTopicsRequest(), principal=ANONYMOUS, timeout_ms=1000
            )
        assert asked.count("forward") > 1
        heard: list[Any] = []
        beating = client.heartbeat(wire.HeartbeatRequest, heard.append)
        await asyncio.sleep(1)
        assert asked.count("heartbeat") > 1
        assert heard == []
        await beating.close()

    in_a_world(program)


@pytest.mark.parametrize("claimed", [0, -1, 10**9 + 1, 2**63 - 1])
def test_a_generation_that_cannot_be_is_not_believed(claimed: int) -> None:
    """If it were written, no start could read the directory."""

    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        await replaced(world, claimed)
        with pytest.raises(WrongClusterError, match="claims"):
            await world.client.register(wire.RegisterRequest(broker_id=1))
        await asyncio.sleep(2)
        assert world.client.quorum_generation == 1

    in_a_world(program)


# A new voter.


class Told:
    """A node that answers as the test says."""

    def __init__(self, generation: int, leader: int = -1) -> None:
        self.answer = DescribeNodeResponse(
            cluster_id=CLUSTER,
            quorum_generation=generation,
            leader_id=leader,
            leader_directory_id=b"d" * 16,
            leader_endpoint="l:1",
        )

    def handlers(self) -> dict[Any, Any]:
        return {DESCRIBE_NODE: self.describe}

    async def describe(self, request: Any, peer: Any) -> DescribeNodeResponse:
        return self.answer


@pytest.mark.parametrize(
    ("told", "joins"),
    [
        ([Told(1, leader=101), Told(2, leader=100)], 2),
        ([Told(1, leader=101), Told(2)], 0),  # the newest has no leader: it is waited for
        ([Told(2), Told(2, leader=100), Told(1, leader=101)], 2),
        ([Told(2**62, leader=7), Told(1, leader=101)], 1),
        ([Told(0)], 0),
    ],
)
async def test_a_new_voter_joins_the_newest_generation(told: list[Told], joins: int) -> None:
    """The lost voters may have come back and elected a leader."""
    network = InProcessNetwork()
    servers = [f"n{number}:1" for number in range(len(told))]
    for server, node in zip(servers, told, strict=True):
        await network.serve(server, [node])
    assert await ask_generation(network, servers, CLUSTER) == joins


# A broker's directories.


async def test_a_broker_starts_with_the_newest_generation_of_its_directories() -> None:
    disk = await formatted(("/d1", D1), ("/d2", D2))
    await write_identity(disk, "/d2", Identity("c1", 3, D2, 4))
    held = await LogDirectories.open(config("/d1", "/d2"), disk)
    assert held.quorum_generation == 4


GONE = b"g" * 16


def partition_event(topic_id: bytes, *replicas: int) -> ev.MetadataEvent:
    return ev.MetadataEvent(
        partition=ev.Partition(
            topic_id=topic_id,
            partition=0,
            replicas=[ev.Replica(broker_id=b, directory_id=directory_id(b)) for b in replicas],
            isr=replicas,
            leader=replicas[0],
            recovered_epoch=-1,
        )
    )


def topic_event(topic_id: bytes, name: str) -> ev.MetadataEvent:
    return ev.MetadataEvent(topic=ev.Topic(topic_id=topic_id, name=name))


async def recover(world: partition_world.World, survivor: MetadataImage) -> list[int]:
    """The quorum begins anew from an image of long ago; return what brokers remembered of it."""
    remembered: list[int] = []
    voter = VoterImage(100, b"v" * 16, "v:1")
    image = recovered(survivor, voter, epoch_seen=max(survivor.epoch, 0))
    delta = MetadataDelta.between(world.image, image)
    delta.generation = 2
    world.image = image

    async def remember(generation: int) -> None:
        assert not remembered, "before anything is carried out, and once"
        remembered.append(generation)

    for broker in world.running.values():
        remembered.clear()
        broker.quorum_generation = 2
        broker.replicas.on_generation = remember
        await broker.reconciler.apply(delta, image)
    return remembered


async def metadata_of(broker: partition_world.Broker, name: str) -> PartitionMetadata | None:
    return PartitionMetadata.decode(await read_whole(broker.disk, f"/data/{name}/{METADATA_FILE}"))


async def test_what_a_newer_history_does_not_know_or_places_elsewhere_is_kept() -> None:
    """It may be the last copy: it is closed and listed, neither deleted nor a stray."""
    world = partition_world.World(brokers=2)
    await world.start(min_isr=1)
    before = world.image
    await world.commit(topic_event(GONE, "gone"), partition_event(GONE, 1, 2))
    first = world.brokers[1]
    await first.produce(b"a")
    gone = first.replicas.get(GONE, 0)
    await gone.as_leader().queue.produce(
        partition_world.batch_of(b"b"),
        acks=1,
        timeout_ms=1000,
        appended=lambda: None,
    )
    # The survivor had placed the topic that it knows on the other broker alone.
    topic = before.topics[TOPIC_ID]
    moved = replace_partition(before, topic)
    names = await first.disk.list("/data")

    assert await recover(world, moved) == [2]
    assert list(first.replicas.all()) == []
    assert await first.disk.list("/data") == names
    assert (await metadata_of(first, "gone-0")) == PartitionMetadata(GONE, "cluster", 1)

    # A topic of the same name in the new history finds the place free; the old one stays beside.
    new = b"n" * 16
    await world.commit(topic_event(new, "gone"), partition_event(new, 1))
    fresh = first.replicas.get(new, 0)
    assert fresh.log_end_offset == 0
    kept = f"gone-0.{GONE.hex()}.1{KEPT}"
    assert kept in await first.disk.list("/data")
    first.registered(world.image.brokers[1].epoch)
    await world.fence(1, fenced=False)
    await fresh.as_leader().queue.produce(
        partition_world.batch_of(b"c"),
        acks=1,
        timeout_ms=1000,
        appended=lambda: None,
    )
    assert await metadata_of(first, "gone-0") == PartitionMetadata(new, "cluster", 2)
    await world.stop()

    # At the next start it is no stray either.
    await write_identity(first.disk, "/data", Identity("cluster", 3, directory_id(1), 2))
    held = await LogDirectories.open(config("/data"), first.disk)
    await Strays(first.disk, held, "cluster", 2).set_aside(world.image, 1)
    assert {kept, f"{TOPIC}-0"} <= set(await first.disk.list("/data"))


def replace_partition(image: MetadataImage, topic: Any) -> MetadataImage:
    partition = topic.partitions[0]
    elsewhere = replace(
        partition, replicas=partition.replicas[1:], isr=(2,), leader=2, elr=(), last_isr=()
    )
    changed = replace(topic, partitions=(elsewhere,))
    return replace(image, topics=image.topics.insert(topic.id, changed))


async def test_what_a_newer_history_places_here_is_taken_over_with_its_records() -> None:
    """Its directory names the generation from the next opening on: later it may be a stray."""
    world = partition_world.World(brokers=2)
    await world.start(min_isr=1)
    first = world.brokers[1]
    await first.produce(b"a")
    await recover(world, world.image)
    assert await first.stored() == [b"a"]
    assert first.partition.role is None, "no replica leads yet"
    assert await metadata_of(first, f"{TOPIC}-0") == PartitionMetadata(TOPIC_ID, "cluster", 1)
    await first.stop(clean=True)
    await first.start()
    assert await metadata_of(first, f"{TOPIC}-0") == PartitionMetadata(TOPIC_ID, "cluster", 2)
    assert await first.stored() == [b"a"]
    await world.stop()


def test_what_was_to_be_removed_stays_when_the_history_ends() -> None:
    """The new history may count on a replica that was a stray in the old one."""

    async def program(_: SimulatedLoop) -> None:
        world = partition_world.World(brokers=1)
        await world.start(min_isr=1)
        only = world.brokers[1]
        await only.disk.make_directory("/data/u-0")
        stray = PartitionMetadata(GONE, "cluster", 1)
        await replace_whole(only.disk, f"/data/u-0/{METADATA_FILE}", stray.encode())
        await world.commit(topic_event(b"u" * 16, "u"), partition_event(b"u" * 16, 1))
        name = f"u-0.{GONE.hex()}.stray"
        assert name in await only.disk.list("/data")
        await recover(world, world.image)
        await asyncio.sleep(only.replicas.config.stray_delete_delay_ms / 500)
        assert name in await only.disk.list("/data")
        await world.stop()

    simulate(program, seed=1)


async def test_the_identity_of_every_directory_follows(tmp_path: Any) -> None:
    disk = await formatted(("/d1", D1), ("/d2", D2))
    held = await LogDirectories.open(config("/d1", "/d2"), disk)
    await held.learn_generation(2)
    for path in ("/d1", "/d2"):
        assert (await read_identity(disk, path)).quorum_generation == 2


def test_two_who_learn_of_a_generation_at_once_do_not_cost_the_directories() -> None:
    """A registration and the image name it at the same moment, and the disk is slow."""

    async def program(_: SimulatedLoop) -> None:
        disk = SimulatedDisk(random.Random(1), latency_max=0.1)
        for path, directory in (("/d1", D1), ("/d2", D2)):
            await write_identity(disk, path, Identity("c1", 3, directory, 1))
        held = await LogDirectories.open(config("/d1", "/d2"), disk)
        await asyncio.gather(held.learn_generation(2), held.learn_generation(2))
        assert [one.path for one in held.working] == ["/d1", "/d2"]
        for path in ("/d1", "/d2"):
            assert (await read_identity(disk, path)).quorum_generation == 2

    simulate(program, seed=1)


@pytest.mark.parametrize("generation", [1, 2])
async def test_a_removal_is_finished_at_the_next_start_only_in_the_history_that_decided_it(
    generation: int,
) -> None:
    """The topic may exist again: the survivor may never have heard of its removal."""
    world = partition_world.World(brokers=1)
    await world.start(min_isr=1)
    only = world.brokers[1]
    name = f"u-0.{GONE.hex()}-delete"
    await only.disk.make_directory(f"/data/{name}")
    metadata = PartitionMetadata(GONE, "cluster", generation)
    await replace_whole(only.disk, f"/data/{name}/{METADATA_FILE}", metadata.encode())
    await recover(world, world.image)
    await only.stop(clean=True)
    await only.start()
    assert (name in await only.disk.list("/data")) is (generation == 1)
    await world.stop()


def test_what_the_new_history_itself_removes_goes_though_the_old_one_wrote_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    async def program(_: SimulatedLoop) -> None:
        world = partition_world.World(brokers=1)
        await world.start(min_isr=1)
        only = world.brokers[1]
        await only.produce(b"a")
        await recover(world, world.image)
        monkeypatch.setattr(only.replicas.files, "_remove", never)
        await world.commit(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=TOPIC_ID)))
        only.replicas.files.keep_all()  # the process dies before it is gone
        name = f"{TOPIC}-0.{TOPIC_ID.hex()}-delete"
        assert await metadata_of(only, name) == PartitionMetadata(TOPIC_ID, "cluster", 2)
        await only.stop(clean=True)
        await only.start()
        assert name not in await only.disk.list("/data")
        await world.stop()

    simulate(program, seed=1)
