"""Commits offsets of a group at its coordinator, and asks for committed offsets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from quorate.aio.clock import Deadline
from quorate.cluster.coordinators import Coordinators
from quorate.cluster.parts import Part, to_wire
from quorate.errors import (
    FencedMemberEpochError,
    QuorateError,
    StaleMemberEpochError,
    from_wire,
)
from quorate.model import CommittedOffset, OffsetAndMetadata
from quorate.net.methods import COMMIT_OFFSETS, FETCH_OFFSETS
from quorate.v1.common_pb2 import Error, ErrorCode, LeaderHint
from quorate.v1.groups_pb2 import (
    CommitOffsetsRequest,
    CommitOffsetsResponse,
    FetchOffsetsRequest,
    FetchOffsetsResponse,
)

#: The most partitions in one request, and the most characters of metadata.
PARTITIONS_MAX = 1000
METADATA_CHARS_MAX = 100_000
#: The epoch of a caller that is no member.
NO_MEMBER = -1


@dataclass(slots=True)
class Committer:
    """The member that commits; an empty id: no member. The owner keeps the epoch up to date."""

    member_id: str = ""
    epoch: int = NO_MEMBER


class GroupOffsets:
    """The committed offsets of one group. Commits are carried out one after another."""

    def __init__(self, coordinators: Coordinators, group_id: str) -> None:
        self._coordinators = coordinators
        self._group_id = group_id
        self._turn = asyncio.Lock()

    async def commit(
        self, offsets: Mapping[Part, OffsetAndMetadata], committer: Committer, deadline: Deadline
    ) -> None:
        """Commit these offsets. Raise the first refusal after all were tried.

        The epoch that the committer has now goes with every try: with a newer one, a try that comes
        late could undo what another member has committed meanwhile.

        Raises NotMemberError if the committer is no member (any more), or has not had a partition
        all the time; NonEmptyGroupError if it is no member and the group has some,
        RequestTimedOutError.
        """
        sender, refused = replace(committer), None
        async with self._turn:
            for part in _portions(offsets):
                refused = await self._commit(part, sender, deadline) or refused
        if refused is not None:
            raise refused

    async def _commit(
        self, offsets: Mapping[Part, OffsetAndMetadata], committer: Committer, deadline: Deadline
    ) -> QuorateError | None:
        response = await self._coordinators.call(
            self._group_id,
            COMMIT_OFFSETS,
            partial(_commit_request, self._group_id, offsets, committer),
            _outcome,
            deadline,
        )
        errors = [one.error for topic in response.topics for one in topic.partitions]
        bad = next((one for one in errors if one.code != ErrorCode.ERROR_CODE_NONE), None)
        return None if bad is None else _refusal(from_wire(bad))

    async def fetch(
        self, parts: Collection[Part], deadline: Deadline
    ) -> dict[Part, CommittedOffset]:
        """Return what is committed for these partitions. Others are left out."""
        found: dict[Part, CommittedOffset] = {}
        async for response in self._answers(parts, deadline):
            found.update(_offsets(response)[0])
        return found

    async def fetch_first_counts(
        self, parts: Collection[Part], deadline: Deadline
    ) -> dict[bytes, int]:
        """Return how many partitions topics had when the group first committed one of `parts`.

        By topic id. A topic of which the group has committed none of `parts` is left out.
        """
        counts: dict[bytes, int] = {}
        async for response in self._answers(parts, deadline):
            for topic in response.topics:
                for one in topic.partitions:
                    count = one.partitions_at_first_commit
                    if count:
                        counts[topic.topic_id] = min(count, counts.get(topic.topic_id, count))
        return counts

    async def _answers(
        self, parts: Collection[Part], deadline: Deadline
    ) -> AsyncIterator[FetchOffsetsResponse]:
        listed = sorted(parts)
        for first in range(0, len(listed), PARTITIONS_MAX):
            topics = to_wire(listed[first : first + PARTITIONS_MAX]).topics
            request = partial(
                FetchOffsetsRequest,
                group_id=self._group_id,
                member_epoch=NO_MEMBER,
                topics=topics,
            )
            yield await self._fetch(request, deadline)

    async def fetch_all(
        self, deadline: Deadline
    ) -> tuple[dict[Part, CommittedOffset], dict[bytes, str]]:
        """Return all that the group has committed, and the names of the topics."""
        request = partial(
            FetchOffsetsRequest, group_id=self._group_id, member_epoch=NO_MEMBER, all=True
        )
        return _offsets(await self._fetch(request, deadline))

    async def _fetch(
        self, request: Callable[[], FetchOffsetsRequest], deadline: Deadline
    ) -> FetchOffsetsResponse:
        return await self._coordinators.call(
            self._group_id, FETCH_OFFSETS, request, _outcome, deadline
        )


def _offsets(
    response: FetchOffsetsResponse,
) -> tuple[dict[Part, CommittedOffset], dict[bytes, str]]:
    found = {
        Part(topic.topic_id, one.partition): CommittedOffset(
            one.offset, one.metadata, one.leader_epoch, one.committed_at_ms
        )
        for topic in response.topics
        for one in topic.partitions
        if one.error.code == ErrorCode.ERROR_CODE_NONE and one.offset >= 0
    }
    return found, {topic.topic_id: topic.name for topic in response.topics}


def _refusal(error: QuorateError) -> QuorateError:
    """Return why an offset was refused, as the application is told."""
    if not isinstance(error, StaleMemberEpochError):
        return error
    return FencedMemberEpochError(
        f"the group gave the partition to another member while this commit was on its way: {error}"
    )


def _outcome(
    response: CommitOffsetsResponse | FetchOffsetsResponse,
) -> tuple[Error, LeaderHint | None]:
    return response.error, response.coordinator if response.HasField("coordinator") else None


def _commit_request(
    group_id: str, offsets: Mapping[Part, OffsetAndMetadata], committer: Committer
) -> CommitOffsetsRequest:
    request = CommitOffsetsRequest(
        group_id=group_id, member_id=committer.member_id, member_epoch=committer.epoch
    )
    topic = None
    for part, value in sorted(offsets.items()):
        if topic is None or topic.topic_id != part.topic_id:
            topic = request.topics.add(topic_id=part.topic_id)
        topic.partitions.add(
            partition=part.partition,
            offset=value.offset,
            leader_epoch=value.leader_epoch,
            metadata=value.metadata,
        )
    return request


def _portions(
    offsets: Mapping[Part, OffsetAndMetadata],
) -> Iterator[Mapping[Part, OffsetAndMetadata]]:
    """Yield the offsets in portions that fit into one request."""
    portion: dict[Part, OffsetAndMetadata] = {}
    chars = 0
    for part, value in offsets.items():
        chars += len(value.metadata)
        if portion and (len(portion) >= PARTITIONS_MAX or chars > METADATA_CHARS_MAX):
            yield portion
            portion, chars = {}, len(value.metadata)
        portion[part] = value
    if portion:
        yield portion
