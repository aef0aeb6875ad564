"""All nodes lose their power at once, at any thing that a disk does: flush.on.ack loses nothing.

Here some points of one run are tried. `make power-cuts` tries 1,000 of ten runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from tests.harness.amounts import few_or_many
from tests.harness.power_cut import Outcome, Point, chosen, cut_at, record

pytestmark = pytest.mark.simulation

SEED = 1
POINTS = few_or_many(6, 16)
SHARDS = 3


@pytest.fixture(scope="module")
def whole() -> Outcome:
    return record(SEED)


@pytest.fixture(scope="module")
def points(whole: Outcome) -> Sequence[Point]:
    return whole.points


def test_a_run_has_points_of_every_kind(whole: Outcome, points: Sequence[Point]) -> None:
    kinds = Counter(point.kind for point in points)
    assert len(points) >= 1000
    for kind in ("append", "sync", "sync_directory", "rename", "create", "remove"):
        assert kinds[kind] >= 25, kinds
    files = " ".join(point.what for point in points)
    for name in (".log.cleaned", ".log.swap", ".checksum", "synced", "log-start", "cleaned"):
        assert name in files, name
    assert whole.acked > 100
    assert whole.rolls > 10
    assert whole.compactions == 3, "every replica of the compacted topic was compacted"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_what_was_acknowledged_is_read_after_a_power_cut_of_all_nodes(
    points: Sequence[Point], shard: int
) -> None:
    for number in chosen(points, POINTS)[shard::SHARDS]:
        cut_at(SEED, number, points[number])
