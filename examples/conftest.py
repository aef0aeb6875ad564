"""What holds for all examples in this repository. A copied folder works without it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quorate_testing import EmbeddedCluster


@pytest.fixture(scope="module")
def quorate_cluster() -> Iterator[EmbeddedCluster]:
    """Return the cluster of Quorate's pytest plugin, but for one module and not for the session.

    Other tests of this repository count what a process does, and one with nodes does more.
    """
    with EmbeddedCluster() as cluster:
        yield cluster
