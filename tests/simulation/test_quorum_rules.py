"""Rules of the quorum that need several nodes, their disks and their network to be seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

import pytest
import structlog

from quorate.aio.clock import loop_ms
from quorate.errors import InvalidRequestError, NotControllerError
from quorate_quorum.log.events import decode_events
from quorate_quorum.methods import DESCRIBE_NODE, FETCH_SNAPSHOT, VOTE
from quorate_quorum.raft.driver.batches import encode_batch
from quorate_quorum.raft.driver.bootstrap import metadata_directory
from quorate_quorum.raft.driver.quorum_state import read_state
from quorate_quorum.v1 import raft_pb2
from quorate_quorum.v1.events_pb2 import Config, MetadataEvent
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.quorum_world import QuorumWorld, SimulatedVoter

pytestmark = pytest.mark.simulation


@pytest.fixture(autouse=True)
def quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def run(
    program: Callable[[QuorumWorld], Coroutine[None, None, None]], size: int = 3, seed: int = 1
) -> None:
    async def whole(loop: SimulatedLoop) -> None:
        world = QuorumWorld(loop, seed, size)
        await world.start()
        await world.elected()
        await program(world)

    simulate(whole, seed)


def event(size: int) -> MetadataEvent:
    return MetadataEvent(config=Config(name="n", value="x" * size))


def test_a_single_voter_leads_at_once_and_keeps_what_it_acknowledged() -> None:
    async def program(world: QuorumWorld) -> None:
        assert world.loop.time() < 0.2
        for _ in range(5):
            assert await world.write()
        one = world.voters[0]
        one.lose_power()
        one.start()
        await world.converge()

    run(program, size=1)


def test_a_clean_stop_hands_over_in_milliseconds() -> None:
    async def program(world: QuorumWorld) -> None:
        first = await world.elected()
        await asyncio.sleep(2)
        begun = world.loop.time()
        stopping = asyncio.ensure_future(first.stop())
        await world.until(lambda: world.leader not in (None, first), seconds=1)
        assert world.loop.time() - begun < 0.15
        await stopping

    run(program)


def test_a_killed_leader_is_replaced_well_before_a_fetch_timeout() -> None:
    """The broken stream and the refused reconnect say that its process is gone."""

    async def program(world: QuorumWorld) -> None:
        first = await world.elected()
        await asyncio.sleep(2)
        begun = world.loop.time()
        first.kill()
        await world.until(lambda: world.leader not in (None, first), seconds=1)
        assert world.loop.time() - begun < 0.5

    run(program)


def test_leadership_handed_over_for_silence_says_so_in_the_epoch_start() -> None:
    async def program(world: QuorumWorld) -> None:
        first = await world.elected()
        await asyncio.sleep(1)
        assert first.node is not None
        assert first.process is not None
        first.process.context().run(lambda: _hand_over(first))
        await world.until(lambda: world.leader not in (None, first), seconds=2)
        second = world.leader
        assert second is not None
        assert second.applied is not None
        assert second.applied.handed_over
        starts = [
            one.epoch_start
            for batch in world.history.committed.values()
            for one in decode_events(batch)
            if one.WhichOneof("event") == "epoch_start"
        ]
        assert [start.handed_over_for_silence for start in starts] == [False, True]

    def _hand_over(voter: SimulatedVoter) -> None:
        assert voter.node is not None
        voter.node.hand_over(for_silence=True)

    run(program)


def test_a_single_voter_keeps_the_leadership_that_nobody_could_take() -> None:
    async def program(world: QuorumWorld) -> None:
        leader = await world.elected()
        assert leader.node is not None
        leader.node.hand_over(for_silence=True)
        await asyncio.sleep(1)
        assert world.leader is leader

    run(program, size=1)


def test_an_outcome_larger_than_the_bound_is_refused_and_one_at_it_is_committed() -> None:
    """limit - 1, limit, limit + 1."""

    async def program(world: QuorumWorld) -> None:
        leader = await world.elected()
        node, applied = leader.node, leader.applied
        assert node is not None
        assert applied is not None
        assert applied.reign is not None
        bound = node.config.quorum_batch_max_bytes
        around = len(encode_batch([event(bound)], 0, 0, 0).data) - bound
        with pytest.raises(InvalidRequestError):
            node.propose(applied.reign, [event(bound - around + 1)])
        before = node.log_end_offset
        for size in (bound - around - 1, bound - around):
            node.propose(applied.reign, [event(size)])
        await world.until(lambda: applied.next_offset == before + 2, seconds=20)
        await world.converge()

    run(program, size=3)


def test_only_the_leader_of_that_epoch_proposes() -> None:
    async def program(world: QuorumWorld) -> None:
        leader = await world.elected()
        for voter in world.voters:
            node = voter.node
            assert node is not None
            epoch = node.epoch + (1 if voter is leader else 0)
            with pytest.raises(NotControllerError):
                node.propose(epoch, [event(1)])
            assert node.is_leader is (voter is leader)

    run(program)


def test_a_disk_replaced_under_its_old_id_cannot_elect_amnesia() -> None:
    """One voter loses its disk, is formatted again as it was, and meets a voter that lags."""

    async def program(world: QuorumWorld) -> None:
        leader = await world.elected()
        lost, behind = [v for v in world.voters if v is not leader]
        behind.kill()
        for _ in range(5):
            assert await world.write()
        leader.kill()
        lost.kill()
        lost.disk = SimulatedDisk(world.chance)
        await lost.format([v.voter for v in world.voters])
        lost.start()
        behind.start()
        await asyncio.sleep(10)
        assert world.leader is None, "a majority of the disks has forgotten: no voter may lead"
        leader.start()
        await world.converge()
        await world.until(lambda: lost.node is not None, seconds=5)
        await asyncio.sleep(1)
        state = await read_state(lost.disk, metadata_directory(lost.log_dir))
        assert not state.is_behind

    run(program)


def test_voters_that_were_formatted_differently_refuse_each_other() -> None:
    async def whole(loop: SimulatedLoop) -> None:
        world = QuorumWorld(loop, 1, 3)
        members = [one.voter for one in world.voters]
        for one in world.voters[:2]:
            await one.format(members)
        await world.voters[2].format(members[1:])
        world.history.saw_committed = lambda batch: None  # type: ignore[method-assign]
        for one in world.voters:
            one.start()
        leader = await world.elected()
        assert leader is not world.voters[2]
        await asyncio.sleep(3)
        stranger = world.voters[2].applied
        assert stranger is not None
        assert stranger.next_offset <= 3

    simulate(whole, 1)


def test_what_strangers_send_is_answered_and_changes_nothing() -> None:
    async def program(world: QuorumWorld) -> None:
        leader = await world.elected()
        node = leader.node
        assert node is not None
        process = world.loop.process("stranger")
        network = world.network.host("stranger")
        connection = network.connect(leader.voter.endpoint, purpose="control")

        async def ask() -> None:
            wrong = raft_pb2.VoteRequest(
                history=raft_pb2.History(cluster_id="other", quorum_generation=1), epoch=99
            )
            answer = await connection.unary(VOTE, wrong, timeout_ms=1000)
            assert answer.error.message
            snapshot = raft_pb2.FetchSnapshotRequest()
            refused = await connection.unary(FETCH_SNAPSHOT, snapshot, timeout_ms=1000)
            assert "cluster id" in refused.error.message
            said = await connection.unary(
                DESCRIBE_NODE, raft_pb2.DescribeNodeRequest(), timeout_ms=1000
            )
            assert (said.node_id, said.leader_id, said.past_bootstrap) == (
                leader.id,
                leader.id,
                True,
            )

        epoch = node.epoch
        await process.spawn(ask())
        assert node.epoch == epoch

    run(program)


def test_the_leader_knows_how_far_the_others_are() -> None:
    async def program(world: QuorumWorld) -> None:
        leader = await world.elected()
        assert await world.write()
        await asyncio.sleep(1)
        assert leader.node is not None
        status = leader.node.describe()
        assert status.leader_id == leader.id
        assert [voter.lag for voter in status.voters] == [0, 0, 0]
        now = loop_ms()
        assert all(now - voter.last_caught_up_ms < 500 for voter in status.voters)

    run(program)


def test_a_failed_sync_stops_the_voter() -> None:
    """A second sync that succeeds proves nothing: the kernel has dropped the pages of the first."""

    async def program(world: QuorumWorld) -> None:
        leader = await world.elected()
        node = leader.node
        assert node is not None
        leader.may_fail = True
        leader.disk.fail_next_sync()
        world.propose()
        await world.until(lambda: leader.failure is not None, seconds=1)
        assert not node.is_leader
        with pytest.raises(NotControllerError):
            node.propose(node.epoch, [event(1)])
        await world.until(lambda: world.leader not in (None, leader), seconds=5)
        leader.lose_power()
        await world.converge()

    run(program)
