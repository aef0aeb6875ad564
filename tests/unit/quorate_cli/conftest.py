"""The command against the embedded cluster that the tests of a module share."""

from __future__ import annotations

import pytest

from quorate_testing import EmbeddedCluster
from tests.unit.quorate_cli.commands import Quorate


@pytest.fixture
def quorate(quorate_cluster: EmbeddedCluster, capfd: pytest.CaptureFixture[str]) -> Quorate:
    return Quorate(quorate_cluster, capfd)
