"""The same seed does the same, however strings are hashed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
from tests.harness.world import run_seed
for seed in (8, 12):
    print(run_seed(seed))
"""


@pytest.mark.simulation
@pytest.mark.timeout(120)
def test_a_seed_is_the_same_under_two_hash_seeds() -> None:
    """Compares which process ran in every instant of a whole cluster and of a small one."""
    first, second = (_told(hash_seed) for hash_seed in ("1", "2"))
    assert "trace=" in first
    assert first == second


def _told(hash_seed: str) -> str:
    paths = [str(ROOT), *(str(ROOT / root) for root in ("clients", "quorum", "broker"))]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(paths)}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout
