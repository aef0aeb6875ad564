"""The worker process: it compacts a log on a real disk, and ends with the broker."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from quorate_broker.compaction import job as messages
from quorate_broker.compaction.job import Cleaned, Done, Failed, Report
from quorate_broker.compaction.runner import WORKER, ProcessRunner
from quorate_broker.compaction.worker import NICENESS, NICENESS_OVERDUE
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.real_disk import RealDisk
from quorate_quorum.node.programs import Program, RealPrograms
from tests.unit.quorate_broker.compaction.builders import append, final, job_for, read


async def real_log(folder: Path) -> tuple[RealDisk, Log]:
    disk = RealDisk()
    log = await Log.open(disk, str(folder / "t-0"), LogConfig(segment_bytes=400))
    for number in range(40):
        await append(log, [(b"%d" % (number % 4), b"v" * 30)])
    return disk, log


async def test_it_compacts_a_log_as_the_broker_asks(tmp_path: Path) -> None:
    disk, log = await real_log(tmp_path)
    expected = final(await read(log))
    job = await job_for(log)
    assert job is not None
    reports: list[Report] = []
    async with aclosing(ProcessRunner(RealPrograms()).run(job)) as found:
        async for report in found:
            reports.append(report)
            if isinstance(report, Cleaned):
                assert await log.compaction.replace_segments(report.new, log.truncations)
            else:
                break
    assert isinstance(reports[-1], Done)
    assert final(await read(log)) == expected
    assert len(await log.segments()) == 2
    await log.close(clean=True)
    log = await Log.open(disk, str(tmp_path / "t-0"), LogConfig(segment_bytes=400))
    assert final(await read(log)) == expected
    await log.close(clean=True)
    disk.close()


async def test_a_log_that_is_gone_is_a_failed_pass(tmp_path: Path) -> None:
    disk, log = await real_log(tmp_path)
    job = await job_for(log)
    assert job is not None
    await log.close(clean=True)
    (tmp_path / "t-0").rename(tmp_path / "elsewhere")
    async with aclosing(ProcessRunner(RealPrograms()).run(job)) as found:
        report = await anext(found)
    assert isinstance(report, Failed)
    assert "No such file" in report.reason
    disk.close()


@pytest.mark.parametrize("is_overdue", [False, True])
def test_the_worker_gives_way_to_the_broker(*, is_overdue: bool) -> None:
    """An overdue pass does not give way as far: it would hardly go on while all cores are busy."""
    program = (
        "import os; from quorate_broker.compaction.worker import give_way;"
        f"give_way(is_overdue={is_overdue});"
        "is_batch = not hasattr(os, 'SCHED_BATCH') or os.sched_getscheduler(0) == os.SCHED_BATCH;"
        "print(os.getpriority(os.PRIO_PROCESS, 0), is_batch)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert told == [str(max(ours, NICENESS_OVERDUE if is_overdue else NICENESS)), "True"]


async def test_a_worker_ends_when_the_broker_is_gone(tmp_path: Path) -> None:
    """Its input ends then, even if the broker was killed."""
    program = await RealPrograms().start(WORKER)
    ending = await program.end()
    assert ending.startswith("status ")


class Broken(RealPrograms):
    """Starts a program that dies at once, whatever was asked."""

    async def start(self, module: str) -> Program:
        return await super().start("quorate_broker.compaction.no_such_module")


async def test_a_worker_that_dies_is_a_failed_pass_with_its_last_words(tmp_path: Path) -> None:
    disk, log = await real_log(tmp_path)
    job = await job_for(log)
    assert job is not None
    async with aclosing(ProcessRunner(Broken()).run(job)) as found:
        reports = [report async for report in found]
    assert isinstance(reports[-1], Failed)
    assert "no_such_module" in "".join(str(one) for one in reports)
    await log.close(clean=True)
    disk.close()


def test_jobs_and_reports_are_the_same_after_the_way_to_the_other_process() -> None:
    done: Report = Done(1, 2, 3, 4, 5, 6)
    failed: Report = Failed("why")
    assert [messages.decode(messages.encode(one)) for one in (done, failed)] == [done, failed]
