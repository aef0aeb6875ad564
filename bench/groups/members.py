"""Members that are Consumers of this project, as programs use them."""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Collection

from bench.groups.notes import Commit, Event, Notes, Read
from quorate import Consumer, Producer, TopicPartition
from quorate.consumer.group.membership import Membership
from quorate.errors import QuorateError
from quorate.v1.groups_pb2 import MemberState


class Member:
    """One consumer, which notes what it is given."""

    def __init__(self, name: str, options: argparse.Namespace, notes: Notes) -> None:
        self._name = name
        self._notes = notes
        self._leaving = False
        self.consumer = Consumer(
            bootstrap_servers=options.bootstrap_servers,
            group_id=options.group,
            client_id=name,
            auto_offset_reset="earliest",
            session_timeout_ms=options.session_timeout_ms,
            enable_auto_commit=bool(options.commits_reads),
        )
        self.consumer.subscribe([options.topic], listener=self)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            async with self.consumer:
                while not self._leaving:
                    found = await self.consumer.getmany(timeout_ms=1000)
                    now = time.monotonic()
                    for partition, records in found.items():
                        first, last = records[0].offset, records[-1].offset
                        read = Read(now, self._name, partition.partition, first, last)
                        self._notes.reads.append(read)
        except QuorateError as error:
            self._notes.failures.append(f"{self._name}: {error!r}")

    async def leave(self) -> None:
        self._leaving = True
        await self.task

    async def commit(self, per_second: float, seconds: float) -> None:
        """Commit for the first partition, at a rate or one after another."""
        assigned = sorted(self.consumer.assignment())
        partition, offset = assigned[0], 0
        until = time.monotonic() + seconds
        due = time.monotonic()
        if per_second:  # members that start together would commit in bursts
            due += random.random() / per_second
            await asyncio.sleep(due - time.monotonic())
        while time.monotonic() < until:
            offset += 1
            began = time.monotonic()
            await self.consumer.commit({partition: offset})
            done = Commit(began, time.monotonic(), self._name, partition.partition, offset)
            self._notes.commits.append(done)
            if per_second:
                due = max(due + 1 / per_second, done.at - 1)
                await asyncio.sleep(due - done.at)

    def on_partitions_assigned(self, partitions: Collection[TopicPartition]) -> None:
        self._note("assigned", partitions)

    def on_partitions_revoked(self, partitions: Collection[TopicPartition]) -> None:
        self._note("revoked", partitions)

    def on_partitions_lost(self, partitions: Collection[TopicPartition]) -> None:
        self._note("lost", partitions)

    def _note(self, what: str, partitions: Collection[TopicPartition]) -> None:
        numbers = sorted(one.partition for one in partitions)
        self._notes.events.append(Event(time.monotonic(), self._name, what, numbers))


class QuorateMembers:
    """The members of this process."""

    def __init__(self, options: argparse.Namespace, notes: Notes) -> None:
        self._options = options
        self._notes = notes
        self._members: dict[str, Member] = {}
        _note_states(notes)

    async def join(self, names: list[str]) -> None:
        for name in names:
            self._members[name] = Member(name, self._options, self._notes)

    async def leave(self, names: list[str]) -> None:
        await asyncio.gather(*(self._members.pop(name).leave() for name in names))

    async def commit(self, per_second: float, seconds: float) -> None:
        await asyncio.gather(*(m.commit(per_second, seconds) for m in self._members.values()))

    async def load(self, per_second: float, partitions: int) -> None:
        due, number = time.monotonic(), 0
        servers = self._options.bootstrap_servers
        async with Producer(bootstrap_servers=servers, linger_ms=0) as producer:
            while True:
                due += 1 / per_second
                await asyncio.sleep(due - time.monotonic())
                await producer.send(self._options.topic, b"x" * 100, partition=number % partitions)
                number += 1


def _note_states(notes: Notes) -> None:
    """Note each answer of the coordinator to a member: a heartbeat that arrived."""
    take = Membership.take

    def noted(self: Membership, state: MemberState, now_ms: int) -> None:
        notes.events.append(Event(time.monotonic(), self.settings.client_id, "state", []))
        take(self, state, now_ms)

    Membership.take = noted  # type: ignore[method-assign]
