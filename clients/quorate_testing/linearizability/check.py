"""A checker of histories: could a register, a list, ... have given these answers?

A history is linearizable if its operations have an order with two properties (Herlihy and Wing
1990). Each operation takes effect at a moment between its invocation and its return. A simple model
that executes them in this order gives the same outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from quorate_testing.linearizability.history import Operation
from quorate_testing.linearizability.models import Model
from quorate_testing.linearizability.search import Budget, Moment, OutOfSteps, Search, Stuck

#: The most calls of a model's step in one check. 2,000 operations of 8 busy processes need about
#: 200,000.
STEPS_MAX = 5_000_000
#: The most further calls of the model's step in the search for a smaller conflict.
SHRINK_STEPS_MAX = 500_000


@dataclass(frozen=True, slots=True)
class Violation:
    """Why a history is not linearizable.

    `conflict` is the smallest explanation. Its operations have no valid order, even if every other
    operation after `since` had an unknown outcome. If any one of these operations had an unknown
    outcome, the others would have a valid order (checked only as far as SHRINK_STEPS_MAX allows).
    An operation that returned after `operation` counts as not returned.

    `since` is the moment WINDOW returns earlier, and `states_since` are the possible states at that
    moment. `since` is None if the explanation begins at the start of the history.
    """

    #: The first operation, in the order of returns, that has no place.
    operation: Operation
    #: The possible states when the operation returned, at most STATES_TOLD.
    states: tuple[Hashable, ...]
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
    """The result of a check. "unknown" means that the steps did not suffice: nothing is proven.

    A verdict has no truth value, because it has three outcomes.
    """

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
    """Return whether the model could have given the history. With `key`, check each object alone.

    `key` returns the object of an input. The objects must be independent. Each begins in the
    model's initial state. `steps_max` bounds the calls of the model's step for all objects
    together, and so bounds time and memory. The search for a smaller conflict may use
    SHRINK_STEPS_MAX more.
    """
    budget = Budget(steps_max)
    verdict = Verdict("linearizable", 0)
    for name, operations in _objects(history, key):
        try:
            begin = Moment(None, [(model.initial, 0)])
            stuck = Search(model, operations, budget, begin).run()
        except OutOfSteps:
            # Another object may have a violation, but no steps are left to find it.
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
    """Return the verdict "linearizable". Raise AssertionError for any other verdict."""
    verdict = check(model, history, key=key, steps_max=steps_max)
    if verdict.outcome == "violation":
        raise AssertionError(str(verdict.violation))
    if verdict.outcome == "unknown":
        raise AssertionError(f"not known if linearizable: {verdict.steps} steps did not suffice")
    return verdict


def _objects(
    history: Iterable[Operation], key: Callable[[Any], Hashable] | None
) -> list[tuple[Hashable, dict[int, Operation]]]:
    """Return the operations of each object, by their number in the history."""
    objects: dict[Hashable, dict[int, Operation]] = {}
    for number, operation in enumerate(history):
        name = None if key is None else key(operation.input)
        objects.setdefault(name, {})[number] = operation
    return list(objects.items())


def _explain(model: Model, operations: dict[int, Operation], stuck: Stuck) -> Violation:
    """Return the violation, with the smallest conflict that the steps suffice to find.

    It tries to relax operations (to take their outcomes as unknown), first in large chunks, in the
    end one by one. One pass is enough: a relaxed operation makes a history easier to explain, so an
    operation that cannot be relaxed now cannot be relaxed later.
    """
    window = _window(operations, stuck)
    budget = Budget(SHRINK_STEPS_MAX)
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


def _window(operations: dict[int, Operation], stuck: Stuck) -> dict[int, Operation]:
    """Return the operations that were open when the window began, or were invoked in it.

    The window ends when the operation without a place returns. An operation that returned later
    need not be placed. But if the search places such an operation, the model must explain its
    output.
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
    model: Model, operations: dict[int, Operation], budget: Budget, begin: Moment
) -> bool:
    """Return whether a search with a tenth of the remaining steps proves a violation."""
    attempt = Budget((budget.steps_max - budget.spent) // 10)
    try:
        return Search(model, operations, attempt, begin).run() is not None
    except OutOfSteps:
        return False
    finally:
        budget.spent += attempt.spent
