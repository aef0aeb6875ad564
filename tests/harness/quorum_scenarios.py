"""The scenarios of a simulated quorum: their faults, and the counts that they must reach."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tests.harness.quorum_faults import KINDS, Fault, Nemesis, draw_plan
from tests.harness.quorum_machines import Quorum
from tests.harness.quorum_rejoin import ACTS, WAYS, Returns, draw_returns
from tests.harness.quorum_rules import Rules


class Troubles(Protocol):
    """The faults of a run."""

    injected: Counter[str]

    async def run(self, plan: Sequence[Fault]) -> None:
        """Carry out the plan; raise Violation for a fault that only this object can see."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario: how its plan is drawn and carried out."""

    #: Draws a plan from (chance, number of machines, end in seconds).
    draw: Callable[[random.Random, int, float], list[Fault]]
    troubles: Callable[[Quorum, Rules, Callable[[str], None]], Troubles]
    kinds: Sequence[str]
    #: Least counts of a hundred seeds: below them the world has become too kind.
    floors: dict[str, int]


SCENARIOS = {
    "faults": Scenario(
        draw_plan,
        lambda quorum, _, told: Nemesis(quorum, told),
        tuple(KINDS),
        {
            "elections": 500,
            "truncations": 50,
            "pauses": 80,
            "power losses": 80,
            "snapshots taken": 1000,
            "snapshots loaded": 500,
            "snapshots installed": 100,
            "voter changes": 80,
            "reads": 3000,
            "commits": 3000,
        },
    ),
    "rejoin": Scenario(
        draw_returns,
        Returns,
        (*WAYS, *ACTS, "nothing else", "leader", "follower"),
        {"returns": 400, "returns of the removed": 60, "voter changes": 100, "commits": 3000},
    ),
}
