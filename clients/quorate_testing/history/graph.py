"""Directed graphs with labelled edges: their circles, in time near linear in the edges."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

#: An edge is a source, a target, and a label, which is one bit.
Edge = tuple[int, int, int]


class Graph:
    """A graph whose nodes are 0, 1, ... It takes 9 bytes an edge and 4 bytes a node."""

    def __init__(self, nodes: int, edges: Iterable[Edge]) -> None:
        self.nodes = nodes
        sources, targets, labels = array("i"), array("i"), array("B")
        #: Node -> the index of its first edge; one more at the end.
        self.first = first = array("i", [0]) * (nodes + 1)
        for source, target, label in edges:
            sources.append(source)
            targets.append(target)
            labels.append(label)
            first[source] += 1
        total = 0
        for node in range(nodes):
            total += first[node]
            first[node] = total
        first[nodes] = total
        self.targets = array("i", [0]) * total
        self.labels = array("B", [0]) * total
        # From the back of each node's places to their front: then `first` is where they begin.
        for edge in range(total - 1, -1, -1):
            source = sources[edge]
            place = first[source] = first[source] - 1
            self.targets[place] = targets[edge]
            self.labels[place] = labels[edge]

    def edges(self, node: int) -> Iterator[tuple[int, int]]:
        """Return the edges of a node: their targets and labels."""
        for edge in range(self.first[node], self.first[node + 1]):
            yield self.targets[edge], self.labels[edge]

    def components(self) -> Iterator[list[int]]:
        """Return the strongly connected components of two or more nodes.

        Two nodes are in the same component if each can be reached from the other. The algorithm is
        Tarjan's (1972), with a stack of its own: a history has more operations than Python has
        frames.
        """
        first, targets = self.first, self.targets
        cursor = array("i", first)  # node -> its next edge
        visited = array("i", [0]) * self.nodes  # node -> when it was found; 0: not yet
        lowest = array("i", [0]) * self.nodes  # node -> the earliest open node it can reach
        closed = self.nodes + 1
        count = 0
        open_nodes: list[int] = []
        for root in range(self.nodes):
            if visited[root]:
                continue
            path = [root]
            while path:
                node = path[-1]
                if not visited[node]:
                    count += 1
                    visited[node] = lowest[node] = count
                    open_nodes.append(node)
                low, edge, end = lowest[node], cursor[node], first[node + 1]
                while edge < end:
                    target = targets[edge]
                    if not visited[target]:
                        path.append(target)  # and look at this edge again on return
                        break
                    low = min(low, lowest[target])
                    edge += 1
                cursor[node], lowest[node] = edge, low
                if edge < end:
                    continue
                path.pop()
                if low == visited[node]:
                    component: list[int] = []
                    while not component or component[-1] != node:
                        component.append(open_nodes.pop())
                        lowest[component[-1]] = closed
                    if len(component) > 1:
                        yield component

    def circle(
        self, start: int, wanted: int, is_counted: Sequence[bool], steps_max: int
    ) -> tuple[list[tuple[int, int]] | None, int]:
        """Return a shortest way from `start` back to it over edges of all labels in `wanted`.

        The way is a list of (node, labels of the edge from it). Its length is the number of
        `is_counted` nodes. Returns also how many steps the search took: at most `steps_max`, and if
        it is as many, there may be a way that was not found.
        """
        origin: dict[tuple[int, int], tuple[tuple[int, int], int]] = {}
        begin = (start, 0)
        seen = {begin}
        queue = deque([begin])
        steps = 0
        while queue and steps < steps_max:
            state = queue.popleft()
            node, had = state
            for target, label in self.edges(node):
                steps += 1
                after = target, (had | label) & wanted
                if after == (start, wanted):
                    return _way(origin, state, label), steps
                if after in seen:
                    continue
                seen.add(after)
                origin[after] = state, label
                # Breadth first, where edges to nodes that do not count have no length.
                queue.append(after) if is_counted[target] else queue.appendleft(after)
        return None, min(steps, steps_max)


def _way(
    origin: dict[tuple[int, int], tuple[tuple[int, int], int]], state: tuple[int, int], label: int
) -> list[tuple[int, int]]:
    way = [(state[0], label)]
    while state in origin:
        state, label = origin[state]
        way.append((state[0], label))
    return way[::-1]


def chain(
    spans: Sequence[tuple[int, int | None, int]], label: int, first_node: int
) -> Iterator[Edge]:
    """Return edges that lead from each span to all spans that begin after its end.

    A span is (start, end or None, its node); they are in the order of starts. All pairs would be
    too many, so each span gets a further node from `first_node` on. These form a chain in the order
    of time: a span leads into the chain where it ends, and the chain leads to a span where that
    starts. A span without an end leads nowhere.

    >>> list(chain([(0, 1, 0), (2, 3, 1)], 4, 10))
    [(10, 11, 4), (10, 0, 4), (0, 11, 4), (11, 1, 4)]
    """
    starts = [start for start, _end, _node in spans]
    for index, (_start, end, node) in enumerate(spans):
        moment = first_node + index
        if index + 1 < len(spans):
            yield moment, moment + 1, label
        yield moment, node, label
        after = len(spans) if end is None else bisect_right(starts, end)
        if after < len(spans):
            yield node, first_node + after, label
