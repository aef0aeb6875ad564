"""The end of a log's use: what is under way ends first."""

from __future__ import annotations

import asyncio

from quorate_quorum.log.log import Log, LogConfig
from tests.unit.quorate_quorum.log.builders import PATH, append, new_disk


async def test_a_close_waits_for_the_roll_under_way() -> None:
    """The roll went on, and made the directory again that a deleted topic had left."""
    disk = await new_disk()
    log = await Log.open(disk, PATH, LogConfig())
    await append(log, 3)
    disk.slow = 0.001
    rolling = asyncio.create_task(log.roll())
    await asyncio.sleep(0)
    await log.close(clean=False)
    assert rolling.done()
    disk.slow = 0.0
    await disk.remove_directory(PATH)
    await asyncio.gather(rolling, return_exceptions=True)
    assert not await disk.exists(PATH)
