"""Simple clients of consumer groups: calls to a coordinator, and a member without records.

They use the messages as they are, so that tests of brokers do not rest on the client library.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from quorate.errors import NetworkError, QuorateError, from_wire, raise_if_error
from quorate.net.methods import COMMIT_OFFSETS, FETCH_OFFSETS, FIND_COORDINATORS, MEMBERSHIP
from quorate.net.network import Connection, Method, current_network
from quorate.v1 import groups_pb2 as wire
from quorate.v1.common_pb2 import ErrorCode

#: The id of a topic, and the number of one of its partitions.
Key = tuple[bytes, int]

TIMEOUT_MS = 1000
AGAIN_S = 0.02
PATIENCE_S = 30.0

REJOIN = (ErrorCode.ERROR_CODE_UNKNOWN_MEMBER_ID, ErrorCode.ERROR_CODE_FENCED_MEMBER_EPOCH)


def message_of(partitions: Sequence[Key] | frozenset[Key]) -> wire.Partitions:
    message = wire.Partitions()
    for topic_id, index in sorted(partitions):
        if not message.topics or message.topics[-1].topic_id != topic_id:
            message.topics.add(topic_id=topic_id)
        message.topics[-1].partitions.append(index)
    return message


def keys_of(message: wire.Partitions) -> frozenset[Key]:
    return frozenset((t.topic_id, index) for t in message.topics for index in t.partitions)


class GroupCalls:
    """Calls about one group. Each is repeated until a coordinator answers it for good."""

    def __init__(self, bootstrap_servers: str, group_id: str) -> None:
        self.group_id = group_id
        self._servers = bootstrap_servers.split(",")
        self._asked = 0
        #: The coordinator that was found last; empty: none.
        self.known = ""
        self._connections: dict[str, Connection] = {}

    def ask_from(self, number: int) -> None:
        """Let `find` begin with this one of the bootstrap servers."""
        self._asked = number

    def connection(self, endpoint: str) -> Connection:
        network = current_network.get()
        assert network is not None
        if endpoint not in self._connections:
            self._connections[endpoint] = network.connect(endpoint)
        return self._connections[endpoint]

    async def find(self) -> str:
        """Return the coordinator's endpoint. Ask one broker after the other until one knows it."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + PATIENCE_S
        while True:
            server = self._servers[self._asked % len(self._servers)]
            self._asked += 1
            request = wire.FindCoordinatorsRequest(group_ids=[self.group_id])
            try:
                answer = await self.connection(server).unary(
                    FIND_COORDINATORS, request, timeout_ms=TIMEOUT_MS
                )
                (found,) = answer.coordinators
                raise_if_error(found.error)
                return found.coordinator.listener.endpoint
            except QuorateError as error:
                if not error.retriable or loop.time() > give_up:
                    raise
            await asyncio.sleep(AGAIN_S)

    async def call(self, method: Method[Any, Any], request: Any) -> Any:
        """Return the coordinator's answer. Raise its error, unless it is worth another try."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + PATIENCE_S
        while True:
            endpoint = await self.find()
            try:
                answer = await self.connection(endpoint).unary(
                    method, request, timeout_ms=TIMEOUT_MS
                )
                raise_if_error(answer.error)
                return answer
            except QuorateError as error:
                if not error.retriable or loop.time() > give_up:
                    raise
            await asyncio.sleep(AGAIN_S)

    async def commit_once(
        self, offsets: Mapping[Key, int], *, member_id: str, member_epoch: int
    ) -> dict[Key, QuorateError]:
        """Commit offsets as a member, without another try. Return the refused partitions."""
        request = self._commit_request(offsets, member_id, member_epoch, "")
        endpoint = self.known or await self.find()
        try:
            answer = await self.connection(endpoint).unary(
                COMMIT_OFFSETS, request, timeout_ms=TIMEOUT_MS
            )
            raise_if_error(answer.error)
        except QuorateError as error:
            if error.stale_metadata:
                self.known = ""
            raise
        return _refused(answer)

    async def commit(
        self,
        offsets: Mapping[Key, int],
        *,
        member_id: str = "",
        member_epoch: int = -1,
        metadata: str = "",
    ) -> dict[Key, QuorateError]:
        """Commit offsets. Return the partitions that were refused."""
        request = self._commit_request(offsets, member_id, member_epoch, metadata)
        return _refused(await self.call(COMMIT_OFFSETS, request))

    def _commit_request(
        self, offsets: Mapping[Key, int], member_id: str, member_epoch: int, metadata: str
    ) -> wire.CommitOffsetsRequest:
        request = wire.CommitOffsetsRequest(
            group_id=self.group_id, member_id=member_id, member_epoch=member_epoch
        )
        for (topic_id, index), offset in sorted(offsets.items()):
            if not request.topics or request.topics[-1].topic_id != topic_id:
                request.topics.add(topic_id=topic_id)
            request.topics[-1].partitions.add(
                partition=index, offset=offset, leader_epoch=-1, metadata=metadata
            )
        return request

    async def committed(self) -> dict[Key, int]:
        """Return all that the group has committed."""
        request = wire.FetchOffsetsRequest(group_id=self.group_id, member_epoch=-1, all=True)
        answer = await self.call(FETCH_OFFSETS, request)
        return {
            (topic.topic_id, one.partition): one.offset
            for topic in answer.topics
            for one in topic.partitions
        }


def _refused(answer: wire.CommitOffsetsResponse) -> dict[Key, QuorateError]:
    return {
        (topic.topic_id, one.partition): from_wire(one.error)
        for topic in answer.topics
        for one in topic.partitions
        if one.error.code
    }


class Member:
    """A member that takes and gives back partitions as it is told, and reads nothing.

    `owned` is what it has. `epochs` has each epoch that it was told.
    """

    def __init__(self, calls: GroupCalls, member_id: str, topics: Sequence[str]) -> None:
        self.calls = calls
        self.member_id = member_id
        self.topics = tuple(topics)
        self.pattern = ""
        self.epoch = 0
        self.owned: frozenset[Key] = frozenset()
        self.epochs: list[int] = []
        self.joins = 0
        self.errors: list[QuorateError] = []
        self.has_left = False
        self._leaving = False
        self._is_subscription_new = False
        self._news = asyncio.Event()
        self._state_number = 0
        self._interval_s = 1.0

    async def run(self) -> None:
        """Be a member, over one stream after the other, until leave()."""
        while not self.has_left:
            endpoint = await self.calls.find()
            self.calls.known = endpoint
            connection = self.calls.connection(endpoint)
            self._state_number = 0
            try:
                async with aclosing(connection.stream(MEMBERSHIP, self._beats())) as states:
                    async for state in states:
                        self._take(state)
            except NetworkError:
                pass
            await asyncio.sleep(AGAIN_S)

    def leave(self) -> None:
        """Leave the group with the next heartbeat."""
        self._leaving = True
        self._news.set()

    def subscribe(self, pattern: str) -> None:
        """Subscribe to what matches another pattern, with the next heartbeat."""
        self.pattern = pattern
        self._is_subscription_new = True
        self._news.set()

    def send_soon(self) -> None:
        """Send a heartbeat at once, for there is news."""
        self._news.set()

    def assigned(self, wanted: frozenset[Key]) -> None:
        """Take and give back partitions. A subclass may take its time."""
        self.owned = wanted

    def lost(self) -> None:
        """Drop all partitions: the group has removed this member."""
        self.owned = frozenset()

    async def _beats(self) -> AsyncIterator[wire.MemberHeartbeat]:
        if self.epoch == 0:
            self.joins += 1
            self.lost()
        self._is_subscription_new = False
        yield wire.MemberHeartbeat(
            group_id=self.calls.group_id,
            member_id=self.member_id,
            member_epoch=self.epoch,
            instance_id="",
            rack="",
            client_id="test",
            session_timeout_ms=10_000,
            rebalance_timeout_ms=10_000,
            subscription=self._subscription(),
            assignor="",
            owned=message_of(self.owned),
        )
        while True:
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            if self.epoch == 0 and not self._leaving:
                continue  # the answer to the first heartbeat has the epoch
            subscription = self._subscription() if self._is_subscription_new else None
            self._is_subscription_new = False
            yield wire.MemberHeartbeat(
                member_epoch=-1 if self._leaving else self.epoch,
                state_number=self._state_number,
                owned=message_of(self.owned),
                subscription=subscription,
            )
            if self._leaving:
                self.has_left = True
                return

    def _subscription(self) -> wire.Subscription:
        return wire.Subscription(topics=self.topics, pattern=self.pattern)

    def _take(self, state: wire.MemberState) -> None:
        if state.error.code:
            self.errors.append(from_wire(state.error))
            if state.error.code in REJOIN:
                self.epoch = 0
                self.lost()
            return
        if state.member_epoch < 0:
            return
        self._interval_s = state.heartbeat_interval_ms / 1000
        if state.member_epoch != self.epoch:
            self.epoch = state.member_epoch
            self.epochs.append(self.epoch)
        if state.HasField("assignment"):
            self.assigned(keys_of(state.assignment))
        if state.state_number != self._state_number:
            # the next heartbeat acknowledges it
            self._state_number = state.state_number
            self._news.set()
