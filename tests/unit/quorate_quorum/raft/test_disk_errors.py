"""What a voter does about an error of the operating system when it saves its state."""

from __future__ import annotations

import errno
import random

import pytest

from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.raft.driver.quorum_state import read_state
from quorate_quorum.raft.driver.storage import Storage
from quorate_quorum.raft.machine.events import HardStateSaved
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.builders import (
    PATH,
)


class TestVoter:
    async def voter(self, number: int, times: int) -> tuple[SimulatedDisk, list[object]]:
        """Let a voter save its epoch while the first `times` opens fail; return its reports."""
        disk = SimulatedDisk(random.Random(1))
        await disk.make_directory("/data")
        log = await Log.open(disk, PATH, LogConfig(track_synced=True))
        told: list[object] = []
        storage = Storage(disk, log, "/data", told.append)
        left = [times]

        def hook(name: str, path: str) -> None:
            if name == "open" and left[0]:
                left[0] -= 1
                raise OSError(number, "for the test", path)

        disk.hook = hook
        storage.submit(HardState(epoch=7), 1, None)
        storage.end()
        await storage.run()
        return disk, told

    async def test_what_fails_for_want_of_descriptors_is_saved_a_little_later(self) -> None:
        disk, told = await self.voter(errno.EMFILE, 5)
        assert told == [HardStateSaved(1)]
        assert (await read_state(disk, "/data")).epoch == 7

    @pytest.mark.parametrize(
        ("number", "times"), [(errno.EMFILE, 10_000), (errno.ENOSPC, 1), (errno.EIO, 1)]
    )
    async def test_a_voter_that_can_not_save_stops(self, number: int, times: int) -> None:
        with pytest.raises(OSError, match="for the test"):
            await self.voter(number, times)
