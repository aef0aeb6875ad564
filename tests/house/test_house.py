"""The house as a test: stubs as protoc makes them, machines that cannot wait, nothing for later."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("clients", "quorum", "broker")
WAITING = {"asyncio", "grpc", "time", "random", "socket", "os", "pathlib", "threading"}
MACHINES = [
    "quorum/quorate_quorum/raft/messages.py",
    "quorum/quorate_quorum/raft/voters.py",
    "quorum/quorate_quorum/raft/progress.py",
    "quorum/quorate_quorum/raft/roles.py",
    "quorum/quorate_quorum/raft/timing.py",
    "quorum/quorate_quorum/raft/elections.py",
    "quorum/quorate_quorum/raft/following.py",
    "quorum/quorate_quorum/raft/leading.py",
    "quorum/quorate_quorum/raft/changing.py",
    "quorum/quorate_quorum/raft/status.py",
    "quorum/quorate_quorum/raft/raft.py",
    "quorum/quorate_quorum/metadata/image.py",
    "quorum/quorate_quorum/metadata/delta.py",
    "quorum/quorate_quorum/metadata/recovered.py",
    "quorum/quorate_quorum/recover/decision.py",
    "quorum/quorate_quorum/controller/outcome.py",
    "quorum/quorate_quorum/controller/topics.py",
    "quorum/quorate_quorum/controller/creation.py",
    "quorum/quorate_quorum/controller/brokers.py",
    "quorum/quorate_quorum/controller/features.py",
    "quorum/quorate_quorum/controller/voters.py",
    "quorum/quorate_quorum/controller/partitions.py",
    "quorum/quorate_quorum/controller/recovery.py",
    "quorum/quorate_quorum/controller/settling.py",
    "quorum/quorate_quorum/controller/placement.py",
    "quorum/quorate_quorum/controller/liveness.py",
    "broker/quorate_broker/partition/leader.py",
    "broker/quorate_broker/partition/follower.py",
    "broker/quorate_broker/partition/producers.py",
    "clients/quorate/topic_views.py",
    "clients/quorate/producer/accumulator.py",
    "clients/quorate/producer/partition_queue.py",
    "clients/quorate/consumer/buffer.py",
    "clients/quorate/consumer/positions.py",
    "clients/quorate/consumer/session.py",
    "clients/quorate/consumer/subscription.py",
    "broker/quorate_broker/partition/divergence.py",
]


def sources() -> list[Path]:
    """Return our Python files, without what protoc made."""
    return [
        path
        for root in (*SOURCES, "tests")
        for path in sorted((ROOT / root).rglob("*.py"))
        if not path.name.endswith("_pb2.py")
    ]


@pytest.mark.parametrize("machine", MACHINES)
def test_a_machine_cannot_wait(machine: str) -> None:
    """It imports no clock, socket or chance, and so can only decide."""
    tree = ast.parse((ROOT / machine).read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    imported = set()
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert not imported & WAITING


def test_only_one_module_imports_grpc() -> None:
    """The seam to the wire has one gRPC implementation."""
    pattern = re.compile(r"^\s*(?:import grpc|from grpc)\b", re.MULTILINE)
    importers = [
        str(path.relative_to(ROOT))
        for path in sources()
        if pattern.search(path.read_text()) and path.parts[-2] != "house"
    ]
    # Tests may: what they send by hand must not go through our own seam.
    ours = [path for path in importers if not path.startswith("tests/")]
    assert ours == ["clients/quorate/grpc_library.py"]


def test_the_client_library_logs_through_the_standard_library() -> None:
    """A program that uses the library decides by `logging` what becomes of its logs."""
    importers = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.is_relative_to(ROOT / "clients/quorate")
        and re.search(r"^\s*(?:import|from) structlog", path.read_text(), re.MULTILINE)
    ]
    assert importers == []


def test_nothing_is_left_for_later() -> None:
    """No FIXME, no TODO: what is not there says so to the user, or is in the README."""
    words = re.compile(r"\b(FIXME|TODO|XXX|HACK)\b")
    found = [
        str(path.relative_to(ROOT))
        for path in sources()
        if words.search(path.read_text()) and path != Path(__file__)
    ]
    assert found == []


def test_the_stubs_are_what_protoc_makes(tmp_path: Path) -> None:
    """`make proto` changes nothing."""
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run(
        [str(ROOT / "proto/generate.sh"), str(tmp_path)], check=True, cwd=ROOT, env=environment
    )
    made = sorted(tmp_path.rglob("*_pb2.py*"))
    assert made
    for path in made:
        committed = ROOT / path.relative_to(tmp_path)
        assert committed.read_text() == path.read_text(), f"{committed}: run `make proto`"
