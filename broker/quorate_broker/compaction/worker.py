"""The worker process that compacts: it reads a Job from its input, and writes reports.

The broker starts it by exec. A thread would delay the broker's event loop, because a thread shares
the interpreter's lock, and a fork of a process with threads may deadlock. When the broker is gone,
the input of the worker ends, and then the worker ends too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

from quorate.errors import CorruptRecordError
from quorate_broker.compaction import job as messages
from quorate_broker.compaction.cleaning import Cleaning
from quorate_broker.compaction.job import Failed, Job, Report
from quorate_quorum.log.real_disk import RealDisk

#: The niceness of a pass that is overdue, and of any other pass.
NICENESS_OVERDUE, NICENESS = 10, 19


async def run() -> None:
    """Carry out one job. End early if the input ends."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=64 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    job = Job.decode(await lines.readline())
    give_way(is_overdue=job.is_overdue)
    working = asyncio.ensure_future(_work(job))
    waiting = asyncio.ensure_future(lines.read())
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    for task in (working, waiting):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def give_way(*, is_overdue: bool) -> None:
    """Let the broker's own work come first. A platform that can not do so runs the pass as it is.

    SCHED_BATCH tells Linux that the pass never needs a core at once. SCHED_IDLE would go too far:
    while all cores are busy, a worker would need minutes to end after it was killed, and the stop
    of the broker waits for that. A pass that is overdue gives way less, because it would hardly go
    on while all cores are busy. Call this before the pool of the disk starts its threads: threads
    that run already are not changed.
    """
    batch = getattr(os, "SCHED_BATCH", None)
    if batch is not None:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, batch, os.sched_param(0))
    niceness = NICENESS_OVERDUE if is_overdue else NICENESS
    with contextlib.suppress(OSError):
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, max(ours, niceness))


async def _work(job: Job) -> None:
    disk = RealDisk(threads=2)
    try:
        async for report in Cleaning(disk, job).carry_out():
            _tell(report)
    except (OSError, CorruptRecordError) as error:
        _tell(Failed(str(error), isinstance(error, CorruptRecordError)))
    finally:
        disk.close()


def _tell(report: Report) -> None:
    sys.stdout.buffer.write(messages.encode(report))
    sys.stdout.buffer.flush()


def main() -> None:
    """Run the worker."""
    asyncio.run(run())


if __name__ == "__main__":
    main()
