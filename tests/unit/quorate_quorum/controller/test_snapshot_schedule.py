"""When a voter takes snapshots by itself: by bytes, by time, and never for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from quorate.errors import OverloadedError, StoppingError
from quorate_quorum.controller.driver.snapshot_schedule import (
    RETRY_MS,
    SnapshotSchedule,
)
from quorate_quorum.log.events import encode_events
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.loader import Loader
from quorate_quorum.v1.events_pb2 import Config, MetadataEvent
from quorate_testing.simulated.loop import simulate
from tests.harness.configs import voter_config

INTERVAL_S = 60.0


class Voter:
    """A hundred bytes of log a batch; a snapshot after 1,000 bytes or a minute."""

    def __init__(self) -> None:
        self.loader = Loader()
        self.taken: list[int] = []
        self.failures: list[str] = []
        self.error: Exception | None = None
        config = voter_config(
            metadata_log_max_record_bytes_between_snapshots=1000,
            metadata_log_max_snapshot_interval_ms=int(INTERVAL_S * 1000),
        )
        self.snapshot_schedule = SnapshotSchedule(self._take, config, self.failures.append)

    async def _take(self, image: MetadataImage) -> None:
        await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error
        self.taken.append(image.offset)

    def commit(self, count: int = 1, size: int = 100) -> None:
        for _ in range(count):
            offset = self.loader.image.offset
            event = MetadataEvent(config=Config(name="n", value=str(offset)))
            batch = encode_events([event], base_offset=offset, epoch=1, timestamp_ms=0)
            self.loader.load(batch)
            self.snapshot_schedule.applied(self.loader.image, size)


def run(program: Callable[[Voter], Coroutine[None, None, None]]) -> None:
    async def whole(_: object) -> None:
        voter = Voter()
        voter.snapshot_schedule.begin()
        await program(voter)
        await voter.snapshot_schedule.stop()
        await voter.snapshot_schedule.stop()

    simulate(whole, seed=1)


def test_a_snapshot_is_that_of_the_batch_which_fills_the_measure() -> None:
    """However many batches are applied at once: so voters take the same snapshots."""

    async def program(voter: Voter) -> None:
        voter.commit(9)
        await asyncio.sleep(1)
        assert voter.taken == []
        voter.commit(1)
        await asyncio.sleep(1)
        voter.commit(19)
        await asyncio.sleep(1)
        assert voter.taken == [10, 20]

    run(program)


def test_what_a_snapshot_was_loaded_from_counts_no_more() -> None:
    async def program(voter: Voter) -> None:
        voter.commit(9)
        voter.snapshot_schedule.loaded(voter.loader.image)
        voter.commit(9)
        await asyncio.sleep(INTERVAL_S / 2)
        assert voter.taken == []
        voter.commit(1)
        await asyncio.sleep(1)
        assert voter.taken == [19]

    run(program)


def test_after_the_interval_one_is_taken_only_if_anything_was_committed() -> None:
    async def program(voter: Voter) -> None:
        voter.commit(3)
        await asyncio.sleep(INTERVAL_S + 1)
        assert voter.taken == [3]
        await asyncio.sleep(3 * INTERVAL_S)
        assert voter.taken == [3]
        voter.commit(1)
        await asyncio.sleep(INTERVAL_S + 1)
        assert voter.taken == [3, 4]

    run(program)


def test_where_the_disk_has_no_room_it_is_tried_again_with_the_image_of_then() -> None:
    async def program(voter: Voter) -> None:
        voter.error = OverloadedError("no room")
        voter.commit(10)
        await asyncio.sleep(1)
        voter.commit(2)
        voter.error = None
        await asyncio.sleep(RETRY_MS / 1000 + 1)
        assert voter.taken == [12]
        assert voter.failures == []

    run(program)


def test_a_voter_that_stops_takes_none_and_any_other_failure_is_the_nodes() -> None:
    async def program(voter: Voter) -> None:
        voter.error = StoppingError("stopping")
        voter.commit(10)
        await asyncio.sleep(1)
        assert voter.failures == []
        voter.error = ValueError("broken")
        voter.commit(10)
        await asyncio.sleep(1)
        assert len(voter.failures) == 1
        assert "broken" in voter.failures[0]

    run(program)
