"""The Controller service: which callers it serves, how answers leave, bounds of requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from quorate.errors import (
    FencedError,
    InvalidRequestError,
    NotControllerError,
    OutcomeUnknownError,
    OverloadedError,
    PeerError,
    RequestTimedOutError,
    UnsupportedError,
    WrongClusterError,
    from_wire,
    raise_if_error,
)
from quorate.net.methods import (
    CREATE_TOPICS,
    DELETE_TOPICS,
    DESCRIBE_QUORUM,
    METADATA,
    TRANSFER_LEADERSHIP,
)
from quorate.net.principal import ANONYMOUS
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.driver.service import answered_each
from quorate_quorum.methods import ALLOCATE_PRODUCER_IDS, ALTER_PARTITIONS, HEARTBEAT
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.unit.quorate_quorum.controller.builders import (
    CLUSTER,
    World,
    beats,
    in_a_world,
)


def test_other_clusters_and_unknown_methods_are_refused() -> None:
    async def program(world: World) -> None:
        answer = await world.forward(METADATA.path, b"")
        assert isinstance(from_wire(answer.error), UnsupportedError)
        with pytest.raises(WrongClusterError, match="other"):
            await world.forward_all([wire.ForwardRequests(cluster_id="other")])
        answer = await world.forward(CREATE_TOPICS.path, b"", deadline_ms=0)
        assert isinstance(from_wire(answer.error), RequestTimedOutError)
        answer = await world.forward(CREATE_TOPICS.path, b"\xff\xff\xff")
        assert isinstance(from_wire(answer.error), InvalidRequestError)

    in_a_world(program)


def test_a_voter_that_does_not_lead_says_who_does() -> None:
    async def program(world: World) -> None:
        world.raft.lose(101, 2, "v101:9093")
        answer = await world.forward(CREATE_TOPICS.path, b"")
        assert isinstance(from_wire(answer.error), NotControllerError)
        assert (answer.leader_id, answer.leader_endpoint) == (101, "v101:9093")
        async with aclosing(world.connection.stream(HEARTBEAT, beats())) as stream:
            beat = await anext(aiter(stream))
        assert isinstance(from_wire(beat.error), NotControllerError)
        assert beat.leader_endpoint == "v101:9093"

    in_a_world(program)


def test_a_forwarded_call_that_does_not_commit_in_time_is_unknown() -> None:
    async def program(world: World) -> None:
        await world.unfenced(1)
        world.raft.commits_soon = False
        request = admin.CreateTopicsRequest()
        request.topics.add(name="t", topic_id=b"t" * 16, num_partitions=1, replication_factor=-1)
        answer = await world.forward(
            CREATE_TOPICS.path, request.SerializeToString(), deadline_ms=300
        )
        assert isinstance(from_wire(answer.error), OutcomeUnknownError)
        world.raft.commit()
        world.raft.commits_soon = True

    in_a_world(program)


def test_the_quorum_is_described_by_who_surely_leads() -> None:
    async def program(world: World) -> None:
        rounds = world.raft.rounds
        answer = await world.forward(DESCRIBE_QUORUM.path, b"")
        described = admin.DescribeQuorumResponse.FromString(answer.response)
        assert described.leader == 100
        assert world.raft.rounds == rounds + 1

    in_a_world(program)


def test_leadership_goes_when_all_is_committed_and_the_answer_outlives_the_reign() -> None:
    """The old leader names the new one, and callers of earlier decisions learn their outcome."""

    async def program(world: World) -> None:
        async def transfer(*voter_id: int) -> admin.TransferLeadershipResponse:
            request = admin.TransferLeadershipRequest(voter_id=voter_id[0] if voter_id else None)
            answer = await world.forward(TRANSFER_LEADERSHIP.path, request.SerializeToString())
            raise_if_error(answer.error)
            return admin.TransferLeadershipResponse.FromString(answer.response)

        assert await transfer(100) == admin.TransferLeadershipResponse(leader=100, already=True)
        await world.unfenced(1)
        world.raft.commits_soon = False
        creating = asyncio.ensure_future(world.create("t"))
        await asyncio.sleep(0.05)
        going = asyncio.ensure_future(transfer(101))
        await asyncio.sleep(0.05)
        assert (world.controller.is_active, going.done()) == (True, False)
        world.raft.commit()
        assert await going == admin.TransferLeadershipResponse(leader=101)
        assert await creating == b"t".ljust(16, b"\0")
        assert not world.controller.is_active
        with pytest.raises(NotControllerError):
            await transfer(102)
        world.raft.commits_soon = True
        world.raft.lead(3)
        assert (await transfer()).leader == 101
        world.raft.lead(5)
        world.raft.elects = 103
        with pytest.raises(OverloadedError, match="voter 103 was elected, not 102"):
            await transfer(102)

    in_a_world(program)


def test_heartbeats_of_strangers_are_fenced() -> None:
    async def program(world: World) -> None:
        (broker,) = await world.unfenced(1)
        for fields in (
            {"broker_id": 9, "broker_epoch": 3},
            {"broker_id": 0, "broker_epoch": broker.broker_epoch + 1},
            {"broker_id": 0, "broker_epoch": broker.broker_epoch, "incarnation": b"no"},
        ):
            async with aclosing(world.connection.stream(HEARTBEAT, beats(**fields))) as stream:
                answers = [answer async for answer in stream]
            assert [type(from_wire(answer.error)) for answer in answers] == [FencedError]
        assert broker.is_unfenced

    in_a_world(program)


def test_producer_ids_are_given_once() -> None:
    async def program(world: World) -> None:
        (broker,) = await world.unfenced(1)
        request = wire.AllocateProducerIdsRequest(
            cluster_id=CLUSTER, broker_id=0, broker_epoch=broker.broker_epoch
        )
        firsts = [
            (
                await world.connection.unary(ALLOCATE_PRODUCER_IDS, request, timeout_ms=1000)
            ).first_producer_id
            for _ in range(3)
        ]
        assert firsts == [0, 1000, 2000]
        request.broker_epoch += 1
        answer = await world.connection.unary(ALLOCATE_PRODUCER_IDS, request, timeout_ms=1000)
        assert isinstance(from_wire(answer.error), FencedError)

    in_a_world(program)


def test_isr_changes_are_answered_each_with_its_request_id() -> None:
    async def program(world: World) -> None:
        brokers = await world.unfenced(3)
        topic = await world.create("orders")
        before = world.partition(topic)
        leader = brokers[before.leader]
        proposal = wire.AlterPartition(
            topic_id=topic,
            partition=0,
            leader_epoch=before.leader_epoch,
            partition_epoch=before.partition_epoch,
        )
        for node_id in before.isr[:2]:
            proposal.isr.add(broker_id=node_id, broker_epoch=brokers[node_id].broker_epoch)
        answer = await leader.client.alter_partitions(
            wire.AlterPartitionsRequest(
                broker_id=leader.node_id,
                broker_epoch=leader.broker_epoch,
                request_id=5,
                partitions=[proposal],
            )
        )
        assert answer.request_id == 5
        assert tuple(answer.partitions[0].isr) == before.isr[:2]
        assert world.partition(topic).isr == before.isr[:2]

    in_a_world(program)


def test_answers_leave_as_they_are_ready_and_requests_in_flight_are_bounded() -> None:
    async def program(loop: SimulatedLoop) -> None:
        begun: list[int] = []

        async def requests() -> AsyncIterator[int]:
            for number in range(6):
                yield number

        async def answer(number: int) -> int:
            begun.append(number)
            await asyncio.sleep((10 - number) / 10)
            return number

        answers = []
        async with aclosing(answered_each(requests(), answer, 3)) as groups:
            async for group in groups:
                answers.extend(group)
                assert len(begun) - len(answers) <= 3
        assert begun == list(range(6))
        assert answers[0] == 2
        assert sorted(answers) == begun

    simulate(program, seed=1)


def test_answers_that_are_ready_in_one_turn_leave_as_one_group() -> None:
    async def program(loop: SimulatedLoop) -> None:
        async def requests() -> AsyncIterator[int]:
            for number in range(6):
                yield number
            await asyncio.sleep(5)

        committed = [asyncio.Event(), asyncio.Event()]
        for seconds, commit in enumerate(committed, start=1):
            loop.call_later(seconds, commit.set)

        async def answer(number: int) -> int:
            await committed[number % 2].wait()
            return number

        async with aclosing(answered_each(requests(), answer, 10)) as groups:
            assert [group async for group in groups] == [[0, 2, 4], [1, 3, 5]]

    simulate(program, seed=1)


def test_a_fault_in_the_requests_ends_the_stream_after_the_answers_before_it() -> None:
    async def program(loop: SimulatedLoop) -> None:
        async def requests() -> AsyncIterator[int]:
            yield 1
            raise InvalidRequestError("no request")

        async def answer(number: int) -> int:
            await asyncio.sleep(1)
            return number

        async with aclosing(answered_each(requests(), answer, 10)) as groups:
            assert await anext(groups) == [1]
            with pytest.raises(InvalidRequestError, match="no request"):
                await anext(groups)

    simulate(program, seed=1)


def creation(number: int, **fields: Any) -> wire.ForwardRequest:
    request = admin.CreateTopicsRequest()
    request.topics.add(
        name=f"t{number}", topic_id=bytes([number]) * 16, num_partitions=1, replication_factor=-1
    )
    given = {"request_id": number, "deadline_ms": 5000, "principal": str(ANONYMOUS), **fields}
    return wire.ForwardRequest(
        method=CREATE_TOPICS.path, request=request.SerializeToString(), **given
    )


def test_forwarded_calls_are_decided_in_their_order_and_answered_each_with_its_id() -> None:
    async def program(world: World) -> None:
        await world.unfenced(1)
        numbers = range(1, 41)
        messages = [
            wire.ForwardRequests(requests=[creation(n) for n in numbers if n <= 20]),
            wire.ForwardRequests(requests=[creation(n) for n in numbers if n > 20]),
        ]
        answers = await world.forward_all(messages)
        assert sorted(answer.request_id for answer in answers) == list(numbers)
        offsets = {answer.request_id: answer.apply_offset for answer in answers}
        assert sorted(offsets, key=lambda number: offsets[number]) == list(numbers)
        assert len(set(offsets.values())) == len(numbers)
        for answer in answers:
            made = admin.CreateTopicsResponse.FromString(answer.response)
            assert [topic.name for topic in made.topics] == [f"t{answer.request_id}"]

    in_a_world(program)


def test_a_fault_of_ours_in_one_forwarded_call_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They share one stream: if it broke, the outcome of the other calls would be unknown."""

    async def program(world: World) -> None:
        await world.unfenced(1)

        async def read_round() -> int:
            raise KeyError("a fault")

        monkeypatch.setattr(world.raft, "read_round", read_round)
        broken = wire.ForwardRequest(
            request_id=7,
            method=DESCRIBE_QUORUM.path,
            principal=str(ANONYMOUS),
            deadline_ms=1000,
        )
        message = wire.ForwardRequests(requests=[creation(1), broken, creation(2)])
        answers = {answer.request_id: answer for answer in await world.forward_all([message])}
        assert sorted(answers) == [1, 2, 7]
        assert isinstance(from_wire(answers[7].error), OutcomeUnknownError)
        assert not answers[1].error.code
        assert not answers[2].error.code

    in_a_world(program)


def test_a_request_id_said_twice_is_two_requests_and_the_service_keeps_none() -> None:
    async def program(world: World) -> None:
        await world.unfenced(1)
        requests = [creation(1, request_id=7), creation(2, request_id=7)]
        answers = await world.forward_all([wire.ForwardRequests(requests=requests)])
        assert [answer.request_id for answer in answers] == [7, 7]

    in_a_world(program)


def test_forwarded_requests_and_their_bytes_are_bounded() -> None:
    async def program(world: World) -> None:
        await world.unfenced(1)
        too_many = wire.ForwardRequests(requests=[wire.ForwardRequest()] * 1001)
        with pytest.raises(PeerError, match="1001 forwarded requests"):
            await world.forward_all([too_many])
        size = len(creation(1).request)
        world.service._forwarded_bytes_max = 2 * size
        world.raft.commits_soon = False
        requests = wire.ForwardRequests(requests=[creation(n) for n in (1, 2, 3)])
        asking = asyncio.ensure_future(world.forward_all([requests]))
        await asyncio.sleep(0.1)
        world.raft.commit()
        world.raft.commits_soon = True
        errors = {answer.request_id: answer.error for answer in await asking}
        for number in (1, 2):
            raise_if_error(errors[number])
        assert isinstance(from_wire(errors[3]), OverloadedError)
        assert world.service._forwarded_bytes == 0

    in_a_world(program)


def test_an_abandoned_stream_of_requests_leaves_nothing_behind() -> None:
    async def program(world: World) -> None:
        world.raft.commits_soon = False

        async def requests() -> AsyncIterator[wire.AlterPartitionsRequest]:
            yield wire.AlterPartitionsRequest(broker_id=1, request_id=1)
            await asyncio.sleep(1000)

        stream = world.connection.stream(ALTER_PARTITIONS, requests())
        async with aclosing(stream):
            answer = await anext(aiter(stream))
            assert isinstance(from_wire(answer.error), FencedError)
        await asyncio.sleep(0.1)
        tasks = [task.get_name() for task in asyncio.all_tasks()]
        assert not [name for name in tasks if "answer" in name]

    in_a_world(program)


def test_a_request_that_names_too_much_is_refused_as_a_whole() -> None:
    """An error for each of a million topics would hold the loop for seconds."""

    async def program(world: World) -> None:
        topics = admin.CreateTopicsRequest(topics=[admin.NewTopic()] * 10_001)
        names = admin.DeleteTopicsRequest(topics=["t"] * 10_001)
        for method, request in ((CREATE_TOPICS, topics), (DELETE_TOPICS, names)):
            answer = await world.forward(method.path, request.SerializeToString())
            assert isinstance(from_wire(answer.error), InvalidRequestError)
            assert "10001" in answer.error.message
        proposals = wire.AlterPartitionsRequest(partitions=[wire.AlterPartition()] * 10_001)
        with pytest.raises(InvalidRequestError, match="10000 are allowed"):
            await world.controller.active().alter_partitions(proposals)

    in_a_world(program)
