"""The house as a test: stubs as protoc makes them, machines that cannot wait, nothing for later."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.generated import is_generated

ROOT = Path(__file__).parents[2]
SOURCES = ("clients", "quorum", "broker")
WAITING = {"asyncio", "grpc", "time", "random", "socket", "os", "pathlib", "threading"}
MACHINES = [
    "quorum/quorate_quorum/raft/machine/messages.py",
    "quorum/quorate_quorum/raft/machine/voters.py",
    "quorum/quorate_quorum/raft/machine/progress.py",
    "quorum/quorate_quorum/raft/machine/timing.py",
    "quorum/quorate_quorum/raft/machine/hard_state.py",
    "quorum/quorate_quorum/raft/machine/ledger.py",
    "quorum/quorate_quorum/raft/machine/events.py",
    "quorum/quorate_quorum/raft/machine/ready.py",
    "quorum/quorate_quorum/raft/machine/state.py",
    "quorum/quorate_quorum/raft/machine/transitions.py",
    "quorum/quorate_quorum/raft/machine/role.py",
    "quorum/quorate_quorum/raft/machine/unattached.py",
    "quorum/quorate_quorum/raft/machine/candidate.py",
    "quorum/quorate_quorum/raft/machine/follower.py",
    "quorum/quorate_quorum/raft/machine/replicas.py",
    "quorum/quorate_quorum/raft/machine/rounds.py",
    "quorum/quorate_quorum/raft/machine/transfer.py",
    "quorum/quorate_quorum/raft/machine/voter_change.py",
    "quorum/quorate_quorum/raft/machine/leader.py",
    "quorum/quorate_quorum/raft/machine/status.py",
    "quorum/quorate_quorum/raft/machine/raft.py",
    "quorum/quorate_quorum/metadata/aspect.py",
    "quorum/quorate_quorum/metadata/carried.py",
    "quorum/quorate_quorum/metadata/configs.py",
    "quorum/quorate_quorum/metadata/features.py",
    "quorum/quorate_quorum/metadata/voters.py",
    "quorum/quorate_quorum/metadata/brokers.py",
    "quorum/quorate_quorum/metadata/partitions.py",
    "quorum/quorate_quorum/metadata/topics.py",
    "quorum/quorate_quorum/metadata/producer_ids.py",
    "quorum/quorate_quorum/metadata/image.py",
    "quorum/quorate_quorum/metadata/delta.py",
    "quorum/quorate_quorum/metadata/recovered.py",
    "quorum/quorate_quorum/recover/decision.py",
    "broker/quorate_broker/replication/catch_up_window.py",
    "broker/quorate_broker/replication/patience.py",
    "broker/quorate_broker/replication/stream_credit.py",
    "broker/quorate_broker/retention/policy.py",
    "quorum/quorate_quorum/log/rolling.py",
    "quorum/quorate_quorum/controller/decisions/changes.py",
    "quorum/quorate_quorum/controller/decisions/lossy_replicas.py",
    "quorum/quorate_quorum/controller/decisions/health.py",
    "quorum/quorate_quorum/controller/decisions/outcome.py",
    "quorum/quorate_quorum/controller/decisions/topics.py",
    "quorum/quorate_quorum/controller/decisions/config_change.py",
    "quorum/quorate_quorum/controller/decisions/creation.py",
    "quorum/quorate_quorum/controller/decisions/brokers.py",
    "quorum/quorate_quorum/controller/decisions/features.py",
    "quorum/quorate_quorum/controller/decisions/voters.py",
    "quorum/quorate_quorum/controller/decisions/partitions.py",
    "quorum/quorate_quorum/controller/decisions/lossy_elections.py",
    "quorum/quorate_quorum/controller/decisions/sweep.py",
    "quorum/quorate_quorum/controller/decisions/placement.py",
    "quorum/quorate_quorum/controller/decisions/liveness.py",
    "broker/quorate_broker/replica/in_sync_replicas.py",
    "broker/quorate_broker/replica/leader.py",
    "broker/quorate_broker/replication/rate_limit.py",
    "broker/quorate_broker/replica/follower.py",
    "broker/quorate_broker/replica/producer_memory.py",
    "broker/quorate_broker/replica/producers.py",
    "clients/quorate/aio/offset_waiters.py",
    "clients/quorate/cluster/topic_views.py",
    "clients/quorate/producer/accumulator.py",
    "clients/quorate/producer/partition_queue.py",
    "clients/quorate/consumer/buffer.py",
    "clients/quorate/consumer/partition_state.py",
    "clients/quorate/consumer/fetch_session.py",
    "clients/quorate/consumer/subscription.py",
    "clients/quorate/schema_registry/catalog.py",
    "clients/quorate/serializers/avro/bounds.py",
    "clients/quorate/serializers/avro/checks.py",
    "clients/quorate/serializers/avro/compatibility.py",
    "clients/quorate/serializers/avro/conversion.py",
    "clients/quorate/serializers/avro/defaults.py",
    "clients/quorate/serializers/avro/parser.py",
    "clients/quorate/serializers/avro/resolution.py",
    "clients/quorate/serializers/avro/schema.py",
    "clients/quorate/serializers/avro/types.py",
    "clients/quorate/consumer/group/membership.py",
    "clients/quorate/consumer/group/poll_watch.py",
    "clients/quorate/consumer/group/starts.py",
    "broker/quorate_broker/replica/divergence.py",
    "broker/quorate_broker/compaction/plan.py",
    "broker/quorate_broker/compaction/offset_map.py",
    "broker/quorate_broker/compaction/batch_filter.py",
    "broker/quorate_broker/compaction/job.py",
    "broker/quorate_broker/listeners/kafka/codec.py",
    "broker/quorate_broker/listeners/kafka/wire.py",
    "broker/quorate_broker/groups/records/classic.py",
    "broker/quorate_broker/listeners/kafka/budget.py",
    "broker/quorate_broker/listeners/kafka/connection.py",
    "broker/quorate_broker/listeners/kafka/errors.py",
    "broker/quorate_broker/listeners/kafka/framing.py",
    "broker/quorate_broker/listeners/kafka/versions.py",
    "broker/quorate_broker/groups/records/keys.py",
    "broker/quorate_broker/groups/records/values.py",
    "broker/quorate_broker/groups/records/wire.py",
    "broker/quorate_broker/groups/assignors/rack_uniform.py",
    "broker/quorate_broker/groups/assignors/range.py",
    "broker/quorate_broker/groups/assignors/table.py",
    "broker/quorate_broker/groups/assignors/uniform.py",
    "broker/quorate_broker/groups/assignors/values.py",
    "broker/quorate_broker/groups/machine/administration.py",
    "broker/quorate_broker/groups/machine/assigning.py",
    "broker/quorate_broker/groups/machine/classic/calls.py",
    "broker/quorate_broker/groups/machine/classic/embedded.py",
    "broker/quorate_broker/groups/machine/classic/member.py",
    "broker/quorate_broker/groups/machine/classic/members.py",
    "broker/quorate_broker/groups/machine/classic/protocol.py",
    "broker/quorate_broker/groups/machine/classic/rebalance.py",
    "broker/quorate_broker/groups/machine/classic/roster.py",
    "broker/quorate_broker/groups/machine/classic/values.py",
    "broker/quorate_broker/groups/machine/config.py",
    "broker/quorate_broker/groups/machine/consumer_members.py",
    "broker/quorate_broker/groups/machine/conversion.py",
    "broker/quorate_broker/groups/machine/mixed.py",
    "broker/quorate_broker/groups/machine/consumer_rules.py",
    "broker/quorate_broker/groups/machine/steps.py",
    "broker/quorate_broker/groups/machine/consumer_protocol.py",
    "broker/quorate_broker/groups/machine/door.py",
    "broker/quorate_broker/groups/machine/group.py",
    "broker/quorate_broker/groups/machine/offsets.py",
    "broker/quorate_broker/groups/machine/reconciler.py",
    "broker/quorate_broker/groups/machine/reconciliation.py",
    "broker/quorate_broker/groups/machine/registry.py",
    "broker/quorate_broker/groups/machine/session.py",
    "broker/quorate_broker/groups/machine/shard.py",
    "broker/quorate_broker/groups/machine/state.py",
    "broker/quorate_broker/groups/machine/subscriptions.py",
    "broker/quorate_broker/groups/machine/target.py",
    "broker/quorate_broker/groups/machine/timers.py",
    "broker/quorate_broker/groups/machine/topics.py",
    "broker/quorate_broker/groups/machine/turn.py",
    "broker/quorate_broker/groups/machine/values.py",
    "clients/quorate_cli/cluster_rates.py",
]


def sources() -> list[Path]:
    """Return our Python files, without what a generator made."""
    return [
        path
        for root in (*SOURCES, "tests")
        for path in sorted((ROOT / root).rglob("*.py"))
        if not is_generated(path)
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
    assert ours == ["clients/quorate/net/grpc_library.py"]


def test_the_client_library_logs_through_the_standard_library() -> None:
    """A program that uses the library decides by `logging` what becomes of its logs."""
    importers = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.is_relative_to(ROOT / "clients/quorate")
        and re.search(r"^\s*(?:import|from) structlog", path.read_text(), re.MULTILINE)
    ]
    assert importers == []


def test_no_test_imports_another_test_module() -> None:
    """What several modules use is in a builders.py of their room, or in tests/harness."""
    pattern = re.compile(r"^\s*(?:from|import) (tests[\w.]*\.test_\w+)", re.MULTILINE)
    found = {
        str(path.relative_to(ROOT)): pattern.findall(path.read_text())
        for path in sources()
        if path.is_relative_to(ROOT / "tests") and pattern.search(path.read_text())
    }
    assert found == {}


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
