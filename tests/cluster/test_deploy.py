"""The page of deploy/three-machines, run on this machine with other ports and folders."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from quorate import Admin
from quorate.errors import QuorateError
from quorate_cli.local_shape import HOST, free_port
from tests.cluster.support import Answer, run_here, until

PAGE = Path(__file__).parents[2] / "deploy" / "three-machines"
MACHINES = ("machine-a", "machine-b", "machine-c")
BIN = Path(sys.executable).parent


async def alive(servers: str) -> bool:
    """Return whether three brokers are."""
    with contextlib.suppress(QuorateError):
        async with Admin(bootstrap_servers=servers, request_timeout_ms=1000) as admin:
            described = await admin.describe_cluster()
            return sum(not broker.fenced for broker in described.brokers) == 3
    return False


@pytest.mark.timeout(400)  # twenty processes start one after the other
def test_three_machines_by_hand(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = free_port(3)
    ports = {
        f"{machine}:{port}": f"{HOST}:{base + 100 * i + port - 7092}"
        for i, machine in enumerate(MACHINES)
        for port in (7092, 7093)
    }

    def here(text: str, machine: str) -> str:
        for name, endpoint in ports.items():
            text = text.replace(name, endpoint)
        for port in (7092, 7093):
            text = text.replace(f"0.0.0.0:{port}", ports[f"{machine}:{port}"])
        return text.replace("/var/lib/quorate", f"{tmp_path}/{machine}").replace(
            "/etc/quorate", f"{tmp_path}/{machine}"
        )

    blocks = re.findall(r"```bash\n(.*?)```", (PAGE / "README.md").read_text(), re.S)
    ids, format_disks, start, look = blocks
    script = [here(ids, MACHINES[0])]
    for i, machine in enumerate(MACHINES):
        (tmp_path / machine).mkdir()
        for kind, node_id in (("voter", 100 + i), ("broker", i)):
            text = (PAGE / f"{kind}.toml").read_text()
            text = re.sub(r"node.id = \d+", f"node.id = {node_id}", text)
            advertised = re.compile(r'(advertised.listeners = \["grpc://)machine-a')
            text = advertised.sub(rf"\g<1>{machine}", text)
            (tmp_path / machine / f"{kind}.toml").write_text(here(text, machine))
        script.append(here(format_disks, machine))
    path = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    formatted = subprocess.run(
        ["bash", "-euc", "\n".join(script)],
        env=path, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert (formatted.returncode, formatted.stderr) == (0, "")

    with contextlib.ExitStack() as stack:

        def launch(line: str, machine: str) -> subprocess.Popen[bytes]:
            output = stack.enter_context((tmp_path / machine / "output").open("ab"))
            command = [str(BIN / line.split()[0]), *line.split()[1:]]
            node = subprocess.Popen(command, stdout=output, stderr=output)
            stack.callback(node.wait)
            stack.callback(node.kill)
            return node

        def lines_of(machine: str) -> list[str]:
            return here(start, machine).splitlines()

        nodes = [launch(line, machine) for machine in MACHINES for line in lines_of(machine)]
        servers = ",".join(ports[f"{machine}:7092"] for machine in MACHINES)

        asyncio.run(until(partial(alive, servers), "three brokers alive"))
        looked = subprocess.run(
            ["bash", "-euc", here(look, MACHINES[0])],
            env=path, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert (looked.returncode, looked.stderr) == (0, ""), looked

        def health(*more: str) -> Answer:
            return run_here(["cluster", "health", "--bootstrap", servers, *more], capfd, b"")

        for i, machine in enumerate(MACHINES[:2]):  # as the page says: health, then the next one
            assert health("--wait", "30").status == 0
            voter, broker = nodes[2 * i : 2 * i + 2]
            for node in (broker, voter):
                node.send_signal(signal.SIGTERM)
                assert node.wait(30) == 0
            found = health("-o", "json", "--timeout", "20")
            assert (found.status, found.json["healthy"]) == (1, False)
            assert [(one["kind"], one["id"], one["state"]) for one in found.json["nodes"]] == [
                ("voter", 100 + i, "not_heard"), ("broker", i, "fenced"),
            ]  # fmt: skip
            nodes[2 * i : 2 * i + 2] = [launch(line, machine) for line in lines_of(machine)]
        assert health("--wait", "30").out.startswith("healthy, controller ")
        for node in reversed(nodes):
            node.send_signal(signal.SIGTERM)
        assert [node.wait(30) for node in nodes] == [0] * 6
