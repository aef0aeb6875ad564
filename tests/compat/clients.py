"""A small program for each client of another language: produce, consume in a group, describe."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic

from tests.compat import jars
from tests.compat.results import Case
from tests.compat.servers import BROKERS, Servers

HERE = Path(__file__).parent
GO = ("kafkago", "franz", "sarama")
BRING_S = 900
WAIT_S = 600
RECORDS = 500


def run(servers: Servers, folder: Path, only: list[str]) -> Iterator[Case]:
    """Run the programs one after another; each prints its cases.

    `only` names clients, or cases: a case brings those of its client.
    """
    wanted = {name.partition(":")[0] for name in only}
    for client in (*GO, "kafkajs", "kcat"):
        if wanted and client not in wanted:
            continue
        cases = _kcat(servers) if client == "kcat" else _program(servers, _bring(client))
        yield from (Case(f"{client}: {case.name}", case.outcome, case.note) for case in cases)


def bring_js() -> Path:
    """Install KafkaJS. Return the folder in which programs find it."""
    jars.need("npm", "Node.js of 18 or newer")
    shutil.copytree(HERE / "js", jars.BUILD / "js", dirs_exist_ok=True)
    install = ["npm", "ci", "--silent", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=jars.BUILD / "js", check=True, timeout=BRING_S)
    return jars.BUILD / "js"


def _bring(client: str) -> list[str]:
    """Build the program of a client, with what it needs. Return its command."""
    if client in GO:
        jars.need("go", "Go of 1.25 or newer")
        binary = str(jars.BUILD / client)
        build = ["go", "build", "-o", binary, f"./{client}"]
        subprocess.run(build, cwd=HERE / "go", check=True, timeout=BRING_S)
        return [binary]
    return ["node", str(bring_js() / "kafkajs.js")]


def _program(servers: Servers, command: Sequence[str]) -> Iterator[Case]:
    done = subprocess.run(
        [*command, *servers.bootstrap.split(",")],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    for line in done.stdout.splitlines():
        yield Case(**json.loads(line))
    if done.returncode:
        yield Case("runs to its end", "failed", done.stderr[-1500:])


def _kcat(servers: Servers) -> Iterator[Case]:
    """Drive kcat, which needs no program around it."""
    if shutil.which("kcat") is None:
        yield Case("all", "skipped", "kcat is not installed")
        return
    admin = AdminClient({"bootstrap.servers": servers.bootstrap})
    admin.create_topics([NewTopic("kcat", 4, BROKERS)])["kcat"].result(60)
    lines = "".join(f"key-{i}:value-{i}\n" for i in range(RECORDS))
    shown = ["-f", "%k:%s\n"]
    everything = ["-o", "beginning", "-e", "-q"]

    def kcat(*arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["kcat", "-b", servers.bootstrap, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "KCAT_CONFIG": "/dev/null"},
        )
        assert done.returncode == 0, f"status {done.returncode}: {done.stderr}"
        return done.stdout

    def listed() -> None:
        told = kcat("-L")
        assert len(re.findall(r"^\s+broker \d+ at ", told, re.MULTILINE)) == BROKERS, told

    def written() -> None:
        kcat("-P", "-t", "kcat", "-K", ":", "-z", "lz4", stdin=lines)
        read = kcat("-C", "-t", "kcat", *everything, *shown)
        assert sorted(read.splitlines()) == sorted(lines.splitlines()), read[-500:]

    def in_group() -> None:
        told = kcat("-G", "kcat-group", "-X", "auto.offset.reset=earliest", "-e", *shown, "kcat")
        assert sorted(told.splitlines()) == sorted(lines.splitlines()), told[-500:]

    def queried() -> None:
        told = kcat("-Q", "-t", "kcat:0:1577836800000")
        assert re.search(r"kcat \[0\] offset 0", told), told

    made = {
        "list the cluster": listed,
        "produce and consume": written,
        "consume in a group": in_group,
        "offset of a time": queried,
    }
    for name, function in made.items():
        try:
            function()
        except (AssertionError, subprocess.TimeoutExpired) as error:
            yield Case(name, "failed", str(error)[-1500:])
        else:
            yield Case(name, "passed")
