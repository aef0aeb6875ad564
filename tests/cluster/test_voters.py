"""Voters that come and go by `quorate` commands, in processes, while metadata is written."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from quorate import Admin
from quorate.errors import QuorateError, TopicExistsError
from quorate_cli.local import LocalCluster
from quorate_cli.local_nodes import Node, as_toml, settings_of
from quorate_cli.local_shape import Shape, free_port
from tests.cluster.support import PATIENCE_S, Answer, run_here, started, until

Command = Callable[..., Answer]


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three voters and one broker of these tests' own; each test leaves three voters."""
    shape = Shape(brokers=1, port=free_port(6))
    with started(tmp_path_factory.mktemp("growing"), shape) as running:
        yield running


@pytest.fixture
def command(growing: LocalCluster, capfd: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> Answer:
        return run_here(arguments, capfd, b"")

    return run


@pytest.fixture
def quorum(command: Command, growing: LocalCluster) -> Command:
    """`quorate quorum ...`, with time enough for a busy machine."""

    def run(*arguments: str) -> Answer:
        servers = growing.bootstrap_servers
        return command("quorum", *arguments, "--bootstrap", servers, "--timeout", str(PATIENCE_S))

    return run


class Writing:
    """Topics created one after the other, on a thread of its own; each is there at the end."""

    def __init__(self, cluster: LocalCluster, prefix: str) -> None:
        self.cluster = cluster
        self.prefix = prefix
        self.acknowledged: list[str] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._write()))

    def __enter__(self) -> Writing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        found = asyncio.run(self._found())
        assert set(self.acknowledged) <= set(found), "acknowledged topics were lost"
        assert self.acknowledged

    async def _write(self) -> None:
        async with Admin(bootstrap_servers=self.cluster.bootstrap_servers) as admin:
            number = 0
            while not self._stopped.is_set():
                name = f"{self.prefix}-{number}"
                try:
                    await admin.create_topic(name, 1, 1)
                except TopicExistsError:
                    pass  # the try before was carried out, and its answer lost
                except QuorateError:
                    await asyncio.sleep(0.05)
                    continue
                self.acknowledged.append(name)
                number += 1
                await asyncio.to_thread(self._stopped.wait, 0.1)

    async def _found(self) -> list[str]:
        async with Admin(bootstrap_servers=self.cluster.bootstrap_servers) as admin:
            return await admin.list_topics()


def described(quorum: Command) -> Any:
    answer = quorum("describe", "-o", "json")
    assert answer.status == 0, answer.err
    return answer.json


def ids(told: list[dict[str, Any]]) -> list[int]:
    return [one["id"] for one in told]


def started_anew(cluster: LocalCluster, command: Command, node_id: int) -> str:
    """Format a disk as a new voter's and start it; return what add-voter takes."""
    if node_id not in cluster.nodes:
        port = cluster.shape.port + 1 + 100 * (node_id - 100)
        folder = cluster.folder / f"voter-{node_id}"
        folder.mkdir()
        cluster.nodes[node_id] = Node(node_id, "voter", f"127.0.0.1:{port}", "", folder)
        settings = settings_of(cluster.nodes[node_id], cluster.voters)
        (folder / "config.toml").write_text(as_toml(settings))
    node = cluster.nodes[node_id]
    config_file = str(node.folder / "config.toml")
    shutil.rmtree(node.folder / "data", ignore_errors=True)
    formatted = command(
        "storage", "format", "--config", config_file, "--cluster-id", cluster.cluster_id,
        "--new-voter",
    )  # fmt: skip
    assert formatted.status == 0, formatted.err
    cluster.start([node_id])
    (line,) = [line for line in formatted.out.splitlines() if "add-voter" in line]
    return line.split()[-1]


def assert_refused_elsewhere(quorum: Command, named: str) -> None:
    """add-voter refuses a wrong address: the node, an observer still, has told its own."""
    node, _, rest = named.partition("@")

    async def follows() -> bool:
        return int(node) in ids((await asyncio.to_thread(described, quorum))["observers"])

    asyncio.run(until(follows, f"{node} follows"))
    refused = quorum("add-voter", f"{node}@127.0.0.1:9:{rest.rpartition(':')[2]}")
    assert refused.status == 1
    assert f"listens at {rest.rpartition(':')[0]}, not at 127.0.0.1:9" in refused.err


def test_from_three_voters_to_five_and_back(
    growing: LocalCluster, command: Command, quorum: Command
) -> None:
    with Writing(growing, "grow"):
        for node_id in (103, 104):
            named = started_anew(growing, command, node_id)
            assert_refused_elsewhere(quorum, named)
            added = quorum("add-voter", named)
            assert (added.status, added.err) == (0, "")
            assert added.out == f"{node_id} at {growing.nodes[node_id].endpoint} is a voter\n"
            again = quorum("add-voter", named, "-o", "json")
            assert again.status == 0
            assert again.json == {
                "id": node_id,
                "directory_id": named.rpartition(":")[2],
                "already": True,
            }
        assert ids(described(quorum)["voters"]) == [100, 101, 102, 103, 104]
        for node_id in (103, 104):
            assert quorum("remove-voter", str(node_id)).status == 0
            assert quorum("remove-voter", str(node_id), "-o", "json").json["already"]
        seen = described(quorum)
        assert ids(seen["voters"]) == [100, 101, 102]
        assert set(ids(seen["observers"])) <= {103, 104}
        assert all(one["last_caught_up_ms"] >= 0 for one in seen["voters"])
        table = quorum("describe").out
        assert "lag ms" in table.splitlines()[1]
        assert all(one["directory_id"] in table for one in seen["voters"])
    growing.stop([103, 104])
    for node_id in (103, 104):
        del growing.processes[node_id]


def test_a_wiped_disk_comes_back_as_a_new_voter(
    growing: LocalCluster, command: Command, quorum: Command
) -> None:
    """Kill -9, another disk, format --new-voter, start, remove the old key, add the new."""
    with Writing(growing, "wiped"):
        before = described(quorum)
        victim = next(node_id for node_id in ids(before["voters"]) if node_id != before["leader"])
        old = next(one["directory_id"] for one in before["voters"] if one["id"] == victim)
        growing.kill(victim)
        named = started_anew(growing, command, victim)
        refused = command(
            "quorum", "add-voter", named, "--bootstrap", growing.bootstrap_servers,
        )  # fmt: skip
        assert refused.status == 1
        assert f"quorate quorum remove-voter {victim}:{old}" in refused.err
        assert quorum("remove-voter", f"{victim}:{old}").status == 0
        assert quorum("remove-voter", f"{victim}:{old}", "-o", "json").json["already"]
        assert quorum("add-voter", named).status == 0
        after = described(quorum)
        assert ids(after["voters"]) == [100, 101, 102]
        new = next(one["directory_id"] for one in after["voters"] if one["id"] == victim)
        assert new == named.rpartition(":")[2] != old
        said = quorum("remove-voter", f"{victim}:{old}").out
        assert f"{victim} with directory {new} is one, and stays" in said


def test_the_leader_removes_itself_and_comes_back(
    growing: LocalCluster, command: Command, quorum: Command
) -> None:
    """It says that it is done; it follows as an observer, and votes when it is added."""
    with Writing(growing, "leader"):
        before = described(quorum)
        leader = before["leader"]
        mine = next(one for one in before["voters"] if one["id"] == leader)
        done = quorum("remove-voter", str(leader), "-o", "json")
        assert done.json == {
            "id": leader,
            "directory_id": mine["directory_id"],
            "already": False,
        }
        after = described(quorum)
        assert leader not in ids(after["voters"])
        assert after["leader"] in ids(after["voters"])
        named = f"{leader}@{mine['endpoint']}:{mine['directory_id']}"
        assert quorum("add-voter", named).status == 0
        assert ids(described(quorum)["voters"]) == [100, 101, 102]


def test_what_the_commands_refuse(growing: LocalCluster, command: Command) -> None:
    servers = ("--bootstrap", growing.bootstrap_servers)
    wrong = command("quorum", "add-voter", "103@somewhere", *servers)
    assert (wrong.status, "32 hex digits" in wrong.err) == (2, True)
    assert command("quorum", "remove-voter", "x", *servers).status == 2
    stranger = f"109@127.0.0.1:1:{'ab' * 16}"
    waited = command("quorum", "add-voter", stranger, *servers, "--timeout", "1")
    assert waited.status == 1
    assert "storage format --new-voter" in waited.err
    assert waited.out == ""
