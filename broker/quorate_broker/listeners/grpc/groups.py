"""The Groups service: the streams of members, and the unary calls about groups."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, nullcontext
from typing import Any, Final

from quorate.aio.beside import beside
from quorate.errors import InvalidRequestError, NetworkError, QuorateError, StoppingError
from quorate.net.methods import (
    COMMIT_OFFSETS,
    DELETE_GROUPS,
    DESCRIBE_GROUPS,
    FETCH_OFFSETS,
    FIND_COORDINATORS,
    LIST_GROUPS,
    MEMBERSHIP,
    REMOVE_MEMBERS,
)
from quorate.net.network import Handler, Method, Peer
from quorate.v1 import groups_pb2 as wire
from quorate.v1.common_pb2 import LeaderHint
from quorate_broker.groups.machine.values import (
    CommitOffsets,
    FetchedOffset,
    FetchOffsets,
    RemoveMembers,
)
from quorate_broker.listeners.grpc.answers import Hints, error_of
from quorate_broker.listeners.grpc.group_values import (
    NO_OFFSET,
    Key,
    commits_of,
    group_message,
    heartbeat_of,
    keys_of,
    member_message,
    offset_message,
    state_message,
)
from quorate_broker.operations import groups
from quorate_broker.operations.group_members import GroupStream
from quorate_broker.operations.operations import Operations
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.node.authorizer import Required
from quorate_quorum.node.config import BrokerConfig

REQUIRED: Final[Mapping[Method[Any, Any], Required]] = {
    FIND_COORDINATORS: groups.DESCRIBE,
    MEMBERSHIP: groups.READ,
    COMMIT_OFFSETS: groups.READ,
    FETCH_OFFSETS: groups.DESCRIBE,
    LIST_GROUPS: groups.DESCRIBE,
    DESCRIBE_GROUPS: groups.DESCRIBE,
    DELETE_GROUPS: groups.DELETE,
    REMOVE_MEMBERS: groups.READ,
}

#: Items of an answer that are made in one turn of the event loop.
ITEMS_A_TURN = 500
#: The most members that are described in one turn.
MEMBERS_A_TURN = 50


class GroupsService:
    """The Groups service: see the module."""

    required = REQUIRED

    def __init__(self, operations: Operations, replicas: Replicas, config: BrokerConfig) -> None:
        self._groups = operations.groups
        self._members = operations.group_members
        self._replicas = replicas
        self._config = config
        self._streams: dict[GroupStream, None] = {}
        self._is_stopping = False

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {
            FIND_COORDINATORS: self.find_coordinators,
            MEMBERSHIP: self.membership,
            COMMIT_OFFSETS: self.commit_offsets,
            FETCH_OFFSETS: self.fetch_offsets,
            LIST_GROUPS: self.list_groups,
            DESCRIBE_GROUPS: self.describe_groups,
            DELETE_GROUPS: self.delete_groups,
            REMOVE_MEMBERS: self.remove_members,
        }

    def stop(self) -> None:
        """Take no more streams, and send the members of the open ones away."""
        self._is_stopping = True
        for stream in list(self._streams):
            stream.stop()

    # -- coordinators

    async def find_coordinators(
        self, request: wire.FindCoordinatorsRequest, peer: Peer
    ) -> wire.FindCoordinatorsResponse:
        found = await self._groups.find_coordinators(
            peer.principal, request.group_ids, caller_timeout_ms=peer.timeout_ms
        )
        hints = self._hints(peer)
        response = wire.FindCoordinatorsResponse()
        for group_id, one in zip(request.group_ids, found, strict=True):
            told = response.coordinators.add(group_id=group_id)
            if isinstance(one, QuorateError):
                told.error.CopyFrom(error_of(one))
            else:
                hint = LeaderHint(leader=one.broker_id, leader_epoch=one.leader_epoch)
                told.coordinator.CopyFrom(hints.with_listener(hint))
        return response

    # -- membership

    async def membership(
        self, requests: AsyncIterator[wire.MemberHeartbeat], peer: Peer
    ) -> AsyncGenerator[wire.MemberState, None]:
        if self._is_stopping or len(self._streams) >= self._config.streams_max:
            raise StoppingError("this broker takes no more members: look for another coordinator")
        stream = self._members.stream(peer.principal)
        self._streams[stream] = None
        hints = self._hints(peer)
        try:
            async with beside(_read(stream, requests, peer), "membership"):
                while (state := await stream.next()) is not None:
                    if isinstance(state, QuorateError):
                        yield wire.MemberState(error=error_of(state), coordinator=hints.of(state))
                    else:
                        yield state_message(state)
        finally:
            del self._streams[stream]
            stream.close()

    # -- offsets

    async def commit_offsets(
        self, request: wire.CommitOffsetsRequest, peer: Peer
    ) -> wire.CommitOffsetsResponse:
        try:
            commits, refused = commits_of(request.topics, is_member=bool(request.member_id))
            asked = CommitOffsets(
                request.group_id, commits, request.member_id, request.member_epoch
            )
            committed = await self._groups.commit_offsets(peer.principal, asked)
            refused.update(committed.refused)
        except QuorateError as error:
            return wire.CommitOffsetsResponse(
                error=error_of(error), coordinator=self._hints(peer).of(error)
            )
        response = wire.CommitOffsetsResponse()
        for asked_topic in request.topics:
            topic = response.topics.add(topic_id=asked_topic.topic_id)
            for one in asked_topic.partitions:
                refusal = refused.get((asked_topic.topic_id, one.partition))
                topic.partitions.add(
                    partition=one.partition, error=None if refusal is None else error_of(refusal)
                )
        return response

    async def fetch_offsets(
        self, request: wire.FetchOffsetsRequest, peer: Peer
    ) -> wire.FetchOffsetsResponse:
        try:
            keys = None if request.all else keys_of(request.topics)
            asked = FetchOffsets(request.group_id, keys, request.member_id, request.member_epoch)
            fetched = await self._groups.fetch_offsets(peer.principal, asked)
        except QuorateError as error:
            return wire.FetchOffsetsResponse(
                error=error_of(error), coordinator=self._hints(peer).of(error)
            )
        return await _fetched(keys, fetched)

    # -- administration

    async def list_groups(
        self, request: wire.ListGroupsRequest, peer: Peer
    ) -> wire.ListGroupsResponse:
        found, error = await self._groups.list_groups(peer.principal)
        response = wire.ListGroupsResponse(error=None if error is None else error_of(error))
        for number, one in enumerate(found, 1):
            response.groups.add(
                group_id=one.group_id, state=one.state, protocol=one.protocol, members=one.members
            )
            await _let_others_run(number)
        return response

    async def describe_groups(
        self, request: wire.DescribeGroupsRequest, peer: Peer
    ) -> wire.DescribeGroupsResponse:
        found = await self._groups.describe_groups(peer.principal, request.group_ids)
        hints = self._hints(peer)
        response = wire.DescribeGroupsResponse()
        for group_id, one in zip(request.group_ids, found, strict=True):
            if isinstance(one, QuorateError):
                response.groups.add(
                    group_id=group_id, error=error_of(one), coordinator=hints.of(one)
                )
            else:
                told = group_message(one)
                for number, member in enumerate(one.members, 1):
                    told.members.append(member_message(member))
                    if number % MEMBERS_A_TURN == 0:
                        await asyncio.sleep(0)
                response.groups.append(told)
            await asyncio.sleep(0)
        return response

    async def delete_groups(
        self, request: wire.DeleteGroupsRequest, peer: Peer
    ) -> wire.DeleteGroupsResponse:
        found = await self._groups.delete_groups(peer.principal, request.group_ids)
        hints = self._hints(peer)
        response = wire.DeleteGroupsResponse()
        for group_id, error in zip(request.group_ids, found, strict=True):
            if error is None:
                response.groups.add(group_id=group_id)
            else:
                response.groups.add(
                    group_id=group_id, error=error_of(error), coordinator=hints.of(error)
                )
        return response

    async def remove_members(
        self, request: wire.RemoveMembersRequest, peer: Peer
    ) -> wire.RemoveMembersResponse:
        asked = RemoveMembers(
            request.group_id, request.member_ids, request.instance_ids, request.all
        )
        try:
            removed = await self._groups.remove_members(peer.principal, asked)
        except QuorateError as error:
            return wire.RemoveMembersResponse(
                error=error_of(error), coordinator=self._hints(peer).of(error)
            )
        return wire.RemoveMembersResponse(removed=removed)

    def _hints(self, peer: Peer) -> Hints:
        return Hints(peer, self._replicas)


async def _read(
    stream: GroupStream, requests: AsyncIterator[wire.MemberHeartbeat], peer: Peer
) -> None:
    """Take a member's messages until it ends its side, or the stream is over."""
    closing: Any = aclosing(requests) if hasattr(requests, "aclose") else nullcontext()
    host = peer.address.rpartition(":")[0] or peer.address
    first: wire.MemberHeartbeat | None = None
    try:
        async with closing:
            async for message in requests:
                first = first or message
                await stream.heartbeat(heartbeat_of(message, first, host))
                if stream.is_over:
                    break
    except NetworkError:
        # the member is gone, or its network is: the machine waits for another stream
        pass
    except InvalidRequestError as error:
        stream.refuse(error)
    finally:
        stream.done()


async def _fetched(
    keys: Sequence[Key] | None, fetched: Sequence[FetchedOffset | QuorateError]
) -> wire.FetchOffsetsResponse:
    response = wire.FetchOffsetsResponse()
    topic: wire.OffsetsTopic | None = None
    for number, one in enumerate(fetched):
        if isinstance(one, QuorateError):
            assert keys is not None, "only a partition that was named is refused"
            key, name = keys[number], ""
        else:
            key, name = one.partition, one.topic
        if topic is None or topic.topic_id != key[0]:
            topic = response.topics.add(topic_id=key[0], name=name)
        topic.partitions.append(
            offset_message(key[1], one)
            if isinstance(one, FetchedOffset)
            else wire.OffsetsPartition(
                partition=key[1], error=error_of(one), offset=NO_OFFSET, leader_epoch=-1
            )
        )
        await _let_others_run(number + 1)
    return response


async def _let_others_run(number: int) -> None:
    if number % ITEMS_A_TURN == 0:
        await asyncio.sleep(0)
