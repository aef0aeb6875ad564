"""A cluster of real processes on this machine, for `up`, `demo`, `bench` and the tests.

Brokers have the ids 0, 1, ... and voters the ids 100, 101, .... Broker i listens on port + 100 i,
and voter i on port + 1 + 100 i. Kafka clients reach broker i on kafka_port + 100 i. Each node has a
folder with its configuration, data and output. `cluster.json` has the shape, so that a later start
runs the same cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from quorate.cluster.cluster import Cluster
from quorate.errors import QuorateError, QuorumUnavailableError
from quorate.net.methods import DESCRIBE_CLUSTER
from quorate.v1.admin_pb2 import DescribeClusterRequest, DescribeClusterResponse
from quorate_cli.local_nodes import Node, as_toml, plan, settings_of
from quorate_cli.local_shape import MEMORY, Shape, check_port_free, placed, remembered
from quorate_cli.node_disks import format_broker, format_voters

PR_SET_PDEATHSIG = 1


class LocalCluster:
    """The nodes of a cluster, as processes that can be started, killed, paused and stopped."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.folder = folder
        self.shape = placed(remembered(folder, shape))
        self.cluster_id = ""
        self.nodes: dict[int, Node] = {node.id: node for node in plan(folder, self.shape)}
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def brokers(self) -> list[Node]:
        """The brokers, by id."""
        return [node for node in self.nodes.values() if node.kind == "broker"]

    @property
    def voters(self) -> list[Node]:
        """The voters, by id."""
        return [node for node in self.nodes.values() if node.kind == "voter"]

    @property
    def bootstrap_servers(self) -> str:
        """The endpoints of all brokers, separated by commas."""
        return ",".join(node.endpoint for node in self.brokers)

    @property
    def kafka_servers(self) -> str:
        """The addresses of all brokers for Kafka clients, separated by commas; "": none."""
        return ",".join(node.kafka for node in self.brokers if node.kafka)

    def prepare(self) -> None:
        """Format the disks and write the configurations, if the folder has no cluster yet.

        Raises OSError if a port is in use.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"--data must be a folder, and {self.folder} is a file")
        self.folder.mkdir(parents=True, exist_ok=True)
        for node in self.nodes.values():
            check_port_free(node.endpoint)
            if node.kafka:
                check_port_free(node.kafka, "--kafka-port")
        memory = self.folder / MEMORY
        if memory.exists():
            self.cluster_id = json.loads(memory.read_text())["cluster_id"]
        else:
            self.cluster_id = str(uuid.uuid4())
            for node in self.nodes.values():
                node.folder.mkdir(parents=True, exist_ok=True)
                (node.folder / "config.toml").write_text(as_toml(settings_of(node, self.voters)))
            asyncio.run(self._format())
            memory.write_text(json.dumps({"cluster_id": self.cluster_id, **asdict(self.shape)}))

    def start(self, node_ids: Iterable[int] | None = None) -> None:
        """Start the processes of these nodes; None: of all nodes."""
        for node_id in self.nodes if node_ids is None else node_ids:
            node = self.nodes[node_id]
            with (node.folder / "output.log").open("ab") as output:
                self.processes[node_id] = subprocess.Popen(
                    [*_python(), *self._program(node)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )

    def _program(self, node: Node) -> list[str]:
        """Return the module that a node runs, and its arguments."""
        module = "quorate_quorum" if node.kind == "voter" else "quorate_broker"
        return [module, "--config", str(node.folder / "config.toml")]

    def signal(self, node_id: int, number: signal.Signals) -> None:
        """Send a signal to a node, if it runs."""
        process = self.processes[node_id]
        if process.poll() is None:
            process.send_signal(number)

    def kill(self, *node_ids: int) -> None:
        """Kill these nodes with SIGKILL, all at the same moment, and wait for their ends."""
        for node_id in node_ids:
            self.signal(node_id, signal.SIGKILL)
        for node_id in node_ids:
            self.processes[node_id].wait()

    def stop(
        self, node_ids: Iterable[int] | None = None, *, timeout: float = 15.0
    ) -> dict[int, int]:
        """Send SIGTERM to these nodes at once (None: to all), and wait. Return their exit statuses.

        A process that does not end in time is killed. Its status is then -9.
        """
        chosen = list(self.processes if node_ids is None else node_ids)
        for node_id in chosen:
            self.signal(node_id, signal.SIGCONT)
            self.signal(node_id, signal.SIGTERM)
        statuses = {}
        for node_id in chosen:
            try:
                statuses[node_id] = self.processes[node_id].wait(timeout)
            except subprocess.TimeoutExpired:
                self.processes[node_id].kill()
                statuses[node_id] = self.processes[node_id].wait()
        return statuses

    def died(self) -> list[tuple[Node, int]]:
        """Return the nodes whose process has ended, with its status. Forget these processes."""
        ended = []
        for node_id, process in list(self.processes.items()):
            status = process.poll()
            if status is not None:
                del self.processes[node_id]
                ended.append((self.nodes[node_id], status))
        return ended

    def cpu_seconds(self) -> dict[int, float]:
        """Return the user and system seconds of each running process; empty unless on Linux."""
        return {
            node_id: seconds
            for node_id, process in self.processes.items()
            if (seconds := process_cpu_seconds(process.pid)) is not None
        }

    def rss_bytes(self) -> dict[int, int]:
        """Return the resident bytes of each running process; empty unless on Linux."""
        found = {}
        for node_id, process in self.processes.items():
            with contextlib.suppress(OSError, ValueError, IndexError):
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                found[node_id] = pages * os.sysconf("SC_PAGE_SIZE")
        return found

    async def wait_ready(self, *, timeout: float = 30.0) -> DescribeClusterResponse:
        """Wait until every running broker knows that all running brokers are alive.

        Raises TimeoutError after `timeout` seconds. Raises QuorumUnavailableError when a process
        has ended.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._ready()
        except TimeoutError:
            raise TimeoutError(f"the cluster was not ready within {timeout:g} s") from None

    def last_words(self, node_id: int) -> str:
        """Return the end of a node's output."""
        with contextlib.suppress(OSError):
            return (self.nodes[node_id].folder / "output.log").read_text()[-2000:]
        return ""

    # -- inside ----------------------------------------------------------------------------------

    async def _ready(self) -> DescribeClusterResponse:
        running = [node for node in self.brokers if node.id in self.processes]
        cluster = Cluster(",".join(one.endpoint for one in running), client_id="quorate-cli")
        try:
            while True:
                self._check_all_run()
                answers = [await _describe(cluster, node.endpoint) for node in running]
                if all(_sees_alive(answer, running) for answer in answers):
                    assert answers[0] is not None
                    return answers[0]
                await asyncio.sleep(0.03)
        finally:
            await cluster.stop()

    async def _format(self) -> None:
        await format_voters(
            self.cluster_id,
            [(node.id, node.endpoint, node.data) for node in self.voters],
        )
        for node in self.brokers:
            await format_broker(self.cluster_id, node.id, [node.data])

    def _check_all_run(self) -> None:
        for node_id, process in self.processes.items():
            status = process.poll()
            if status is not None:
                raise QuorumUnavailableError(
                    f"{self.nodes[node_id].name} ended with status {status}:\n"
                    f"{self.last_words(node_id)}"
                )


def process_cpu_seconds(pid: int) -> float | None:
    """Return the user and system seconds that a process has used; None unless on Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _describe(cluster: Cluster, endpoint: str) -> DescribeClusterResponse | None:
    try:
        return await cluster.connection(endpoint, "control").unary(
            DESCRIBE_CLUSTER, DescribeClusterRequest(), timeout_ms=1000
        )
    except QuorateError:
        return None


def _sees_alive(answer: DescribeClusterResponse | None, brokers: Sequence[Node]) -> bool:
    if answer is None:
        return False
    alive = {one.broker_id for one in answer.brokers if not one.fenced}
    return all(node.id in alive for node in brokers)


def _python() -> list[str]:
    """Return the command that runs a module.

    On Linux the module gets SIGTERM when this process dies, for whatever reason. The new process
    itself asks the kernel for this signal. A preexec_fn could ask, too, but it would run between
    fork and exec, where the threads of a gRPC client crash the new process.
    """
    if sys.platform != "linux":
        return [sys.executable, "-m"]
    program = (
        f"import ctypes, os, runpy, sys; "
        f"ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(signal.SIGTERM)}); "
        f"os.getppid() == {os.getpid()} or sys.exit(0); "
        f"sys.argv.pop(0); runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    )
    return [sys.executable, "-c", program]
