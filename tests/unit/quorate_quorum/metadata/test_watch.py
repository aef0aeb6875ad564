"""Watch sends committed events only, in the turn in which they commit, and is never silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest

from quorate.errors import OverloadedError, QuorumUnavailableError, WrongClusterError, from_wire
from quorate.net.frame import Frame
from quorate.net.network import Peer
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.log.events import encode_events
from quorate_quorum.metadata.loader import Loader
from quorate_quorum.metadata.watch import Watch
from quorate_quorum.v1.controller_pb2 import WatchHeader, WatchRequest
from quorate_quorum.v1.events_pb2 import Feature, MetadataEvent
from quorate_testing.simulated.loop import SimulatedLoop
from tests.harness.configs import voter_config
from tests.harness.fake_raft import AnyFeature, FakeRaft
from tests.unit.quorate_quorum.metadata.builders import CLUSTER, a_voter, in_virtual_time

Frames = AsyncIterator[Frame[WatchHeader]]


def feature(level: int) -> MetadataEvent:
    return MetadataEvent(feature=Feature(name="x", level=level))


def opened(watch: Watch, **fields: Any) -> Any:
    fields = {"cluster_id": CLUSTER, "last_applied_epoch": -1, **fields}
    return watch.watch(WatchRequest(**fields), Peer("test"))


async def follow(frames: Frames, loader: Loader, until: int) -> None:
    while loader.image.offset < until:
        frame = await anext(frames)
        assert frame.header.error.code == ErrorCode.ERROR_CODE_NONE
        loader.load(frame.payload)


def test_a_watcher_gets_all_from_its_offset_and_what_commits_later_at_once() -> None:
    async def program(loop: SimulatedLoop) -> None:
        raft, watch = a_voter()
        async with aclosing(opened(watch)) as frames:
            loader = Loader(known=AnyFeature())
            await follow(frames, loader, until=2)
            waiting = asyncio.ensure_future(anext(frames))
            await asyncio.sleep(0.1)
            raft.propose(1, [feature(7)])
            await asyncio.sleep(0.01)
            assert not waiting.done(), "proposed is not committed"
            raft.commit()
            watch.wake()
            before = loop.time()
            frame = cast("Frame[WatchHeader]", await waiting)
            assert loop.time() == before
            assert frame.header.base_offset == 2
            assert (frame.header.leader_id, frame.header.epoch) == (100, 1)
            loader.load(frame.payload)
            assert loader.image.features["x"] == 7

    in_virtual_time(program)


def test_nothing_new_is_said_every_250_ms() -> None:
    async def program(loop: SimulatedLoop) -> None:
        _raft, watch = a_voter()
        async with aclosing(opened(watch, from_offset=2, last_applied_epoch=1)) as frames:
            await anext(frames)
            started = loop.time()
            for _ in range(4):
                frame = await anext(frames)
                assert not frame.pieces
                assert frame.header.high_watermark == 2
            assert loop.time() - started == pytest.approx(1.0)

    in_virtual_time(program)


def test_frames_are_bounded_and_follow_each_other_without_a_wait() -> None:
    async def program(loop: SimulatedLoop) -> None:
        raft, watch = a_voter(watch_frame_max_bytes=300)
        for level in range(50):
            raft.propose(1, [feature(level)])
        raft.commit()
        async with aclosing(opened(watch)) as frames:
            loader = Loader(known=AnyFeature())
            count = 0
            while loader.image.offset < raft.high_watermark:
                frame = await anext(frames)
                assert len(frame.payload) <= 300
                loader.load(frame.payload)
                count += 1
            assert count > 5
            assert loop.time() == 0

    in_virtual_time(program)


def test_a_watcher_that_diverges_is_told_to_reload_and_gets_all_from_the_start() -> None:
    async def program(loop: SimulatedLoop) -> None:
        _raft, watch = a_voter()
        async with aclosing(opened(watch, from_offset=2, last_applied_epoch=5)) as frames:
            frame = await anext(frames)
            assert frame.header.reload
            assert not frame.pieces
            await follow(frames, Loader(known=AnyFeature()), until=2)

    in_virtual_time(program)


def test_a_watcher_inside_a_batch_is_told_to_reload() -> None:
    async def program(loop: SimulatedLoop) -> None:
        raft, watch = a_voter()
        raft.propose(1, [feature(1), feature(2)])
        raft.commit()
        async with aclosing(opened(watch, from_offset=3, last_applied_epoch=1)) as frames:
            assert (await anext(frames)).header.reload
            await follow(frames, Loader(known=AnyFeature()), until=4)

    in_virtual_time(program)


def test_a_watcher_ahead_of_the_voter_waits() -> None:
    async def program(loop: SimulatedLoop) -> None:
        raft, watch = a_voter()
        async with aclosing(opened(watch, from_offset=3, last_applied_epoch=1)) as frames:
            for _ in range(3):
                frame = await anext(frames)
                assert (frame.header.reload, frame.header.high_watermark) == (False, 2)
                assert not frame.pieces
            raft.propose(1, [feature(1)])
            raft.propose(1, [feature(2)])
            raft.commit()
            frame = await anext(frames)
            assert (frame.header.reload, frame.header.base_offset) == (False, 3)
            assert frame.pieces

    in_virtual_time(program)


def test_a_voter_without_a_leader_for_a_fetch_timeout_ends_its_watches() -> None:
    async def program(loop: SimulatedLoop) -> None:
        raft, watch = a_voter()
        async with aclosing(opened(watch)) as frames:
            await anext(frames)
            raft.know_leader(-1, "", 2)
            lost_at = loop.time()
            last = [frame async for frame in frames][-1]
            assert isinstance(from_wire(last.header.error), QuorumUnavailableError)
            assert 1.0 <= loop.time() - lost_at <= 1.5

    in_virtual_time(program)


def test_a_leader_that_comes_back_in_time_keeps_the_watches() -> None:
    async def program(loop: SimulatedLoop) -> None:
        raft, watch = a_voter()
        async with aclosing(opened(watch)) as frames:
            raft.know_leader(-1, "", 2)
            for _ in range(4):
                await anext(frames)
            raft.know_leader(101, "b:1", 2)
            frame = await anext(frames)
            raft.know_leader(-1, "", 3)
            for _ in range(4):
                frame = await anext(frames)
                assert frame.header.error.code == ErrorCode.ERROR_CODE_NONE

    in_virtual_time(program)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"cluster_id": "other"}, ErrorCode.ERROR_CODE_WRONG_CLUSTER),
        ({"quorum_generation": 2}, ErrorCode.ERROR_CODE_WRONG_CLUSTER),
        ({"quorum_generation": -1}, ErrorCode.ERROR_CODE_WRONG_CLUSTER),
        ({"from_offset": -1}, ErrorCode.ERROR_CODE_INVALID_REQUEST),
        ({"last_applied_epoch": -2}, ErrorCode.ERROR_CODE_INVALID_REQUEST),
    ],
    ids=[
        "another cluster",
        "a newer generation",
        "no generation",
        "offset below 0",
        "epoch below -1",
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], code: int) -> None:
    async def program(loop: SimulatedLoop) -> None:
        _raft, watch = a_voter()
        async with aclosing(opened(watch, **fields)) as frames:
            answers = [frame async for frame in frames]
            assert [frame.header.error.code for frame in answers] == [code]
            assert answers[0].header.quorum_generation == 1

    in_virtual_time(program)


def test_watches_are_bounded_and_counted_down_when_they_go() -> None:
    async def program(loop: SimulatedLoop) -> None:
        _raft, watch = a_voter(watches_max=1)
        async with aclosing(opened(watch)) as first:
            await anext(first)
            async with aclosing(opened(watch)) as second:
                refusal = await anext(second)
            assert isinstance(from_wire(refusal.header.error), OverloadedError)
        async with aclosing(opened(watch)) as third:
            frame = await anext(third)
            assert frame.header.error.code == ErrorCode.ERROR_CODE_NONE

    in_virtual_time(program)


def test_a_voter_that_stops_ends_its_watches_at_once() -> None:
    async def program(loop: SimulatedLoop) -> None:
        _raft, watch = a_voter()
        async with aclosing(opened(watch)) as frames:
            await anext(frames)
            waiting = asyncio.ensure_future(anext(frames))
            await asyncio.sleep(0.01)
            watch.stop()
            frame = await waiting
            assert frame.header.error.code == ErrorCode.ERROR_CODE_STOPPING
            assert [frame async for frame in frames] == []
            assert loop.time() == pytest.approx(0.01)

    in_virtual_time(program)


def test_wrong_cluster_says_which_is_ours() -> None:
    async def program(loop: SimulatedLoop) -> None:
        _raft, watch = a_voter()
        async with aclosing(opened(watch, cluster_id="other")) as frames:
            error = from_wire((await anext(frames)).header.error)
            assert isinstance(error, WrongClusterError)
            assert CLUSTER in str(error)

    in_virtual_time(program)


class Snapshots:
    """A snapshot at offset 52 of 40 features, one a part; the log below `start` is gone."""

    log_start_offset = 52
    newest: tuple[int, int] | None = (52, 1)

    async def parts(self, snapshot: tuple[int, int]) -> AsyncGenerator[bytes, None]:
        for at in range(40):
            event = MetadataEvent(feature=Feature(name=f"f{at}", level=at))
            yield encode_events([event], base_offset=at, epoch=1, timestamp_ms=0)
            await asyncio.sleep(0)


def a_voter_with_a_snapshot() -> tuple[FakeRaft, Watch]:
    raft, _ = a_voter()
    for level in range(60):
        raft.propose(1, [feature(level)])
    raft.commit()
    config = voter_config(watch_frame_max_bytes=300)
    return raft, Watch(CLUSTER, 1, raft, raft.epoch_at, config, snapshots=Snapshots())


@pytest.mark.parametrize(
    ("offset", "epoch"), [(0, -1), (5, 1), (55, 9), (52, 9)], ids=["new", "behind", "other", "at"]
)
def test_who_cannot_go_on_gets_the_snapshot_in_bounded_parts_then_the_log(
    offset: int, epoch: int
) -> None:
    async def program(loop: SimulatedLoop) -> None:
        raft, watch = a_voter_with_a_snapshot()
        loader = Loader(known=AnyFeature())
        seen = []
        async with aclosing(opened(watch, from_offset=offset, last_applied_epoch=epoch)) as frames:
            while loader.image.offset < raft.high_watermark:
                frame = await anext(frames)
                assert len(frame.payload) <= 300
                if not frame.header.snapshot:
                    loader.load(frame.payload)
                    continue
                seen.append(frame.header)
                loader.load_snapshot_part(frame.payload)
                if frame.header.snapshot_end:
                    loader.finish_snapshot(52, 1)
        assert len(seen) > 5
        assert [header.reload for header in seen] == [True] + [False] * (len(seen) - 1)
        assert {(header.snapshot_offset, header.snapshot_epoch) for header in seen} == {(52, 1)}
        assert loader.shown.features["f39"] == 39
        assert loader.shown.features["x"] == 59

    in_virtual_time(program)


def test_who_stands_where_the_snapshot_ends_goes_on_by_the_log() -> None:
    async def program(loop: SimulatedLoop) -> None:
        _raft, watch = a_voter_with_a_snapshot()
        async with aclosing(opened(watch, from_offset=52, last_applied_epoch=1)) as frames:
            frame = await anext(frames)
            assert (frame.header.snapshot, frame.header.base_offset) == (False, 52)

    in_virtual_time(program)


def test_a_voter_that_stops_ends_a_snapshot_half_way() -> None:
    async def program(loop: SimulatedLoop) -> None:
        _raft, watch = a_voter_with_a_snapshot()
        async with aclosing(opened(watch)) as frames:
            await anext(frames)
            watch.stop()
            last = [frame async for frame in frames][-1]
            assert last.header.error.code == ErrorCode.ERROR_CODE_STOPPING
            assert not last.header.snapshot_end

    in_virtual_time(program)
