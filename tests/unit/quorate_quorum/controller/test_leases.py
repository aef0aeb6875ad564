"""The leases of the brokers: unfencing, fencing, permission to stop, and faults inside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest

from quorate.errors import (
    FencedError,
)
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.methods import HEARTBEAT
from quorate_quorum.v1.events_pb2 import MetadataEvent, Voter, Voters
from quorate_testing.in_process import InProcessListener
from tests.harness.fake_broker import FakeBroker
from tests.unit.quorate_quorum.controller.builders import (
    CLUSTER,
    ENDPOINT,
    World,
    beats,
    in_a_world,
)


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


def test_a_killed_broker_that_was_busy_when_it_registered_is_fenced_at_once() -> None:
    async def program(world: World) -> None:
        await world.unfenced(1)
        busy = FakeBroker(world.environment, [ENDPOINT], cluster_id=CLUSTER, node_id=1)
        busy.busy_s = 0.4  # the controller waits for 0.25 s
        world.brokers.append(busy)
        await busy.start()
        await world.until(lambda: busy.is_unfenced)
        await asyncio.sleep(0.5)
        world.kill(busy)
        assert await world.until(lambda: world.broker_image(1).fenced) < 0.1

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


@pytest.mark.parametrize("is_behind", [False, True])
def test_health_says_that_a_broker_with_an_open_stream_is_silent(is_behind: bool) -> None:
    """As after kill -STOP. What it told last says nothing about it now."""

    async def reasons(world: World) -> list[str]:
        found = await world.controller.active().describe_health(lambda _: True)
        return [one.reason for one in found.response.nodes]

    async def program(world: World) -> None:
        brokers = await world.unfenced(3)
        stopped = brokers[1]
        says_one_thing = beats(
            broker_id=1,
            broker_epoch=stopped.broker_epoch,
            incarnation=stopped.incarnation,
            applied_offset=0 if is_behind else stopped.client.image.offset,
        )
        async with aclosing(world.connection.stream(HEARTBEAT, says_one_thing)) as stream:
            await anext(stream)
            assert stopped.stream is not None
            await stopped.stream.close()
            await world.until(lambda: world.broker_image(1).fenced)
            (reason,) = await reasons(world)
            assert reason.startswith("is fenced: no heartbeat for 3")
            await asyncio.sleep(2)
            (reason,) = await reasons(world)
            assert reason.startswith("is fenced: no heartbeat for 5")
            assert "its connection is open" in reason

    in_a_world(program)


def test_health_says_of_a_broker_that_is_heard_how_far_it_has_caught_up() -> None:
    async def program(world: World) -> None:
        broker = FakeBroker(world.environment, [ENDPOINT], cluster_id=CLUSTER, node_id=1)
        broker.is_behind = True
        world.brokers.append(broker)
        await broker.start()
        await asyncio.sleep(5)
        found = await world.controller.active().describe_health(lambda _: True)
        (trouble,) = found.response.nodes
        assert trouble.reason.startswith("is fenced: it has applied the metadata log to 0, not")

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
    """Also all at once: a cluster that is switched off is not mistaken for a cut cable."""

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


async def is_killed(world: World, broker: FakeBroker) -> None:
    world.kill(broker)


async def leaves_when_it_may(world: World, broker: FakeBroker) -> None:
    broker.wants_shutdown = True
    assert broker.stream is not None
    broker.stream.push()
    await world.until(lambda: broker.last.should_shut_down)
    await broker.stop()


async def leaves_on_the_newer_of_two_streams(world: World, broker: FakeBroker) -> None:
    says_one_thing = beats(
        broker_id=broker.node_id,
        broker_epoch=broker.broker_epoch,
        incarnation=broker.incarnation,
    )
    async with aclosing(world.connection.stream(HEARTBEAT, says_one_thing)):
        await leaves_when_it_may(world, broker)


async def breaks_the_rules_of_a_heartbeat(world: World, broker: FakeBroker) -> None:
    broker.failed_directories = [bytes([n]) * 16 for n in range(200)]
    assert broker.stream is not None
    broker.stream.push()
    await world.until(lambda: broker.last.HasField("error"))
    await broker.stop()


@pytest.mark.parametrize(
    "ends",
    [
        is_killed,
        leaves_when_it_may,
        leaves_on_the_newer_of_two_streams,
        breaks_the_rules_of_a_heartbeat,
    ],
)
def test_a_broker_whose_stream_has_ended_counts_as_running_for_a_session_timeout_at_most(
    ends: Callable[[World, FakeBroker], Awaitable[None]],
) -> None:
    """Only then another disk can take its id, another broker its address, and it can be forgotten.

    This holds within the reign in which the stream ended, in whatever way it ended.
    """

    async def program(world: World) -> None:
        brokers = await world.unfenced(3)
        await ends(world, brokers[1])
        leases = world.controller.active().leases
        await world.until(lambda: not leases.is_alive(1), seconds=3.3)
        assert world.broker_image(1).fenced

    in_a_world(program)


def test_another_disk_takes_the_id_of_a_broker_that_was_stopped_and_left() -> None:
    async def program(world: World) -> None:
        brokers = await world.unfenced(3)
        await leaves_when_it_may(world, brokers[1])
        leases = world.controller.active().leases
        await world.until(lambda: not leases.is_alive(1), seconds=3.3)
        other = await world.broker(1, directory_id=b"z" * 16)
        assert await world.until(lambda: other.is_unfenced) < 0.1

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


def test_an_older_run_fails_no_directory_of_a_newer_registration() -> None:
    async def program(world: World) -> None:
        (first,) = await world.unfenced(1)
        active = world.controller.active()
        session = world.session(0)
        world.raft.commits_soon = False
        assert first.listener is not None
        await first.listener.stop(0)
        taking_over = asyncio.ensure_future(world.broker(0))
        await world.until(lambda: active.reign.pending.brokers[0].epoch != session.broker_epoch)
        beat = first.state()
        beat.failed_directories.append(first.directory_id)
        active.leases.take(session, beat)
        (directory,) = active.reign.pending.brokers[0].directories
        assert not directory.failed
        world.raft.commits_soon = True
        world.raft.commit()
        await taking_over

    in_a_world(program)


def test_a_broken_invariant_of_the_leases_stops_the_node() -> None:
    async def program(world: World) -> None:
        (broker,) = await world.unfenced(1)
        active = world.controller.active()
        liveness = active.leases.liveness

        def broken(broker_id: int, incarnation: bytes) -> None:
            raise AssertionError("a bug")

        liveness.heard = broken  # type: ignore[method-assign]
        with pytest.raises(AssertionError, match="a bug"):
            active.leases.take(world.session(0), broker.state())
        assert "a bug" in world.failures.pop()
        del liveness.heard

    in_a_world(program)
