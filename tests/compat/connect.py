"""Kafka Connect, distributed: a file into a topic and out of it into a file; a worker is killed."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.compat import jars
from tests.compat.results import Case
from tests.compat.servers import BROKERS, Servers, ports

WORKER = "org.apache.kafka.connect.cli.ConnectDistributed"
FILE = "org.apache.kafka.connect.file.FileStream"
LINES = 2000
WAIT_S = 180


def run(servers: Servers, folder: Path, only: list[str]) -> Iterator[Case]:
    """One case: the file that comes out is the file that went in, each line once."""
    name = "file source to file sink, with a worker killed"
    workers = Workers(servers, folder)
    try:
        _copy(workers, folder)
    except Exception as error:
        yield Case(name, "failed", repr(error)[-1500:])
    else:
        yield Case(name, "passed")
    finally:
        workers.kill(0, 1)


class Workers:
    """Two workers of one Connect cluster, and its REST interface."""

    def __init__(self, servers: Servers, folder: Path) -> None:
        self.bootstrap = servers.bootstrap
        self._ports = ports(2)
        self._processes = [self._start(folder, index) for index in range(2)]

    def _start(self, folder: Path, index: int) -> subprocess.Popen[bytes]:
        settings = {
            "bootstrap.servers": self.bootstrap,
            "group.id": "connect",
            "listeners": f"http://127.0.0.1:{self._ports[index]}",
            "config.storage.topic": "connect-configs",
            "offset.storage.topic": "connect-offsets",
            "status.storage.topic": "connect-status",
            "config.storage.replication.factor": BROKERS,
            "offset.storage.replication.factor": BROKERS,
            "status.storage.replication.factor": BROKERS,
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "org.apache.kafka.connect.storage.StringConverter",
            "offset.flush.interval.ms": 500,
            "scheduled.rebalance.max.delay.ms": 1000,
            "session.timeout.ms": 10000,
            "heartbeat.interval.ms": 1000,
        }
        file = folder / f"worker-{index}.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        with (folder / f"worker-{index}.log").open("ab") as output:
            command = jars.java(WORKER, file, heap="512m")
            return subprocess.Popen(command, stdout=output, stderr=output)

    def kill(self, *indexes: int) -> None:
        """Kill these workers."""
        for index in indexes:
            self._processes[index].kill()
            self._processes[index].wait()

    def ask(self, index: int, method: str, path: str, body: object = None) -> Any:
        """Send one request to a worker; return its answer; None while it has none."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._ports[index]}{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except (urllib.error.HTTPError, ConnectionError, urllib.error.URLError):
            return None

    def configure(self, connector: str, config: object) -> None:
        """Create a connector, once the workers are ready to."""
        path = f"/connectors/{connector}/config"
        _until(lambda: self.ask(0, "PUT", path, config) is not None, f"{connector} is created")

    def running(self, index: int, connector: str) -> str | None:
        """Return the worker that runs the one task of a connector; None: it does not run."""
        told = self.ask(index, "GET", f"/connectors/{connector}/status")
        tasks = told["tasks"] if told and told["connector"]["state"] == "RUNNING" else []
        return str(tasks[0]["worker_id"]) if tasks and tasks[0]["state"] == "RUNNING" else None

    def read(self, index: int) -> int:
        """Return the bytes of the source whose offset is committed."""
        told = self.ask(index, "GET", "/connectors/source/offsets")
        return int(told["offsets"][0]["offset"]["position"]) if told and told["offsets"] else 0

    def written(self) -> int:
        """Return the records of the sink whose offset is committed."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        asked = ConsumerGroupTopicPartitions("connect-sink", [TopicPartition("copied", 0)])
        (told,) = admin.list_consumer_group_offsets([asked]).values()
        (partition,) = told.result(30).topic_partitions or [TopicPartition("copied", 0, 0)]
        return int(partition.offset)


def _copy(workers: Workers, folder: Path) -> None:
    source, sink = folder / "source.txt", folder / "sink.txt"
    source.write_text(_lines(0))
    _until(lambda: workers.ask(0, "GET", "/connectors") is not None, "worker 0 answers")
    _until(lambda: workers.ask(1, "GET", "/connectors") is not None, "worker 1 answers")
    configs = {
        "source": {"connector.class": f"{FILE}SourceConnector", "file": str(source),
                   "topic": "copied", "topic.creation.default.partitions": "1",
                   "topic.creation.default.replication.factor": "3"},
        "sink": {"connector.class": f"{FILE}SinkConnector", "file": str(sink),
                 "topics": "copied"},
    }  # fmt: skip
    for name, config in configs.items():
        workers.configure(name, {**config, "tasks.max": "1"})
    _until_copied(workers, 0, source, sink)
    # What one worker runs, the other takes over.
    victim = int(str(workers.running(0, "source")).endswith(str(workers._ports[1])))
    workers.kill(victim)
    source.write_text(_lines(0) + _lines(1))
    other = 1 - victim
    _until(lambda: workers.running(other, "source") is not None, "the other worker reads")
    _until_copied(workers, other, source, sink)


def _lines(round_number: int) -> str:
    return "".join(f"line {i} of round {round_number}\n" for i in range(LINES))


def _until_copied(workers: Workers, index: int, source: Path, sink: Path) -> None:
    """Wait until the sink is the source, and both have committed how far they came."""
    size = source.stat().st_size
    _until(lambda: workers.read(index) == size, "the source is committed to its end")
    lines = source.read_text().count("\n")
    _until(lambda: sink.exists() and sink.read_text().count("\n") >= lines, "the sink is written")
    assert sink.read_text() == source.read_text(), "the files differ"
    _until(lambda: workers.written() == lines, "the sink is committed to its end")


def _until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"waited {WAIT_S} s for: {what}"
        time.sleep(0.5)
