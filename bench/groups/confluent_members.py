"""Members of a group of Apache Kafka, by confluent-kafka with group.protocol=consumer.

confluent-kafka is not among the dependencies of this project: install it for this bench alone.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import random
import threading
import time
from typing import Any

from bench.groups.notes import Commit, Event, Notes, Read


class ConfluentMember:
    """One consumer, in a thread of its own, which notes what it is given."""

    def __init__(self, name: str, options: argparse.Namespace, notes: Notes) -> None:
        self._name = name
        self._topic = options.topic
        self._notes = notes
        self._leaving = False
        self._commits: tuple[float, float] | None = None
        kafka = importlib.import_module("confluent_kafka")
        self._partition_of = kafka.TopicPartition
        self._consumer = kafka.Consumer(
            {
                "bootstrap.servers": options.bootstrap_servers,
                "group.id": options.group,
                "group.protocol": "consumer",
                "client.id": name,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": bool(options.commits_reads),
                "socket.nagle.disable": True,
            }
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._consumer.subscribe(
            [self._topic],
            on_assign=lambda consumer, found: self._assigned(consumer, found),
            on_revoke=lambda consumer, found: self._revoked(consumer, found),
        )
        while not self._leaving:
            if self._commits is not None:
                rate, self._commits = self._commits, None
                try:
                    self._commit(*rate)
                except Exception as error:
                    self._notes.failures.append(repr(error))
            message = self._consumer.poll(0.1)
            if message is not None and message.error() is None:
                offset = message.offset()
                self._notes.reads.append(
                    Read(time.monotonic(), self._name, message.partition(), offset, offset)
                )
        self._consumer.close()

    def _assigned(self, consumer: Any, found: list[Any]) -> None:
        self._note("assigned", found)
        consumer.incremental_assign(found)

    def _revoked(self, consumer: Any, found: list[Any]) -> None:
        self._note("revoked", found)
        consumer.incremental_unassign(found)

    def _note(self, what: str, found: list[Any]) -> None:
        numbers = sorted(one.partition for one in found)
        self._notes.events.append(Event(time.monotonic(), self._name, what, numbers))

    def leave(self) -> None:
        self._leaving = True
        self._thread.join()

    def commit(self, per_second: float, seconds: float) -> None:
        """Let the thread commit."""
        self._commits = per_second, seconds

    def _commit(self, per_second: float, seconds: float) -> None:
        """Commit for the first partition, at a rate or one after another."""
        number, offset = min(one.partition for one in self._consumer.assignment()), 0
        until = time.monotonic() + seconds
        due = time.monotonic()
        if per_second:  # members that start together would commit in bursts
            due += random.random() / per_second
            time.sleep(due - time.monotonic())
        while time.monotonic() < until:
            offset += 1
            began = time.monotonic()
            wanted = [self._partition_of(self._topic, number, offset)]
            self._consumer.commit(offsets=wanted, asynchronous=False)
            done = Commit(began, time.monotonic(), self._name, number, offset)
            self._notes.commits.append(done)
            if per_second:
                due = max(due + 1 / per_second, done.at - 1)
                time.sleep(max(0.0, due - done.at))


class ConfluentMembers:
    """The members of this process."""

    def __init__(self, options: argparse.Namespace, notes: Notes) -> None:
        self._options = options
        self._notes = notes
        self._members: dict[str, ConfluentMember] = {}

    async def join(self, names: list[str]) -> None:
        for name in names:
            self._members[name] = ConfluentMember(name, self._options, self._notes)

    async def leave(self, names: list[str]) -> None:
        leaving = [self._members.pop(name) for name in names]
        await asyncio.gather(*(asyncio.to_thread(one.leave) for one in leaving))

    async def commit(self, per_second: float, seconds: float) -> None:
        for one in self._members.values():
            one.commit(per_second, seconds)

    async def load(self, per_second: float, partitions: int) -> None:
        kafka = importlib.import_module("confluent_kafka")
        producer = kafka.Producer(
            {
                "bootstrap.servers": self._options.bootstrap_servers,
                "linger.ms": 0,
                "socket.nagle.disable": True,
            }
        )
        due, number = time.monotonic(), 0
        while True:
            due += 1 / per_second
            await asyncio.sleep(due - time.monotonic())
            producer.produce(self._options.topic, b"x" * 100, partition=number % partitions)
            producer.poll(0)
            number += 1
