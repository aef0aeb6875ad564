"""A node that must not start says why, with status 78, before it touches a disk."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from quorate_cli.local_shape import HOST, free_port
from quorate_cli.node_disks import format_broker
from tests.cluster.mounts import mounted, remount
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


def test_a_directory_that_is_a_file(config: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    said = start(config, "--set", f"log.dirs={tmp_path}/data,{tmp_path}/file")
    refused(said, f"{tmp_path}/file cannot be used", "Not a directory", "log.dirs")


def test_the_same_directory_twice_or_inside_another(config: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data")
    both = f"{tmp_path}/data,{tmp_path}/link"
    refused(start(config, "--set", f"log.dirs={both}"), "a directory twice", *both.split(","))
    inside = f"{tmp_path}/data/more"
    said = start(config, "--set", f"log.dirs={tmp_path}/data,{inside}")
    refused(said, f"names {inside}, which is inside {tmp_path}/data")


def test_a_copy_of_a_directory(config: Path, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    said = start(config, "--set", f"log.dirs={tmp_path}/data,{tmp_path}/copy")
    refused(said, f"{tmp_path}/copy and {tmp_path}/data have the same directory.id", "copy of")


def formatted(config: Path, log_dirs: Sequence[str]) -> Answer:
    """Format these directories for the broker of a configuration."""
    file = config.with_name("format.toml")
    lines = [one for one in config.read_text().splitlines() if not one.startswith("log.dirs")]
    file.write_text("\n".join([*lines, f"log.dirs = {json.dumps(log_dirs)}"]))
    return run_process("storage", "format", "--config", str(file), "--cluster-id", CLUSTER)


def test_if_one_directory_cannot_be_formatted_none_is(config: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    for bad, words in (
        (f"{tmp_path}/file", f"{tmp_path}/file is a file"),
        (f"{tmp_path}/file/below", f"{tmp_path}/file is a file"),
        (f"{tmp_path}/good/below", f"which is inside {tmp_path}/good"),
        (f"{tmp_path}/data/below", f"inside {tmp_path}/data, a log directory of node 3"),
    ):
        said = formatted(config, [f"{tmp_path}/good", bad])
        assert (said.status, said.out) == (1, ""), said
        assert bad in said.err
        assert words in said.err
        assert not (tmp_path / "good").exists()
    assert formatted(config, [f"{tmp_path}/good", f"{tmp_path}/better"]).status == 0


def test_a_directory_that_may_not_be_written(config: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "small") as small:
        (small / "data").mkdir()
        remount(small, "ro")
        said = formatted(config, [f"{tmp_path}/good", f"{small}/data"])
        assert (said.status, said.out) == (1, ""), said
        assert f"may not write to {small}/data; nothing was changed" in said.err
        assert not (tmp_path / "good").exists()


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
