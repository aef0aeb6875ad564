"""Configurations of nodes, for tests of what takes its bounds from them."""

from __future__ import annotations

from typing import Any

from quorate_quorum.node.config import QuorumConfig


def voter_config(node_id: int = 100, **settings: Any) -> QuorumConfig:
    """Return a voter's configuration with these settings; the bounds of types are not checked."""
    endpoint = f"v{node_id}:9093"
    return QuorumConfig(node_id=node_id, listeners=(endpoint,), log_dirs=("/data",), **settings)
