"""A quorum that lost two of its three disks, brought back with `quorate` commands."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape, free_port
from tests.cluster.support import (
    PATIENCE_S,
    Answer,
    create,
    read,
    run_process,
    started,
    until,
    whole,
    write,
)

SURVIVOR, RETURNS, WIPED = 100, 101, 102
TOPIC = "kept"
#: A voter logs it when another voter refuses its disk.
REFUSED = "a voter refuses us"


def config_of(cluster: LocalCluster, node_id: int) -> str:
    return str(cluster.nodes[node_id].folder / "config.toml")


def recover(cluster: LocalCluster, node_id: int, *more: str) -> Answer:
    return run_process(
        "quorum", "recover", "--config", config_of(cluster, node_id), "-o", "json", *more
    )


def described(cluster: LocalCluster) -> Any:
    answer = run_process(
        "quorum", "describe", "-o", "json", "--bootstrap", cluster.bootstrap_servers
    )
    assert answer.status == 0, answer.err
    return answer.json


def format_anew(cluster: LocalCluster, node_id: int) -> str:
    """Format the wiped disk of a voter as a new one's; return what add-voter takes."""
    shutil.rmtree(cluster.nodes[node_id].folder / "data")
    answer = run_process(
        "storage", "format", "--config", config_of(cluster, node_id),
        "--cluster-id", cluster.cluster_id, "--new-voter",
    )  # fmt: skip
    assert answer.status == 0, answer.err
    properties = (cluster.nodes[node_id].folder / "data" / "meta.properties").read_text()
    directory_id = dict(line.split("=") for line in properties.splitlines())["directory.id"]
    return f"{node_id}@{cluster.nodes[node_id].endpoint}:{directory_id}"


async def add_voter(cluster: LocalCluster, named: str) -> None:
    async def is_added() -> bool:
        answer = await asyncio.to_thread(
            run_process, "quorum", "add-voter", named, "--bootstrap", cluster.bootstrap_servers
        )
        return answer.status == 0  # until it has caught up it is refused

    await until(is_added, f"{named} added", every=0.2)


@pytest.fixture
def losing(tmp_path: Path) -> Iterator[LocalCluster]:
    """A cluster that is going to lose its quorum."""
    with started(tmp_path / "cluster", Shape(port=free_port(3))) as running:
        yield running


@pytest.mark.timeout(180)
async def test_recover_with_commands_and_grow_back_to_three(losing: LocalCluster) -> None:
    cluster = losing
    await create(cluster, TOPIC)
    records = [b"%d" % number for number in range(60)]
    await write(cluster, TOPIC, records)
    before = described(cluster)

    refused = recover(cluster, SURVIVOR)
    assert (refused.status, "in use" in refused.err) == (1, True)
    looked = recover(cluster, SURVIVOR, "--dry-run")
    assert looked.status == 1
    assert any("knows a leader" in one for one in looked.json["refused"])

    cluster.kill(SURVIVOR, RETURNS, WIPED)
    cluster.died()
    servers = ("--bootstrap", cluster.bootstrap_servers)
    health = run_process("cluster", "health", *servers)
    assert (health.status, health.out.split(" (")[0]) == (1, "no controller"), health
    asked = run_process("quorum", "describe", *servers, "--timeout", "1")
    assert asked.status == 3
    assert "no controller was found" in asked.err or "quorate cluster health" in asked.err
    shutil.rmtree(cluster.nodes[WIPED].folder / "data" / "__cluster_metadata-0")
    looked = recover(cluster, SURVIVOR, "--dry-run")
    assert (looked.status, looked.json["done"]) == (0, False)
    assert [peer["answered"] for peer in looked.json["peers"]] == [False, False]
    done = recover(cluster, SURVIVOR)
    assert (done.status, done.json["done"]) == (0, True)
    assert done.json["new"]["offset"] >= before["high_watermark"] + 10**9

    cluster.start([SURVIVOR])
    await cluster.wait_ready(timeout=PATIENCE_S)
    await whole(cluster, TOPIC)
    assert sorted(await read(cluster, TOPIC)) == sorted(records)
    await write(cluster, TOPIC, [b"after"])
    now = described(cluster)
    assert (now["leader"], now["quorum_generation"]) == (SURVIVOR, 2)
    assert [voter["id"] for voter in now["voters"]] == [SURVIVOR]

    # A voter that was thought lost returns with its old disk. It is refused and needs a new
    # disk, which `quorum recover` on it says, too.
    cluster.start([RETURNS])
    await until(lambda: REFUSED in cluster.last_words(RETURNS), "the refusal of the old voter")
    assert described(cluster)["epoch"] == now["epoch"]
    cluster.kill(RETURNS)
    cluster.died()
    left_behind = recover(cluster, RETURNS)
    assert left_behind.status == 1
    assert any("recovered without it" in one for one in left_behind.json["refused"])

    for node_id in (RETURNS, WIPED):
        named = format_anew(cluster, node_id)
        cluster.start([node_id])
        await add_voter(cluster, named)
    now = described(cluster)
    assert sorted(voter["id"] for voter in now["voters"]) == [SURVIVOR, RETURNS, WIPED]
    cluster.kill(SURVIVOR)
    await write(cluster, TOPIC, [b"without it"])
    cluster.died()

    async def another_leads() -> bool:
        answer = await asyncio.to_thread(
            run_process,
            "quorum", "describe", "-o", "json", "--bootstrap", cluster.bootstrap_servers,
        )  # fmt: skip
        return answer.status == 0 and json.loads(answer.out)["leader"] in (RETURNS, WIPED)

    await until(another_leads, "one of the new voters leads", every=0.2)
