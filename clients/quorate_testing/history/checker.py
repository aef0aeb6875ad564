"""The check of a history: all rules, and the verdict."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from quorate_testing.history import cycles, sessions, values
from quorate_testing.history.errors import KINDS, Error
from quorate_testing.history.facts import Facts
from quorate_testing.history.kept import Kept
from quorate_testing.history.lag import Lag, worst_lag
from quorate_testing.history.operations import Name, Operation

#: The most examples of a kind that a verdict keeps: the smallest ones.
EXAMPLES_MAX = 8

RULES: tuple[Callable[[Facts], Iterator[Error]], ...] = (
    values.inconsistent_offsets,
    values.duplicates,
    values.lost_writes,
    values.unseen,
    values.aborted_reads,
    values.precommitted_reads,
    values.unwritten,
    values.reused_values,
    values.empty,
    sessions.poll_skips,
    sessions.nonmonotonic_polls,
    sessions.int_poll_skips,
    sessions.int_nonmonotonic_polls,
    sessions.nonmonotonic_sends,
    sessions.int_nonmonotonic_sends,
    sessions.int_send_skips,
    cycles.circles,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The errors of one kind: how many, and the smallest of them."""

    kind: str
    count: int
    examples: tuple[Error, ...]

    def __str__(self) -> str:
        head = f"{self.count} {self.kind} ({KINDS[self.kind]})"
        return "\n".join([head, *_indented(self.examples[:1])])


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a check. str() of it is a text for people."""

    failures: tuple[Finding, ...]
    #: What looks like an error, and is none in this system or under the arguments of the check.
    by_design: tuple[Finding, ...]
    #: Kind of operation and outcome -> how many.
    operations: Mapping[tuple[str, str], int]
    #: Process -> the records that it polled.
    polled: Mapping[Name, int]
    worst_lag: Lag | None

    @property
    def is_good(self) -> bool:
        return not self.failures

    def __bool__(self) -> bool:
        raise TypeError("ask a verdict for is_good: as a condition it would hide why")

    def __str__(self) -> str:
        counts = ", ".join(
            f"{count} {kind} {outcome}" for (kind, outcome), count in self.operations.items()
        )
        head = "good" if self.is_good else "errors"
        lines = [f"{head}: {counts or 'no operations'}"]
        for finding in self.failures:
            lines += str(finding).splitlines()
        for finding in self.by_design:
            lines.append(f"no failure: {finding.count} {finding.kind} ({KINDS[finding.kind]})")
        if self.worst_lag:
            lag = self.worst_lag
            lines.append(f"worst lag: {lag.lag}, process {lag.process}, {lag.key}, at {lag.start}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as values that json.dumps() takes."""
        lag = self.worst_lag
        return {
            "is_good": self.is_good,
            "failures": {finding.kind: _json(finding) for finding in self.failures},
            "by_design": {finding.kind: _json(finding) for finding in self.by_design},
            "operations": {" ".join(key): count for key, count in self.operations.items()},
            "polled": {str(process): count for process, count in self.polled.items()},
            "worst_realtime_lag": lag
            and {"lag": lag.lag, "process": lag.process, "key": lag.key, "start": lag.start},
        }


def check(
    history: Iterable[Operation],
    *,
    kept: Mapping[str, Kept] | None = None,
    allowed: Collection[str] = (),
) -> Verdict:
    """Return which errors a history has.

    `kept` says of a key what its log may lack at the end. `allowed` names further kinds that are no
    failures in this run, for example "duplicate" if a producer is not idempotent.
    """
    strange = set(allowed) - KINDS.keys()
    if strange:
        raise ValueError(f"allowed: no kind is named {sorted(strange)}; kinds: {', '.join(KINDS)}")
    operations = sorted(history, key=lambda operation: operation.start)
    facts = Facts(operations, kept or {})
    piles = _Piles()
    for rule in RULES:
        for error in rule(facts):
            piles.add(error, is_failure=not error.is_by_design and error.kind not in allowed)
    return Verdict(
        piles.findings(is_failure=True),
        piles.findings(is_failure=False),
        dict(sorted(Counter((one.kind, one.outcome) for one in operations).items())),
        dict(facts.polled),
        worst_lag(facts),
    )


class _Piles:
    """Counts errors, and keeps the smallest of each kind."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, bool]] = Counter()
        self._examples: dict[tuple[str, bool], list[Error]] = {}

    def add(self, error: Error, *, is_failure: bool) -> None:
        pile = error.kind, is_failure
        self._counts[pile] += 1
        examples = self._examples.setdefault(pile, [])
        examples.append(error)
        if len(examples) > 64 * EXAMPLES_MAX:
            examples[:] = _smallest(examples)

    def findings(self, *, is_failure: bool) -> tuple[Finding, ...]:
        """Return what was found, in the order of KINDS."""
        piles = [(kind, is_failure) for kind in KINDS if (kind, is_failure) in self._counts]
        return tuple(
            Finding(kind, self._counts[kind, told], tuple(_smallest(self._examples[kind, told])))
            for kind, told in piles
        )


def _smallest(errors: list[Error]) -> list[Error]:
    return heapq.nsmallest(EXAMPLES_MAX, errors, key=lambda error: (error.size, error.sentence))


def _json(finding: Finding) -> dict[str, Any]:
    examples = [str(error) for error in finding.examples]
    return {"count": finding.count, "means": KINDS[finding.kind], "examples": examples}


def _indented(errors: Iterable[Error]) -> Iterator[str]:
    for error in errors:
        yield from (f"  {line}" for line in str(error).splitlines())
