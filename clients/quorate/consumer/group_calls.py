"""The calls of a consumer that need a group, and the group's part in all others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal, overload
from uuid import UUID

from quorate.cluster.cluster import Cluster
from quorate.cluster.committed_offset import CommittedOffsetRule
from quorate.cluster.parts import Part
from quorate.consumer.fetcher import Fetcher
from quorate.consumer.group.group import ConsumerGroup, GroupConfig
from quorate.consumer.group_assignment import GroupAssignment
from quorate.consumer.partition_state import PartitionState, Reset
from quorate.consumer.positions import ConsumerPositions
from quorate.consumer.subscription import Change
from quorate.errors import InvalidRequestError
from quorate.model import OffsetAndMetadata, TopicPartition
from quorate.settings import ByPartition, Flag, Partition, checked


class ConsumerGroupCalls(ConsumerPositions):
    """The part of a consumer that knows of its group. Without a group_id it has none."""

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        client_id: str,
        policy: Reset,
        group_id: str | None,
    ) -> None:
        super().__init__(bootstrap_servers, client_id, policy)
        self._group_id = group_id
        self._group: ConsumerGroup | None = None
        #: Set by the constructor of Consumer.
        self._group_config: GroupConfig
        if group_id is not None:
            self._assignment = GroupAssignment(self._subscription, self._assigned)

    @checked
    async def commit(
        self,
        offsets: Annotated[
            Mapping[TopicPartition, int | tuple[int, str] | OffsetAndMetadata] | None,
            ByPartition(CommittedOffsetRule()),
        ] = None,
    ) -> None:
        """Commit offsets for the group; None: the positions in all assigned partitions.

        An offset is that of the next record to read: one more than that of the last record that is
        done. It may come with a text (OffsetAndMetadata). None takes all records for done that the
        program was given, also those that its other tasks still work on.

        The call waits until the offsets are replicated. It may be repeated. Raises NotMemberError
        if the group has removed this consumer: others read its partitions, from the last committed
        offset on. Raises NonEmptyGroupError after assign() if the group has members,
        OffsetMetadataTooLargeError, InvalidRequestError for a partition that is not assigned, or
        RequestTimedOutError.
        """
        group = self._running_group()
        if offsets is not None:
            for key in offsets:
                self._state(key)
        await group.commit(offsets)  # type: ignore[arg-type]

    @overload
    async def committed(
        self, partition: TopicPartition, metadata: Literal[False] = False
    ) -> int | None: ...
    @overload
    async def committed(
        self, partition: TopicPartition, metadata: Literal[True]
    ) -> OffsetAndMetadata | None: ...
    @checked
    async def committed(
        self,
        partition: Annotated[TopicPartition, Partition()],
        metadata: Annotated[bool, Flag("return the text, too")] = False,
    ) -> int | OffsetAndMetadata | None:
        """Return the offset that the group has committed for a partition; None: nothing.

        With `metadata`, return it as an OffsetAndMetadata. The partition need not be assigned.
        Raises UnknownTopicError, RequestTimedOutError.
        """
        group = self._running_group()
        topic = await self._running().topic(partition.topic)
        found = await group.committed(Part(topic.topic_id, partition.partition))
        return found if metadata or found is None else found.offset

    def _join(
        self, cluster: Cluster, fetcher: Fetcher, assignment: GroupAssignment
    ) -> ConsumerGroup:
        config = self._group_config
        member_id = str(UUID(bytes=cluster.chance.randbytes(16), version=4))
        self._group = group = ConsumerGroup(
            replace(config, member=replace(config.member, member_id=member_id)),
            cluster,
            fetcher,
            self._subscription,
            listener=lambda: assignment.listener,
            told=self._tell,
        )
        group.start()
        assignment.join(cluster, group)
        return group

    def _tell(self, error: Exception) -> None:
        """Let the next read raise an error of the application's listener or assignor."""
        assert isinstance(self._assignment, GroupAssignment)
        self._assignment.tell(error)
        if self._fetcher is not None:
            self._fetcher.arrived.ring()

    def _running_group(self) -> ConsumerGroup:
        self._owner.check_alive()
        self._check_not_closed()
        if self._group_id is None:
            raise InvalidRequestError(
                "this consumer has no group: give it a group_id to commit offsets"
            )
        if self._group is None or self._cluster is None:
            raise self._not_running_error()
        return self._group

    # -- the group's part in other calls -----------------------------------------------------------

    def _assigned(self, change: Change) -> None:
        group = self._group
        if group is None:
            super()._assigned(change)
            return
        group.commits.forget(change.removed)
        for state in change.added:
            state.is_placing = True
        super()._assigned(change)
        group.assigned(change.added)

    async def _settle(self, states: Collection[PartitionState]) -> None:
        if self._group is not None:
            await self._group.placement.placed(states)
        await super()._settle(states)

    async def _settle_all(self) -> None:
        if self._group is not None:
            await self._assignment.known()
            await self._group.settled()
        await super()._settle_all()

    def _moved(self, state: PartitionState) -> None:
        if self._group is not None:
            self._group.commits.hands.forget([state.topic_partition])
        super()._moved(state)
