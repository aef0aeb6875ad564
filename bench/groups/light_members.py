"""Members that only speak the protocol: they cost little, so the coordinator's limits show."""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from bench.groups.notes import Commit, Event, Notes
from quorate.aio.bell import Bell
from quorate.net.grpc_network import GrpcNetwork
from quorate.net.methods import COMMIT_OFFSETS, FIND_COORDINATORS, MEMBERSHIP
from quorate.net.network import Connection
from quorate.v1.common_pb2 import ErrorCode
from quorate.v1.groups_pb2 import (
    CommitOffsetsRequest,
    CommitPartition,
    CommitTopic,
    FindCoordinatorsRequest,
    MemberHeartbeat,
    Partitions,
    Subscription,
)

TIMEOUT_MS = 10_000


class LightMember:
    """One stream of heartbeats. The member owns at once what it is given."""

    def __init__(self, name: str, options: argparse.Namespace, notes: Notes) -> None:
        self._name = name
        self._options = options
        self._notes = notes
        self._epoch = self._number = 0
        self._owned = Partitions()
        self._bell = Bell()
        self.is_leaving = False

    async def _heartbeats(self) -> AsyncIterator[MemberHeartbeat]:
        yield MemberHeartbeat(
            group_id=self._options.group,
            member_id=self._name,
            client_id=self._name,
            session_timeout_ms=self._options.session_timeout_ms,
            rebalance_timeout_ms=300_000,
            subscription=Subscription(topics=[self._options.topic]),
            owned=Partitions(),
        )
        while not self.is_leaving:
            await self._bell.wait(self._options.session_timeout_ms / 3)
            self._bell.reset()
            yield MemberHeartbeat(
                member_epoch=self._epoch, state_number=self._number, owned=self._owned
            )
        yield MemberHeartbeat(member_epoch=-1)

    async def run(self, connection: Connection) -> None:
        async with aclosing(connection.stream(MEMBERSHIP, self._heartbeats())) as states:
            async for state in states:
                if state.error.code != ErrorCode.ERROR_CODE_NONE:
                    raise RuntimeError(f"{self._name}: {state.error.message}")
                self._epoch = state.member_epoch
                if state.state_number > self._number:
                    self._number = state.state_number
                    if state.HasField("assignment"):
                        self._take(state.assignment)
                    self._bell.ring()

    def _take(self, assignment: Partitions) -> None:
        self._owned = assignment
        numbers = [number for topic in assignment.topics for number in topic.partitions]
        self._notes.events.append(Event(time.monotonic(), self._name, "has", numbers))

    def leave(self) -> None:
        self.is_leaving = True
        self._bell.ring()

    async def commit(self, connection: Connection, per_second: float, seconds: float) -> None:
        topic, offset = self._owned.topics[0], 0
        until = time.monotonic() + seconds
        due = time.monotonic()
        if per_second:  # members that start together would commit in bursts
            due += random.random() / per_second
            await asyncio.sleep(due - time.monotonic())
        while time.monotonic() < until:
            offset += 1
            began = time.monotonic()
            request = CommitOffsetsRequest(
                group_id=self._options.group,
                member_id=self._name,
                member_epoch=self._epoch,
                topics=[
                    CommitTopic(
                        topic_id=topic.topic_id,
                        partitions=[
                            CommitPartition(
                                partition=topic.partitions[0], offset=offset, leader_epoch=-1
                            )
                        ],
                    )
                ],
            )
            answer = await connection.unary(COMMIT_OFFSETS, request, timeout_ms=TIMEOUT_MS)
            if answer.error.code or answer.topics[0].partitions[0].error.code:
                raise RuntimeError(f"{self._name}: {answer}")
            done = Commit(began, time.monotonic(), self._name, topic.partitions[0], offset)
            self._notes.commits.append(done)
            if per_second:
                due = max(due + 1 / per_second, done.at - 1)
                await asyncio.sleep(due - done.at)


class LightMembers:
    """The members of this process, on one connection to their coordinator."""

    def __init__(self, options: argparse.Namespace, notes: Notes) -> None:
        self._options = options
        self._notes = notes
        self._network = GrpcNetwork()
        self._connection: Connection | None = None
        self._members: dict[str, LightMember] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def _connected(self) -> Connection:
        if self._connection is None:
            first = self._options.bootstrap_servers.split(",")[0]
            any_broker = self._network.connect(first, purpose="control")
            request = FindCoordinatorsRequest(group_ids=[self._options.group])
            while True:
                found = await any_broker.unary(FIND_COORDINATORS, request, timeout_ms=TIMEOUT_MS)
                endpoint = found.coordinators[0].coordinator.listener.endpoint
                if endpoint:
                    break
                await asyncio.sleep(0.1)
            self._connection = self._network.connect(endpoint, purpose="control")
        return self._connection

    async def join(self, names: list[str]) -> None:
        connection = await self._connected()
        for name in names:
            self._members[name] = LightMember(name, self._options, self._notes)
            self._tasks[name] = asyncio.create_task(self._run(name, connection))

    async def _run(self, name: str, connection: Connection) -> None:
        try:
            await self._members[name].run(connection)
        except Exception as error:
            self._notes.failures.append(f"{name}: {error!r}")

    async def leave(self, names: list[str]) -> None:
        for name in names:
            self._members.pop(name).leave()
        await asyncio.gather(*(self._tasks.pop(name) for name in names))

    async def commit(self, per_second: float, seconds: float) -> None:
        connection = await self._connected()
        members = self._members.values()
        await asyncio.gather(*(m.commit(connection, per_second, seconds) for m in members))

    async def load(self, per_second: float, partitions: int) -> None:
        raise NotImplementedError("light members write no records")
