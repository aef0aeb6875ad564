"""The judge of the history of a quorum's clients: two ways, each independent of the other.

By the committed log: each value is written once in a run, so the log orders all writes of a key,
and an operation has a version: the place of its value in that order. An operation that begins after
another has returned sees, or makes, no older version.

By the answers alone: each operation takes effect at one moment between its call and its return, as
on a single cell for each key (quorate_testing.linearizability). This way knows nothing of logs,
versions or epochs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from quorate_testing.linearizability.check import check
from quorate_testing.linearizability.history import UNKNOWN, Unknown
from quorate_testing.linearizability.history import Operation as Told
from tests.harness.invariants import Violation
from tests.harness.quorum_clients import KEYS, Kind, Operation

#: Most calls of Cell.step for one history; a seed takes some 2,000.
STEPS_MAX = 1_000_000


def judge(history: list[Operation], values: dict[str, list[str]]) -> None:
    """Raise Violation if one of the two ways finds a fault."""
    judge_by_log(history, values)
    judge_by_answers(history)


# -- by the answers


@dataclass(frozen=True, slots=True)
class Call:
    """A client's call on one key."""

    kind: Kind
    key: str
    expected: str | None
    value: str | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One key: every answer tells what was there, and whether it was replaced."""

    initial: str | None = None

    def step(
        self, state: str | None, input: Call, output: tuple[bool, str | None] | Unknown
    ) -> tuple[bool, str | None]:
        """Return whether `input` in `state` may give `output`, and the state after it."""
        writes = input.kind == "write" or (input.kind == "cas" and state == input.expected)
        told = output is UNKNOWN or output == (writes, state)
        return told, input.value if writes else state

    def is_read(self, input: Any) -> bool:
        """Return whether this input leaves every state as it is."""
        return isinstance(input, Call) and input.kind == "read"


def judge_by_answers(history: list[Operation]) -> None:
    """Raise Violation unless the answers are linearizable."""
    verdict = check(
        Cell(), map(_as_told, enumerate(_that_may_matter(history))), key=_key, steps_max=STEPS_MAX
    )
    if verdict.outcome == "violation":
        raise Violation(str(verdict.violation))
    if verdict.outcome == "unknown":
        raise Violation(f"not known if linearizable: {STEPS_MAX} steps did not suffice")


def _that_may_matter(history: list[Operation]) -> list[Operation]:
    return [one for one in history if one.status != "fail"]


def _as_told(numbered: tuple[int, Operation]) -> Told:
    number, one = numbered
    call = Call(one.kind, one.key, one.expected, one.value)
    if one.status == "ok":
        answer = one.has_written, one.found
        return Told(number, one.invoked_s, one.returned_s, call, answer)
    return Told(number, one.invoked_s, None, call)


def _key(input: Any) -> Hashable:
    assert isinstance(input, Call)
    return input.key


# -- by the log


def judge_by_log(history: list[Operation], values: dict[str, list[str]]) -> None:
    """Raise Violation unless what was told fits the committed log, and the order of real time."""
    for key in KEYS:
        written = values.get(key, [])
        if len(set(written)) != len(written):
            doubled = [value for value, times in Counter(written).items() if times > 1]
            raise Violation(f"{doubled} of {key} stand in the log twice")
        versions = {value: number for number, value in enumerate(written)}
        _judge_key(key, [one for one in history if one.key == key], versions, written)


def _judge_key(
    key: str, operations: list[Operation], versions: dict[str, int], written: list[str]
) -> None:
    for one in operations:
        if one.kind != "read" and one.status == "fail" and one.value in versions:
            raise Violation(f"{one} was told to have failed, and is committed")
        if one.status == "ok" and one.has_written and one.value not in versions:
            raise Violation(f"{one} was acknowledged, and is lost")
        if one.status == "ok" and one.kind == "cas" and one.has_written:
            place = versions[str(one.value)]
            before = written[place - 1] if place else None
            if before != one.expected:
                raise Violation(f"{one} was acknowledged, and stands after {before} in the log")
    done = [one for one in operations if one.status == "ok"]
    returns = sorted(done, key=lambda one: one.returned_s)
    newest, returned = -1, 0
    for one in sorted(done, key=lambda one: one.invoked_s):
        while returns[returned].returned_s < one.invoked_s:
            newest = max(newest, _version(returns[returned], versions))
            returned += 1
        version = _version(one, versions)
        if version < newest or (one.has_written and version == newest):
            raise Violation(
                f"{one} has version {version} of {key}, and began after version {newest} was told"
            )


def _version(one: Operation, versions: dict[str, int]) -> int:
    value = one.value if one.has_written else one.found
    if value is None:
        return -1
    if value not in versions:
        raise Violation(f"{one} saw what was never committed")
    return versions[value]
