"""Kafka Streams counts words, at least once: with a restart and a broker killed in the middle."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.compat import jars
from tests.compat.results import Case
from tests.compat.servers import BROKERS, Servers

LINES = 3000
PARTITIONS = 4
WAIT_S = 400
WORDS = ("a log is what it holds", "the leader holds it", "each word is counted once")


def run(servers: Servers, folder: Path, only: list[str]) -> Iterator[Case]:
    """One case: the counts at the end are those of the words that were written."""
    name = "word count, with a restart and a broker killed"
    try:
        _count(servers, folder)
    except Exception as error:
        yield Case(name, "failed", str(error)[-1500:])
    else:
        yield Case(name, "passed")


def _count(servers: Servers, folder: Path) -> None:
    _create(servers.bootstrap, "lines", "counts")
    expected: Counter[str] = Counter()
    with _program(servers, folder):
        expected += _write(servers.bootstrap)
        _await(servers.bootstrap, expected)
    with _program(servers, folder):
        expected += _write(servers.bootstrap)
        servers.kill(1)
        expected += _write(servers.bootstrap)
        _await(servers.bootstrap, expected)
        servers.start(1)
        expected += _write(servers.bootstrap)
        _await(servers.bootstrap, expected)


@contextmanager
def _program(servers: Servers, folder: Path) -> Iterator[None]:
    """Run the program; at the end stop it as a service manager does."""
    arguments = [servers.bootstrap, "words", "lines", "counts", folder / "state"]
    with (folder / "streams.log").open("ab") as output:
        program = subprocess.Popen(
            jars.java("WordCount", *arguments, heap="512m"), stdout=output, stderr=output
        )
        try:
            yield
            assert program.poll() is None, "the program ended by itself: see streams.log"
        finally:
            program.terminate()
            program.wait(WAIT_S)


def _create(bootstrap: str, *topics: str) -> None:
    configs = {"min.insync.replicas": "2"}
    new = [NewTopic(topic, PARTITIONS, BROKERS, config=configs) for topic in topics]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for made in admin.create_topics(new).values():
        made.result(WAIT_S)


def _write(bootstrap: str) -> Counter[str]:
    """Write lines, each once; return the words in them."""
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    words: Counter[str] = Counter()
    for number in range(LINES):
        line = WORDS[number % len(WORDS)]
        producer.produce("lines", line, key=b"%d" % number)
        words.update(line.split(" "))
    assert producer.flush(WAIT_S) == 0, "lines were not written"
    return words


def _await(bootstrap: str, expected: Counter[str]) -> None:
    """Read the counts from the start until they are those that are expected."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "reader", "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })  # fmt: skip
    consumer.subscribe(["counts"])
    found: Counter[str] = Counter()
    end = time.monotonic() + WAIT_S
    try:
        while found != expected:
            assert time.monotonic() < end, f"counted {found}, written {expected}"
            message = consumer.poll(1.0)
            if message is None or message.error():
                continue
            key, value = message.key(), message.value()
            assert key is not None
            assert value is not None
            word = key.decode() if isinstance(key, bytes) else key
            found[word] = int.from_bytes(value if isinstance(value, bytes) else value.encode())
            assert found[word] <= expected[word], f"{word}: {found[word]}, not {expected[word]}"
    finally:
        consumer.close()
