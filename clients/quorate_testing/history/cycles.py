"""The rules about circles: operations that each had to come before the next (G0 and G1c).

An edge leads from one operation to another that came later:

* ww: the first wrote a value, and the second wrote the next value of the key;
* wr: the first wrote a value that the second read;
* order: the first ended before the second started, in the same process ("-process"), or in any
  ("-realtime").

A circle is a contradiction. But a log does not isolate writes, so circles with ww edges are no
failures: the edges are searched with and without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from quorate_testing.history.errors import Error, Place
from quorate_testing.history.facts import Facts, Number
from quorate_testing.history.graph import Edge, Graph, chain
from quorate_testing.history.operations import Name, Operation, Send

WW, WR, ORDER = 1, 2, 4
#: The most operations of a component that the search for its smallest circle begins at, and the
#: most steps of that search.
STARTS_MAX = 32
STEPS_MAX = 300_000
#: The most operations of a circle that an error shows.
SHOWN_MAX = 12


class Family(NamedTuple):
    """A kind of circle: the edges that it may have, and those of which it needs one of each."""

    kind: str
    edges: int
    needs: int
    #: The edges of "order" are those of this: "", "process" or "realtime".
    order: str
    is_by_design: bool


FAMILIES = (
    Family("G1c", WR, WR, "", False),
    Family("G1c-process", WR | ORDER, WR | ORDER, "process", False),
    Family("G1c-realtime", WR | ORDER, WR | ORDER, "realtime", False),
    Family("G0", WW, WW, "", True),
    Family("G0-process", WW | ORDER, WW | ORDER, "process", True),
    Family("G0-realtime", WW | ORDER, WW | ORDER, "realtime", True),
    Family("G1c", WW | WR, WW | WR, "", True),
    Family("G1c-process", WW | WR | ORDER, WW | WR | ORDER, "process", True),
    Family("G1c-realtime", WW | WR | ORDER, WW | WR | ORDER, "realtime", True),
)


def circles(facts: Facts) -> Iterator[Error]:
    """Find the circles of all families, one for each strongly connected component.

    Real time contains the order of processes, and no family has more edges than WW, WR and real
    time together. So what is in no component of that graph is in no circle: most histories end
    here.
    """
    nodes = [number for number in range(len(facts.operations)) if _takes_part(facts, number)]
    whole = Family("", WW | WR | ORDER, 0, "realtime", True)
    suspects = list(_components(facts, nodes, whole))
    for family in FAMILIES:
        for component in suspects:
            yield from _circles(facts, component, family)


def _takes_part(facts: Facts, number: Number) -> bool:
    operation = facts.operations[number]
    return bool(operation.steps) and operation.outcome != "failed"


def _components(facts: Facts, numbers: Sequence[Number], family: Family) -> Iterator[list[Number]]:
    for component in _graph(facts, numbers, family).components():
        found = sorted(numbers[node] for node in component if node < len(numbers))
        if len(found) > 1:
            yield found


def _circles(facts: Facts, numbers: Sequence[Number], family: Family) -> Iterator[Error]:
    """Return a smallest circle of each component that these operations have in this family."""
    for component in _components(facts, numbers, family):
        graph = _graph(facts, component, family)
        starts = _starts(graph, len(component), family)
        circle = _smallest(graph, len(component), family, starts)
        if circle is not None:
            yield _error(facts, family, [(component[node], label) for node, label in circle])
        elif starts and not family.is_by_design:
            # Each start is in a circle, so there is a failure, and it is told in any case.
            yield Error(
                family.kind,
                f"{len(component)} operations came before each other, and the search of "
                f"{STEPS_MAX} steps found no circle of them to show",
                tuple(Place(facts.operations[number]) for number in component[:SHOWN_MAX]),
                len(component),
            )


def _starts(graph: Graph, operations: int, family: Family) -> list[int]:
    """Return operations from which an edge leads that the circle needs.

    All of them are in one component, so each edge between them is in a circle. Without ww edges,
    that circle has all that the family needs: order alone makes none, so it has a wr edge.
    """
    label = max(bit for bit in (WW, WR, ORDER) if bit & family.needs)
    starts = (
        node
        for node in range(operations)
        if any(found == label for _target, found in graph.edges(node))
    )
    return list(islice(starts, STARTS_MAX))


def _smallest(
    graph: Graph, operations: int, family: Family, starts: Sequence[int]
) -> list[tuple[int, int]] | None:
    """Return the smallest circle of operations that was found: (node, labels of its step)."""
    is_counted = [node < operations for node in range(graph.nodes)]
    best: list[tuple[int, int]] | None = None
    steps = 0
    for start in starts:
        way, taken = graph.circle(start, family.needs, is_counted, STEPS_MAX - steps)
        steps += taken
        circle = None if way is None else _simple(way, operations, family.needs)
        if circle and (best is None or len(circle) < len(best)):
            best = circle
    return best


def _simple(
    way: list[tuple[int, int]], operations: int, needs: int
) -> list[tuple[int, int]] | None:
    """Return a circle that visits no operation twice, and is a part of this way; None: it has none.

    The way may consist of several circles, of which each has only a part of what the family needs.
    """
    steps: list[tuple[int, int]] = []
    for node, label in way:
        if node < operations:
            steps.append((node, label))
    places: dict[int, int] = {}
    for index, (node, _label) in enumerate(steps):
        if node in places:
            inner, outer = steps[places[node] : index], steps[: places[node]] + steps[index:]
            return _simple(inner, operations, needs) or _simple(outer, operations, needs)
        places[node] = index
    labels = 0
    for _node, label in steps:
        labels |= label
    return steps if labels & needs == needs else None


def _graph(facts: Facts, numbers: Sequence[Number], family: Family) -> Graph:
    """Return the graph of these operations: node i is the i-th. Nodes of chains come behind."""
    chains = _chains(facts, numbers, family.order)
    total = len(numbers) + sum(len(spans) for spans in chains)
    return Graph(total, _edges(facts, numbers, family, chains))


Spans = list[tuple[int, int | None, int]]


def _chains(facts: Facts, numbers: Sequence[Number], order: str) -> list[Spans]:
    """Return start, end and node of the operations, of each process or of all together."""
    by: dict[object, Spans] = {}
    for node, number in enumerate(numbers):
        operation = facts.operations[number]
        # An operation of unknown outcome may take effect at any time later: it has no end.
        end = operation.end if operation.outcome == "done" else None
        group = operation.process if order == "process" else ""
        by.setdefault(group, []).append((operation.start, end, node))
    return list(by.values()) if order else []


def _edges(
    facts: Facts, numbers: Sequence[Number], family: Family, chains: Iterable[Spans]
) -> Iterator[Edge]:
    nodes = {number: node for node, number in enumerate(numbers)}
    if family.edges & WW:
        yield from _ww_edges(facts, nodes)
    if family.edges & WR:
        yield from _wr_edges(facts, nodes, is_timed=not family.needs)
    first_node = len(numbers)
    for spans in chains:
        yield from chain(spans, ORDER, first_node)
        first_node += len(spans)


def _ww_edges(facts: Facts, nodes: dict[Number, int]) -> Iterator[Edge]:
    for number, node in nodes.items():
        for send in facts.operations[number].sends():
            for _offset, key, following in _following(facts, send):
                writer = facts.writer(key, following[1])
                target = None if writer is None else nodes.get(writer)
                if target is not None and target != node:
                    yield node, target, WW


def _following(facts: Facts, send: Send) -> Iterator[tuple[int, str, tuple[int, Name]]]:
    """Return the offsets of a value, its key, and the next offset and value behind each."""
    order = facts.orders.get(send.key)
    for offset in () if order is None else order.places(send.value):
        following = order.after(offset) if order and order.values[offset] == send.value else None
        if following is not None:
            yield offset, send.key, following


def _wr_edges(facts: Facts, nodes: dict[Number, int], *, is_timed: bool) -> Iterator[Edge]:
    """Return the edges from writers to readers, one for each pair. The readers are done.

    `is_timed`: leave out those that real time has, too, which are nearly all of a long history.
    """
    for number, node in nodes.items():
        operation = facts.operations[number]
        if operation.outcome != "done":
            continue
        writers: dict[Number | None, None] = {}
        for key, records in operation.polls():
            of_key = facts.writers.get(key, {})
            for _offset, value in records:
                writers[of_key.get(value)] = None
        for writer in writers:
            source = None if writer is None else nodes.get(writer)
            if writer is None or source is None or source == node:
                continue
            if not (is_timed and _precedes(facts.operations[writer], operation)):
                yield source, node, WR


def _precedes(before: Operation, after: Operation) -> bool:
    """Return whether an operation was over before another began, and had its effect by then."""
    return before.outcome == "done" and before.end is not None and before.end < after.start


def _error(facts: Facts, family: Family, circle: list[tuple[Number, int]]) -> Error:
    numbers = [number for number, _label in circle]
    names = {number: f"T{index}" for index, number in enumerate(numbers, 1)}
    reasons = []
    for index, (number, label) in enumerate(circle[:SHOWN_MAX]):
        after = numbers[(index + 1) % len(numbers)]
        reasons.append(f"{names[number]} {_why(facts, number, after, label, names[after])}")
    if len(circle) > SHOWN_MAX:
        reasons.append(f"and so on, from T{SHOWN_MAX + 1} back to T1")
    shown = islice(names.items(), SHOWN_MAX)
    return Error(
        family.kind,
        f"{len(circle)} operations in a circle: {'; '.join(reasons)}",
        tuple(Place(facts.operations[number], name=name) for number, name in shown),
        len(circle),
        family.is_by_design,
    )


def _why(facts: Facts, before: Number, after: Number, label: int, name: str) -> str:
    """Return why one operation came before another one of this name."""
    first, second = facts.operations[before], facts.operations[after]
    if label == ORDER:
        process = f" (both process {first.process})" if first.process == second.process else ""
        return f"ended at {first.end}, before {name} started at {second.start}{process}"
    if label == WR:
        for key, records in second.polls():
            for offset, value in records:
                if facts.writer(key, value) == before:
                    return f"wrote {key} {value!r} (offset {offset}), which {name} read"
    for send in first.sends():
        for offset, key, (at, value) in _following(facts, send):
            if facts.writer(key, value) == after:
                return (
                    f"wrote {key} {send.value!r} (offset {offset}), and {name} wrote {value!r} "
                    f"next (offset {at})"
                )
    raise AssertionError(f"no edge of the graph leads from {first} to {second}")
