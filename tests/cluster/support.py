"""Builders of these tests: a running cluster, the command, and its answer."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from unittest import mock

import pytest

from quorate import Admin, Consumer, Producer, TopicDescription
from quorate_cli.app import app
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape

#: Longer than any step takes on two busy cores: only a hang waits this long.
PATIENCE_S = 40.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A command's exit status and output."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The only JSON document on standard output."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON documents on standard output, one on each line."""
        return [json.loads(line) for line in self.out.splitlines()]


def run_here(arguments: Sequence[str], capfd: pytest.CaptureFixture[str], stdin: bytes) -> Answer:
    """Run the command in this process: it saves half a second of imports."""
    capfd.readouterr()
    lines = io.TextIOWrapper(io.BytesIO(stdin))
    status: object = 0
    with mock.patch.object(sys, "stdin", lines):
        try:
            app(list(arguments))
        except SystemExit as ended:
            status = ended.code
    captured = capfd.readouterr()
    return Answer(status if isinstance(status, int) else 0, captured.out, captured.err)


def run_process(
    *arguments: str, env: dict[str, str] | None = None, module: str = "", flags: Sequence[str] = ()
) -> Answer:
    """Run `quorate`, or a module, as a process of its own."""
    run = ["-m", module] if module else ["-c", "from quorate_cli.app import main; main()"]
    done = subprocess.run(
        [sys.executable, *flags, *run, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def started(folder: Path, shape: Shape) -> Iterator[LocalCluster]:
    """Yield a cluster of processes that is ready; stop it at the end in any case."""
    cluster = LocalCluster(folder, shape)
    cluster.prepare()
    cluster.start()
    try:
        asyncio.run(cluster.wait_ready(timeout=PATIENCE_S))
        yield cluster
    finally:
        cluster.stop()


class Up:
    """A `quorate up` that runs; its standard error is read line by line in the background."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-c", "from quorate_cli.app import main; main()", "up"]
        if "--kafka-port" not in arguments:
            command += [
                "--kafka-port",
                "0",
            ]  # tests that run at a time do not all get the usual one
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        self.err: list[str] = []
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,))
        self._reader.start()

    def __enter__(self) -> Up:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            for pipe in (self.process.stdout, self.process.stderr):
                assert pipe is not None
                pipe.close()

    def ready(self) -> str:
        """Return the line with the cluster's address; empty if the process ended before it."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send the signal; return the exit status."""
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE_S)
        self._reader.join()
        return status

    def _read(self, pipe: IO[str]) -> None:
        self.err.extend(pipe)


async def until(
    condition: Callable[[], Awaitable[bool]] | Callable[[], bool], what: str, *, every: float = 0.02
) -> None:
    """Wait for a condition. After PATIENCE_S raise TimeoutError, which names the condition."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = condition()
                if await found if isinstance(found, Awaitable) else found:
                    return
                await asyncio.sleep(every)
    except TimeoutError:
        raise TimeoutError(f"waited {PATIENCE_S:.0f} s for: {what}") from None


def is_alive(pid: int) -> bool:
    """Whether a process runs (one that is dead and not waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def create(
    cluster: LocalCluster, name: str, partitions: int = 3, *, replicas: int = 3, **configs: str
) -> None:
    """Create a topic."""
    async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        named = {key.replace("_", "."): value for key, value in configs.items()}
        await admin.create_topic(name, partitions, replicas, named)


async def create_on(cluster: LocalCluster, name: str, broker: int) -> None:
    """Create a topic of one partition whose only replica is on that broker."""
    async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        await admin.create_topic(name, assignments=[[broker]])


async def describe(cluster: LocalCluster, name: str) -> TopicDescription:
    """Return the topic as it is now."""
    async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        return (await admin.describe_topics([name]))[name]


async def whole(cluster: LocalCluster, name: str) -> None:
    """Wait until every replica of a topic is in sync."""
    async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:

        async def is_whole() -> bool:
            topic = (await admin.describe_topics([name]))[name]
            return all(len(one.isr) == len(one.replicas) for one in topic.partitions)

        await until(is_whole, f"every replica of {name} in sync")


async def write(
    cluster: LocalCluster, name: str, values: Sequence[bytes], *, partition: int | None = None
) -> None:
    """Write records, each acknowledged by all in-sync replicas."""
    async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        for delivery in [await producer.send(name, value, partition=partition) for value in values]:
            await delivery


async def read(cluster: LocalCluster, name: str) -> list[bytes]:
    """Return the values of all records of a topic, partition by partition."""
    found: dict[int, list[bytes]] = {}
    async with (
        asyncio.timeout(PATIENCE_S),
        Consumer(
            name, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
        ) as consumer,
    ):
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(p) < end for p, end in sorted(ends.items())]):
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                found.setdefault(partition.partition, []).extend(r.value or b"" for r in records)
    return [value for partition in sorted(found) for value in found[partition]]


async def still_works(cluster: LocalCluster, name: str) -> None:
    """A normal record goes in and comes out."""
    before = await read(cluster, name)
    await write(cluster, name, [b"afterwards"])
    assert sorted(await read(cluster, name)) == sorted([*before, b"afterwards"])
