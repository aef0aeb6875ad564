"""What a suite found on one server: a file for each pair, and the outcome of every case in it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).parent / "results"
#: The server that says what can pass at all, and ours.
KAFKA, QUORATE = "kafka", "quorate"

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a suite, and what became of it. The note says why it failed or was skipped."""

    name: str
    outcome: Outcome
    note: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """All cases of a suite on one server."""

    suite: str
    server: str
    version: str
    cases: list[Case] = field(default_factory=list)

    def named(self, outcome: Outcome) -> set[str]:
        """Return the names of the cases with this outcome."""
        return {case.name for case in self.cases if case.outcome == outcome}

    def save(self, *, into_the_last: bool = False) -> Path:
        """Write the result where the page of results reads it. Return the file.

        With `into_the_last` the cases replace those of the same name in the result that is there.
        """
        FOLDER.mkdir(exist_ok=True)
        last = load(self.suite, self.server) if into_the_last else None
        new = {case.name: case for case in self.cases}
        cases = [new.pop(case.name, case) for case in last.cases] if last else []
        told = asdict(replace(self, cases=[*cases, *new.values()]))
        path = FOLDER / f"{self.suite}.{self.server}.json"
        path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
        return path


def load(suite: str, server: str) -> Result | None:
    """Return the result that was saved last; None: there is none."""
    path = FOLDER / f"{suite}.{server}.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    return Result(**{**found, "cases": [Case(**case) for case in found["cases"]]})
