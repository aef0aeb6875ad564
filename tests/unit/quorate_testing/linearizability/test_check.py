"""The checker of histories, on histories of known verdict, and against trying every order."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate_testing.linearizability.check import assert_linearizable, check
from quorate_testing.linearizability.history import UNKNOWN, History, Operation
from quorate_testing.linearizability.models import (
    Append,
    AppendList,
    Cas,
    Model,
    Read,
    Register,
    Write,
    by_key,
)

#: (invoked, returned or None, input[, output]): what one process did, in order.
Calls = list[tuple[Any, ...]]


def history(*processes: Calls) -> list[Operation]:
    """Build a history of the calls of processes a, b, c, ..."""
    return [
        Operation(process, *call)
        for process, calls in zip("abcdefgh", processes, strict=False)
        for call in calls
    ]


def verdict(model: Model, *processes: Calls) -> str:
    return check(model, history(*processes)).outcome


# --- the queue of Herlihy and Wing ----------------------------------------------------------------


@dataclass(frozen=True)
class Enqueue:
    value: str


@dataclass(frozen=True)
class Dequeue:
    pass


class Queue:
    """First in, first out; Dequeue waits for a value."""

    initial: tuple[str, ...] = ()

    def step(self, state: tuple[str, ...], input: Any, output: Any) -> tuple[bool, tuple[str, ...]]:
        if isinstance(input, Enqueue):
            return True, (*state, input.value)
        if not state:
            return False, state
        return output is UNKNOWN or output == state[0], state[1:]

    def is_read(self, input: Any) -> bool:
        return False


X, Y, DEQUEUE = Enqueue("x"), Enqueue("y"), Dequeue()

QUEUES: dict[str, tuple[Any, ...]] = {
    # Herlihy and Wing 1990, figure 1: (a) and (c) are acceptable, (b) and (d) are not.
    "hw-1a-overlapping-enqueues-in-either-order": (
        True,
        [(0, 3, X, None), (7, 9, DEQUEUE, "y"), (10, 11, Enqueue("z"), None)],
        [(1, 4, Y, None), (5, 6, DEQUEUE, "x")],
    ),
    "hw-1b-second-in-first-out": (
        False,
        [(0, 1, X, None), (6, 7, DEQUEUE, "y")],
        [(2, 3, Y, None)],
    ),
    "hw-1c-dequeued-before-its-enqueue-returned": (
        True,
        [(0, 5, X, None)],
        [(1, 3, DEQUEUE, "x")],
    ),
    "hw-1d-dequeued-twice": (
        False,
        [(0, 1, X, None), (4, 7, DEQUEUE, "y")],
        [(0, 2, Y, None), (3, 6, DEQUEUE, "y")],
    ),
    "dequeued-before-it-was-enqueued": (False, [(0, 1, DEQUEUE, "x"), (2, 3, X, None)]),
    "an-enqueue-of-unknown-outcome-is-dequeued-later": (
        True,
        [(0, None, X)],
        [(1, 2, Y, None), (3, 4, DEQUEUE, "y"), (5, 6, DEQUEUE, "x")],
    ),
    "a-dequeue-of-unknown-outcome-took-a-value": (
        True,
        [(0, 1, X, None), (2, 3, Y, None)],
        [(4, None, DEQUEUE)],
        [(5, 6, DEQUEUE, "y")],
    ),
    "nobody-took-the-value-that-was-passed-over": (
        False,
        [(0, 1, X, None), (2, 3, Y, None)],
        [(5, 6, DEQUEUE, "y")],
        [(7, None, DEQUEUE)],
    ),
}


@pytest.mark.parametrize("name", QUEUES)
def test_queues(name: str) -> None:
    is_good, *processes = QUEUES[name]
    assert verdict(Queue(), *processes) == ("linearizable" if is_good else "violation")


# --- registers ------------------------------------------------------------------------------------

READ = Read()


def w(value: int) -> Write:
    return Write(value)


REGISTERS: dict[str, tuple[Any, ...]] = {
    "nothing-happened": (True,),
    "a-write-is-read": (True, [(0, 1, w(1), None), (2, 3, READ, 1)]),
    # porcupine, TestRegisterModel
    "porcupine-reads-old-after-new-of-longer-overlap": (
        True,
        [(0, 100, w(100), None)],
        [(25, 75, READ, 100)],
        [(30, 60, READ, 0)],
    ),
    "porcupine-reads-old-after-somebody-read-new": (
        False,
        [(0, 100, w(200), None)],
        [(10, 30, READ, 200)],
        [(40, 90, READ, 0)],
    ),
    "stale-read": (False, [(0, 1, w(1), None), (2, 3, w(2), None)], [(4, 5, READ, 1)]),
    "stale-read-by-another-process": (
        False,
        [(0, 1, w(1), None)],
        [(2, 3, READ, 1), (4, 5, READ, 0)],
    ),
    "read-of-what-nobody-wrote": (False, [(0, 1, w(1), None)], [(0, 1, READ, 7)]),
    "read-from-the-future": (False, [(0, 1, READ, 1), (2, 3, w(1), None)]),
    "a-read-that-overlaps-may-see-either": (
        True,
        [(0, 10, w(1), None)],
        [(1, 2, READ, 0), (3, 4, READ, 1)],
    ),
    "concurrent-reads-out-of-order": (
        False,
        [(0, 20, w(1), None)],
        [(1, 5, READ, 1)],
        [(6, 9, READ, 0)],
    ),
    "concurrent-reads-that-overlap-each-other": (
        True,
        [(0, 20, w(1), None)],
        [(1, 7, READ, 1)],
        [(6, 9, READ, 0)],
    ),
    "two-writes-and-readers-who-agree": (
        True,
        [(0, 10, w(1), None)],
        [(0, 10, w(2), None)],
        [(11, 12, READ, 1), (13, 14, READ, 1)],
    ),
    "two-writes-and-readers-who-disagree": (
        False,
        [(0, 10, w(1), None)],
        [(0, 10, w(2), None)],
        [(11, 12, READ, 1), (15, 16, READ, 1)],
        [(13, 14, READ, 2)],
    ),
    "a-value-comes-back-because-it-was-written-again": (
        True,
        [(0, 1, w(1), None), (2, 3, w(2), None), (4, 5, w(1), None)],
        [(1.5, 1.6, READ, 1), (3.5, 3.6, READ, 2), (6, 7, READ, 1)],
    ),
    "same-time-means-overlap": (True, [(0, 5, w(1), None)], [(5, 6, READ, 0)]),
    # compare and set
    "cas-after-the-write": (
        True,
        [(0, 1, w(1), None), (2, 3, Cas(1, 2), True), (4, 5, READ, 2)],
    ),
    "cas-that-was-refused-though-it-had-to-succeed": (
        False,
        [(0, 1, w(1), None), (2, 3, Cas(1, 2), False)],
    ),
    "lost-update": (  # two increments of 0, both told yes
        False,
        [(0, 5, Cas(0, 1), True)],
        [(1, 6, Cas(0, 1), True)],
    ),
    "two-cas-of-which-one-wins": (
        True,
        [(0, 5, Cas(0, 1), True)],
        [(1, 6, Cas(0, 2), False)],
        [(7, 8, READ, 1)],
    ),
    "lost-update-of-read-then-write": (
        False,
        [(0, 1, READ, 0), (4, 5, Cas(0, 10), True)],
        [(2, 3, w(7), None)],
    ),
    "aba-a-cas-sees-no-difference": (
        True,
        [(0, 1, w(1), None)],
        [(2, 3, w(2), None), (4, 5, w(1), None)],
        [(6, 7, Cas(1, 3), True), (8, 9, READ, 3)],
    ),
    "aba-that-never-came-back-to-a": (
        False,
        [(0, 1, w(1), None)],
        [(2, 3, w(2), None)],
        [(4, 5, Cas(1, 3), True)],
    ),
    "a-chain-of-cas-placed-only-in-one-order": (
        True,
        [(0, 10, Cas(2, 3), True)],
        [(0, 10, Cas(1, 2), True)],
        [(0, 10, Cas(0, 1), True)],
        [(11, 12, READ, 3)],
    ),
    "a-chain-of-cas-with-a-link-missing": (
        False,
        [(0, 10, Cas(2, 3), True)],
        [(0, 10, Cas(0, 1), True)],
        [(11, 12, READ, 3)],
    ),
    # unknown outcomes (Knossos: info)
    "crashed-write-that-took-effect": (True, [(0, None, w(1))], [(1, 2, READ, 0), (3, 4, READ, 1)]),
    "crashed-write-that-did-not": (True, [(0, None, w(1))], [(1, 2, READ, 0), (3, 4, READ, 0)]),
    "crashed-write-that-went-away-again": (
        False,
        [(0, None, w(1))],
        [(1, 2, READ, 1), (3, 4, READ, 0)],
    ),
    "crashed-write-that-takes-effect-long-after": (
        True,
        [(0, None, w(1))],
        [(1, 2, w(2), None), (3, 4, READ, 2), (100, 101, READ, 1)],
    ),
    "crashed-write-can-not-be-read-before-it-began": (
        False,
        [(5, None, w(1))],
        [(0, 1, READ, 1)],
    ),
    "crashed-write-takes-effect-once": (
        False,
        [(0, None, w(1))],
        [(1, 2, READ, 1), (3, 4, w(2), None), (5, 6, READ, 2), (7, 8, READ, 1)],
    ),
    "two-crashed-writes-of-one-value-take-effect-twice": (
        True,
        [(0, None, w(1))],
        [(1, 2, READ, 1), (3, 4, w(2), None), (5, 6, READ, 2), (7, 8, READ, 1)],
        [(4, None, w(1))],
    ),
    "crashed-cas-explains-two-later-answers": (
        True,
        [(0, None, Cas(0, 1))],
        [(1, 2, READ, 0), (3, 4, Cas(1, 2), True), (5, 6, READ, 2)],
    ),
    "crashed-cas-that-can-not-have-succeeded": (
        False,
        [(0, None, Cas(5, 1))],
        [(1, 2, READ, 0), (3, 4, READ, 1)],
    ),
    "crashed-read-says-nothing": (True, [(0, None, READ)], [(1, 2, w(1), None), (3, 4, READ, 1)]),
    "all-crashed": (True, [(0, None, w(1))], [(0, None, Cas(3, 4))], [(0, None, READ)]),
}


@pytest.mark.parametrize("name", REGISTERS)
def test_registers(name: str) -> None:
    is_good, *processes = REGISTERS[name]
    assert verdict(Register(0), *processes) == ("linearizable" if is_good else "violation")


# --- lists ----------------------------------------------------------------------------------------

LISTS: dict[str, tuple[Any, ...]] = {
    "appends-are-read-in-order": (
        True,
        [(0, 1, Append("a"), 0), (2, 3, Append("b"), 1), (4, 5, READ, ("a", "b"))],
    ),
    "overlapping-appends-are-ordered-by-a-reader": (
        True,
        [(0, 9, Append("a"), None)],
        [(0, 9, Append("b"), None)],
        [(10, 11, READ, ["b", "a"])],
    ),
    "readers-see-two-orders": (
        False,
        [(0, 9, Append("a"), None)],
        [(0, 9, Append("b"), None)],
        [(10, 11, READ, ("b", "a"))],
        [(12, 13, READ, ("a", "b"))],
    ),
    "acknowledged-append-is-gone": (False, [(0, 1, Append("a"), 0), (2, 3, READ, ())]),
    "acknowledged-append-is-there-twice": (
        False,
        [(0, 1, Append("a"), 0), (2, 3, READ, ("a", "a"))],
    ),
    "two-appends-told-one-position": (
        False,
        [(0, 5, Append("a"), 0)],
        [(1, 6, Append("b"), 0)],
    ),
    "positions-against-real-time": (
        False,
        [(0, 1, Append("a"), 1)],
        [(2, 3, Append("b"), 0)],
    ),
    "crashed-append-appears-late": (
        True,
        [(0, None, Append("a"))],
        [(1, 2, Append("b"), 0), (3, 4, READ, ("b",)), (5, 6, READ, ("b", "a"))],
    ),
    "crashed-append-appears-and-is-gone": (
        False,
        [(0, None, Append("a"))],
        [(3, 4, READ, ("a",)), (5, 6, READ, ())],
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists(name: str) -> None:
    is_good, *processes = LISTS[name]
    assert verdict(AppendList(), *processes) == ("linearizable" if is_good else "violation")


# --- against every order --------------------------------------------------------------------------


def by_every_order(model: Model, operations: Sequence[Operation]) -> bool:
    """Say the same, slowly: try every order of every choice of those of unknown outcome."""
    known = [operation for operation in operations if operation.is_known]
    unknown = [operation for operation in operations if not operation.is_known]
    for choice in range(1 << len(unknown)):
        chosen = known + [op for i, op in enumerate(unknown) if choice >> i & 1]
        if any(_is_explained(model, order) for order in permutations(chosen)):
            return True
    return False


def _is_explained(model: Model, order: Sequence[Operation]) -> bool:
    state: Hashable = model.initial
    for i, operation in enumerate(order):
        later = order[i + 1 :]
        if any(o.returned is not None and o.returned < operation.invoked for o in later):
            return False
        is_possible, state = model.step(state, operation.input, operation.output)
        if not is_possible:
            return False
    return True


VALUE = st.integers(0, 2)


@st.composite
def small_histories(draw: st.DrawFn, kind: str) -> list[Operation]:
    made = []
    for process in range(draw(st.integers(1, 6))):
        invoked = draw(st.integers(0, 8))
        if kind == "register":
            input: Any = draw(st.sampled_from([READ, READ, w(1), w(2), Cas(0, 1), Cas(1, 2)]))
            output: Any = draw(VALUE if input == READ else st.booleans())
        else:
            input = draw(st.sampled_from([READ, Append(1), Append(2)]))
            output = draw(
                st.lists(st.integers(1, 2), max_size=3).map(tuple)
                if input == READ
                else st.sampled_from([None, 0, 1, 2])
            )
        if draw(st.integers(0, 3)) == 0:
            made.append(Operation(process, invoked, None, input))
        else:
            returned = invoked + draw(st.integers(0, 6))
            made.append(Operation(process, invoked, returned, input, output))
    return made


@given(operations=small_histories("register"))
@settings(max_examples=400, deadline=None)
def test_registers_as_by_every_order(operations: list[Operation]) -> None:
    found = check(Register(0), operations)
    assert (found.outcome == "linearizable") is by_every_order(Register(0), operations)


@given(operations=small_histories("list"))
@settings(max_examples=300, deadline=None)
def test_lists_as_by_every_order(operations: list[Operation]) -> None:
    found = check(AppendList(), operations)
    assert (found.outcome == "linearizable") is by_every_order(AppendList(), operations)


@given(operations=small_histories("register"))
@settings(max_examples=300, deadline=None)
def test_a_conflict_is_one_and_is_smallest(operations: list[Operation]) -> None:
    """The conflict alone is no history that can be explained, and needs each of its members.

    It is one when the operation returns: what returns later need not have been placed by then.
    """
    violation = check(Register(0), operations).violation
    if violation is None:
        return
    assert violation.operation in violation.conflict
    end = violation.operation.returned, operations.index(violation.operation)

    def told(number: int, operation: Operation) -> Operation:
        is_later = operation.returned is not None and (operation.returned, number) > end
        return replace(operation, returned=None) if is_later else operation

    def without(some: Sequence[Operation]) -> str:
        kept = set(violation.conflict) - set(some)
        relaxed = [told(n, op) if op in kept else op.relaxed() for n, op in enumerate(operations)]
        return check(Register(0), relaxed).outcome

    assert without(()) == "violation"
    for member in violation.conflict:
        assert without((member,)) == "linearizable"


# --- what it says ---------------------------------------------------------------------------------


def test_a_violation_names_the_operation_and_what_contradicts_it() -> None:
    calls = [(10 * i, 10 * i + 1, w(i), None) for i in range(1, 60)]
    stale = (600, 601, READ, 20)
    found = check(Register(0), history([*calls, stale], [(5, 700, w(99), None)]))
    assert found.violation is not None
    assert found.violation.operation == Operation("a", *stale)
    assert found.violation.states == (59,)
    # The window began after w(20), in state 28: nothing that came since writes what was read.
    assert found.violation.conflict == (Operation("a", *stale),)
    assert str(found.violation).splitlines() == [
        "not linearizable: no place for [600, 601] process a: Read(key=None) -> 20",
        "  possible states when it returned: 59",
        "  possible states at 281: 28",
        "  no order from there explains together:",
        "    [600, 601] process a: Read(key=None) -> 20",
    ]


def test_a_stale_read_of_a_short_history_is_explained_by_what_it_needs() -> None:
    """What another process read, and then the stale read: the writes could be at other times."""
    made = history(
        [(0, 1, w(1), None), (2, 3, w(2), None), (4, 5, w(3), None)],
        [(6, 9, READ, 3), (10, 11, READ, 1)],
    )
    violation = check(Register(0), made).violation
    assert violation is not None
    assert violation.since is None
    assert violation.operation == made[4]
    assert made[4] in violation.conflict
    assert len(violation.conflict) <= 3


def test_too_few_steps_is_not_known_and_never_good() -> None:
    made = history([(0, 1, w(1), None), (2, 3, READ, 1)])
    found = check(Register(0), made, steps_max=1)
    assert (found.outcome, found.steps) == ("unknown", 1)
    with pytest.raises(AssertionError, match="1 steps did not suffice"):
        assert_linearizable(Register(0), made, steps_max=1)


def test_a_search_that_explodes_ends_at_its_bound() -> None:
    """Eight appends at a time that tell nothing: 8! orders a wave, and none may be skipped."""
    calls: list[Calls] = [
        [(10 * wave, 10 * wave + 5, Append((wave, process)), None) for wave in range(50)]
        for process in range(8)
    ]
    found = check(AppendList(), history(*calls), steps_max=20_000)
    assert (found.outcome, found.steps) == ("unknown", 20_000)


def test_a_verdict_is_not_true_or_false() -> None:
    with pytest.raises(TypeError, match="three values"):
        bool(check(Register(0), []))


def test_assert_linearizable_tells_the_violation() -> None:
    made = history([(0, 1, w(1), None), (2, 3, READ, 7)])
    with pytest.raises(AssertionError, match=r"no place for \[2, 3\] process a"):
        assert_linearizable(Register(0), made)


def test_objects_are_checked_one_by_one() -> None:
    made = [
        Operation(1, 0, 1, Write(1, key="x"), None),
        Operation(1, 2, 3, Write(2, key="y"), None),
        Operation(1, 4, 5, Read(key="x"), 1),
        Operation(1, 6, 7, Read(key="y"), 2),
    ]
    assert check(Register(0), made).outcome == "violation"  # as one object, it is none
    assert check(Register(0), made, key=by_key).outcome == "linearizable"
    bad = [*made, Operation(2, 8, 9, Read(key="y"), 1)]
    found = check(Register(0), bad, key=by_key)
    assert found.violation is not None
    assert found.violation.key == "y"


def test_operations_cannot_return_before_they_began() -> None:
    with pytest.raises(ValueError, match="returned before it was invoked"):
        Operation(1, 5, 4, READ, 0)


@pytest.mark.parametrize("model", [Register(0), AppendList()])
def test_a_model_refuses_what_it_does_not_know(model: Model) -> None:
    with pytest.raises(TypeError, match="not 'jump'"):
        check(model, [Operation(1, 0, 1, "jump", None)])


def test_a_history_is_written_down_as_it_happens() -> None:
    noted = History()
    first = noted.invoked("a", Write(1))
    second = noted.invoked("b", Read())
    third = noted.invoked("c", Write(3))
    noted.returned(second, 1)
    noted.had_no_effect(third)
    noted.returned(first, None)
    noted.invoked("b", Write(4))
    assert noted.operations() == [
        Operation("a", 1, 5, Write(1), None),
        Operation("b", 2, 4, Read(), 1),
        Operation("b", 6, None, Write(4)),
    ]
    with pytest.raises(ValueError, match="returned already"):
        noted.returned(first, None)
    assert len(noted) == 3


# --- large histories ------------------------------------------------------------------------------


def run_of(
    chance: random.Random, operations_count: int, processes: int, *, unknown: float
) -> Iterator[Operation]:
    """Run processes on a true register, each call taking effect at one moment within it."""
    value = 0
    fresh = count(1)
    ends: list[tuple[float, int]] = [(chance.random(), process) for process in range(processes)]
    calls = []
    for _ in range(operations_count):
        at, process = ends.pop(ends.index(min(ends)))
        effect = at + chance.random()
        end = effect + chance.random()
        ends.append((end + chance.random() / 10, process))
        calls.append((effect, process, at, end))
    for _effect, process, at, end in sorted(calls):
        kind = chance.random()
        output: Any = None
        if kind < 0.5:
            input: Any = READ
            output = value
        elif kind < 0.8:
            input = w(next(fresh))
            value = input.value
        else:
            input = Cas(value if chance.random() < 0.5 else -1, next(fresh))
            output = input.expected == value
            value = input.value if output else value
        if chance.random() < unknown:
            yield Operation(process, at, None, input)
        else:
            yield Operation(process, at, end, input, output)


@pytest.mark.parametrize("unknown", [0.0, 0.02], ids=["all-known", "some-unknown"])
def test_a_large_history_ends_fast(unknown: float) -> None:
    """2,000 operations of 8 processes; steps are counted, not seconds."""
    made = list(run_of(random.Random(5), 2_000, 8, unknown=unknown))
    found = check(Register(0), made)
    assert found.outcome == "linearizable"
    assert found.steps < (250_000 if unknown == 0 else 1_000_000)


def test_a_large_history_with_one_stale_read_is_found_out() -> None:
    made = list(run_of(random.Random(6), 2_000, 8, unknown=0))
    reads = [i for i, operation in enumerate(made) if operation.input == READ]
    victim = reads[len(reads) * 3 // 4]
    old = next(made[i].output for i in reads if made[i].output != 0)
    made[victim] = Operation(
        made[victim].process, made[victim].invoked, made[victim].returned, READ, old
    )
    found = check(Register(0), made)
    assert found.violation is not None
    assert found.violation.operation == made[victim]
    assert len(found.violation.conflict) <= 3
