"""A group of the consumer protocol (KIP-848): who commits and reads offsets; how it is told."""

from __future__ import annotations

from quorate.errors import (
    FencedMemberEpochError,
    IllegalGenerationError,
    NonEmptyGroupError,
    QuorateError,
    RebalanceInProgressError,
    StaleMemberEpochError,
    UnknownMemberIdError,
)
from quorate_broker.groups.machine.administration import described, listed
from quorate_broker.groups.machine.group import Group
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import (
    CommitOffsets,
    DescribedGroup,
    FetchOffsets,
    ListedGroup,
)
from quorate_broker.groups.records.values import Partition


class ConsumerRules:
    """What the epochs of members and partitions say of a commit (see offsets.Rules)."""

    def __init__(self, group: Group) -> None:
        self.group = group

    @property
    def member_count(self) -> int:
        """How many members the group has."""
        return len(self.group.state.members)

    @property
    def empty_since_ms(self) -> int | None:
        """When the last member went (ms since 1970). None: the group is not empty.

        The time of the target says it, unless that target is still to come (KAFKA-13636).
        """
        state = self.group.state
        if state.members or state.target.epoch < state.epoch:
            return None
        return state.target.timestamp_ms

    def check_committer(self, request: CommitOffsets, turn: Turn) -> None:
        """Refuse a caller that may commit nothing at all."""
        group = self.group
        if request.member_id:
            self._check_member(request.member_id)
            epoch = group.state.current_of(request.member_id).epoch
            if self._is_classic(request.member_id) and request.member_epoch != epoch:
                raise IllegalGenerationError(
                    f"member {request.member_id!r} sent the generation {request.member_epoch}; its "
                    f"epoch in group {group.id!r} is {epoch}"
                )
            if request.member_epoch > epoch:
                raise FencedMemberEpochError(
                    f"member {request.member_id!r} of group {group.id!r} sent the epoch "
                    f"{request.member_epoch}; its epoch is {epoch}"
                )
        elif group.state.members and not request.only_forgets:
            raise NonEmptyGroupError(
                f"group {group.id!r} has {len(group.state.members)} members; only they may commit. "
                "Without a member id offsets are committed while the group has no members."
            )

    def read_topics(self) -> frozenset[str]:
        """Return the names of the topics to which members subscribe."""
        return frozenset(self.group.topic_names())

    def refusal(self, request: CommitOffsets, partition: Partition) -> QuorateError | None:
        """Only the member that has a partition commits for it, in an epoch since it has it.

        A late commit of a member that gave the partition back, and perhaps got it again, would undo
        what the member in between has committed (KIP-1251).
        """
        group = self.group
        current = group.state.current_of(request.member_id)
        since = current.assigned.get(partition, current.revoking.get(partition))
        if since is not None and since <= request.member_epoch:
            return None
        if self._is_classic(request.member_id):
            return RebalanceInProgressError(
                f"partition {partition[1]} of topic id {partition[0].hex()} does not belong to "
                f"member {request.member_id!r}, or not any more"
            )
        what = f"member {request.member_id!r} of group {group.id!r} sent the epoch"
        if request.member_epoch < current.epoch:
            return StaleMemberEpochError(
                f"{what} {request.member_epoch}; its epoch is {current.epoch}"
            )
        return FencedMemberEpochError(
            f"{what} {request.member_epoch}, but partition {partition[1]} of topic id "
            f"{partition[0].hex()} is not its own"
        )

    def check_reader(self, request: FetchOffsets) -> None:
        """Refuse a member whose epoch is not the present one."""
        if not request.member_id:
            return
        self._check_member(request.member_id)
        epoch = self.group.state.current_of(request.member_id).epoch
        if request.member_epoch != epoch:
            error = (
                StaleMemberEpochError if request.member_epoch < epoch else FencedMemberEpochError
            )
            raise error(
                f"member {request.member_id!r} of group {self.group.id!r} sent the epoch "
                f"{request.member_epoch}; its epoch is {epoch}"
            )

    def _is_classic(self, member_id: str) -> bool:
        return self.group.state.members[member_id].classic is not None

    def _check_member(self, member_id: str) -> None:
        if member_id not in self.group.state.members:
            raise UnknownMemberIdError(f"group {self.group.id!r} has no member {member_id!r}")

    def postpone(self, by_ms: int) -> None:
        """The coordinator stood still for so long; what members sent meanwhile waits unread."""
        for session in self.group.sessions.values():
            session.postpone(by_ms)

    # Administration.

    def listed(self) -> ListedGroup:
        """Return the group as it stands in a list."""
        return listed(self.group.state)

    def described(self) -> DescribedGroup:
        """Return all about the group."""
        return described(self.group)
