"""The brokers' door to the quorum: it finds the controller, follows the image, asks once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from quorate.errors import (
    DuplicateBrokerError,
    InvalidRequestError,
    NetworkError,
    NotControllerError,
    OutcomeUnknownError,
    OverloadedError,
    QuorumUnavailableError,
    RequestTimedOutError,
    to_wire,
)
from quorate.net.methods import CREATE_TOPICS
from quorate.net.network import Handler, Method, Peer
from quorate.net.principal import ANONYMOUS
from quorate.v1.admin_pb2 import CreatedTopic, CreateTopicsRequest, CreateTopicsResponse
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.client.forwarding import ForwardLimits
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.watch import Watch
from quorate_quorum.methods import (
    ALLOCATE_PRODUCER_IDS,
    ALTER_PARTITIONS,
    FORWARD,
    HEARTBEAT,
    REGISTER,
)
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.identify import NodeService
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1.events_pb2 import Feature, MetadataEvent, Voter, Voters
from quorate_testing.in_process import InProcessListener, InProcessNetwork
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.fake_raft import AnyFeature, FakeRaft

CLUSTER = "c1"
NOT_CONTROLLER = to_wire(NotControllerError("not me"))


def feature(level: int) -> MetadataEvent:
    return MetadataEvent(feature=Feature(name="x", level=level))


class FakeVoter:
    """A real Watch over a fake Raft, and a controller that does as the test says."""

    def __init__(self, network: InProcessNetwork, node_id: int, generation: int = 1) -> None:
        self.network = network
        self.node_id = node_id
        self.endpoint = f"v{node_id}:9093"
        self.raft = FakeRaft(self, node_id=node_id, endpoint=self.endpoint)
        self.watch = Watch(CLUSTER, generation, self.raft, self.raft.epoch_at)
        self.asked: list[str] = []
        self.beats: list[wire.HeartbeatRequest] = []
        self.forwarded: Callable[[wire.ForwardRequest], Any] = self._created
        self.registered = wire.RegisterResponse(broker_epoch=5, quorum_generation=generation)
        self.is_mute = False
        self._listener: InProcessListener | None = None
        self.raft.format()

    async def start(self) -> FakeVoter:
        self._listener = await self.network.serve(self.endpoint, [self, self.watch])
        return self

    def kill(self) -> None:
        assert self._listener is not None
        self._listener.kill()

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {
            REGISTER: self.register,
            FORWARD: self.forward,
            HEARTBEAT: self.heartbeat,
            ALTER_PARTITIONS: self.alter,
            ALLOCATE_PRODUCER_IDS: self.allocate,
        }

    # -- RaftListener

    def committed(self, batches: Sequence[bytes], high_watermark: int) -> None:
        if hasattr(self, "watch"):
            self.watch.wake()

    def became_leader(self, epoch: int, handed_over_for_silence: bool) -> None: ...
    def lost_leadership(self, epoch: int) -> None: ...
    def leader_known(self, leader_id: int, epoch: int, endpoint: str) -> None:
        self.watch.wake()

    # -- Controller

    def _hint(self) -> dict[str, Any]:
        raft = self.raft
        return {
            "error": NOT_CONTROLLER,
            "leader_id": raft.leader_id,
            "leader_endpoint": raft.leader_endpoint,
        }

    async def register(self, request: wire.RegisterRequest, peer: Peer) -> wire.RegisterResponse:
        self.asked.append("register")
        if not self.raft.is_leader:
            return wire.RegisterResponse(**self._hint())
        return self.registered

    async def forward(
        self, requests: AsyncIterator[wire.ForwardRequests], peer: Peer
    ) -> AsyncIterator[wire.ForwardResponses]:
        first = True
        async for message in requests:
            assert message.cluster_id == (CLUSTER if first else "")
            first = False
            for request in message.requests:
                self.asked.append("forward")
                if self.raft.is_leader:
                    answer = await self.forwarded(request)
                else:
                    answer = wire.ForwardResponse(**self._hint())
                if answer is not None:
                    answer.request_id = answer.request_id or request.request_id
                    yield wire.ForwardResponses(responses=[answer])

    async def _created(self, request: wire.ForwardRequest) -> wire.ForwardResponse:
        asked = CREATE_TOPICS.decode_request(request.request)
        self.raft.propose(self.raft.epoch, [feature(len(asked.topics))])
        made = CreateTopicsResponse(topics=[CreatedTopic(name=t.name) for t in asked.topics])
        return wire.ForwardResponse(
            response=made.SerializeToString(), apply_offset=self.raft.log_end_offset
        )

    async def heartbeat(
        self, requests: AsyncIterator[wire.HeartbeatRequest], peer: Peer
    ) -> AsyncIterator[wire.HeartbeatResponse]:
        self.asked.append("heartbeat")
        async for request in requests:
            if not self.raft.is_leader:
                yield wire.HeartbeatResponse(**self._hint())
                return
            self.beats.append(request)
            if self.is_mute:
                await asyncio.sleep(1000)
            yield wire.HeartbeatResponse(
                leader_id=self.node_id,
                leader_endpoint=self.endpoint,
                epoch=self.raft.epoch,
                high_watermark=self.raft.high_watermark,
                interval_ms=500,
                fenced=True,
            )

    async def alter(
        self, requests: AsyncIterator[wire.AlterPartitionsRequest], peer: Peer
    ) -> AsyncIterator[wire.AlterPartitionsResponse]:
        self.asked.append("alter")
        held: list[wire.AlterPartitionsRequest] = []
        async for request in requests:
            if not self.raft.is_leader:
                yield wire.AlterPartitionsResponse(
                    error=NOT_CONTROLLER, request_id=request.request_id
                )
                continue
            held.append(request)
            if len(held) == 2:  # answered in the other order
                for late in reversed(held):
                    yield wire.AlterPartitionsResponse(
                        request_id=late.request_id,
                        partitions=[
                            wire.AlteredPartition(partition=p.partition) for p in late.partitions
                        ],
                    )
                held.clear()

    async def allocate(
        self, request: wire.AllocateProducerIdsRequest, peer: Peer
    ) -> wire.AllocateProducerIdsResponse:
        if not self.raft.is_leader:
            return wire.AllocateProducerIdsResponse(**self._hint())
        return wire.AllocateProducerIdsResponse(first_producer_id=3000, count=1000)


class World:
    """Voters 100, 101, 102 on one network; a client to them."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.network = InProcessNetwork()
        self.voters: list[FakeVoter] = []
        self.failures: list[str] = []
        self.client: QuorumClient

    async def start(self, count: int = 3, leader: int = 0) -> World:
        self.voters = [await FakeVoter(self.network, 100 + n).start() for n in range(count)]
        environment = Environment(
            network=self.network,
            disk=None,  # type: ignore[arg-type]
            chance=random.Random(7),
            features=AnyFeature(),
        )
        self.client = QuorumClient(
            environment,
            [voter.endpoint for voter in self.voters],
            cluster_id=CLUSTER,
            node_id=1,
            fail=self.failures.append,
        )
        self.lead(leader, 1)
        return self

    def lead(self, index: int, epoch: int) -> FakeVoter:
        leader = self.voters[index]
        for voter in self.voters:
            if voter is not leader:
                voter.raft.lose(leader.node_id, epoch, leader.endpoint)
        leader.raft.lead(epoch)
        self.replicate(leader)
        return leader

    def replicate(self, leader: FakeVoter) -> None:
        for voter in self.voters:
            if voter is not leader:
                voter.raft.follow(leader.raft)


def in_a_world(
    program: Callable[[World], Coroutine[Any, Any, None]], *, count: int = 3, seed: int = 1
) -> None:
    async def run(loop: SimulatedLoop) -> None:
        world = await World(loop).start(count)
        try:
            await asyncio.wait_for(program(world), 50)
        finally:
            await world.client.stop()
        assert world.failures == []

    simulate(run, seed=seed, time_max_s=100)


class Recorder:
    def __init__(self) -> None:
        self.offsets: list[int] = []

    def image_changed(self, delta: MetadataDelta, image: MetadataImage) -> None:
        assert delta.image.offset == (self.offsets[-1] if self.offsets else 0)
        self.offsets.append(image.offset)


# -- watch


def test_the_image_follows_the_log_and_listeners_see_every_batch() -> None:
    async def program(world: World) -> None:
        recorder = Recorder()
        world.client.subscribe(recorder)
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        leader = world.voters[0]
        leader.raft.propose(1, [feature(1), feature(2)])
        await asyncio.sleep(0)
        world.replicate(leader)
        await world.client.wait_applied(4, timeout_ms=1000)
        assert recorder.offsets == [1, 2, 4]
        assert world.client.image.features["x"] == 2
        assert (world.client.leader_id, world.client.leader_endpoint) == (100, "v100:9093")
        assert world.client.quorum_generation == 1

    in_a_world(program)


def test_a_watch_whose_voter_is_killed_goes_on_at_another() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        world.voters[2].kill()
        world.voters[1].kill()
        world.voters[0].raft.propose(1, [feature(1)])
        await world.client.wait_applied(3, timeout_ms=2000)

    in_a_world(program)


def test_a_silent_watch_is_dropped_after_a_second_and_opened_elsewhere() -> None:
    async def program(world: World) -> None:
        silent = world.voters[1:]
        for voter in silent:  # they stand still: no frame, no end
            voter.watch._config = type(voter.watch._config)(silence_max_ms=1_000_000)
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        world.voters[0].raft.propose(1, [feature(1)])
        await world.client.wait_applied(3, timeout_ms=8000)

    for seed in range(3):
        in_a_world(program, seed=seed)


def test_what_the_watcher_needs_for_a_frame_is_not_the_silence_of_the_voter() -> None:
    """Else a snapshot that takes longer than that to load is begun again and again."""

    async def program(world: World) -> None:
        client = world.client
        take = client._take_frame
        frames = 0

        async def slowly(frame: Any) -> None:
            nonlocal frames
            frames += 1
            await take(frame)
            await asyncio.sleep(1.5 * client._config.watch_silence_max_ms / 1000)

        client._take_frame = slowly  # type: ignore[method-assign]
        connected = client._connections.get
        opened: list[str] = []

        def connect(endpoint: str) -> Any:
            opened.append(endpoint)
            return connected(endpoint)

        client._connections.get = connect  # type: ignore[method-assign]
        await client.start()
        await asyncio.sleep(20)
        assert frames > 5
        assert len(opened) == 1, "one watch"

    in_a_world(program)


def test_a_voter_that_lags_behind_what_heartbeats_tell_is_left() -> None:
    async def program(world: World) -> None:
        client = world.client
        await client.start()
        await client.wait_applied(2, timeout_ms=1000)
        stream = client.heartbeat(wire.HeartbeatRequest, lambda answer: None)
        world.voters[0].raft.propose(1, [feature(1)])  # the two others do not follow
        await client.wait_applied(3, timeout_ms=10_000)
        await stream.close()

    in_a_world(program)


def test_a_watcher_that_diverges_reloads_and_its_image_never_goes_back() -> None:
    async def program(world: World) -> None:
        recorder = Recorder()
        world.client.subscribe(recorder)
        world.voters[0].raft.propose(1, [feature(1)])
        await asyncio.sleep(0)
        world.replicate(world.voters[0])
        await world.client.start()
        await world.client.wait_applied(3, timeout_ms=1000)
        for voter in world.voters:  # another history of the same length, then longer
            voter.kill()
        world.voters = [await FakeVoter(world.network, 100 + n).start() for n in range(3)]
        leader = world.lead(0, 3)
        leader.raft.propose(3, [feature(5)])
        await asyncio.sleep(0)
        world.replicate(leader)
        await asyncio.sleep(3)
        leader.raft.propose(3, [feature(6)])
        await asyncio.sleep(0)
        world.replicate(leader)
        await world.client.wait_applied(4, timeout_ms=5000)
        assert world.client.image.features["x"] == 6
        assert recorder.offsets == sorted(recorder.offsets)

    in_a_world(program)


def test_an_event_that_contradicts_the_image_stops_the_node() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        twice = MetadataEvent(voters=Voters(voters=[Voter(id=1), Voter(id=1)]))
        world.voters[0].raft.propose(1, [twice])
        await asyncio.sleep(0.01)
        world.replicate(world.voters[0])
        await asyncio.sleep(0.1)
        assert len(world.failures) == 1
        assert world.client.image.offset == 2
        world.failures.clear()

    in_a_world(program)


def test_waiting_for_an_offset_ends_at_the_timeout() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        with pytest.raises(RequestTimedOutError, match="100 ms"):
            await world.client.wait_applied(1000, timeout_ms=100)

    in_a_world(program)


# -- register


@pytest.mark.parametrize("leader", [0, 1, 2])
def test_registration_finds_the_controller_without_a_watch(leader: int) -> None:
    async def program(world: World) -> None:
        world.lead(leader, 2)
        answer = await world.client.register(wire.RegisterRequest(broker_id=1))
        assert answer.broker_epoch == 5
        assert world.client.quorum_generation == 1

    in_a_world(program)


def test_registration_waits_for_a_controller() -> None:
    async def program(world: World) -> None:
        for voter in world.voters:
            voter.raft.lose(-1, 2)
        asking = asyncio.ensure_future(world.client.register(wire.RegisterRequest(broker_id=1)))
        await asyncio.sleep(5)
        assert not asking.done()
        assert sum(len(voter.asked) for voter in world.voters) < 60, "with backoff"
        world.lead(1, 3)
        assert (await asking).broker_epoch == 5

    in_a_world(program)


def test_registration_tells_what_the_controller_says_for_good() -> None:
    async def program(world: World) -> None:
        error = to_wire(DuplicateBrokerError("another process holds broker 1"))
        world.voters[0].registered = wire.RegisterResponse(error=error)
        with pytest.raises(DuplicateBrokerError, match="another process"):
            await world.client.register(wire.RegisterRequest(broker_id=1))

    in_a_world(program)


# -- forward


def created(name: str = "orders") -> CreateTopicsRequest:
    request = CreateTopicsRequest()
    request.topics.add(name=name)
    return request


async def forward(world: World, timeout_ms: int = 5000) -> CreateTopicsResponse:
    return await world.client.forward(
        CREATE_TOPICS, created(), principal=ANONYMOUS, timeout_ms=timeout_ms
    )


def test_a_forwarded_call_returns_when_its_effect_is_in_the_image() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        answering = asyncio.ensure_future(forward(world))
        await asyncio.sleep(0.2)
        world.replicate(world.voters[0])
        answer = await answering
        assert [topic.name for topic in answer.topics] == ["orders"]
        assert world.client.image.features["x"] == 1

    in_a_world(program)


def test_a_forwarded_call_is_sent_once_and_its_outcome_unknown_without_an_answer() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)

        async def dies(request: wire.ForwardRequest) -> wire.ForwardResponse:
            world.voters[0].kill()
            await asyncio.sleep(1)
            raise AssertionError

        world.voters[0].forwarded = dies
        with pytest.raises(OutcomeUnknownError, match="CreateTopics"):
            await forward(world)
        assert [voter.asked.count("forward") for voter in world.voters] == [1, 0, 0]

    in_a_world(program)


def test_a_forwarded_call_gives_up_when_no_controller_is_found() -> None:
    async def program(world: World) -> None:
        for voter in world.voters:
            voter.raft.lose(-1, 2)
        with pytest.raises(QuorumUnavailableError, match=r"nothing was done: .* v101:9093: not me"):
            await forward(world, timeout_ms=500)

    in_a_world(program)


def test_a_call_to_a_port_where_nobody_listens_is_tried_elsewhere() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        world.voters[0].kill()
        asking = asyncio.ensure_future(forward(world, timeout_ms=3000))
        await asyncio.sleep(0.2)
        world.lead(1, 2)
        assert (await asking).topics[0].name == "orders"
        assert world.voters[1].asked.count("forward") >= 1

    in_a_world(program)


def test_what_is_pending_is_answered_by_the_old_controller_when_the_leader_moves() -> None:
    """The stream is half-closed, not broken: an answer that was on its way still counts."""

    async def program(world: World) -> None:
        old = world.voters[0]
        release = asyncio.Event()

        async def late(request: wire.ForwardRequest) -> wire.ForwardResponse:
            await release.wait()
            return await old._created(request)

        old.forwarded = late
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        answering = asyncio.ensure_future(forward(world))
        await asyncio.sleep(0.1)
        old.forwarded = old._created
        world.lead(1, 2)
        await asyncio.sleep(0.5)
        assert world.client.leader_id == 101
        assert (await forward(world)).topics[0].name == "orders"
        assert not answering.done()
        answer = wire.ForwardResponse(response=CreateTopicsResponse().SerializeToString())
        old._created = lambda request: _soon(answer)  # type: ignore[method-assign]
        release.set()
        assert await answering == CreateTopicsResponse()
        await asyncio.sleep(0.1)
        names = [task.get_name() for task in asyncio.all_tasks()]
        assert names.count("quorum-forward") == 1, "the old stream ended with its last answer"

    in_a_world(program)


async def _soon(answer: wire.ForwardResponse) -> wire.ForwardResponse:
    return answer


def test_a_sent_call_without_an_answer_in_time_is_unknown_and_a_stranger_answers_nobody() -> None:
    """R18: an answer to a call that has gone is no answer to the next one."""

    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        leader = world.voters[0]
        asked: list[int] = []

        async def stray(request: wire.ForwardRequest) -> wire.ForwardResponse:
            asked.append(request.request_id)
            return wire.ForwardResponse(request_id=1 if len(asked) == 2 else 12345)

        leader.forwarded = stray
        for _ in range(3):  # the second answer has the id of the first call, which has gone
            with pytest.raises(OutcomeUnknownError, match="within"):
                await forward(world, timeout_ms=200)
            await asyncio.sleep(0.3)  # the watch tells again who leads
        assert asked == [1, 2, 3]

    in_a_world(program)


def test_calls_share_a_stream_and_each_gets_its_own_answer() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)

        async def named(request: wire.ForwardRequest) -> wire.ForwardResponse:
            asked = CREATE_TOPICS.decode_request(request.request)
            made = CreateTopicsResponse(topics=[CreatedTopic(name=t.name) for t in asked.topics])
            return wire.ForwardResponse(response=made.SerializeToString())

        world.voters[0].forwarded = named
        answers = await asyncio.gather(
            *(
                world.client.forward(
                    CREATE_TOPICS, created(f"t{n}"), principal=ANONYMOUS, timeout_ms=5000
                )
                for n in range(100)
            )
        )
        assert [answer.topics[0].name for answer in answers] == [f"t{n}" for n in range(100)]

    in_a_world(program)


def test_calls_under_way_are_bounded_in_number_and_bytes() -> None:
    async def program(world: World) -> None:
        for voter in world.voters:
            voter.raft.lose(-1, 2)
        world.client._forwarding._limits = ForwardLimits(
            in_flight_max=2, bytes_max=100, request_bytes_max=60
        )
        with pytest.raises(InvalidRequestError, match="at most 60"):
            await world.client.forward(
                CREATE_TOPICS, created("x" * 80), principal=ANONYMOUS, timeout_ms=100
            )
        waiting = [asyncio.ensure_future(forward(world, timeout_ms=300)) for _ in range(2)]
        await asyncio.sleep(0.1)
        with pytest.raises(OverloadedError, match="2 calls"):
            await forward(world)
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(answer, QuorumUnavailableError)
        large = created("x" * 40)
        asking = asyncio.ensure_future(
            world.client.forward(CREATE_TOPICS, large, principal=ANONYMOUS, timeout_ms=300)
        )
        again = asyncio.ensure_future(
            world.client.forward(CREATE_TOPICS, large, principal=ANONYMOUS, timeout_ms=300)
        )
        await asyncio.sleep(0.1)
        with pytest.raises(OverloadedError):
            await forward(world)
        await asyncio.gather(asking, again, return_exceptions=True)

    in_a_world(program)


def test_a_call_that_waits_for_a_controller_is_sent_as_soon_as_one_is_known() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        for voter in world.voters:
            voter.raft.lose(-1, 2)
        world.client._config = replace(world.client._config, backoff_min_ms=8000)
        world.client._forget_leader("v100:9093")
        asking = asyncio.ensure_future(forward(world, timeout_ms=9000))
        await asyncio.sleep(0.5)
        before = world.loop.time()
        world.lead(1, 3)
        while not world.voters[1].asked.count("forward"):
            await asyncio.sleep(0.01)
            assert world.loop.time() < before + 2
        await asking

    in_a_world(program)


# -- heartbeat


def state(applied: int = 3) -> wire.HeartbeatRequest:
    return wire.HeartbeatRequest(broker_id=1, broker_epoch=5, applied_offset=applied)


def test_heartbeats_are_sent_at_the_interval_and_when_pushed() -> None:
    async def program(world: World) -> None:
        answers: list[wire.HeartbeatResponse] = []
        stream = world.client.heartbeat(state, answers.append)
        await asyncio.sleep(2.2)
        beats = world.voters[0].beats
        assert 4 <= len(beats) <= 6
        assert {beat.cluster_id for beat in beats} == {CLUSTER}
        before = len(beats)
        stream.push()
        await asyncio.sleep(0.001)
        assert len(beats) == before + 1
        assert answers[-1].fenced
        await stream.close()

    in_a_world(program)


def test_heartbeats_move_to_a_new_controller_as_soon_as_the_watch_tells() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        stream = world.client.heartbeat(state, lambda answer: None)
        await asyncio.sleep(1)
        world.voters[0].is_mute = True  # as by SIGSTOP: nothing breaks
        await asyncio.sleep(0.6)
        world.lead(1, 2)
        await asyncio.sleep(0.3)
        assert world.voters[1].beats, "well before the old one's silence is over"
        await stream.close()

    in_a_world(program)


def test_heartbeats_leave_a_controller_that_is_silent() -> None:
    async def program(world: World) -> None:
        stream = world.client.heartbeat(state, lambda answer: None)
        await asyncio.sleep(1)
        asked = world.voters[0].asked.count("heartbeat")
        world.voters[0].is_mute = True
        await asyncio.sleep(3)
        assert world.voters[0].asked.count("heartbeat") > asked
        await stream.close()

    in_a_world(program)


def test_heartbeats_survive_a_killed_controller() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        stream = world.client.heartbeat(state, lambda answer: None)
        await asyncio.sleep(1)
        world.voters[0].kill()
        await asyncio.sleep(0.5)
        world.lead(2, 2)
        await asyncio.sleep(0.6)
        assert world.voters[2].beats
        tries = sum(voter.asked.count("heartbeat") for voter in world.voters)
        assert tries < 20, "with backoff"
        await stream.close()

    in_a_world(program)


def test_a_fault_in_a_callback_stops_the_node() -> None:
    async def program(world: World) -> None:
        def answered(answer: wire.HeartbeatResponse) -> None:
            raise ValueError("a bug")

        stream = world.client.heartbeat(state, answered)
        await asyncio.sleep(1)
        assert "a bug" in world.failures.pop()
        await stream.close()

    in_a_world(program)


# -- alter partitions


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


# -- producer ids


def test_producer_ids_come_in_blocks() -> None:
    async def program(world: World) -> None:
        assert await world.client.allocate_producer_ids(1, 5) == range(3000, 4000)

    in_a_world(program)


def test_producer_ids_are_asked_for_a_bounded_time() -> None:
    async def program(world: World) -> None:
        for voter in world.voters:
            voter.kill()
        with pytest.raises(
            QuorumUnavailableError, match=r"gave producer ids within .* nobody listens at v101:9093"
        ):
            await world.client.allocate_producer_ids(1, 5)
        assert world.loop.time() < 15

    in_a_world(program)


def test_a_broker_with_the_address_of_a_broker_for_a_voter_says_so_in_its_log() -> None:
    async def program(world: World) -> None:
        for number, one in enumerate(world.voters):
            one.kill()
            broker = NodeService("broker", "c1", number, b"run", False)
            await world.network.serve(one.endpoint, [broker])
        with capture_logs() as logs:
            registering = asyncio.ensure_future(world.client.register(wire.RegisterRequest()))
            await asyncio.sleep(1)
            registering.cancel()
            await asyncio.wait([registering])
        said = {log["reason"] for log in logs if log["event"] == "no_voter_at_bootstrap_server"}
        assert any("v100:9093 is the address of broker 0 of cluster c1" in one for one in said)

    in_a_world(program)
