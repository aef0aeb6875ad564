"""Consumer groups: finds coordinators, and passes calls on to the shard that has the group.

Each call declares the right that it requires on the group. Where a call names topics, the caller
needs a right on each of them as well, as in Kafka.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple, TypeVar

from quorate.errors import (
    CoordinatorLoadingError,
    CoordinatorNotAvailableError,
    GroupNotFoundError,
    InvalidGroupIdError,
    InvalidRequestError,
    OverloadedError,
    QuorateError,
)
from quorate.net.principal import Principal
from quorate_broker.groups.coordinator import Coordinator
from quorate_broker.groups.embedded import in_words
from quorate_broker.groups.image_topics import ImageTopics
from quorate_broker.groups.machine.classic.values import DescribedClassicGroup
from quorate_broker.groups.machine.values import (
    CommitOffsets,
    Committed,
    DescribedGroup,
    FetchedOffset,
    FetchOffsets,
    ListedGroup,
    RemoveMembers,
)
from quorate_broker.groups.partitioning import partition_of
from quorate_broker.groups.shard import Shard
from quorate_broker.operations import group_steps
from quorate_broker.operations.admin import answered_in_time
from quorate_broker.operations.partitions import check_repeated
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.metadata.topics import OFFSETS_TOPIC, TopicImage
from quorate_quorum.node.authorizer import (
    DESCRIBE_TOPIC,
    Authorizer,
    Caller,
    Operation,
    Required,
    ResourceType,
)
from quorate_quorum.node.config import BrokerConfig

T = TypeVar("T")

DESCRIBE: Final = Required(Operation.DESCRIBE, ResourceType.GROUP)
READ: Final = Required(Operation.READ, ResourceType.GROUP)
DELETE: Final = Required(Operation.DELETE, ResourceType.GROUP)
READ_TOPIC: Final = Required(Operation.READ, ResourceType.TOPIC)

GROUP_ID_BYTES_MAX = 249
#: The most groups that one request may name.
GROUPS_MAX = 1_000
#: The most groups whose coordinators are found in one turn of the event loop.
GROUPS_A_TURN = 100
#: How long a call waits until the controller has made __consumer_offsets.
CREATE_TIMEOUT_MS = 5_000
#: The most calls that wait until the controller has made __consumer_offsets.
CREATING_MAX = 10_000


class CoordinatorFound(NamedTuple):
    """The broker that coordinates a group: the leader of the group's partition."""

    broker_id: int
    leader_epoch: int


class Groups:
    """The operations on consumer groups, for all clients of a broker."""

    def __init__(
        self,
        coordinator: Coordinator,
        replicas: Replicas,
        client: QuorumClient,
        config: BrokerConfig,
        authorizer: Authorizer,
    ) -> None:
        self._coordinator = coordinator
        self._replicas = replicas
        self._client = client
        self._config = config
        self._authorizer = authorizer
        self._creating = asyncio.Lock()
        self._waiting = 0

    # -- coordinators

    async def find_coordinators(
        self, principal: Principal, group_ids: Sequence[str], *, caller_timeout_ms: int
    ) -> list[CoordinatorFound | QuorateError]:
        """Return the broker that coordinates each group, or the error, in the order of the ids.

        Makes __consumer_offsets at its first use. Raises InvalidRequestError if there are too many.
        """
        check_named(group_ids)
        caller = Caller(principal, self._authorizer)
        found: list[CoordinatorFound | QuorateError] = []
        for group_id in group_ids:
            try:
                check_group(caller, DESCRIBE, group_id)
                topic = await self._offsets_topic(caller_timeout_ms)
                found.append(_leader(topic, group_id))
            except QuorateError as error:
                found.append(error)
            if len(found) % GROUPS_A_TURN == 0:
                await asyncio.sleep(0)
        return found

    async def _offsets_topic(self, caller_timeout_ms: int) -> TopicImage:
        """Return __consumer_offsets. If it is not there, let the controller make it."""
        topic = self._client.image.topic_named(OFFSETS_TOPIC)
        if topic is not None:
            return topic
        if self._waiting >= CREATING_MAX:
            raise OverloadedError(f"{self._waiting} calls wait for {OFFSETS_TOPIC} already")
        self._waiting += 1
        try:
            async with self._creating:
                if self._client.image.topic_named(OFFSETS_TOPIC) is None:
                    wait_ms = answered_in_time(CREATE_TIMEOUT_MS, caller_timeout_ms)
                    await self._client.create_internal_topic(OFFSETS_TOPIC, timeout_ms=wait_ms)
        except QuorateError as error:
            if not error.retriable:
                raise
            raise CoordinatorNotAvailableError(
                f"{OFFSETS_TOPIC}, which has the groups, is not made yet: {error}"
            ) from error
        finally:
            self._waiting -= 1
        topic = self._client.image.topic_named(OFFSETS_TOPIC)
        if topic is None:
            raise CoordinatorNotAvailableError(f"{OFFSETS_TOPIC} is not seen here yet: ask again")
        return topic

    # -- offsets

    async def commit_offsets(self, principal: Principal, request: CommitOffsets) -> Committed:
        """Commit offsets. Partitions whose topics the caller may not read are refused.

        If a partition occurs twice, its last offset counts. Raises InvalidRequestError if there are
        too many, and the errors of Shard.call and ShardMachine.commit_offsets.
        """
        caller = Caller(principal, self._authorizer)
        check_group(caller, READ, request.group_id)
        self._check_count(len(request.offsets))
        named = {one.partition: one for one in request.offsets}
        refusals = self._refusals(caller, READ_TOPIC, (topic_id for topic_id, _ in named))
        refused = {one: refusals[one[0]] for one in named if one[0] in refusals}
        allowed = [offset for one, offset in named.items() if one not in refused]
        shard = self._coordinator.shard_of(request.group_id)
        for part in group_steps.parts(allowed):
            committed = await shard.call(
                partial(group_steps.commit, replace(request, offsets=part)), writes=True
            )
            refused.update(committed.refused)
            await asyncio.sleep(0)  # a step that writes nothing waits for nothing
        return Committed(refused)

    async def fetch_offsets(
        self, principal: Principal, request: FetchOffsets
    ) -> list[FetchedOffset | QuorateError]:
        """Return committed offsets in the order of the request, or why one is not told.

        If the request names no partitions, those of topics that the caller may not see are left
        out. Raises as commit_offsets, and InvalidRequestError if partitions are named too often.
        """
        caller = Caller(principal, self._authorizer)
        check_group(caller, DESCRIBE, request.group_id)
        shard = self._coordinator.shard_of(request.group_id)
        if request.partitions is None:
            return await self._fetch_all(caller, shard, request)
        self._check_count(len(request.partitions))
        check_repeated("partitions", request.partitions)
        refusals = self._refusals(caller, DESCRIBE_TOPIC, (one[0] for one in request.partitions))
        allowed = [one for one in dict.fromkeys(request.partitions) if one[0] not in refusals]
        fetched: list[FetchedOffset] = []
        for part in group_steps.parts(allowed):
            found = await shard.call(partial(group_steps.fetch, replace(request, partitions=part)))
            fetched.extend(found)
            await asyncio.sleep(0)
        answers = dict(zip(allowed, fetched, strict=True))
        return [refusals.get(one[0]) or answers[one] for one in request.partitions]

    async def _fetch_all(
        self, caller: Caller, shard: Shard, request: FetchOffsets
    ) -> list[FetchedOffset | QuorateError]:
        """Return all that a group has committed: in one step, or some topics in each step."""
        answer = await shard.call(partial(group_steps.fetch_if_small, request))
        if not isinstance(answer, group_steps.Sizes):
            return self._visible(caller, answer)
        found: list[FetchedOffset | QuorateError] = []
        for names in group_steps.parts_by_size(answer.topics):
            part = await shard.call(partial(group_steps.fetch, replace(request, topics=names)))
            found += self._visible(caller, part)
            await asyncio.sleep(0)
        return found

    def _visible(
        self, caller: Caller, found: Sequence[FetchedOffset]
    ) -> list[FetchedOffset | QuorateError]:
        """Return the offsets of topics that the caller may see."""
        hidden = self._refusals(caller, DESCRIBE_TOPIC, (one.partition[0] for one in found))
        return [one for one in found if one.partition[0] not in hidden]

    # -- administration

    async def list_groups(
        self, principal: Principal
    ) -> tuple[list[ListedGroup], QuorateError | None]:
        """Return the groups of this broker that the caller may describe.

        The error says that some partition cannot answer now, so its groups are missing.
        """
        caller = Caller(principal, self._authorizer)
        sees_all = caller.may(DESCRIBE)
        found: list[ListedGroup] = []
        error: QuorateError | None = None
        for shard in self._coordinator.shards:
            try:
                listed = await shard.call(group_steps.list_groups)
            except (CoordinatorLoadingError, CoordinatorNotAvailableError, OverloadedError) as why:
                error = why
                continue
            for first in range(0, len(listed), GROUPS_MAX):
                part = listed[first : first + GROUPS_MAX]
                found += [one for one in part if sees_all or caller.may(DESCRIBE, one.group_id)]
                await asyncio.sleep(0)
        return found, error

    async def describe_groups(
        self, principal: Principal, group_ids: Sequence[str]
    ) -> list[DescribedGroup | QuorateError]:
        """Return each group, or the error, in the order of the ids.

        A classic group is told as far as it can be read: its members' bytes are their own matter.
        """
        topics = ImageTopics(self._replicas.image)
        return [
            in_words(one, topics) if isinstance(one, DescribedClassicGroup) else one
            for one in await self.describe_groups_raw(principal, group_ids)
        ]

    async def describe_groups_raw(
        self, principal: Principal, group_ids: Sequence[str]
    ) -> list[DescribedGroup | DescribedClassicGroup | QuorateError]:
        """Return each group as its protocol has it, or the error, in the order of the ids."""
        return await self._each(principal, DESCRIBE, group_ids, _described)

    async def delete_groups(
        self, principal: Principal, group_ids: Sequence[str]
    ) -> list[QuorateError | None]:
        """Delete groups that have no members, with their offsets. Return the error of each."""
        return await self._each(principal, DELETE, group_ids, _deleted)

    async def remove_members(self, principal: Principal, request: RemoveMembers) -> tuple[str, ...]:
        """Remove members of a group. Return the ids of those that were removed."""
        check_group(Caller(principal, self._authorizer), READ, request.group_id)
        self._check_count(len(request.member_ids) + len(request.instance_ids))
        shard = self._coordinator.shard_of(request.group_id)
        return await shard.call(
            lambda machine, now_ms, wall_ms: machine.remove_members(request, now_ms, wall_ms),
            writes=True,
        )

    async def _each(
        self,
        principal: Principal,
        required: Required,
        group_ids: Sequence[str],
        ask: Callable[[Shard, str], Awaitable[T]],
    ) -> list[T | QuorateError]:
        """Ask for each group on its own, once. One group's error does not concern the others."""
        check_named(group_ids)
        caller = Caller(principal, self._authorizer)
        found: dict[str, T | QuorateError] = {}
        for group_id in dict.fromkeys(group_ids):
            try:
                check_group(caller, required, group_id)
                shard = self._coordinator.shard_of(group_id)
                found[group_id] = await ask(shard, group_id)
            except QuorateError as error:
                found[group_id] = error
            await asyncio.sleep(0)
        return [found[group_id] for group_id in group_ids]

    # -- checks

    def _check_count(self, named: int) -> None:
        most = self._config.request_partitions_max
        if named > most:
            raise InvalidRequestError(
                f"a request names {named} partitions or members; {most} are allowed: ask in parts"
            )

    def _refusals(
        self, caller: Caller, required: Required, topic_ids: Iterable[bytes]
    ) -> dict[bytes, QuorateError]:
        """Return the error for each topic that the caller may not use.

        A topic that does not exist is left to the machine.
        """
        refusals: dict[bytes, QuorateError] = {}
        for topic_id in dict.fromkeys(topic_ids):
            topic = self._replicas.image.topics.get(topic_id)
            if topic is not None:
                error = caller.refusal_by_id(required, topic.name, topic_id)
                if error is not None:
                    refusals[topic_id] = error
        return refusals


def check_group(caller: Caller, required: Required, group_id: str) -> None:
    """Raise the error if the caller may not use the group, or there can be no such group."""
    caller.check(required, group_id)
    if not 0 < len(group_id.encode()) <= GROUP_ID_BYTES_MAX:
        raise InvalidGroupIdError(
            f"a group id has 1 to {GROUP_ID_BYTES_MAX} bytes of UTF-8, not {len(group_id.encode())}"
        )


def check_named(group_ids: Sequence[str]) -> None:
    """Raise InvalidRequestError if there are too many, or too many that were named before."""
    if len(group_ids) > GROUPS_MAX:
        raise InvalidRequestError(
            f"a request names {len(group_ids)} groups; {GROUPS_MAX} are allowed"
        )
    check_repeated("groups", group_ids)


def _leader(topic: TopicImage, group_id: str) -> CoordinatorFound:
    index = partition_of(group_id, len(topic.partitions))
    state = topic.partitions[index]
    if state.leader < 0:
        raise CoordinatorNotAvailableError(
            f"{OFFSETS_TOPIC}-{index}, which has group {group_id!r}, has no leader now"
        )
    return CoordinatorFound(state.leader, state.leader_epoch)


async def _described(shard: Shard, group_id: str) -> DescribedGroup | DescribedClassicGroup:
    return await shard.call(partial(group_steps.describe, group_id))


async def _deleted(shard: Shard, group_id: str) -> None:
    """Delete a group. Its offsets may be too many for one step; then the shard goes on itself."""
    if await shard.call(partial(group_steps.delete, group_id), writes=True):
        return
    with suppress(GroupNotFoundError):
        while not await shard.call(partial(group_steps.delete, group_id), writes=True):
            pass
