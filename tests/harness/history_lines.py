"""Histories as short text, for tables of tests: an operation a line.

1: send x a@0, y b       process 1 sends to two keys; the offset of b is not told
1? send x c              the outcome is unknown
1! send x c              it failed
2: poll x a@0 c@1, y b@0
2: poll x a@0 / x c@1    two polls in one operation
3: txn send x a@0 / poll y b@0
2: assign x y            also subscribe, and crash without keys
2: assign x from the beginning
2: poll x a@0 rebalanced x
[3-9] 1: send x a        from time 3 to time 9; otherwise one line is after the other
"""

from __future__ import annotations

import re

from quorate_testing.history.operations import Kind, Name, Operation, Outcome, Poll, Send

_LINE = re.compile(r"(?:\[(\d+)-(\d*)\] )?(\w+)([:?!]) (\w+) ?(.*)")
_OUTCOMES: dict[str, Outcome] = {":": "done", "?": "unknown", "!": "failed"}


def history(text: str) -> list[Operation]:
    """Return the operations of a text."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [_operation(line, 10 * number) for number, line in enumerate(lines, 1)]


def _operation(line: str, now: int) -> Operation:
    match = _LINE.fullmatch(line)
    assert match, f"{line!r} is no operation"
    start, end, process, mark, verb, rest = match.groups()
    outcome = _OUTCOMES[mark]
    rest, _, rebalanced = rest.partition(" rebalanced ")
    keys, seeks = rest.removesuffix(" from the beginning"), rest.endswith(" from the beginning")
    kind: Kind = verb  # type: ignore[assignment]
    has_steps = verb in {"send", "poll", "txn"}
    return Operation(
        process=process,
        kind=kind,
        start=int(start or now),
        end=None if start and not end else int(end or now + 5),
        outcome=outcome,
        steps=_steps(verb, rest) if has_steps else (),
        keys=() if has_steps else tuple(keys.split()),
        seeks=seeks,
        rebalanced=tuple(rebalanced.split()),
    )


def _steps(verb: str, text: str) -> tuple[Send | Poll, ...]:
    steps: list[Send | Poll] = []
    for part in text.split(" / ") if text else []:
        words = part.split(" ", 1)
        step, rest = words if verb == "txn" else (verb, part)
        keys = [one.split() for one in rest.split(", ")]
        if step == "send":
            steps += [Send(key, *_record(record)) for key, *values in keys for record in values]
        else:
            steps.append(Poll({key: [_read(one) for one in records] for key, *records in keys}))
    return tuple(steps)


def _record(text: str) -> tuple[Name, int | None]:
    value, _, offset = text.partition("@")
    return value, int(offset) if offset else None


def _read(text: str) -> tuple[int, Name]:
    value, offset = _record(text)
    assert offset is not None, f"{text!r}: a record that was read has an offset"
    return offset, value
