"""The controller's driver: decide on the pending image, tell what is committed, never more."""

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
    UnknownServerError,
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
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.controller.driver.service import answered_each
from quorate_quorum.methods import ALLOCATE_PRODUCER_IDS, ALTER_PARTITIONS, HEARTBEAT
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1.events_pb2 import MetadataEvent, Voter, Voters
from quorate_testing.in_process import InProcessListener
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.fake_broker import FakeBroker
from tests.unit.quorate_quorum.controller.builders import (
    CLUSTER,
    ENDPOINT,
    World,
    feature,
    in_a_world,
    nothing,
    one_event,
)

# -- deciding


def test_an_answer_is_told_when_it_is_committed() -> None:
    async def program(world: World) -> None:
        world.raft.commits_soon = False
        asking = asyncio.ensure_future(world.run(one_event(7)))
        await asyncio.sleep(1)
        assert not asking.done()
        assert "x" not in world.controller.image.features
        world.raft.commit()
        decided = await asking
        assert (decided.response, decided.apply_offset) == (7, world.raft.high_watermark)
        assert world.controller.image.features["x"] == 7

    in_a_world(program)


def test_each_decision_sees_all_that_was_decided_before_it() -> None:
    async def program(world: World) -> None:
        world.raft.commits_soon = False
        first = asyncio.ensure_future(world.run(one_event(7)))
        second = asyncio.ensure_future(world.run(nothing))
        await asyncio.sleep(1)
        assert not second.done(), "what it saw is not committed"
        world.raft.commit()
        assert (await first).response == 7
        assert (await second).response == 7

    in_a_world(program)


def test_an_answer_without_events_needs_proof_that_this_is_still_the_leader() -> None:
    async def program(world: World) -> None:
        rounds = world.raft.rounds
        await world.run(nothing)
        assert world.raft.rounds == rounds + 1

    in_a_world(program)


def test_losing_the_reign_tells_each_what_is_known() -> None:
    async def program(world: World) -> None:
        world.raft.commits_soon = False
        proposed = asyncio.ensure_future(world.run(one_event(7)))
        depends = asyncio.ensure_future(world.run(nothing))
        await asyncio.sleep(0.1)
        world.raft.lose(101, 2, "v101:9093")
        with pytest.raises(OutcomeUnknownError):
            await proposed
        with pytest.raises(NotControllerError):
            await depends
        with pytest.raises(NotControllerError):
            await world.run(one_event(8))
        assert world.controller.leader_hint == (101, "v101:9093")

    in_a_world(program)


def test_a_new_reign_starts_from_what_is_committed() -> None:
    async def program(world: World) -> None:
        world.raft.commits_soon = False
        lost = asyncio.ensure_future(world.run(one_event(7)))
        await asyncio.sleep(0)
        world.raft.lose(101, 2)
        with pytest.raises(OutcomeUnknownError):
            await lost
        world.raft.commits_soon = True
        world.raft.lead(3)
        assert (await world.run(nothing)).response == -1

    in_a_world(program)


def test_a_large_outcome_is_several_batches_and_answered_when_the_last_commits() -> None:
    async def program(world: World) -> None:
        many = tuple(feature(1, name=f"{n:06}" + "y" * 2000) for n in range(3000))
        before = len(world.raft.batches)
        decided = await world.run(lambda image, context: Outcome(many, "done"))
        batches = world.raft.batches[before:]
        assert len(batches) == 2
        assert all(len(batch) <= 4 << 20 for batch in batches)
        assert decided.apply_offset == world.raft.log_end_offset
        assert len(world.controller.image.features) == 3001

    in_a_world(program)


def test_a_full_log_refuses_and_a_change_of_which_a_part_fitted_is_unknown() -> None:
    async def program(world: World) -> None:
        many = tuple(feature(1, name=f"{n:06}" + "y" * 2000) for n in range(3000))
        world.raft.room = 0
        with pytest.raises(OverloadedError):
            await world.run(one_event(1))
        world.raft.room = 1
        with pytest.raises(OutcomeUnknownError, match="part"):
            await world.run(lambda image, context: Outcome(many, None))
        world.raft.room = None
        assert (await world.run(one_event(1))).response == 1

    in_a_world(program)


def test_a_fence_that_found_the_log_full_is_made_up_for() -> None:
    async def program(world: World) -> None:
        brokers = await world.unfenced(3)
        world.raft.room = 0
        world.kill(brokers[1])
        await asyncio.sleep(1)
        assert not world.broker_image(1).fenced
        world.raft.room = None
        assert await world.until(lambda: world.broker_image(1).fenced) < 0.2

    in_a_world(program)


def test_a_decision_that_contradicts_the_image_is_refused_and_nothing_of_it_proposed() -> None:
    async def program(world: World) -> None:
        twice = MetadataEvent(voters=Voters(voters=[Voter(id=1), Voter(id=1)]))
        before = world.raft.log_end_offset
        with pytest.raises(UnknownServerError):
            await world.run(lambda image, context: Outcome((twice,), None))
        assert world.raft.log_end_offset == before
        assert (await world.run(one_event(1))).response == 1

    in_a_world(program)


def test_a_committed_batch_that_breaks_the_image_stops_the_node() -> None:
    async def program(world: World) -> None:
        twice = MetadataEvent(voters=Voters(voters=[Voter(id=1), Voter(id=1)]))
        world.raft.propose(1, [twice])
        await asyncio.sleep(0.1)
        assert "the metadata image cannot go on" in world.failures.pop()

    in_a_world(program)


# -- brokers


def test_a_broker_registers_applies_and_is_unfenced_without_waiting_for_an_interval() -> None:
    async def program(world: World) -> None:
        broker = await world.broker(1)
        took = await world.until(lambda: broker.is_unfenced)
        assert took < 0.1
        assert world.broker_image(1).epoch == broker.broker_epoch

    in_a_world(program)


def test_a_broker_that_has_not_applied_its_registration_stays_fenced_and_is_told_the_offset() -> (
    None
):
    async def program(world: World) -> None:
        broker = FakeBroker(world.environment, [ENDPOINT], cluster_id=CLUSTER, node_id=1)
        broker.is_behind = True
        world.brokers.append(broker)
        await broker.start()
        await asyncio.sleep(2)
        assert broker.last.fenced
        assert broker.last.notify_offset == broker.broker_epoch + 1
        broker.is_behind = False
        assert broker.stream is not None
        broker.stream.push()
        assert await world.until(lambda: broker.is_unfenced) < 0.1

    in_a_world(program)


def test_a_killed_broker_is_fenced_at_once() -> None:
    async def program(world: World) -> None:
        brokers = await world.unfenced(3)
        world.kill(brokers[1])
        assert await world.until(lambda: world.broker_image(1).fenced) < 0.1
        assert not world.broker_image(0).fenced

    in_a_world(program)


def test_a_silent_broker_is_fenced_after_the_session_timeout() -> None:
    async def program(world: World) -> None:
        brokers = await world.unfenced(3)
        stopped = brokers[1]
        says_one_thing = beats(
            broker_id=1, broker_epoch=stopped.broker_epoch, incarnation=stopped.incarnation
        )
        async with aclosing(world.connection.stream(HEARTBEAT, says_one_thing)):
            await asyncio.sleep(0.01)
            assert stopped.stream is not None
            await stopped.stream.close()
            took = await world.until(lambda: world.broker_image(1).fenced)
            assert 2.9 < took < 3.3
        assert not world.broker_image(0).fenced

    in_a_world(program)


def test_a_broker_whose_stream_breaks_but_that_answers_is_judged_by_silence_alone() -> None:
    async def program(world: World) -> None:
        brokers = await world.unfenced(3)
        assert brokers[1].stream is not None
        await brokers[1].stream.close()
        took = await world.until(lambda: world.broker_image(1).fenced)
        assert 2.9 < took < 4

    in_a_world(program)


def test_leaders_move_away_from_a_broker_that_is_killed() -> None:
    async def program(world: World) -> None:
        brokers = await world.unfenced(3)
        topic = await world.create("orders", 3)
        led = [index for index in range(3) if world.partition(topic, index).leader == 1]
        assert len(led) == 1
        world.kill(brokers[1])
        await world.until(lambda: world.partition(topic, led[0]).leader not in (1, -1))
        assert all(1 not in world.partition(topic, index).isr for index in range(3))

    in_a_world(program)


def test_a_new_incarnation_takes_over_at_once_and_the_old_stream_is_told() -> None:
    async def program(world: World) -> None:
        (first,) = await world.unfenced(1)
        assert isinstance(first.listener, InProcessListener)
        await first.listener.stop(0)
        second = await world.broker(0)
        await world.until(lambda: second.is_unfenced)
        assert second.broker_epoch > first.broker_epoch
        assert any(answer.error.code == ErrorCode.ERROR_CODE_FENCED for answer in first.answers)

    in_a_world(program)


def test_another_directory_under_the_same_id_is_refused_while_the_old_session_lives() -> None:
    async def program(world: World) -> None:
        (first,) = await world.unfenced(1)
        other = FakeBroker(
            world.environment, [ENDPOINT], cluster_id=CLUSTER, node_id=0, directory_id=b"z" * 16
        )
        with pytest.raises(FencedError, match="living process"):
            await other.register()
        await other.stop()
        assert first.is_unfenced

    in_a_world(program)


def test_a_broker_that_shuts_down_goes_when_all_others_know() -> None:
    async def program(world: World) -> None:
        brokers = await world.unfenced(3)
        topic = await world.create("orders", 3)
        brokers[2].is_behind = True
        leaving = brokers[1]
        leaving.wants_shutdown = True
        assert leaving.stream is not None
        leaving.stream.push()
        await world.until(
            lambda: all(1 not in world.partition(topic, index).isr for index in range(3))
        )
        assert world.controller.has_brokers_shutting_down
        await asyncio.sleep(0.5)
        assert not leaving.last.should_shut_down, "broker 2 has not applied it"
        brokers[2].is_behind = False
        assert brokers[2].stream is not None
        brokers[2].stream.push()
        assert await world.until(lambda: leaving.last.should_shut_down) < 0.1
        world.kill(leaving)
        await world.until(lambda: world.broker_image(1).fenced)
        assert not world.controller.has_brokers_shutting_down

    in_a_world(program)


def test_brokers_that_were_told_to_go_and_left_are_fenced_at_once() -> None:
    """All at once, too: a cluster that is switched off is no cut cable."""

    async def program(world: World) -> None:
        brokers = await world.unfenced(3)
        for broker in brokers:
            broker.wants_shutdown = True
            assert broker.stream is not None
            broker.stream.push()
        await world.until(lambda: all(broker.last.should_shut_down for broker in brokers))
        for broker in brokers:
            assert broker.stream is not None
            await broker.stream.close()
        assert await world.until(lambda: not world.controller.has_brokers) < 0.1

    in_a_world(program)


def test_a_failed_directory_takes_its_replicas_out() -> None:
    async def program(world: World) -> None:
        brokers = await world.unfenced(3)
        topic = await world.create("orders")
        leader = world.partition(topic).leader
        brokers[leader].failed_directories = [brokers[leader].directory_id]
        stream = brokers[leader].stream
        assert stream is not None
        stream.push()
        await world.until(lambda: world.partition(topic).leader not in (leader, -1))

    in_a_world(program)


def test_a_partition_that_lost_everybody_comes_back_with_the_furthest() -> None:
    async def program(world: World) -> None:
        brokers = await world.unfenced(3)
        topic = await world.create("orders")
        for broker in brokers:
            world.kill(broker)
        await world.until(lambda: world.partition(topic).leader == -1)
        world.brokers.clear()
        await asyncio.sleep(1)
        again = [
            FakeBroker(world.environment, [ENDPOINT], cluster_id=CLUSTER, node_id=node_id)
            for node_id in range(3)
        ]
        for broker, end in zip(again, [(0, 10), (0, 12), (0, 11)], strict=True):
            broker.tail_intact = False  # as after a power cut
            broker.end = end
            world.brokers.append(broker)
            await broker.start()
        await world.until(lambda: world.partition(topic).leader == 1, seconds=100)
        assert world.partition(topic).recovered_epoch == world.partition(topic).leader_epoch

    in_a_world(program)


def test_a_new_reign_fences_nobody_for_the_time_before_it() -> None:
    async def program(world: World) -> None:
        brokers = await world.unfenced(3)
        world.raft.lose(101, 2, "v101:9093")
        await asyncio.sleep(10)
        world.raft.lead(3)
        await world.until(lambda: all(b.last.epoch == 3 for b in brokers))
        await asyncio.sleep(5)
        assert not any(world.broker_image(n).fenced for n in range(3))

    in_a_world(program)


def test_a_controller_that_hears_nobody_hands_over() -> None:
    async def program(world: World) -> None:
        voters = [Voter(id=n, endpoint=f"v{n}:9093", directory_id=b"v" * 16) for n in (100, 101)]
        await world.run(
            lambda image, context: Outcome((MetadataEvent(voters=Voters(voters=voters)),), None)
        )
        world.raft.lose(101, 2)
        world.raft.lead(3)
        brokers = await world.unfenced(3)
        for broker in brokers[:2]:
            assert broker.stream is not None
            await broker.stream.close()
        await world.until(lambda: world.raft.handed_over_for_silence > 0)
        assert not any(world.broker_image(n).fenced for n in range(3))

    in_a_world(program)


# -- the wire


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


async def beats(**fields: Any) -> AsyncIterator[wire.HeartbeatRequest]:
    yield wire.HeartbeatRequest(cluster_id=CLUSTER, **fields)
    await asyncio.sleep(1000)


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


# -- streams of requests


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
    """They share one stream: were it broken, nobody would know what became of theirs."""

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
