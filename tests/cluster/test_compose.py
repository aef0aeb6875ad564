"""The page of deploy/, run without containers: each service of compose.yaml as a process.

Addresses of services become free ports of this machine. All else is as the file has it: commands,
environment, order, health checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from quorate import Admin
from quorate_cli.local_shape import HOST
from tests.cluster.compose_page import (
    COMPOSE,
    CONTAINERFILE,
    DEPLOY,
    ROOT,
    first_program,
    healthcheck,
    services,
    through_kafka,
)
from tests.cluster.support import PATIENCE_S, until

BIN = Path(sys.executable).parent
DATA = "/var/lib/quorate"
#: The scripts that the image has under other names.
SCRIPTS = {
    "quorate-format-once": ["sh", str(DEPLOY / "format-once.sh")],
    "quorate-healthcheck": [sys.executable, str(DEPLOY / "healthcheck.py")],
}


def free_ports(count: int) -> list[int]:
    """Return so many ports that are free now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


class Composed:
    """The services of compose.yaml on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.services = services()
        inside = [
            f"{name}:{port}"
            for name, service in self.services.items()
            for port in re.findall(r"//0\.0\.0\.0:(\d+)", self._environment(service))
        ]
        self.addresses = dict(
            zip(inside, [f"{HOST}:{port}" for port in free_ports(len(inside))], strict=True)
        )
        for name, service in self.services.items():
            for published in service.get("ports", ()):
                host, port, target = published.split(":")
                self.addresses[f"{host}:{port}"] = self.addresses[f"{name}:{target}"]

    @staticmethod
    def _environment(service: dict[str, Any]) -> str:
        return "\n".join(str(value) for value in service["environment"].values())

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables of a service, for this machine; no address is left as it was."""

        def here(value: str) -> str:
            own = value.replace("//0.0.0.0:", f"//{name}:").replace(DATA, str(self.folder))
            return re.sub(r"[\w.-]+:\d+", lambda found: self.addresses[found[0]], own)

        variables = self.services[name]["environment"].items()
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("QUORATE_")},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            **{key: here(str(value)) for key, value in variables},
        }

    def run(self, name: str, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the environment of a service, to its end."""
        return subprocess.run(
            SCRIPTS[command.split()[0]] + command.split()[1:],
            env=self.environment(name), capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip

    @contextlib.contextmanager
    def nodes(self) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
        """Start every service but `format`; kill what is left at the end."""
        with contextlib.ExitStack() as stack:
            nodes = {}
            for name, service in self.services.items():
                if name == "format":
                    continue
                output = stack.enter_context((self.folder / f"{name}.log").open("ab"))
                nodes[name] = subprocess.Popen(
                    [BIN / service["command"]], env=self.environment(name),
                    stdout=output, stderr=output,
                )  # fmt: skip
                stack.callback(nodes[name].wait)
                stack.callback(nodes[name].kill)
            yield nodes

    def is_healthy(self, name: str) -> bool:
        """Run the health check of a service, or else that of the image."""
        return self.run(name, " ".join(healthcheck(self.services[name]))).returncode == 0


@pytest.mark.timeout(600)  # dozens of processes start one after the other
def test_the_services_of_compose(tmp_path: Path) -> None:
    composed = Composed(tmp_path)
    addresses = composed.addresses
    formatted = composed.run("format", composed.services["format"]["command"])
    assert (formatted.returncode, formatted.stderr) == (0, "")
    with composed.nodes() as nodes:
        for name in nodes:
            asyncio.run(until(partial(composed.is_healthy, name), f"{name} healthy"))

        ran = subprocess.run(
            [sys.executable, "-c", first_program(addresses["127.0.0.1:7092"])],
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout.startswith("invoice ")
        assert through_kafka(addresses["127.0.0.1:9192"]) == b"9.50"
        assert asyncio.run(replicas_by_rack(addresses["127.0.0.1:7092"])) == {"R1", "R2"}

        for node in reversed(nodes.values()):
            node.send_signal(signal.SIGTERM)
        assert [node.wait(PATIENCE_S) for node in nodes.values()] == [0] * 9
        assert [composed.is_healthy(name) for name in ("voter-100", "broker-0")] == [False, False]


async def replicas_by_rack(servers: str) -> set[str]:
    """Return the racks of the replicas of one partition."""
    async with Admin(bootstrap_servers=servers) as admin:
        racks = {one.id: one.rack for one in (await admin.describe_cluster()).brokers}
        topic = (await admin.describe_topics(["invoice"]))["invoice"]
        return {str(racks[one]) for one in topic.partitions[0].replicas}


def test_disks_are_formatted_once(tmp_path: Path) -> None:
    composed = Composed(tmp_path)
    assert composed.run("format", "quorate-format-once").returncode == 0
    again = composed.run("format", "quorate-format-once")
    assert again.stdout.startswith("formatted already: cluster ")
    (tmp_path / "voter-101").rename(tmp_path / "lost")
    assert composed.run("format", "quorate-format-once").returncode == 0
    assert not (tmp_path / "voter-101").exists()  # a disk that is lost is not made anew


def test_formatting_that_was_stopped_goes_on_with_the_same_ids(tmp_path: Path) -> None:
    composed = Composed(tmp_path)
    assert composed.run("format", "quorate-format-once").returncode == 0
    ids = (tmp_path / "ids").read_text()
    (tmp_path / "formatted").unlink()
    for lost in ("voter-102", "broker-0"):
        (tmp_path / lost).rename(tmp_path / f"lost-{lost}")
    again = composed.run("format", "quorate-format-once")
    assert (again.returncode, again.stderr) == (0, "")
    assert (tmp_path / "ids").read_text() == ids
    assert (tmp_path / "voter-102").exists()
    assert (tmp_path / "broker-0").exists()


def test_the_image_copies_what_is_there() -> None:
    text = CONTAINERFILE.read_text()
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.M)
        for source in line.split()[:-1]
        if not source.startswith("--")
    ]
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    assert sorted(copied) == sorted(line[1:] for line in ignored if line.startswith("!"))
    assert all((ROOT / source).exists() for source in copied)


#: What compose.yaml may say, by the schema of Compose; a word that is not here is misspelled.
OF_A_SERVICE = {
    "build", "cap_drop", "command", "depends_on", "environment", "healthcheck", "image", "ports",
    "pull_policy", "read_only", "restart", "security_opt", "stop_grace_period", "tmpfs", "user",
    "volumes",
}  # fmt: skip
OF_A_HEALTHCHECK = {"test", "interval", "timeout", "start_period", "disable"}


def test_compose_says_what_compose_knows() -> None:
    whole = yaml.safe_load(COMPOSE.read_text())
    assert {key for key in whole if not key.startswith("x-")} == {"name", "services", "volumes"}
    for name, service in whole["services"].items():
        assert set(service) <= OF_A_SERVICE, name
        assert set(service.get("healthcheck", ())) <= OF_A_HEALTHCHECK, name
        assert set(service.get("depends_on", ())) <= set(whole["services"]), name
        assert {one.split(":")[0] for one in service["volumes"]} <= set(whole["volumes"]), name
        assert all(isinstance(value, str) for value in service["environment"].values()), name


def test_no_service_may_do_more_than_it_needs() -> None:
    for name, service in services().items():
        allowed = {key: service[key] for key in ("read_only", "user", "cap_drop", "security_opt")}
        assert allowed == {
            "read_only": True,
            "user": "10001",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
        }, name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), (name, port)


def test_the_image_does_not_run_as_root() -> None:
    *_, last = re.split(r"^FROM .*$", CONTAINERFILE.read_text(), flags=re.M)
    words = re.findall(r"^([A-Z]+) ", last, re.M)
    known = ["RUN", "COPY", "ENV", "USER", "WORKDIR", "VOLUME", "CMD", "STOPSIGNAL", "HEALTHCHECK"]
    assert sorted(set(words)) == sorted(known)
    assert re.findall(r"^USER (.*)$", last, re.M) == ["10001"]
    assert words.index("USER") < words.index("CMD")
