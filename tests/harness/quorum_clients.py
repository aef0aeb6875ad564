"""Clients of a simulated quorum: writes, compare-and-set and reads of cluster configs, recorded.

Each value is written once in a run. What must come of their history is in quorum_judge.py.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from quorate.errors import OutcomeUnknownError, QuorateError
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.driver.controller import Controller
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1.events_pb2 import Config, MetadataEvent
from tests.harness.quorum_machines import Machine, Quorum

KEYS = ("a", "b")
PATIENCE_S = 3.0

Kind = Literal["write", "cas", "read"]
#: ok: done. fail: surely not done. unknown: done or not. open: no answer yet.
Status = Literal["open", "ok", "fail", "unknown"]


@dataclass(slots=True)
class Operation:
    """One operation of a client, from its call to its answer."""

    kind: Kind
    key: str
    invoked_s: float
    #: The value that is written; for a compare-and-set also the value that must be there before.
    value: str | None = None
    expected: str | None = None
    status: Status = "open"
    returned_s: float = float("inf")
    #: The value that a read found; for a write or compare-and-set, the value before it.
    found: str | None = None
    has_written: bool = False


@dataclass(slots=True)
class Clients:
    """Several clients, each with one operation at a time."""

    quorum: Quorum
    chance: random.Random
    pause_s: tuple[float, float] = (0.05, 1.5)
    history: list[Operation] = field(default_factory=list)
    _numbers: int = 0

    async def work(self) -> None:
        """Run one client for ever."""
        while True:
            await asyncio.sleep(self.chance.uniform(*self.pause_s))
            machine = self._someone()
            if machine is not None and not self.quorum.is_idle:
                await self.operate(
                    machine, self.chance.choices(("read", "write", "cas"), (5, 4, 2))[0]
                )

    async def operate(self, machine: Machine, kind: Kind, key: str = "") -> Operation:
        """Carry out one operation at a voter, and record its outcome."""
        key = key or self.chance.choice(KEYS)
        operation = Operation(kind, key, self.quorum.loop.time())
        controller, process, death = machine.controller, machine.process, machine.death
        if controller is None or process is None or death is None or not process.is_alive:
            operation.status = "fail"
            return operation
        if kind != "read":
            self._numbers += 1
            operation.value = f"v{self._numbers}"
        if kind == "cas":
            operation.expected = controller.image.configs.get(key)
        self.history.append(operation)
        task = process.spawn(_carry_out(controller, operation, self.chance.random() < 0.5))
        await asyncio.wait((task, death), timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            operation.status = task.result()
            operation.returned_s = self.quorum.loop.time()
        else:
            operation.status = "unknown"
        return operation

    def _someone(self) -> Machine | None:
        """Return a machine that says it leads; now and then any machine."""
        up = [machine for machine in self.quorum.machines if machine.controller is not None]
        leaders = [machine for machine in up if machine.is_leader]
        if leaders and self.chance.random() < 0.95:
            return self.chance.choice(leaders)
        return self.chance.choice(up) if up else None

    def count(self) -> Counter[str]:
        """Return how many operations of each kind ended in each status."""
        return Counter(f"{one.kind} {one.status}" for one in self.history)


async def _carry_out(controller: Controller, operation: Operation, through_log: bool) -> Status:
    try:
        if operation.kind == "read":
            operation.found = await _read(controller, operation.key, through_log=through_log)
        else:
            decided = await controller.active().reign.run(_decision(operation))
            operation.has_written, operation.found = decided.response
    except OutcomeUnknownError:
        return "unknown"
    except QuorateError:
        return "fail"
    return "ok"


async def _read(controller: Controller, key: str, *, through_log: bool) -> str | None:
    """Read linearizably: by a decision without events, or from the image after a round."""
    if through_log:
        return (
            await controller.active().reign.run(
                lambda image, _: Outcome((), image.configs.get(key))
            )
        ).response
    await controller.active().reign.confirm()
    return controller.image.configs.get(key)


def _decision(
    operation: Operation,
) -> Callable[[MetadataImage, Context], Outcome[tuple[bool, str | None]]]:
    def decide(image: MetadataImage, _: Context) -> Outcome[tuple[bool, str | None]]:
        now = image.configs.get(operation.key)
        if operation.kind == "cas" and now != operation.expected:
            return Outcome((), (False, now))
        event = MetadataEvent(config=Config(name=operation.key, value=operation.value))
        return Outcome((event,), (True, now))

    return decide
