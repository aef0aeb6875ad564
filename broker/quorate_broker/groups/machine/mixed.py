"""Classic members of a group of the consumer protocol: their requests are heartbeats (KIP-848).

JoinGroup says what the member subscribes to, and what it has. Its answer has the member's epoch as
the generation, SyncGroup the member's partitions. No member leads, and nothing waits. A member that
must give back or may take learns from its heartbeat that it must join again.
"""

from __future__ import annotations

from quorate.errors import (
    CorruptRecordError,
    FencedMemberEpochError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    InvalidRequestError,
    OverloadedError,
    QuorateError,
    RebalanceInProgressError,
    RecordTooLargeError,
)
from quorate_broker.groups.machine.classic.embedded import (
    CONSUMER,
    Embedded,
    assignment_bytes,
    known,
    read_subscription,
)
from quorate_broker.groups.machine.classic.values import (
    Joined,
    JoinGroup,
    Leaving,
    MemberIdRequired,
    MemberRequest,
    Synced,
    SyncGroup,
)
from quorate_broker.groups.machine.consumer_members import UNTOLD, member_value
from quorate_broker.groups.machine.consumer_protocol import ConsumerProtocol
from quorate_broker.groups.machine.session import Session
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import JOIN, Heartbeat
from quorate_broker.groups.records.values import (
    UNRELEASED_PARTITIONS,
    UNREVOKED_PARTITIONS,
    ClassicMetadata,
    CurrentValue,
)


class MixedMembers:
    """The classic members of one group of the consumer protocol."""

    def __init__(self, protocol: ConsumerProtocol) -> None:
        self._protocol = protocol
        self._group = protocol.group

    def join(self, request: JoinGroup, ticket: int, turn: Turn) -> Joined | MemberIdRequired:
        """Take a JoinGroup, which is answered at once."""
        subscription = self._subscription(request)
        if not request.member_id:
            if request.instance_id is None and request.is_id_required:
                return MemberIdRequired(request.new_member_id)
        elif request.instance_id is not None or subscription.owned:
            # A member that was removed and does not know it must give up what it has.
            self._protocol.known(request.member_id, request.instance_id, is_classic=True)
        heartbeat = self._heartbeat(request, subscription)
        self._check_room(heartbeat)
        told = self._protocol.heartbeat(heartbeat, turn)
        if isinstance(told, QuorateError):
            raise told
        unseen = self._group.unseen.get(heartbeat.member_id, frozenset())
        self._group.set_unseen(heartbeat.member_id, unseen & subscription.owned)
        session = self._group.sessions[heartbeat.member_id]
        self._wait(heartbeat.member_id, session, turn)
        name, _ = request.protocols[0]
        return Joined(told.member_epoch, CONSUMER, name, "", heartbeat.member_id)

    def _heartbeat(self, request: JoinGroup, subscription: Embedded) -> Heartbeat:
        """Return what a JoinGroup says. A member that is not known has nothing."""
        state = self._group.state
        member_id = request.member_id or request.new_member_id
        epoch = state.current_of(member_id).epoch if member_id in state.members else JOIN
        owned = known(subscription.owned, self._group.shared.subscriptions.topics)
        return Heartbeat(
            request.group_id,
            member_id,
            epoch,
            instance_id=request.instance_id,
            rack=subscription.rack,
            client_id=request.client_id,
            client_host=request.client_host,
            rebalance_timeout_ms=request.rebalance_timeout_ms,
            topics=subscription.topics,
            owned=frozenset() if epoch == JOIN else owned,
            classic=ClassicMetadata(request.session_timeout_ms, request.protocols),
            conversation=request.conversation,
        )

    def _subscription(self, request: JoinGroup) -> Embedded:
        """Return what a member subscribes to. Raises InconsistentGroupProtocolError."""
        if request.protocol_type != CONSUMER or not request.protocols:
            raise InconsistentGroupProtocolError(
                f"group {self._group.id!r} has consumers; this member is of type "
                f"{request.protocol_type!r}, with {len(request.protocols)} protocols"
            )
        names = {name for name, _ in request.protocols}
        others = [
            {name for name, _ in value.classic.protocols}
            for member_id, value in self._group.state.members.items()
            if value.classic is not None and member_id != request.member_id
        ]
        if not names.intersection(*others):
            raise InconsistentGroupProtocolError(
                f"no protocol of {sorted(names)[:10]} is supported by all classic members of group "
                f"{self._group.id!r}"
            )
        try:
            subscription = read_subscription(request.protocols[0][1])
        except CorruptRecordError as error:
            raise InconsistentGroupProtocolError(
                f"group {self._group.id!r} has members of the consumer protocol, which cannot be "
                f"with a member of this subscription: {error}"
            ) from error
        most = self._group.shared.config.subscription_topics_max
        if len(subscription.topics) > most:
            raise InvalidRequestError(
                f"the subscription names {len(subscription.topics)} topics; allowed are {most}"
            )
        return subscription

    def _check_room(self, heartbeat: Heartbeat) -> None:
        """Raise the error if what classic members told is too much."""
        config, members = self._group.shared.config, self._group.state.members
        size = member_value(heartbeat, UNTOLD).classic_bytes
        old = members.get(heartbeat.member_id, UNTOLD).classic_bytes
        group_size = size - old + sum(value.classic_bytes for value in members.values())
        if group_size > config.classic_group_bytes_max:
            raise RecordTooLargeError(
                f"the classic members of group {self._group.id!r} would have told "
                f"{group_size} bytes; {config.classic_group_bytes_max} are allowed"
            )
        total = self._group.shared.classic_bytes.total
        if total + size - old > config.classic_shard_bytes_max:
            raise OverloadedError(
                f"the classic members of this coordinator have told {total} bytes; "
                f"{config.classic_shard_bytes_max} are allowed"
            )

    def _wait(self, member_id: str, session: Session, turn: Turn) -> None:
        """The member must do the next thing within its rebalance timeout."""
        session.settle_by_ms = turn.now_ms + session.rebalance_timeout_ms
        self._group.watch(member_id)

    def sync(self, request: SyncGroup, ticket: int, turn: Turn) -> Synced:
        """Take a SyncGroup, and return what the member shall have now."""
        current = self._of_generation(request)
        session = self._group.sessions[request.member_id]
        classic = self._group.state.members[request.member_id].classic
        assert classic is not None, "checked above"
        protocol, _ = classic.protocols[0]
        for given, own in ((request.protocol_type, CONSUMER), (request.protocol, protocol)):
            if given is not None and given != own:
                raise InconsistentGroupProtocolError(
                    f"member {request.member_id!r} names {given!r}; it was told {own!r}"
                )
        session.renew(turn.now_ms)
        must_give_back = current.state == UNREVOKED_PARTITIONS
        if not must_give_back and current.epoch < self._group.state.target.epoch:
            raise self._in_progress()
        if not must_give_back:
            session.settle_by_ms = None
        topics = self._group.shared.subscriptions.topics
        return Synced(CONSUMER, protocol, assignment_bytes([*current.assigned], topics))

    def heartbeat(self, request: MemberRequest, turn: Turn) -> None:
        """Take a heartbeat. Raises RebalanceInProgressError if the member must join again."""
        current = self._of_generation(request)
        session = self._group.sessions[request.member_id]
        session.renew(turn.now_ms)
        if not self._must_join(request.member_id, current):
            session.settle_by_ms = None
            return
        if session.settle_by_ms is None:
            self._wait(request.member_id, session, turn)
        raise self._in_progress()

    def _must_join(self, member_id: str, current: CurrentValue) -> bool:
        """Return whether the member must give back, or may get more."""
        state = self._group.state
        if current.state == UNREVOKED_PARTITIONS or current.epoch < state.target.epoch:
            return True
        missing = state.target_of(member_id).difference(current.assigned)
        return current.state == UNRELEASED_PARTITIONS and all(
            state.holders.get(one, member_id) == member_id for one in missing
        )

    def leave(self, leaving: Leaving, turn: Turn) -> None:
        """Take one member out, which asked for it or whose administrator did.

        It may be one of the consumer protocol: Kafka's admin clients have no other request for it.
        """
        member_id, instance_id = leaving
        members, reason = self._group.state.members, None
        if instance_id is not None and not member_id:
            member_id = self._group.state.instances.get(instance_id, "")
        is_classic = member_id not in members or members[member_id].classic is not None
        self._protocol.known(member_id, instance_id, is_classic=is_classic)
        if not is_classic:
            reason = FencedMemberEpochError(
                f"LeaveGroup removed member {member_id!r} from group {self._group.id!r}"
            )
        self._protocol.remove(member_id, turn, reason)
        self._protocol.settle(turn)

    def _of_generation(self, request: MemberRequest) -> CurrentValue:
        """Return what the member has. Raises IllegalGenerationError if it missed something."""
        self._protocol.known(request.member_id, request.instance_id, is_classic=True)
        current = self._group.state.current_of(request.member_id)
        if request.generation != current.epoch:
            raise IllegalGenerationError(
                f"member {request.member_id!r} sent the generation {request.generation}; its epoch "
                f"in group {self._group.id!r} is {current.epoch}"
            )
        return current

    def _in_progress(self) -> RebalanceInProgressError:
        return RebalanceInProgressError(
            f"the partitions of group {self._group.id!r} move: join again"
        )
