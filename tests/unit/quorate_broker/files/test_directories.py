"""A broker's log directories: locked, read, begun, lost, and marked at a clean end."""

from __future__ import annotations

import pytest

from quorate_broker.files.directories import LogDirectories
from quorate_quorum.log.identity import Identity, read_identity, write_identity
from quorate_quorum.log.run_file import begin_run, read_run, set_sync_failed
from quorate_quorum.node.config import ConfigError
from tests.unit.quorate_broker.files.builders import (
    D1,
    D2,
    config,
    formatted,
)


class TestDirectories:
    async def test_they_are_locked_read_and_told(self) -> None:
        disk = await formatted(("/d1", D1), ("/d2", D2))
        await begin_run(disk, "/d1")
        await set_sync_failed(disk, "/d2")
        held = await LogDirectories.open(config("/d1", "/d2"), disk)
        assert held.cluster_id == "c1"
        told = [(one.directory_id, one.tail_intact, one.sync_failed) for one in held.registered()]
        assert told == [(D1, True, False), (D2, True, True)]
        with pytest.raises(ConfigError, match="in use by another process"):
            await LogDirectories.open(config("/d1"), disk)
        await held.mark_clean()  # this run never began: the older verdict stands
        held.unlock()
        assert not (await read_run(disk, "/d1")).marker_present
        held = await LogDirectories.open(config("/d1"), disk)
        await held.begin_run()
        await held.mark_clean()
        held.unlock()
        held.unlock()
        assert (await read_run(disk, "/d1")).marker_present

    async def test_a_tail_is_not_intact_after_another_boot(self) -> None:
        disk = await formatted(("/d1", D1))
        await begin_run(disk, "/d1")
        disk.lose_power()
        held = await LogDirectories.open(config("/d1"), disk)
        assert not held.registered()[0].tail_intact
        await held.begin_run()
        assert held.registered()[0].tail_intact

    async def test_wrong_directories_are_refused_and_unlocked(self) -> None:
        disk = await formatted(("/d1", D1), ("/copy", D1), ("/old", D2))
        await write_identity(disk, "/other", Identity("c2", 3, D2, 0))
        for paths, said in (
            (("/d1", "/none"), "/none is not formatted.* take it out of log.dirs"),
            (("/d1", "/copy"), "copy of the other"),
            (("/d1", "/other"), "cluster"),
        ):
            with pytest.raises(ConfigError, match=said):
                await LogDirectories.open(config(*paths), disk)
        (await LogDirectories.open(config("/d1"), disk)).unlock()
        with pytest.raises(ConfigError, match="node"):
            await LogDirectories.open(config("/d1"), await formatted(("/d1", D1), node_id=4))

    async def test_a_generation_is_remembered_and_never_goes_back(self) -> None:
        disk = await formatted(("/d1", D1))
        held = await LogDirectories.open(config("/d1"), disk)
        await held.learn_generation(2)
        assert (await read_identity(disk, "/d1")).quorum_generation == 2
        with pytest.raises(ConfigError, match="quorum_generation 2"):
            await held.learn_generation(1)

    async def test_a_lost_one_is_remembered_on_disk_and_not_marked(self) -> None:
        disk = await formatted(("/d1", D1), ("/d2", D2))
        held = await LogDirectories.open(config("/d1", "/d2"), disk)
        await held.begin_run()
        assert await held.lose(D1, "bad")
        assert not await held.lose(D1, "again")
        assert held.failed_ids == [D1]
        assert [one.directory_id for one in held.registered()] == [D2]
        await held.mark_clean()
        lost, kept = await read_run(disk, "/d1"), await read_run(disk, "/d2")
        assert (lost.sync_failed, lost.marker_present) == (True, False)
        assert (kept.sync_failed, kept.marker_present) == (False, True)
