"""A voter dies at any write, sync, rename, truncate, create, remove, send or reply: all recovers.

Here a quarter of the points of one run are tried, each with one kind of crash, a kill or a power
loss; in `make soak` all of them.
`make crash-points` tries all points of several seeds with both, and prints the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from tests.harness.amounts import few_or_many
from tests.harness.quorum_crash import CRASHES, Crash, Point, crash_at, record

pytestmark = pytest.mark.simulation

SEED = 1
#: So many points in a row meet one kind of crash, and the next ones the other. Turns of one point
#: would not do: writes and syncs alternate, and each would always meet the same kind of crash.
SHARDS = 16


@pytest.fixture(scope="module")
def points() -> Sequence[Point]:
    return record(SEED)


def test_a_run_has_points_of_every_kind(points: Sequence[Point]) -> None:
    kinds = Counter(point.kind for point in points)
    assert len(points) >= 300
    for kind in ("write", "sync", "directory sync", "rename", "create", "send", "reply"):
        assert kinds[kind] >= 25, kinds
    assert kinds["remove"] >= 5, kinds
    assert kinds["truncate"] >= 1, kinds
    files = " ".join(point.what for point in points)
    for name in (".log", "quorum-state", "synced", ".snapshot.part", ".index", "leader-epoch"):
        assert name in files, name


@pytest.mark.timeout(300)
@pytest.mark.parametrize("crash", CRASHES)
@pytest.mark.parametrize("shard", range(few_or_many(4, SHARDS)))
def test_all_recovers_wherever_a_voter_dies(
    points: Sequence[Point], shard: int, crash: Crash
) -> None:
    """Nothing acknowledged is lost, no voter votes twice, and every voter can lead again."""
    first = shard + SHARDS * CRASHES.index(crash)
    for number in range(first, len(points), SHARDS * len(CRASHES)):
        crash_at(SEED, number, crash, points[number])
