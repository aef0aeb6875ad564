"""docs/start.md shows what its commands print, but for numbers that differ from run to run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from quorate_testing import EmbeddedCluster
from tests.docs.blocks import ROOT, blocks

BLOCKS = blocks(ROOT / "docs/start.md")


def shape(text: str) -> Iterator[list[str]]:
    """Yield the words of each line, with all numbers alike."""
    for line in text.splitlines():
        yield [re.sub(r"\d+", "#", word) for word in line.split()]


def test_a_described_topic_looks_as_on_the_page() -> None:
    (commands,) = (one for one in BLOCKS if one.text.startswith("quorate topic create invoice"))
    shown = BLOCKS[BLOCKS.index(commands) + 1].text
    with EmbeddedCluster(brokers=3) as cluster:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands.text],
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "QUORATE_BOOTSTRAP": cluster.bootstrap_servers,
            },
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    assert list(shape(done.stdout))[-len(shown.splitlines()) :] == list(shape(shown))
