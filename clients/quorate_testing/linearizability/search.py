"""The search for an order of a history's operations that a model explains.

The search is that of Wing and Gong (1993), with the improvements of Lowe (2017):

* It follows the returns in the history and linearises **just in time**: it places an operation only
  when the operation returns, or when another operation that returns needs it first.
* It remembers **configurations** (the model's state, and which open operations are placed), and
  examines none of them twice.
* It checks a history over many independent objects **object by object** (P-compositionality; Horn
  and Kroening 2015).

Three rules keep the set of configurations small. An exchange argument proves each of them:

* A read changes nothing, so it is placed at the first state that explains it.
* An operation of unknown outcome need never be placed. So of two configurations in the same state,
  the configuration that has placed fewer of these operations can reach every state that the other
  can reach.
* Of two operations of unknown outcome with the same input, the older one is placed first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from quorate_testing.linearizability.history import Operation
from quorate_testing.linearizability.models import Model

#: The most possible states that a violation lists.
STATES_TOLD = 8
#: The number of last returns that an explanation covers, with all operations that overlap them.
WINDOW = 32


class OutOfSteps(Exception):
    """The search has used all its steps."""


@dataclass(slots=True)
class Budget:
    """The number of calls of a model's step that a check may make. It bounds time and memory."""

    steps_max: int
    spent: int = 0

    def spend(self) -> None:
        if self.spent >= self.steps_max:
            raise OutOfSteps
        self.spent += 1


@dataclass(slots=True)
class OpenOperation:
    """An operation that was invoked and is not closed. `bit` is its bit in configurations."""

    operation: Operation
    bit: int
    is_read: bool
    #: The bit of the next older operation of unknown outcome with the same input, which must be
    #: placed first; 0: there is none.
    elder: int = 0


#: The model's state, and the bits of the open operations that are placed.
Configuration = tuple[Hashable, int]


@dataclass(frozen=True, slots=True)
class Moment:
    """The state of a search after a return, or at the beginning (time None)."""

    time: float | None
    configurations: Sequence[Configuration]
    #: (number of the operation, its bit).
    open: tuple[tuple[int, int], ...] = ()

    @property
    def states(self) -> tuple[Hashable, ...]:
        """The possible states of the model, at most STATES_TOLD of them."""
        return tuple(dict.fromkeys(state for state, _ in self.configurations))[:STATES_TOLD]


@dataclass(frozen=True, slots=True)
class Stuck:
    """The end of a search: this operation returned, and no configuration could place it."""

    number: int
    before: Moment
    window: Moment  # the moment WINDOW returns earlier, or the beginning


@dataclass(slots=True)
class Frontier:
    """A set of configurations. It leaves out those that another member makes unnecessary."""

    reads: int  # bits of the open reads
    unknown: int  # bits of the open operations of unknown outcome
    _members: dict[tuple[Hashable, int], list[int]] = field(default_factory=dict)

    def add(self, configuration: Configuration) -> bool:
        """Add a configuration. Return False if another member makes it unnecessary."""
        state, placed = configuration
        free = self.reads | self.unknown
        rivals = self._members.setdefault((state, placed & ~free), [])
        if any(self._can_all(rival, placed) for rival in rivals):
            return False
        rivals[:] = [rival for rival in rivals if not self._can_all(placed, rival)]
        rivals.append(placed)
        return True

    def _can_all(self, one: int, other: int) -> bool:
        """Return whether `one` has placed all reads that `other` has, and no other unknown."""
        return not (other & ~one & self.reads) and not (one & ~other & self.unknown)

    def __iter__(self) -> Iterator[Configuration]:
        for (state, _known), members in self._members.items():
            for placed in members:
                yield state, placed


class Search:
    """Follows one history, return by return, and keeps all configurations that explain it."""

    def __init__(
        self, model: Model, operations: dict[int, Operation], budget: Budget, begin: Moment
    ) -> None:
        self._model = model
        self._budget = budget
        self._configurations = list(begin.configurations)
        self._open = {  # by number, in the order of invocation
            number: OpenOperation(operations[number], bit, model.is_read(operations[number].input))
            for number, bit in begin.open
        }
        self._events = _events(model, operations, self._open)
        in_use = [bit for _number, bit in begin.open]
        self._bits = max(in_use, default=0).bit_length()
        self._bits_free = [1 << i for i in range(self._bits) if 1 << i not in in_use]
        self._moments = deque([begin], maxlen=WINDOW)

    def run(self) -> Stuck | None:
        """Return where the search is stuck; None if the history is linearizable.

        Raises OutOfSteps.
        """
        for time, is_return, number, operation in self._events:
            if not is_return:
                self._invoke(number, operation)
                continue
            before = self._moment(time)
            self._place(self._open[number])
            if not self._configurations:
                return Stuck(number, before, self._moments[0])
            self._close(number)
            self._close_spent_unknowns()
            self._moments.append(self._moment(time))
        return None

    def _moment(self, time: float) -> Moment:
        bits = tuple((number, opened.bit) for number, opened in self._open.items())
        return Moment(time, self._configurations, bits)

    def _invoke(self, number: int, operation: Operation) -> None:
        is_read = self._model.is_read(operation.input)
        opened = OpenOperation(operation, self._free_bit(), is_read)
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

    def _place(self, target: OpenOperation) -> None:
        """Continue with the configurations that place `target` and only the operations it needs."""
        reads = [opened for opened in self._open.values() if opened.is_read]
        writes = [opened for opened in self._open.values() if not opened.is_read]
        done, seen = self._frontier(), self._frontier()
        # breadth first, so that configurations with fewer placed operations come first
        queue: deque[Configuration] = deque()

        def reached(configuration: Configuration) -> None:
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

    def _with_reads(self, state: Hashable, placed: int, reads: Iterable[OpenOperation]) -> int:
        for read in reads:
            if not placed & read.bit and self._step(state, read.operation) is not None:
                placed |= read.bit
        return placed

    def _step(self, state: Hashable, operation: Operation) -> tuple[Hashable] | None:
        self._budget.spend()
        is_possible, after = self._model.step(state, operation.input, operation.output)
        return (after,) if is_possible else None

    def _frontier(self) -> Frontier:
        reads = unknown = 0
        for opened in self._open.values():
            if opened.is_read:
                reads |= opened.bit
            elif not opened.operation.is_known:
                unknown |= opened.bit
        return Frontier(reads, unknown)

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
        """Close the operations of unknown outcome that every configuration has placed."""
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
    """Return the events in order, each as (time, is_return, number, operation).

    At equal times invocations come before returns, so that the operations overlap: this allows more
    orders. A read without an answer is left out, because it proves nothing.
    """
    events = []
    for number, operation in operations.items():
        if number not in are_open and (operation.is_known or not model.is_read(operation.input)):
            events.append((operation.invoked, False, number, operation))
        if operation.returned is not None:
            events.append((operation.returned, True, number, operation))
    return sorted(events, key=lambda event: event[:3])
