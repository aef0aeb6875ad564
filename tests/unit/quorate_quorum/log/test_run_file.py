"""What a log directory remembers of its last run."""

from __future__ import annotations

import pytest
from crc32c import crc32c

from quorate.errors import StorageError
from quorate_quorum.log import run_file
from quorate_quorum.log.run_file import read_run
from tests.unit.quorate_quorum.log.builders import (
    new_disk,
)


async def test_a_run_is_judged_by_marker_boot_and_failed_syncs() -> None:
    disk = await new_disk()
    assert not (await read_run(disk, "/data")).tail_intact
    await run_file.begin_run(disk, "/data")
    disk.crash_process()
    run = await read_run(disk, "/data")
    assert (run.marker_present, run.same_boot, run.tail_intact) == (False, True, True)
    disk.lose_power()
    assert not (await read_run(disk, "/data")).tail_intact
    await run_file.begin_run(disk, "/data")
    await run_file.write_marker(disk, "/data")
    disk.lose_power()
    run = await read_run(disk, "/data")
    assert (run.marker_present, run.same_boot, run.tail_intact) == (True, False, True)
    disk.crash_process()  # while loading: the verdict stands
    assert await read_run(disk, "/data") == run
    await run_file.begin_run(disk, "/data")
    disk.lose_power()
    assert not (await read_run(disk, "/data")).tail_intact
    disk.fail_next_sync(2)
    await run_file.set_sync_failed(disk, "/data")
    assert (await read_run(disk, "/data")).sync_failed
    disk.put("/data/run", b"garbage")
    run = await read_run(disk, "/data")
    assert run.sync_failed
    assert not run.tail_intact


async def test_a_run_file_of_another_version_is_refused() -> None:
    disk = await new_disk()
    await run_file.begin_run(disk, "/data")
    body = b"version=2\n"
    disk.put("/data/run", body + f"crc={crc32c(body):08x}\n".encode())
    with pytest.raises(StorageError, match="version 2"):
        await read_run(disk, "/data")
