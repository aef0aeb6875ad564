"""The rules about the order in which one process reads and writes a key."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from quorate_testing.history.errors import Error, Place
from quorate_testing.history.facts import Facts, Number
from quorate_testing.history.operations import Operation


class Step(NamedTuple):
    """Two successive offsets of a key, and the operations that they come from."""

    key: str
    before: int
    after: int
    first: Number
    second: Number


def poll_skips(facts: Facts) -> Iterator[Error]:
    """Find two successive operations of a process that read a key and left values out."""
    for step in _successive_polls(facts):
        if step.after > step.before + 1:
            yield from _skip(facts, "poll-skip", step, is_by_design=step.second in facts.subscribed)


def nonmonotonic_polls(facts: Facts) -> Iterator[Error]:
    """Find two such operations of which the second read an offset again, or went back."""
    for step in _successive_polls(facts):
        if step.after <= step.before:
            group = step.second in facts.subscribed
            yield _back(facts, "nonmonotonic-poll", "read", step, is_by_design=group)


def int_poll_skips(facts: Facts) -> Iterator[Error]:
    """Find operations that left values of a key out, without a rebalance of it."""
    for step in _jumps(facts):
        if step.after > step.before:
            yield from _skip(facts, "int-poll-skip", step)


def int_nonmonotonic_polls(facts: Facts) -> Iterator[Error]:
    """Find operations that read an offset of a key again, or went back, without a rebalance."""
    for step in _jumps(facts):
        if step.after <= step.before:
            yield _back(facts, "int-nonmonotonic-poll", "read", step)


def nonmonotonic_sends(facts: Facts) -> Iterator[Error]:
    """Find values that a process sent after another to a key, and that stand before it."""
    for session in facts.sessions:
        last: dict[str, tuple[int, Number]] = {}
        for number in session:
            for key, offsets in _sent(facts, number).items():
                if key in last and offsets[0] <= last[key][0]:
                    before, first = last[key]
                    step = Step(key, before, offsets[0], first, number)
                    yield _back(facts, "nonmonotonic-send", "wrote", step)
                last[key] = offsets[-1], number


def int_nonmonotonic_sends(facts: Facts) -> Iterator[Error]:
    """Find the same within one operation."""
    for step in _successive_sends(facts):
        if step.after <= step.before:
            yield _back(facts, "int-nonmonotonic-send", "wrote", step)


def int_send_skips(facts: Facts) -> Iterator[Error]:
    """Find values between two that one operation sent in succession."""
    for step in _successive_sends(facts):
        between = facts.orders[step.key].between(step.before, step.after)
        for offset, value in between:
            yield Error(
                "int-send-skip",
                f"{step.key}: {value!r} at offset {offset} stands between offsets {step.before} "
                f"and {step.after} of one operation",
                _places(facts, step),
                step.after - step.before,
                is_by_design=True,
            )
            break


def _successive_polls(facts: Facts) -> Iterator[Step]:
    """Return where operations that read a key went on, per process.

    The position moves only with operations that are done: the others are read again. A crash, a
    seek, and an "assign" or "subscribe" that drops the key forget it.
    """
    for session in facts.sessions:
        last: dict[str, tuple[int, Number]] = {}
        for number in session:
            operation = facts.operations[number]
            if operation.kind in {"assign", "subscribe"}:
                _reassign(last, operation)
            reads: dict[str, tuple[int, int]] = {}
            for key, records in operation.polls():
                if records:
                    first = reads[key][0] if key in reads else records[0][0]
                    reads[key] = first, records[-1][0]
            for key, (begin, end) in reads.items():
                if key in last:
                    yield Step(key, last[key][0], begin, last[key][1], number)
                if operation.outcome == "done":
                    last[key] = end, number


def _reassign(last: dict[str, tuple[int, Number]], operation: Operation) -> None:
    if operation.outcome == "failed":
        return
    stay = set() if operation.seeks else set(operation.keys)
    for key in last.keys() - stay:
        del last[key]


def _jumps(facts: Facts) -> Iterator[Step]:
    """Return successive offsets in one operation that are not successive numbers."""
    for number, operation in enumerate(facts.operations):
        last: dict[str, int] = {}
        for key, records in operation.polls():
            if key in operation.rebalanced:
                continue
            for offset, _value in records:
                before = last.get(key, offset - 1)
                if offset != before + 1:
                    yield Step(key, before, offset, number, number)
                last[key] = offset


def _sent(facts: Facts, number: Number) -> dict[str, list[int]]:
    """Return the known offsets of what an operation sent, in the order of its sends, by key."""
    operation = facts.operations[number]
    offsets: dict[str, list[int]] = {}
    if operation.outcome == "failed":
        return offsets
    for send in operation.sends():
        offset = facts.offset_of(number, send)
        if offset is not None:
            offsets.setdefault(send.key, []).append(offset)
    return offsets


def _successive_sends(facts: Facts) -> Iterator[Step]:
    for number, operation in enumerate(facts.operations):
        if len(operation.steps) > 1:
            for key, offsets in _sent(facts, number).items():
                for before, after in pairwise(offsets):
                    yield Step(key, before, after, number, number)


def _skip(facts: Facts, kind: str, step: Step, *, is_by_design: bool = False) -> Iterator[Error]:
    """Return the error of a step over values, if one of them had to be there."""
    order = facts.orders[step.key]
    skipped = [
        (offset, value)
        for offset, value in order.between(step.before, step.after)
        if not facts.may_lack(step.key, value, offset)
    ]
    if skipped:
        offset, value = skipped[0]
        more = f" and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        writer = facts.writer(step.key, value)
        places = _places(facts, step)
        if writer is not None:
            places = (*places, Place(facts.operations[writer], step.key))
        yield Error(
            kind,
            f"{step.key}: offset {step.after} was read after {step.before}: {value!r} at offset "
            f"{offset}{more} was left out",
            places,
            len(skipped),
            is_by_design,
        )


def _back(facts: Facts, kind: str, did: str, step: Step, *, is_by_design: bool = False) -> Error:
    process = facts.operations[step.second].process
    values = facts.orders[step.key].values
    before, after = values.get(step.before), values.get(step.after)
    return Error(
        kind,
        f"{step.key}: process {process} {did} {after!r} at offset {step.after} after {before!r} at "
        f"offset {step.before}",
        _places(facts, step),
        step.before - step.after,
        is_by_design,
    )


def _places(facts: Facts, step: Step) -> tuple[Place, ...]:
    numbers = dict.fromkeys((step.first, step.second))
    offsets = (step.before, step.after)
    return tuple(
        Place(facts.operations[number], step.key, offset)
        for number, offset in zip(numbers, offsets, strict=False)
    )
