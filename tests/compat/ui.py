"""The Kafka pages of Quarkus' Dev UI, by the calls that the pages make."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer

from tests.compat import jars
from tests.compat.results import Case
from tests.compat.servers import BROKERS, Servers, ports

HERE = Path(__file__).parent
#: Quarkus needs a newer Maven than many systems have.
MAVEN = "3.9.16"
PARTITIONS = 3
MESSAGES = 30
#: The first start brings what Quarkus consists of.
START_S = 900
#: The longest wait for an answer of the UI, and for a thing that it shall show.
WAIT_S = 300
TOPIC, GROUP = "dev-ui", "dev-ui-group"


def run(servers: Servers, folder: Path, only: list[str]) -> Iterator[Case]:
    """Use the pages one after another, as a person would."""
    with _dev_ui(servers, folder) as ui:
        visit = Visit(servers, ui)
        for name, function in visit.cases().items():
            try:
                function()
            except (AssertionError, LookupError, TimeoutError) as error:
                yield Case(name, "failed", repr(error)[-1500:])
            else:
                yield Case(name, "passed")


class Ui:
    """The socket over which the pages ask the program behind them."""

    def __init__(self, url: str, log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                jars.java("SocketHost", url),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        self._ids = count(1)
        self._heard: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._heard.put(line)

    def ask(self, method: str, **params: object) -> Any:
        """Return the answer to one call. Its own notes, which nobody asked for, are passed over."""
        asked = {
            "jsonrpc": "2.0",
            "id": next(self._ids),
            "method": f"quarkus-kafka-client_{method}",
            "params": params,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        end = time.monotonic() + WAIT_S
        while True:
            try:
                answer = json.loads(self._heard.get(timeout=max(0, end - time.monotonic())))
            except queue.Empty:
                raise TimeoutError(f"{method} was not answered within {WAIT_S} s") from None
            if answer.get("id") == asked["id"]:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]["object"]

    def close(self) -> None:
        """End the connection."""
        self._process.kill()
        self._process.wait()


class Visit:
    """A person who looks at a cluster, makes a topic, writes to it, and looks at a group."""

    def __init__(self, servers: Servers, ui: Ui) -> None:
        self._servers = servers
        self._ui = ui

    def cases(self) -> dict[str, Callable[[], None]]:
        """Return what is done, in this order."""
        return {
            "list the nodes": self._list_nodes,
            "create a topic, and list it": self._create,
            "write messages with keys and headers": self._write,
            "show the messages": self._show,
            "show a group, its members and its lag": self._show_group,
            "list the ACLs": self._list_acls,
            "delete the topic": self._delete,
        }

    def _list_nodes(self) -> None:
        cluster = self._ui.ask("getInfo")["clusterInfo"]
        told = {f"{node['host']}:{node['port']}" for node in cluster["nodes"]}
        assert told == set(self._servers.bootstrap.split(",")), cluster
        assert cluster["controller"]["id"] in {node["id"] for node in cluster["nodes"]}, cluster

    def _create(self) -> None:
        configs = {"retention.ms": "86400000"}
        self._ui.ask(
            "createTopic",
            topicName=TOPIC,
            partitions=PARTITIONS,
            replications=BROKERS,
            configs=configs,
        )
        _until(lambda: self._topic() is not None, "the topic is listed")
        assert self._topic()["partitionsCount"] == PARTITIONS, self._topic()
        assert self._ui.ask("getPartitions", topicName=TOPIC) == [*range(PARTITIONS)]

    def _topic(self) -> Any:
        listed = self._ui.ask("getTopics")
        return next((one for one in listed if one["name"] == TOPIC), None)

    def _write(self) -> None:
        for number in range(MESSAGES):
            self._ui.ask(
                "createMessage",
                topicName=TOPIC,
                partition=number % PARTITIONS,
                key=f"key-{number}",
                value=f"value-{number}",
                headers={"number": str(number)},
            )
        assert self._topic()["nmsg"] == MESSAGES, self._topic()

    def _show(self) -> None:
        shown = self._ui.ask("topicMessages", topicName=TOPIC)["messages"]
        found = {(one["key"], one["value"], one["headers"]["number"]) for one in shown}
        written = {(f"key-{i}", f"value-{i}", f"{i}") for i in range(MESSAGES)}
        # A page shows the newest ones.
        assert found, shown
        assert found <= written, found - written

    def _show_group(self) -> None:
        settings = {
            "bootstrap.servers": self._servers.bootstrap,
            "group.id": GROUP,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
        consumer = Consumer(settings)
        try:
            consumer.subscribe([TOPIC])
            read = 0
            end = time.monotonic() + WAIT_S
            while read < MESSAGES and time.monotonic() < end:
                message = consumer.poll(0.2)
                read += message is not None and message.error() is None
            assert read == MESSAGES, f"{read} messages were read"
            consumer.commit(asynchronous=False)
            assert self._group()["lag"] == 0, self._group()
            (member,) = self._group()["members"]
            assert {one["partition"] for one in member["partitions"]} == {*range(PARTITIONS)}
            self._ui.ask(
                "createMessage", topicName=TOPIC, partition=0, key="k", value="late", headers={}
            )
            assert self._group()["lag"] == 1, self._group()
            assert self._group()["state"].lower() == "stable", self._group()
        finally:
            consumer.close()

    def _group(self) -> Any:
        groups = self._ui.ask("getInfo")["consumerGroups"]
        (group,) = (one for one in groups if one["name"] == GROUP)
        return group

    def _list_acls(self) -> None:
        assert self._ui.ask("getAclInfo")["entries"] == []

    def _delete(self) -> None:
        before = self._topic()["topicId"]
        # The page counts the messages of all topics then. It may fail at the one that goes, and
        # make it anew by asking for it.
        with suppress(AssertionError):
            self._ui.ask("deleteTopic", topicName=TOPIC)
        _until(lambda: self._is_gone(before), "the topic is not listed any more")

    def _is_gone(self, topic_id: str) -> bool:
        with suppress(AssertionError):
            return topic_id not in {one["topicId"] for one in self._ui.ask("getTopics")}
        return False


def _until(is_true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not is_true():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {WAIT_S} s: {what}")
        time.sleep(0.2)


@contextmanager
def _dev_ui(servers: Servers, folder: Path) -> Iterator[Ui]:
    """Run Quarkus in its development mode, whose settings name the cluster."""
    (port,) = ports(1)
    shutil.copytree(HERE / "devui", folder / "program")
    settings = {
        "kafka.bootstrap.servers": servers.bootstrap,
        # The page of topics waits so long for one that was just deleted.
        "kafka.default.api.timeout.ms": 30_000,
        "quarkus.http.port": port,
        "quarkus.console.enabled": "false",
        "quarkus.devservices.enabled": "false",
        "quarkus.analytics.disabled": "true",
        "debug": "false",
    }
    command = [_maven(), "-B", "-ntp", "quarkus:dev", *(f"-D{k}={v}" for k, v in settings.items())]
    log = folder / "quarkus.log"
    with log.open("ab") as output:
        program = subprocess.Popen(
            command,
            cwd=folder / "program",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _await_page(f"http://127.0.0.1:{port}/q/dev-ui/", program, log)
        ui = Ui(f"ws://127.0.0.1:{port}/q/dev-ui/json-rpc-ws", folder / "socket.log")
        try:
            yield ui
        finally:
            ui.close()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


def _await_page(url: str, program: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if program.poll() is not None:
            raise SystemExit(f"Quarkus ended with status {program.returncode}: see {log}")
        with suppress(OSError), urllib.request.urlopen(url, timeout=10):
            return
        time.sleep(0.5)
    raise TimeoutError(f"the Dev UI did not start within {START_S} s: see {log}")


def _maven() -> str:
    """Return the Maven that runs Quarkus; the machine's own one brings it."""
    home = jars.BUILD / f"apache-maven-{MAVEN}"
    if not home.exists():
        jars.need("mvn", "Apache Maven")
        archive = f"org.apache.maven:apache-maven:{MAVEN}:tar.gz:bin"
        goal = ["dependency:copy", f"-Dartifact={archive}", f"-DoutputDirectory={jars.BUILD}"]
        subprocess.run(["mvn", "-q", "-B", *goal], check=True, timeout=jars.BRING_S)
        shutil.unpack_archive(jars.BUILD / f"apache-maven-{MAVEN}-bin.tar.gz", jars.BUILD)
    return str(home / "bin" / "mvn")
