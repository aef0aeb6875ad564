"""Configurations of nodes as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from quorate_quorum.node.config import ConfigError, NodeConfig
from quorate_quorum.node.config_sources import load

BROKER = """
node.id = 1
broker.rack = "R1"
listeners = ["127.0.0.1:7092"]
advertised.listeners = ["localhost:7092"]
quorum.bootstrap.servers = ["localhost:7093", "localhost:7193", "localhost:7293"]
log.dirs = ["/var/lib/quorate"]
"""
QUORUM = """
node.id = 100
listeners = ["127.0.0.1:7093"]
log.dirs = ["/var/lib/quorate"]
"""


def file_with(tmp_path: Path, text: str) -> str:
    path = tmp_path / "node.toml"
    path.write_text(text)
    return str(path)


def refused(
    kind: type[NodeConfig],
    path: str | None,
    env: dict[str, str] | None = None,
    sets: tuple[str, ...] = (),
) -> str:
    with pytest.raises(ConfigError) as raised:
        load(kind, path, env or {}, sets)
    return str(raised.value)
