"""The examples of docs/serializers.md run, one after another, as a reader would type them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from quorate_testing import EmbeddedCluster

PAGE = Path(__file__).parents[4] / "docs" / "serializers.md"


def test_the_examples_of_the_page_work(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 11
    with EmbeddedCluster() as cluster:
        for topic in ("invoice", "orders"):
            cluster.create_topic(topic)
        program = "\n".join(blocks)
        program = program.replace("localhost:7092", cluster.bootstrap_servers)
        program = program.replace("localhost:9092", cluster.kafka_bootstrap_servers)
        (tmp_path / "page.py").write_text(program)
        done = subprocess.run(
            [sys.executable, "-W", "error", "page.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    for said in ("Integer.deserialize: data must be 4 bytes", "{'customer': 42, 'note': ''}"):
        assert said in done.stdout
    assert "shop.Order.note: the writer has no such field, and no default is set" in done.stdout
