"""Real processes: one cluster for all tests that leave it whole, and a way to start others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape, free_port
from tests.cluster.support import Answer, run_here, started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


# Until the last test of this folder: six idle processes cost a tenth of a core.
@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three voters, three brokers in two racks. A test that kills a node starts it again."""
    shape = Shape(racks=("R1", "R2"), port=free_port(3))
    with started(tmp_path_factory.mktemp("cluster"), shape) as running:
        yield running


@pytest.fixture
def quorate(cluster: LocalCluster, capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run the command in this process, against the cluster."""

    def command(*arguments: str, bootstrap: str = "", stdin: bytes = b"") -> Answer:
        servers = bootstrap or cluster.bootstrap_servers
        return run_here([*arguments, "--bootstrap", servers], capfd, stdin)

    return command
