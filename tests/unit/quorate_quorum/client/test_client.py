"""Calls of a broker to the controller: it finds it, and asks until it is answered, or once."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from quorate.errors import (
    DuplicateBrokerError,
    InvalidRequestError,
    OutcomeUnknownError,
    OverloadedError,
    QuorumUnavailableError,
    to_wire,
)
from quorate.net.methods import CREATE_TOPICS
from quorate.net.principal import ANONYMOUS
from quorate.v1.admin_pb2 import CreatedTopic, CreateTopicsRequest, CreateTopicsResponse
from quorate_quorum.node.identify import NodeService
from quorate_quorum.v1 import controller_pb2 as wire
from tests.unit.quorate_quorum.client.builders import (
    World,
    in_a_world,
)


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
    """The answer to a call that was given up is no answer to a later call (rule honest-unknown)."""

    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        leader = world.voters[0]
        asked: list[int] = []

        async def stray(request: wire.ForwardRequest) -> wire.ForwardResponse:
            asked.append(request.request_id)
            return wire.ForwardResponse(request_id=1 if len(asked) == 2 else 12345)

        leader.forwarded = stray
        for _ in range(3):  # the second answer has the id of the first call, which was given up
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

    in_a_world(
        program,
        forward_in_flight_max=2,
        forward_queued_max_bytes=100,
        forward_request_max_bytes=60,
    )


def test_a_call_that_waits_for_a_controller_is_sent_as_soon_as_one_is_known() -> None:
    async def program(world: World) -> None:
        await world.client.start()
        await world.client.wait_applied(2, timeout_ms=1000)
        for voter in world.voters:
            voter.raft.lose(-1, 2)
        world.client._leader.forget("v100:9093")
        asking = asyncio.ensure_future(forward(world, timeout_ms=9000))
        await asyncio.sleep(0.5)
        before = world.loop.time()
        world.lead(1, 3)
        while not world.voters[1].asked.count("forward"):
            await asyncio.sleep(0.01)
            assert world.loop.time() < before + 2
        await asking

    in_a_world(program, reconnect_backoff_ms=8000, reconnect_backoff_max_ms=8000)


def test_producer_ids_come_in_blocks() -> None:
    async def program(world: World) -> None:
        assert await world.client.allocate_producer_ids(1, 5) == range(3000, 4000)

    in_a_world(program)


def test_producer_ids_are_asked_for_a_bounded_time() -> None:
    async def program(world: World) -> None:
        for voter in world.voters:
            voter.kill()
        with pytest.raises(
            QuorumUnavailableError,
            match=r"AllocateProducerIds within .* no server listens at v101:9093",
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
