"""Random histories of a log without errors, and errors that are planted into them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from quorate_testing.history.operations import Kind, Name, Operation, Outcome, Poll, Send

History = list[Operation]
KEYS = ("x", "y", "z")


@dataclass
class _World:
    """Logs, and the clients that use them: each operation takes effect at one moment, or never."""

    rng: random.Random
    logs: dict[str, list[tuple[int, Name]]] = field(default_factory=lambda: {k: [] for k in KEYS})
    history: History = field(default_factory=list)
    #: Process -> the end of its last operation.
    free: dict[str, int] = field(default_factory=dict)
    #: Process -> key -> the index in the log from which it reads next.
    positions: dict[str, dict[str, int]] = field(default_factory=dict)
    #: Sends of unknown outcome that are written later, and processes that must crash before they
    #: go on, so that they do not overtake these.
    late: list[Send] = field(default_factory=list)
    crashing: set[str] = field(default_factory=set)
    values: int = 0

    def value(self) -> Name:
        self.values += 1
        return self.values if self.rng.random() < 0.5 else f"v{self.values}"

    def append(self, send: Send) -> Send:
        log = self.logs[send.key]
        offset = log[-1][0] + 1 if log else 0
        if self.rng.random() < 0.1:
            offset += self.rng.randint(1, 3)  # a hole: for example a marker of a transaction
        log.append((offset, send.value))
        return replace(send, offset=offset if self.rng.random() < 0.9 else None)

    def sends(self, most: int) -> list[Send]:
        keys = self.rng.choices(KEYS, k=self.rng.randint(1, most))
        return [Send(key, self.value()) for key in keys]

    def read(self, process: str, most: int, positions: dict[str, int]) -> Poll:
        """Read from these positions, and move them."""
        records = {}
        for key in self.rng.sample(sorted(positions), k=self.rng.randint(0, len(positions))):
            begin = positions[key]
            positions[key] = min(len(self.logs[key]), begin + self.rng.randint(0, most))
            records[key] = self.logs[key][begin : positions[key]]
        return Poll(records)


def good_history(seed: int, steps: int = 100) -> History:
    """Return a history without errors, in which everything was read at the end."""
    world = _World(random.Random(seed))
    rng = world.rng
    for step in range(1, steps + 1):
        now = 100 * step
        process = rng.choice("abcdefgh")
        start = max(now - rng.randint(1, 400), world.free.get(process, -1) + 1)
        if start > now:
            continue
        one = _operation(world, process)
        end = now + rng.randint(0, 300)
        is_known = one.outcome != "unknown" or rng.random() < 0.7
        world.free[process] = end
        world.history.append(replace(one, start=start, end=end if is_known else None))
        if world.late and rng.random() < 0.3:
            world.append(world.late.pop(0))
    _read_all(world, 100 * steps + 1000)
    return sorted(world.history, key=lambda one: one.start)


def _operation(world: _World, process: str) -> Operation:
    """Let a process do something: a and b only send, c is a group's member, the others do all."""
    rng = world.rng
    verbs = ["send"] if process in "ab" else ["poll", "poll", "assign", "crash"]
    if process in "gh":
        verbs = ["send", "txn", "txn", "poll", "assign", "crash"]
    verb = rng.choices(verbs, [3 if verb in {"send", "poll", "txn"} else 0.4 for verb in verbs])[0]
    if process in world.crashing:
        world.crashing.remove(process)
        verb = "crash"
    outcome: Outcome = rng.choices(("done", "unknown", "failed"), (8, 1, 1))[0]
    if verb == "send":
        return _send(world, process, outcome)
    if verb == "assign" or (verb == "poll" and process not in world.positions):
        return _assign(world, process)
    if verb == "crash":
        world.positions.pop(process, None)
        return Operation(process=process, kind="crash", start=0, outcome="done")
    positions = world.positions.get(process, {})
    moved = dict(positions)
    steps: list[Send | Poll] = [world.read(process, 5, moved)]
    if verb == "txn":
        sends = world.sends(3)
        is_written = outcome == "done" or (outcome == "unknown" and rng.random() < 0.5)
        steps += [world.append(send) for send in sends] if is_written else sends
    if verb == "poll" and rng.random() < 0.2:
        steps.append(world.read(process, 5, moved))
    if outcome == "done":
        world.positions[process] = moved
    kind: Kind = "txn" if verb == "txn" else "poll"
    return Operation(process=process, kind=kind, start=0, outcome=outcome, steps=tuple(steps))


def _send(world: _World, process: str, outcome: Outcome) -> Operation:
    sends = world.sends(4)
    if outcome == "done":
        sends = [world.append(send) for send in sends]
    elif outcome == "unknown" and process in "ab":
        # Each is for itself. In succession: a client that goes on keeps the order of its sends.
        written = world.rng.randint(0, len(sends))
        sends = [world.append(send) for send in sends[:written]] + sends[written:]
    elif outcome == "unknown":
        world.late += sends
        world.crashing.add(process)
    return Operation(process=process, kind="send", start=0, outcome=outcome, steps=tuple(sends))


def _assign(world: _World, process: str) -> Operation:
    rng = world.rng
    keys = tuple(rng.sample(KEYS, k=rng.randint(1, 3)))
    seeks = rng.random() < 0.3
    stay = {} if seeks else world.positions.get(process, {})
    world.positions[process] = {key: stay.get(key, 0) for key in keys}
    kind: Kind = "subscribe" if process == "c" else "assign"
    return Operation(
        process=process,
        kind=kind,
        start=0,
        outcome="done",
        keys=keys,
        seeks=seeks and kind == "assign",
    )


def _read_all(world: _World, now: int) -> None:
    for send in world.late:
        world.append(send)
    for key, log in world.logs.items():
        for begin in range(0, len(log), 20):
            now += 10
            world.history.append(_poll("reader", now, {key: log[begin : begin + 20]}))


def _poll(process: str, start: int, records: Mapping[str, list[tuple[int, Name]]]) -> Operation:
    steps = (Poll(dict(records)),)
    return Operation(
        process=process, kind="poll", start=start, end=start + 1, outcome="done", steps=steps
    )


# --- errors ---------------------------------------------------------------------------------------


class NoPlace(Exception):
    """The history has no place for this error: take another one."""


def _pick(rng: random.Random, found: Iterable[tuple[int, Send]]) -> tuple[int, Send]:
    places = list(found)
    if not places:
        raise NoPlace
    return rng.choice(places)


def _written(history: History) -> list[tuple[int, Send]]:
    """Return the sends of operations that are done, with the number of the operation."""
    return [
        (number, send)
        for number, one in enumerate(history)
        if one.outcome == "done"
        for send in one.sends()
        if send.offset is not None
    ]


def _end(history: History, key: str) -> int:
    """Return the offset behind the last one that was read."""
    offsets = [
        offset for one in history for name, log in one.polls() if name == key for offset, _ in log
    ]
    return max(offsets, default=-1) + 1


def _later(history: History) -> int:
    return max(max(one.start, one.end or 0) for one in history) + 10


def _unread(history: History, key: str, value: Name) -> History:
    """Return the history without the reads of a value."""

    def without(step: Send | Poll) -> Send | Poll:
        if isinstance(step, Send):
            return step
        return Poll(
            {k: [r for r in log if (k, r[1]) != (key, value)] for k, log in step.records.items()}
        )

    return [replace(one, steps=tuple(map(without, one.steps))) for one in history]


def _replaced(history: History, number: int, **fields: object) -> History:
    return [*history[:number], replace(history[number], **fields), *history[number + 1 :]]


def _inconsistent(rng: random.Random, history: History) -> History:
    _number, send = _pick(rng, _written(history))
    now = _later(history)
    other = Operation(
        process="new", kind="send", start=now, end=now, steps=(Send(send.key, "new"),)
    )
    assert send.offset is not None
    return [*history, other, _poll("new", now + 1, {send.key: [(send.offset, "new")]})]


def _duplicate(rng: random.Random, history: History) -> History:
    _number, send = _pick(rng, _written(history))
    records = [(_end(history, send.key), send.value)]
    return [*history, _poll("new", _later(history), {send.key: records})]


def _lost(rng: random.Random, history: History) -> History:
    _number, send = _pick(
        rng,
        ((n, s) for n, s in _written(history) if (s.offset or 0) < _end(history, s.key) - 1),
    )
    return _unread(history, send.key, send.value)


def _unseen(rng: random.Random, history: History) -> History:
    _number, send = _pick(
        rng, ((n, s) for n, s in _written(history) if s.offset == _end(history, s.key) - 1)
    )
    return _unread(history, send.key, send.value)


def _aborted(rng: random.Random, history: History) -> History:
    number, _send = _pick(rng, _written(history))
    return _replaced(history, number, outcome="failed")


def _precommitted(rng: random.Random, history: History) -> History:
    number, send = _pick(rng, _written(history))
    assert send.offset is not None
    steps = (*history[number].steps, Poll({send.key: [(send.offset, send.value)]}))
    return _replaced(history, number, steps=steps)


def _in_polls(
    rng: random.Random,
    history: History,
    least: int,
    change: Callable[[list[tuple[int, Name]]], list[tuple[int, Name]]],
    *,
    is_successive: bool = False,
) -> History:
    """Change the records of a key in a poll that has at least so many of them.

    `is_successive`: the process has read the key in the operation before, and is in no group.
    """
    places = []
    before: dict[Name, Operation] = {}
    for number, one in enumerate(history):
        if one.outcome != "done" or one.process in {"c", "reader"}:
            continue
        earlier = before.get(one.process)
        if one.kind == "poll" and len(one.steps) == 1:
            for key, records in one.polls():
                goes_on = earlier and any(k == key and log for k, log in earlier.polls())
                if len(records) >= least and (goes_on or not is_successive):
                    places.append((number, key))
        before[one.process] = one
    if not places:
        raise NoPlace
    number, key = rng.choice(places)
    (step,) = history[number].steps
    assert isinstance(step, Poll)
    changed = Poll({**step.records, key: change(step.records[key])})
    return _replaced(history, number, steps=(changed,))


def _poll_skip(rng: random.Random, history: History) -> History:
    return _in_polls(rng, history, 2, lambda records: records[1:], is_successive=True)


def _nonmonotonic_poll(rng: random.Random, history: History) -> History:
    return _in_polls(rng, history, 1, lambda log: [(-1, "first"), *log], is_successive=True)


def _int_poll_skip(rng: random.Random, history: History) -> History:
    return _in_polls(rng, history, 3, lambda records: [records[0], *records[2:]])


def _int_nonmonotonic_poll(rng: random.Random, history: History) -> History:
    return _in_polls(rng, history, 2, lambda records: [records[1], records[0], *records[2:]])


def _swapped(rng: random.Random, history: History, *, is_same_process: bool) -> History:
    """Let two sends to a key exchange their records: the later one stands before."""
    written = [
        (n, s)
        for n, s in _written(history)
        if history[n].kind == "send" and sum(t.key == s.key for t in history[n].sends()) == 1
    ]
    pairs = [
        (one, two)
        for one in written
        for two in written
        if one[1].key == two[1].key
        and (history[one[0]].end or 0) < history[two[0]].start
        and (history[one[0]].process == history[two[0]].process) == is_same_process
    ]
    if not pairs:
        raise NoPlace
    (first, a), (second, b) = rng.choice(pairs)
    changed = history
    for number, old, new in ((first, a, b), (second, b, a)):
        steps = tuple(new if step == old else step for step in history[number].steps)
        changed = _replaced(changed, number, steps=steps)
    return changed


def _swapped_in_process(rng: random.Random, history: History) -> History:
    return _swapped(rng, history, is_same_process=True)


def _swapped_in_time(rng: random.Random, history: History) -> History:
    return _swapped(rng, history, is_same_process=False)


def _of_one_operation(history: History) -> list[tuple[int, Send, Send]]:
    return [
        (number, one, two)
        for number, operation in enumerate(history)
        if operation.outcome == "done"
        for one in operation.sends()
        for two in operation.sends()
        if one.key == two.key and (one.offset or 0) < (two.offset or 0)
    ]


def _int_nonmonotonic_send(rng: random.Random, history: History) -> History:
    places = [(n, a, b) for n, a, b in _of_one_operation(history) if a.offset is not None]
    if not places:
        raise NoPlace
    number, one, two = rng.choice(places)
    swapped = {one: two, two: one}
    steps = (swapped.get(s, s) if isinstance(s, Send) else s for s in history[number].steps)
    return _replaced(history, number, steps=tuple(steps))


def _added(history: History, operations: Iterable[tuple[str, tuple[Send | Poll, ...]]]) -> History:
    """Add transactions that overlap, and a poll of what they wrote."""
    now = _later(history)
    new = [
        Operation(process=name, kind="txn", start=now, end=now + 9, outcome="done", steps=steps)
        for name, steps in operations
    ]
    records: dict[str, list[tuple[int, Name]]] = {}
    for one in new:
        for send in one.sends():
            assert send.offset is not None
            records.setdefault(send.key, []).append((send.offset, send.value))
    reads = {key: sorted(log) for key, log in records.items()}
    return [*history, *new, _poll("new reader", now + 20, reads)]


def _circle_of_writes(_rng: random.Random, history: History) -> History:
    x, y = _end(history, "x"), _end(history, "y")
    one = (Send("x", "one", x), Send("y", "one", y + 1))
    two = (Send("x", "two", x + 1), Send("y", "two", y))
    return _added(history, [("one", one), ("two", two)])


def _int_send_skip(_rng: random.Random, history: History) -> History:
    x = _end(history, "x")
    one = (Send("x", "one", x), Send("x", "three", x + 2))
    return _added(history, [("one", one), ("two", (Send("x", "two", x + 1),))])


def _circle_of_reads(_rng: random.Random, history: History) -> History:
    x, y = _end(history, "x"), _end(history, "y")
    one = (Send("x", "one", x), Poll({"y": [(y, "two")]}))
    two = (Send("y", "two", y), Poll({"x": [(x, "one")]}))
    return _added(history, [("one", one), ("two", two)])


def _read_before(rng: random.Random, history: History, process: str | None) -> History:
    number, send = _pick(rng, _written(history))
    one = history[number]
    assert send.offset is not None
    reader = str(one.process) if process is None else process
    poll = _poll(reader, one.start - 2, {send.key: [(send.offset, send.value)]})
    return sorted([*history, poll], key=lambda one: one.start)


def _read_before_own_send(rng: random.Random, history: History) -> History:
    return _read_before(rng, history, None)


def _read_before_send(rng: random.Random, history: History) -> History:
    return _read_before(rng, history, "new")


def _unwritten(rng: random.Random, history: History) -> History:
    number, _send = _pick(rng, _written(history))
    return [*history[:number], *history[number + 1 :]]


def _reused(rng: random.Random, history: History) -> History:
    _number, send = _pick(rng, _written(history))
    now = _later(history)
    steps = (Send(send.key, send.value),)
    again = Operation(process="new", kind="send", start=now, end=now, outcome="done", steps=steps)
    return [*history, again]


#: Kind -> a function that plants an error of this kind into a history. It raises NoPlace.
PLANTS: Mapping[str, Callable[[random.Random, History], History]] = {
    "inconsistent-offsets": _inconsistent,
    "duplicate": _duplicate,
    "lost-write": _lost,
    "unseen": _unseen,
    "G1a": _aborted,
    "precommitted-read": _precommitted,
    "poll-skip": _poll_skip,
    "nonmonotonic-poll": _nonmonotonic_poll,
    "int-poll-skip": _int_poll_skip,
    "int-nonmonotonic-poll": _int_nonmonotonic_poll,
    "nonmonotonic-send": _swapped_in_process,
    "int-nonmonotonic-send": _int_nonmonotonic_send,
    "int-send-skip": _int_send_skip,
    "G0": _circle_of_writes,
    "G0-process": _swapped_in_process,
    "G0-realtime": _swapped_in_time,
    "G1c": _circle_of_reads,
    "G1c-process": _read_before_own_send,
    "G1c-realtime": _read_before_send,
    "unwritten": _unwritten,
    "reused-value": _reused,
}
