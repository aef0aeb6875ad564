"""`quorate up`: it starts, prints its address, stops cleanly, and restarts no dead node."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from quorate import Admin, Consumer, Producer
from quorate_cli.cluster import pids
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape, free_port
from tests.cluster.support import Up, is_alive, run_process, until


def nodes_of(process: int) -> list[int]:
    """The process ids of a process's children."""
    return [
        int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]


async def write(servers: str, *values: bytes) -> None:
    async with Admin(bootstrap_servers=servers) as admin:
        if "kept" not in await admin.list_topics():
            await admin.create_topic("kept", 1, 2)
    async with Producer(bootstrap_servers=servers) as producer:
        for value in values:
            await producer.send_and_wait("kept", value)


async def fenced(servers: str, broker: int) -> None:
    """Wait until the controller knows that the broker is gone."""
    async with Admin(bootstrap_servers=servers) as admin:

        async def is_fenced() -> bool:
            brokers = (await admin.describe_cluster()).brokers
            return any(one.id == broker and one.fenced for one in brokers)

        await until(is_fenced, f"the fencing of broker {broker}")


async def read(servers: str, count: int) -> list[bytes | None]:
    async with (
        asyncio.timeout(30),
        Consumer("kept", bootstrap_servers=servers, auto_offset_reset="earliest") as consumer,
    ):
        return [(await consumer.getone()).value for _ in range(count)]


def test_it_comes_back_on_its_data_and_leaves_nothing_running(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port(2)
    shape = ["--voters", "1", "--brokers", "2", "--data", str(data), "--port", str(port)]
    with Up(*shape) as first:
        ready = first.ready()
        assert ready.startswith("1 voters and 2 brokers are ready: ")
        servers = ready.rpartition(" ")[2].strip()
        assert servers == f"127.0.0.1:{port},127.0.0.1:{port + 100}"
        asyncio.run(write(servers, b"before"))
        children = nodes_of(first.process.pid)
        assert len(children) == 3
        assert (first.stop(signal.SIGINT), first.err) == (0, [])
        assert not any(map(is_alive, children))
    cluster_id = json.loads((data / "cluster.json").read_text())["cluster_id"]

    with Up("--data", str(data)) as second:  # the folder holds the other settings
        servers = second.ready().rpartition(" ")[2].strip()
        asyncio.run(write(servers, b"after"))
        assert asyncio.run(read(servers, 2)) == [b"before", b"after"]

        async def found_id() -> str:
            async with Admin(bootstrap_servers=servers) as admin:
                return (await admin.describe_cluster()).cluster_id

        assert asyncio.run(found_id()) == cluster_id
        assert (second.stop(signal.SIGTERM), second.err) == (0, [])

    other = run_process("up", "--data", str(data), "--brokers", "5")
    assert other.status == 2
    assert "--brokers" in other.err
    assert "made with 2" in other.err


def test_a_temporary_folder_is_removed_and_a_dead_node_stays_dead(tmp_path: Path) -> None:
    port = free_port(3)
    shape = ["--voters", "1", "--brokers", "3", "--racks", "R1,R2", "--port", str(port)]
    with Up(*shape, env={"TMPDIR": str(tmp_path)}) as up:
        servers = up.ready().rpartition(" ")[2].strip()
        (folder,) = tmp_path.iterdir()
        (pid,) = asyncio.run(pids([f"127.0.0.1:{port + 200}"])).values()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        asyncio.run(until(lambda: bool(up.err), "a word of the dead node"))
        assert up.err[0].startswith("broker 2 ended by signal 9 and is not started again")
        asyncio.run(fenced(servers, 2))  # or a replica of the new topic could be placed on it
        asyncio.run(write(servers, b"the others go on"))
        assert len(nodes_of(up.process.pid)) == 3
        assert up.stop() == 0
        assert len(up.err) == 1
        assert not folder.exists()


def test_every_node_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    with Up(
        "--voters", "1", "--brokers", "1", "--data", str(tmp_path), "--port", str(free_port(1))
    ) as up:
        assert up.ready()
        children = nodes_of(up.process.pid)
        assert len(children) == 2
        up.process.kill()
        asyncio.run(until(lambda: not any(map(is_alive, children)), "the end of the children"))


def test_a_start_that_is_interrupted_keeps_the_logs_that_it_names(tmp_path: Path) -> None:
    with Up("--port", "0", env={"TMPDIR": str(tmp_path)}) as up:
        asyncio.run(until(lambda: bool(nodes_of(up.process.pid)), "the first node"))
        assert up.stop() in (0, -signal.SIGINT)
        said = "".join(up.err)
        (folder,) = tmp_path.iterdir()
        assert f"is kept, with the logs: {folder}" in said
        for log in re.findall(r"what it printed is in (\S+)", said):
            assert Path(log).exists()
        assert (folder / "broker-0" / "output.log").exists()


def test_port_0_takes_free_ones_and_what_is_where_follows_the_address(tmp_path: Path) -> None:
    with Up("--voters", "1", "--brokers", "1", "--port", "0", "--data", str(tmp_path)) as up:
        servers = up.ready().rpartition(" ")[2].strip()
        assert not servers.endswith(":7092")
        assert up.process.stdout is not None
        lines = [up.process.stdout.readline() for _ in range(11)]
        assert re.fullmatch(r"Kafka clients: kafka://127\.0\.0\.1:\d+\n", lines[0])
        assert lines[1] == f"data: {tmp_path} (kept)\n"
        assert str(tmp_path) in lines[2]
        assert "output.log" in lines[2]
        assert f"  export QUORATE_BOOTSTRAP={servers}\n" in lines
        assert any("programs set bootstrap_servers" in line for line in lines)
        address = lines[0].strip().rpartition("kafka://")[2]
        assert any(line.startswith(f"  kcat -b {address} -L") for line in lines)
        assert lines[-1] == "Ctrl-C stops it\n"
        assert up.stop() == 0
    shape = Shape(voters=1, brokers=1, port=0)
    again = LocalCluster(tmp_path, shape)  # the same ports: endpoints are in the metadata
    assert again.bootstrap_servers == servers


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    port = free_port(2)
    with socket.create_server(("127.0.0.1", port + 101)):
        said = run_process("up", "--data", str(tmp_path), "--port", str(port))
    assert (said.status, said.out) == (2, "")
    assert f"127.0.0.1:{port + 101}" in said.err
    assert "--port" in said.err


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for data, words in (
        (str(file), f"--data must be a folder, and {file} is a file"),
        ("/proc/nope", "/proc/nope: No such file or directory"),
    ):
        said = run_process("up", "--data", data, "--port", "0")
        assert (said.status, said.out, said.err) == (2, "", f"quorate: {words}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--voters", "0"], "--voters must be 1 to 9, not 0"),
        (["--brokers", "-1"], "--brokers must be 1 to 99, not -1"),
        (["--port", "70000"], "--port must be 1 to 65535"),
        (["--port", "-1"], "--port must be 1 to 65535"),
        (["--racks", "A,B,C,D", "--brokers", "3"], "--racks names 4 racks"),
        (["--kafka-port", "x"], "--kafka-port must be a port, 0 or off, not 'x'"),
        (["--kafka-port", "65500"], "--kafka-port must be 1 to 65535 for every broker"),
        (["--kafka-port", "7192"], "--kafka-port 7192 and --port 7092 give two listeners the port"),
    ],
)
def test_an_impossible_shape_is_refused(arguments: list[str], words: str) -> None:
    said = run_process("up", *arguments)
    assert (said.status, said.out) == (2, "")
    assert words in said.err


def test_all_nodes_in_one_process(tmp_path: Path) -> None:
    port = free_port(2)
    shape = ["--voters", "1", "--brokers", "2", "--data", str(tmp_path), "--port", str(port)]
    with Up(*shape, "--embedded") as up:
        servers = up.ready().rpartition(" ")[2].strip()
        assert nodes_of(up.process.pid) == []
        asyncio.run(write(servers, b"one"))
        assert asyncio.run(read(servers, 1)) == [b"one"]
        assert up.stop() == 0
