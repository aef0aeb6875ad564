"""Runs a pass: in a process of its own, or in this event loop if there are no processes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from quorate.errors import CorruptRecordError
from quorate_broker.compaction import job as messages
from quorate_broker.compaction.cleaning import Cleaning
from quorate_broker.compaction.job import Failed, Job, Report
from quorate_quorum.disk import Disk
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.programs import Programs

WORKER = "quorate_broker.compaction.worker"


class Runner(Protocol):
    """Runs one pass at a time."""

    def run(self, job: Job) -> AsyncGenerator[Report, None]:
        """Yield the reports of a pass. The last one is Done or Failed.

        Closing the iterator ends the pass.
        """


class ProcessRunner:
    """Runs each pass in a worker process."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    async def run(self, job: Job) -> AsyncGenerator[Report, None]:
        """Yield the reports of a pass. If the worker dies, the last report is Failed."""
        try:
            program = await self._programs.start(WORKER)
        except OSError as error:
            yield Failed(f"the worker process can't be started: {error}")
            return
        try:
            await program.write(job.encode())
            async for line in program.lines():
                yield messages.decode(line)
        except OSError as error:
            yield Failed(f"the worker process does not answer: {error}")
        finally:
            ending = await program.end()
        yield Failed(f"the worker process ended: {ending}")


class InlineRunner:
    """Runs each pass in this event loop, in short turns. Simulations use it."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    async def run(self, job: Job) -> AsyncGenerator[Report, None]:
        """Yield the reports of a pass, as Runner.run does."""
        try:
            async with aclosing(Cleaning(self._disk, job).carry_out()) as reports:
                async for report in reports:
                    yield report
        except (OSError, CorruptRecordError) as error:
            yield Failed(str(error), isinstance(error, CorruptRecordError))


def runner_in(environment: Environment) -> Runner:
    """Return the runner for a node's environment: ProcessRunner if it has processes."""
    if environment.programs is None:
        return InlineRunner(environment.disk)
    return ProcessRunner(environment.programs)
