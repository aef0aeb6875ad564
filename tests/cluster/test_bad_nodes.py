"""A node that must not start says why, with status 78, before it touches a disk."""

from __future__ import annotations

import asyncio
import shutil
import socket
from pathlib import Path

import pytest

from quorate_cli.local import HOST, free_port
from quorate_cli.node_disks import format_broker
from tests.cluster.support import Answer, run_process

CLUSTER = "a-cluster"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A broker's configuration, its disk formatted, its quorum nowhere."""
    file = tmp_path / "broker.toml"
    file.write_text(
        f'node.id = 3\nlisteners = ["{HOST}:{free_port(1)}"]\nlog.dirs = ["{tmp_path}/data"]\n'
        f'quorum.bootstrap.servers = ["{HOST}:{free_port(1)}"]\n'
    )
    asyncio.run(format_broker(CLUSTER, 3, [f"{tmp_path}/data"]))
    return file


def start(config: Path, *arguments: str, module: str = "quorate_broker") -> Answer:
    return run_process("--config", str(config), *arguments, module=module)


def refused(said: Answer, *words: str) -> None:
    assert said.status == 78, said
    assert said.out == ""
    for word in words:
        assert word in said.err, said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("module", ["quorate_broker", "quorate_quorum"])
def test_python_without_assertions(module: str) -> None:
    refused(run_process(module=module, flags=["-O"]), "python -O")


def test_a_port_in_use(config: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        refused(start(config, "--set", f"listeners={HOST}:{port}"), str(port), "in use")


def test_a_voters_port_in_use(config: Path, tmp_path: Path) -> None:
    said = run_process(
        "storage", "format", "--config", str(config), "--cluster-id", CLUSTER, "--standalone"
    )
    assert said.status == 1  # the disk is a broker's
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        voter = tmp_path / "voter.toml"
        voter.write_text(
            f'node.id = 100\nlisteners = ["{HOST}:{port}"]\nlog.dirs = ["{tmp_path}/voter"]\n'
        )
        formatted = run_process(
            "storage", "format", "--config", str(voter), "--cluster-id", CLUSTER, "--standalone"
        )
        assert formatted.status == 0, formatted
        refused(start(voter, module="quorate_quorum"), str(port), "in use")


def test_a_disk_that_was_not_formatted(config: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "data")
    refused(start(config), "data", "quorate storage format")


def test_a_disk_of_another_node(config: Path) -> None:
    refused(start(config, "--set", "node.id=4"), "data", "3", "4")


def test_disks_of_two_clusters(config: Path, tmp_path: Path) -> None:
    asyncio.run(format_broker("another-cluster", 3, [f"{tmp_path}/more"]))
    said = start(config, "--set", f"log.dirs={tmp_path}/data,{tmp_path}/more")
    refused(said, "another-cluster", CLUSTER)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('broker.rak = "R1"', ["broker.rak", "broker.rack"]),
        ('replica.lag.time.max.ms = "soon"', ["replica.lag.time.max.ms", "soon"]),
        ("replica.lag.time.max.ms = -1", ["replica.lag.time.max.ms", "-1"]),
        ("log.retention.ms = 5", ["log.retention.ms", "quorate cluster config"]),
        ("min.insync.replicas = 1", ["min.insync.replicas", "quorate cluster config"]),
        ("unclean.recovery.wait.ms = 1", ["unclean.recovery.wait.ms", "setting of a voter"]),
        ("broker.rack = ", ["is not TOML"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_setting_that_cannot_be(config: Path, line: str, words: list[str]) -> None:
    with config.open("a") as file:
        file.write(line + "\n")
    refused(start(config), str(config), *words)


def test_listening_to_others_must_be_allowed(config: Path) -> None:
    advertised = ["--set", "advertised.listeners=localhost:7092"]
    said = start(config, "--set", "listeners=0.0.0.0:0", *advertised)
    refused(said, "allow.insecure.listeners", "0.0.0.0:0")


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    refused(start(tmp_path / "none.toml"), "none.toml", "cannot be read")
