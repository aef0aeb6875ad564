"""Strongly connected components and circles, against simple ways to find them."""

from __future__ import annotations

import random

import pytest

from quorate_testing.history.graph import Edge, Graph, chain


def reachable(edges: list[Edge], start: int) -> set[int]:
    found: set[int] = set()
    queue = [start]
    while queue:
        node = queue.pop()
        for source, target, _label in edges:
            if source == node and target not in found:
                found.add(target)
                queue.append(target)
    return found


@pytest.mark.parametrize("seed", range(60))
def test_components_are_what_reaches_each_other(seed: int) -> None:
    rng = random.Random(seed)
    nodes = rng.randint(1, 12)
    edges = [
        (rng.randrange(nodes), rng.randrange(nodes), 1) for _ in range(rng.randint(0, 2 * nodes))
    ]
    reach = {node: reachable(edges, node) | {node} for node in range(nodes)}
    wanted = {
        frozenset(other for other in range(nodes) if other in reach[node] and node in reach[other])
        for node in range(nodes)
    }
    found = list(map(frozenset, Graph(nodes, edges).components()))
    assert len(found) == len(set(found))
    assert set(found) == {component for component in wanted if len(component) > 1}, f"seed {seed}"


def test_a_path_may_be_longer_than_the_stack_of_python() -> None:
    nodes = 100_000
    edges = [(node, (node + 1) % nodes, 1) for node in range(nodes)]
    assert [len(found) for found in Graph(nodes, edges).components()] == [nodes]
    assert list(Graph(nodes, edges[:-1]).components()) == []


def test_the_edges_of_a_node() -> None:
    graph = Graph(4, [(2, 0, 1), (0, 3, 2), (2, 1, 4), (0, 0, 1)])
    assert [list(graph.edges(node)) for node in range(4)] == [
        [(3, 2), (0, 1)],
        [],
        [(0, 1), (1, 4)],
        [],
    ]


def test_the_shortest_circle_that_has_all_labels() -> None:
    edges = [(0, 1, 1), (1, 0, 1), (1, 2, 2), (2, 3, 1), (3, 0, 1)]
    graph, counted = Graph(4, edges), [True] * 4
    assert graph.circle(0, 1, counted, 99)[0] == [(0, 1), (1, 1)]
    assert graph.circle(0, 3, counted, 99)[0] == [(0, 1), (1, 2), (2, 1), (3, 1)]
    assert graph.circle(0, 7, counted, 99)[0] is None


def test_nodes_that_do_not_count_have_no_length() -> None:
    edges = [(0, 4, 1), (4, 5, 1), (5, 1, 1), (1, 0, 1), (0, 2, 1), (2, 3, 1), (3, 0, 1)]
    counted = [node < 4 for node in range(6)]
    way, _steps = Graph(6, edges).circle(0, 1, counted, 99)
    assert way is not None
    assert [node for node, _label in way] == [0, 4, 5, 1]


def test_a_search_ends() -> None:
    nodes = 1000
    graph = Graph(nodes, [(node, (node + 1) % nodes, 1) for node in range(nodes)])
    assert graph.circle(0, 1, [True] * nodes, 10) == (None, 10)
    assert graph.circle(0, 1, [True] * nodes, nodes + 1)[0] is not None


@pytest.mark.parametrize("seed", range(60))
def test_a_chain_leads_from_each_span_to_all_that_begin_after_its_end(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randint(1, 8)
    spans = []
    for node, start in enumerate(sorted(rng.randint(0, 12) for _ in range(count))):
        spans.append((start, None if rng.random() < 0.2 else start + rng.randint(0, 5), node))
    edges = list(chain(spans, 1, count))
    assert len(edges) <= 3 * count
    for _start, end, node in spans:
        after = {other for start, _end, other in spans if end is not None and end < start}
        assert {found for found in reachable(edges, node) if found < count} == after, f"seed {seed}"
