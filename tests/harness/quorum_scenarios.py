"""What can be done to a simulated quorum, by name, and what it must come to at least."""

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
    """What is done to a quorum."""

    injected: Counter[str]

    async def run(self, plan: Sequence[Fault]) -> None:
        """Do it all; raise Violation for what it alone can see."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Which troubles a quorum has."""

    #: By chance, for so many machines, until that moment.
    draw: Callable[[random.Random, int, float], list[Fault]]
    troubles: Callable[[Quorum, Rules, Callable[[str], None]], Troubles]
    kinds: Sequence[str]
    #: What a hundred seeds must come to at least, or the world has become too kind.
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
