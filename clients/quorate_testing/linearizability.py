"""Could one register, list, ... have given these answers? A checker of histories.

A history is linearizable if its operations can be put in one order, each at a moment between its
invocation and its return, in which a simple model gives the same outputs (Herlihy and Wing 1990).

The search is that of Wing and Gong (1993) with the improvements of Lowe (2017): it follows the
history's returns and linearises **just in time**, so an operation is placed only when it must be,
or when another that must be needs it first; **configurations** (the model's state and which of the
open operations are placed) are remembered, and none is looked at twice; and a history over many
independent objects is checked **object by object** (P-compositionality; Horn and Kroening 2015).

Three rules keep the set of configurations small; each is an exchange argument:

* a read changes nothing, so it is placed at the first state that explains it;
* an operation of unknown outcome need never be placed, so of two configurations in the same state
  the one that has used fewer of them can do all that the other can;
* of two operations of unknown outcome with the same input the older is placed first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Literal, Protocol

#: Calls of a model's step for one check; 2,000 operations of 8 busy processes need some 200,000.
STEPS_MAX = 5_000_000
#: Further calls that may be spent on making a violation small.
SHRINK_STEPS_MAX = 500_000
#: Possible states that a violation lists.
STATES_TOLD = 8
#: A violation is explained by the operations that overlap these last returns.
WINDOW = 32


class Unknown(Enum):
    """The output of an operation of which nobody heard: any output explains it."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "?"


UNKNOWN = Unknown.UNKNOWN


@dataclass(frozen=True, slots=True)
class Operation:
    """One call: from its invocation to its return, if it returned.

    Times are any numbers with one order for all processes; operations whose ends have the same
    time overlap. `returned` is None, and the output UNKNOWN, if the outcome is not known: it may
    have taken effect at any time since, may still do so, or never. What surely had no effect is
    left out of a history.
    """

    process: Hashable
    invoked: float
    returned: float | None
    input: Any
    output: Any = UNKNOWN

    def __post_init__(self) -> None:
        if self.returned is not None and self.returned < self.invoked:
            raise ValueError(f"{self} returned before it was invoked")

    @property
    def is_known(self) -> bool:
        return self.returned is not None

    def relaxed(self) -> Operation:
        """Return it as one of which nobody heard: a history with it is easier to explain."""
        return replace(self, returned=None, output=UNKNOWN)

    def is_twin_of(self, other: Operation) -> bool:
        """Return whether neither returned, and what is known of them is the same."""
        unknown = not self.is_known and not other.is_known
        return unknown and (self.input, self.output) == (other.input, other.output)

    def __str__(self) -> str:
        until = "..." if self.returned is None else f"{self.returned:g}"
        return f"[{self.invoked:g}, {until}] process {self.process}: {self.input} -> {self.output}"


class Model(Protocol):
    """What the system pretends to be, one operation at a time. States are hashable values."""

    @property
    def initial(self) -> Hashable:
        """The state before the first operation."""

    def step(self, state: Any, input: Any, output: Any) -> tuple[bool, Any]:
        """Return whether `input` in `state` may give `output`, and the state after it.

        Any input may give the output UNKNOWN.
        """

    def is_read(self, input: Any) -> bool:
        """Return whether this input leaves every state as it is."""


# --- models ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Read:
    """Give the whole value: a register's, or a list's as a tuple or list."""

    key: Hashable = None


@dataclass(frozen=True, slots=True)
class Write:
    """Set a register; the output says nothing."""

    value: Hashable
    key: Hashable = None


@dataclass(frozen=True, slots=True)
class Cas:
    """Set a register to `value` if it holds `expected`; the output is whether it did."""

    expected: Hashable
    value: Hashable
    key: Hashable = None


@dataclass(frozen=True, slots=True)
class Append:
    """Add at the end of a list; the output is the position, or None where the system tells none."""

    value: Hashable
    key: Hashable = None


@dataclass(frozen=True, slots=True)
class Register:
    """A register with Read, Write and Cas."""

    initial: Hashable = None

    def step(self, state: Hashable, input: Any, output: Any) -> tuple[bool, Hashable]:
        match input:
            case Read():
                return output is UNKNOWN or output == state, state
            case Write(value):
                return True, value
            case Cas(expected, value):
                done = state == expected
                return output is UNKNOWN or output is done, value if done else state
        raise TypeError(f"a register takes Read, Write and Cas, not {input!r}")

    def is_read(self, input: Any) -> bool:
        return isinstance(input, Read)


@dataclass(frozen=True, slots=True)
class AppendList:
    """A list with Read and Append."""

    initial: tuple[Hashable, ...] = ()

    def step(
        self, state: tuple[Hashable, ...], input: Any, output: Any
    ) -> tuple[bool, tuple[Hashable, ...]]:
        match input:
            case Read():
                return output is UNKNOWN or tuple(output) == state, state
            case Append(value):
                told = output is not UNKNOWN and output is not None
                return not told or output == len(state), (*state, value)
        raise TypeError(f"a list takes Read and Append, not {input!r}")

    def is_read(self, input: Any) -> bool:
        return isinstance(input, Read)


def by_key(input: Any) -> Hashable:
    """Return the key of one of the inputs above, to check key by key."""
    key: Hashable = input.key
    return key


# --- histories ------------------------------------------------------------------------------------


class History:
    """Writes operations down as they happen; their times are the order of the calls.

    >>> history = History()
    >>> write = history.invoked(1, Write("a"))
    >>> history.returned(write, None)
    >>> check(Register(), history.operations()).outcome
    'linearizable'
    """

    def __init__(self) -> None:
        self._operations: dict[int, Operation] = {}
        self._now = 0

    def __len__(self) -> int:
        return len(self._operations)

    def invoked(self, process: Hashable, input: Any) -> int:
        """Note that a call begins; return its number, for one of the next three."""
        self._now += 1
        self._operations[self._now] = Operation(process, self._now, None, input)
        return self._now

    def returned(self, number: int, output: Any) -> None:
        """Note the answer."""
        self._now += 1
        operation = self._operations[number]
        if operation.is_known:
            raise ValueError(f"{operation} returned already")
        self._operations[number] = replace(operation, returned=self._now, output=output)

    def had_no_effect(self, number: int) -> None:
        """Note that it surely was not, and never will be, carried out; if unsure say nothing."""
        del self._operations[number]

    def operations(self) -> list[Operation]:
        """Return what was noted; what has not returned is of unknown outcome."""
        return list(self._operations.values())


# --- verdicts -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Violation:
    """Why a history is not linearizable.

    `conflict` is the smallest explanation: even if everything else after `since` had an unknown
    outcome, these could not be put in an order; had any one of them, the rest could (as far as the
    steps for making it small went). What returned after `operation` counts as not returned yet.
    `since` is a moment WINDOW returns before, and `states_since` the states that were possible
    then; it is None if the explanation is one from the beginning.
    """

    operation: Operation  # the first, by return, that has no place
    states: tuple[Hashable, ...]  # possible when it returned; at most STATES_TOLD of them
    conflict: tuple[Operation, ...]
    since: float | None
    states_since: tuple[Hashable, ...]  # at most STATES_TOLD
    key: Hashable = None

    def __str__(self) -> str:
        of = "" if self.key is None else f" (of {self.key!r})"
        since = "the beginning" if self.since is None else f"{self.since:g}"
        return "\n".join(
            [
                f"not linearizable{of}: no place for {self.operation}",
                f"  possible states when it returned: {_listed(self.states)}",
                f"  possible states at {since}: {_listed(self.states_since)}",
                "  no order from there explains together:",
                *(f"    {operation}" for operation in self.conflict),
            ]
        )


def _listed(states: tuple[Hashable, ...]) -> str:
    return ", ".join(map(repr, states))


@dataclass(frozen=True, slots=True)
class Verdict:
    """`unknown`: the steps did not suffice, and nothing is proven. It is not true of false."""

    outcome: Literal["linearizable", "violation", "unknown"]
    steps: int
    violation: Violation | None = None

    def __bool__(self) -> bool:
        raise TypeError("a verdict has three values: compare its outcome")


def check(
    model: Model,
    history: Iterable[Operation],
    *,
    key: Callable[[Any], Hashable] | None = None,
    steps_max: int = STEPS_MAX,
) -> Verdict:
    """Say whether the history is linearizable by the model; with `key`, object by object.

    `key` gives the object of an input; objects must be independent, and each begins in the model's
    initial state. `steps_max` bounds the calls of the model's step over all objects together, and
    with them time and memory; making a violation small may take SHRINK_STEPS_MAX more.
    """
    budget = _Budget(steps_max)
    verdict = Verdict("linearizable", 0)
    for name, operations in _objects(history, key):
        try:
            begin = _Moment(None, [(model.initial, 0)])
            stuck = _Search(model, operations, budget, begin).run()
        except _Spent:
            # A violation of another object would be worth more, but there are no steps to find it.
            return Verdict("unknown", budget.spent)
        if stuck is not None:
            violation = replace(_explain(model, operations, stuck), key=name)
            return Verdict("violation", budget.spent, violation)
        verdict = Verdict("linearizable", budget.spent)
    return verdict


def assert_linearizable(
    model: Model,
    history: Iterable[Operation],
    *,
    key: Callable[[Any], Hashable] | None = None,
    steps_max: int = STEPS_MAX,
) -> Verdict:
    """Return the verdict if it is good; raise AssertionError if it is bad, or not known."""
    verdict = check(model, history, key=key, steps_max=steps_max)
    if verdict.outcome == "violation":
        raise AssertionError(str(verdict.violation))
    if verdict.outcome == "unknown":
        raise AssertionError(f"not known if linearizable: {verdict.steps} steps did not suffice")
    return verdict


# --- the search -----------------------------------------------------------------------------------


class _Spent(Exception):
    """The steps did not suffice."""


@dataclass(slots=True)
class _Budget:
    steps_max: int
    spent: int = 0

    def spend(self) -> None:
        if self.spent >= self.steps_max:
            raise _Spent
        self.spent += 1


@dataclass(slots=True)
class _Open:
    """An operation that was invoked and is not settled: `bit` stands for it in configurations."""

    operation: Operation
    bit: int
    is_read: bool
    #: The bit of the next older one of unknown outcome with the same input: that one goes first.
    elder: int = 0


#: The model's state, and the bits of the open operations that are placed.
_Configuration = tuple[Hashable, int]


@dataclass(frozen=True, slots=True)
class _Moment:
    """Where a search stands after a return, or at the beginning (time None)."""

    time: float | None
    configurations: Sequence[_Configuration]
    open: tuple[tuple[int, int], ...] = ()  # number of the operation, its bit

    @property
    def states(self) -> tuple[Hashable, ...]:
        """The possible ones, some of them if they are many."""
        return tuple(dict.fromkeys(state for state, _ in self.configurations))[:STATES_TOLD]


@dataclass(frozen=True, slots=True)
class _Stuck:
    """The search ended: this operation returned, and no configuration could place it."""

    number: int
    before: _Moment
    window: _Moment  # WINDOW returns before, or the beginning


@dataclass(slots=True)
class _Frontier:
    """Configurations, without those that another one here can stand in for."""

    reads: int  # bits of the open reads
    unknown: int  # bits of the open operations of unknown outcome
    _members: dict[tuple[Hashable, int], list[int]] = field(default_factory=dict)

    def add(self, configuration: _Configuration) -> bool:
        """Return whether it is news."""
        state, placed = configuration
        free = self.reads | self.unknown
        rivals = self._members.setdefault((state, placed & ~free), [])
        if any(self._can_all(rival, placed) for rival in rivals):
            return False
        rivals[:] = [rival for rival in rivals if not self._can_all(placed, rival)]
        rivals.append(placed)
        return True

    def _can_all(self, one: int, other: int) -> bool:
        """Return whether `one` has placed the reads that `other` has, and used no more unknowns."""
        return not (other & ~one & self.reads) and not (one & ~other & self.unknown)

    def __iter__(self) -> Iterator[_Configuration]:
        for (state, _known), members in self._members.items():
            for placed in members:
                yield state, placed


class _Search:
    """Follows one history, return by return, with all configurations that explain it so far."""

    def __init__(
        self, model: Model, operations: dict[int, Operation], budget: _Budget, begin: _Moment
    ) -> None:
        self._model = model
        self._budget = budget
        self._configurations = list(begin.configurations)
        self._open = {  # by number, in order of invocation
            number: _Open(operations[number], bit, model.is_read(operations[number].input))
            for number, bit in begin.open
        }
        self._events = _events(model, operations, self._open)
        in_use = [bit for _number, bit in begin.open]
        self._bits = max(in_use, default=0).bit_length()
        self._bits_free = [1 << i for i in range(self._bits) if 1 << i not in in_use]
        self._moments = deque([begin], maxlen=WINDOW)

    def run(self) -> _Stuck | None:
        """Return what has no place, or None: the history is linearizable. Raise _Spent."""
        for time, is_return, number, operation in self._events:
            if not is_return:
                self._invoke(number, operation)
                continue
            before = self._moment(time)
            self._place(self._open[number])
            if not self._configurations:
                return _Stuck(number, before, self._moments[0])
            self._close(number)
            self._close_spent_unknowns()
            self._moments.append(self._moment(time))
        return None

    def _moment(self, time: float) -> _Moment:
        bits = tuple((number, opened.bit) for number, opened in self._open.items())
        return _Moment(time, self._configurations, bits)

    def _invoke(self, number: int, operation: Operation) -> None:
        is_read = self._model.is_read(operation.input)
        opened = _Open(operation, self._free_bit(), is_read)
        if not operation.is_known:
            twins = (
                other.bit
                for other in reversed(self._open.values())
                if other.operation.is_twin_of(operation)
            )
            opened.elder = next(twins, 0)
        self._open[number] = opened
        if is_read:
            self._configurations = [
                (state, self._with_reads(state, placed, [opened]))
                for state, placed in self._configurations
            ]

    def _place(self, target: _Open) -> None:
        """Go on to the configurations in which `target` is placed, and no more than it needs."""
        reads = [opened for opened in self._open.values() if opened.is_read]
        writes = [opened for opened in self._open.values() if not opened.is_read]
        done, seen = self._frontier(), self._frontier()
        queue: deque[_Configuration] = deque()  # breadth first: fewer placed come first, and win

        def reached(configuration: _Configuration) -> None:
            if configuration[1] & target.bit:
                done.add(configuration)
            elif seen.add(configuration):
                queue.append(configuration)

        for configuration in self._configurations:
            reached(configuration)
        while queue:
            state, placed = queue.popleft()
            for write in writes:
                if placed & write.bit or (write.elder and not placed & write.elder):
                    continue
                after = self._step(state, write.operation)
                if after is None or (not write.operation.is_known and after[0] == state):
                    continue
                reached((after[0], self._with_reads(after[0], placed | write.bit, reads)))
        self._configurations = list(done)

    def _with_reads(self, state: Hashable, placed: int, reads: Iterable[_Open]) -> int:
        for read in reads:
            if not placed & read.bit and self._step(state, read.operation) is not None:
                placed |= read.bit
        return placed

    def _step(self, state: Hashable, operation: Operation) -> tuple[Hashable] | None:
        self._budget.spend()
        is_possible, after = self._model.step(state, operation.input, operation.output)
        return (after,) if is_possible else None

    def _frontier(self) -> _Frontier:
        reads = unknown = 0
        for opened in self._open.values():
            if opened.is_read:
                reads |= opened.bit
            elif not opened.operation.is_known:
                unknown |= opened.bit
        return _Frontier(reads, unknown)

    def _close(self, number: int) -> None:
        closed = self._open.pop(number)
        self._configurations = [
            (state, placed & ~closed.bit) for state, placed in self._configurations
        ]
        for opened in self._open.values():
            if opened.elder == closed.bit:
                opened.elder = 0
        self._bits_free.append(closed.bit)

    def _close_spent_unknowns(self) -> None:
        """Forget those of unknown outcome that every configuration has placed."""
        placed_by_all = -1
        for _state, placed in self._configurations:
            placed_by_all &= placed
        for number, opened in list(self._open.items()):
            if not opened.operation.is_known and opened.bit & placed_by_all:
                self._close(number)

    def _free_bit(self) -> int:
        if self._bits_free:
            return self._bits_free.pop()
        self._bits += 1
        return 1 << (self._bits - 1)


def _events(
    model: Model, operations: dict[int, Operation], are_open: Container[int]
) -> list[tuple[float, bool, int, Operation]]:
    """Return (time, whether it is the return, number, operation) in order.

    At the same time invocations come first: then the operations overlap, which forbids less. A
    read that nobody heard of says nothing.
    """
    events = []
    for number, operation in operations.items():
        if number not in are_open and (operation.is_known or not model.is_read(operation.input)):
            events.append((operation.invoked, False, number, operation))
        if operation.returned is not None:
            events.append((operation.returned, True, number, operation))
    return sorted(events, key=lambda event: event[:3])


def _objects(
    history: Iterable[Operation], key: Callable[[Any], Hashable] | None
) -> list[tuple[Hashable, dict[int, Operation]]]:
    """Return the operations of each object, numbered."""
    objects: dict[Hashable, dict[int, Operation]] = {}
    for number, operation in enumerate(history):
        name = None if key is None else key(operation.input)
        objects.setdefault(name, {})[number] = operation
    return list(objects.items())


# --- making a violation small ---------------------------------------------------------------------


def _explain(model: Model, operations: dict[int, Operation], stuck: _Stuck) -> Violation:
    """Return the violation with the smallest conflict that the steps suffice for.

    Relaxing an operation only makes a history easier to explain. So one pass in which each is
    tried is enough, chunks of them first: what could not be relaxed then cannot be later.
    """
    window = _window(operations, stuck)
    budget = _Budget(SHRINK_STEPS_MAX)
    size = max(1, len(window) // 2)
    while size:
        known = [n for n, operation in window.items() if operation != operation.relaxed()]
        for first in range(0, len(known), size):
            chunk = known[first : first + size]
            relaxed = window | {number: window[number].relaxed() for number in chunk}
            if _is_violation(model, relaxed, budget, stuck.window):
                window = relaxed
        size //= 2
    conflict = tuple(operations[n] for n, op in window.items() if op != op.relaxed())
    return Violation(
        operations[stuck.number],
        stuck.before.states,
        conflict,
        stuck.window.time,
        stuck.window.states,
    )


def _window(operations: dict[int, Operation], stuck: _Stuck) -> dict[int, Operation]:
    """Return what was open when the window began or was invoked since, until the end.

    What returned after the one without a place need not be placed; but where it is, its output
    must be explained.
    """
    end = operations[stuck.number].returned
    assert end is not None
    since = float("-inf") if stuck.window.time is None else stuck.window.time
    were_open = {number for number, _bit in stuck.window.open}
    return {
        number: operation
        if operation.returned is not None and (operation.returned, number) <= (end, stuck.number)
        else replace(operation, returned=None)
        for number, operation in operations.items()
        if number in were_open or since < operation.invoked <= end
    }


def _is_violation(
    model: Model, operations: dict[int, Operation], budget: _Budget, begin: _Moment
) -> bool:
    """Return whether it is shown to be one within a tenth of the steps that are left."""
    attempt = _Budget((budget.steps_max - budget.spent) // 10)
    try:
        return _Search(model, operations, attempt, begin).run() is not None
    except _Spent:
        return False
    finally:
        budget.spent += attempt.spent
