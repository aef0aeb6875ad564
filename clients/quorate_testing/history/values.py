"""The rules about single values: each is written once, at one offset, and read."""

from __future__ import annotations

from collections.abc import Iterator

from quorate_testing.history.errors import Error, Place
from quorate_testing.history.facts import Facts, Number
from quorate_testing.history.operations import Name


def inconsistent_offsets(facts: Facts) -> Iterator[Error]:
    """Find offsets that have two or more values."""
    for key, order in facts.orders.items():
        for offset, others in order.conflicts.items():
            values = [order.values[offset], *others]
            told = ", ".join(map(repr, values[:8]))
            pairs = (_told_by(facts, key, value, offset) for value in values[:2])
            yield Error(
                "inconsistent-offsets",
                f"{key}: offset {offset} has {len(values)} values: {told}",
                tuple(place for pair in pairs for place in pair),
                len(values),
            )


def duplicates(facts: Facts) -> Iterator[Error]:
    """Find values that have two or more offsets."""
    for key, order in facts.orders.items():
        for value, offsets in order.repeats.items():
            told = ", ".join(map(str, sorted(offsets)[:8]))
            yield Error(
                "duplicate",
                f"{key}: {value!r} stands at {len(offsets)} offsets: {told}",
                _told_by(facts, key, value, order.last(value)),
                len(offsets),
            )


def lost_writes(facts: Facts) -> Iterator[Error]:
    """Find values that must have been written, were not read, and stand before one that was.

    If a value has several offsets, it counts as read from the first on, and as lost only behind
    the last.
    """
    for key, order in facts.orders.items():
        readers = facts.readers.get(key)
        if not readers:
            continue
        bound = max(order.first[value] for value in readers)
        reader = readers[_read_at(facts, key, bound)]
        for value in order.first.keys() - readers.keys():
            last, writer = order.last(value), facts.writer(key, value)
            if last is None or last > bound or writer is None:
                continue
            if facts.is_committed(writer, key, value) and not facts.may_lack(key, value, last):
                yield Error(
                    "lost-write",
                    f"{key}: {value!r} was written at offset {last} and never read, and offset "
                    f"{bound} was read",
                    (_place(facts, writer, key), _place(facts, reader, key, bound)),
                    bound - last,
                )


def unseen(facts: Facts) -> Iterator[Error]:
    """Find values whose send is done and that no operation read: the end of a log may be lost."""
    for key, writers in facts.writers.items():
        order = facts.orders.get(key)
        for value, writer in writers.items():
            if facts.reader(key, value) is not None:
                continue
            if facts.operations[writer].outcome != "done":
                continue
            offset = None if order is None else order.last(value)
            if offset is None and facts.may_lack_somewhere(key, value):
                continue
            if offset is not None and facts.may_lack(key, value, offset):
                continue
            at = "" if offset is None else f" at offset {offset}"
            yield Error(
                "unseen",
                f"{key}: the send of {value!r}{at} is done, and no operation read it",
                (_place(facts, writer, key),),
            )


def aborted_reads(facts: Facts) -> Iterator[Error]:
    """Find values that were read, and whose send failed (G1a)."""
    for key, readers in facts.readers.items():
        for value in readers:
            writer = facts.writer(key, value)
            if writer is not None and facts.operations[writer].outcome == "failed":
                yield Error(
                    "G1a",
                    f"{key}: {value!r} was read, and its send failed",
                    _told_by(facts, key, value, facts.orders[key].first[value]),
                )


def precommitted_reads(facts: Facts) -> Iterator[Error]:
    """Find operations that read what they sent: it must not be seen before it is committed."""
    for number, operation in enumerate(facts.operations):
        if len(operation.steps) < 2:
            continue
        own = {(send.key, send.value) for send in operation.sends()}
        for key, records in operation.polls() if own else ():
            for offset, value in records:
                if (key, value) in own:
                    yield Error(
                        "precommitted-read",
                        f"{key}: {value!r} at offset {offset} was read by its own sender",
                        (_place(facts, number, key, offset),),
                        len(operation.steps),
                    )


def unwritten(facts: Facts) -> Iterator[Error]:
    """Find values that were read, and that no operation of the history sent."""
    for key, readers in facts.readers.items():
        writers = facts.writers.get(key, {})
        for value in readers.keys() - writers.keys():
            offset = facts.orders[key].first[value]
            yield Error(
                "unwritten",
                f"{key}: {value!r} was read at offset {offset}, and no operation sent it",
                (_place(facts, readers[value], key, offset),),
            )


def reused_values(facts: Facts) -> Iterator[Error]:
    """Find values that two operations sent to one key: no rule can tell which was read."""
    for key, value, again in facts.rewrites:
        numbers = dict.fromkeys((facts.writers[key][value], again))
        yield Error(
            "reused-value",
            f"{key}: {value!r} was sent twice: give each send to a key a value of its own",
            tuple(_place(facts, number, key) for number in numbers),
        )


def empty(facts: Facts) -> Iterator[Error]:
    """Find histories in which nothing was read."""
    if not any(facts.polled.values()):
        yield Error("empty", f"{len(facts.operations)} operations, and none that is done read", ())


def _place(facts: Facts, number: Number, key: str, offset: int | None = None) -> Place:
    return Place(facts.operations[number], key, offset)


def _told_by(facts: Facts, key: str, value: Name, offset: int | None) -> tuple[Place, ...]:
    """Return the sender of a value, and the first operation that read it."""
    found = [facts.writer(key, value), facts.reader(key, value)]
    numbers = dict.fromkeys(number for number in found if number is not None)
    return tuple(_place(facts, number, key, offset) for number in numbers)


def _read_at(facts: Facts, key: str, offset: int) -> Name:
    """Return a value that was read and stands at an offset."""
    order = facts.orders[key]
    values = [order.values[offset], *order.conflicts.get(offset, [])]
    return next(value for value in values if value in facts.readers[key])
