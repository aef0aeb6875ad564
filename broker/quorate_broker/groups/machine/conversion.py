"""A group changes its protocol under its members (KIP-848).

A group of consumers of the classic protocol becomes one of the consumer protocol when the first
such member joins. Its classic members stay (mixed.py), with what they have. It becomes a classic
group again when only classic members are left.
"""

from __future__ import annotations

from typing import Final

from quorate.errors import CorruptRecordError, InconsistentGroupProtocolError
from quorate_broker.groups.machine.classic.embedded import (
    CONSUMER,
    assignment_bytes,
    known,
    read_assignment,
    read_subscription,
    unknown,
)
from quorate_broker.groups.machine.classic.member import Member
from quorate_broker.groups.machine.classic.protocol import ClassicProtocol
from quorate_broker.groups.machine.consumer_protocol import ConsumerProtocol
from quorate_broker.groups.machine.group import Group
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.records.keys import (
    CurrentKey,
    GroupKey,
    MemberKey,
    TargetKey,
    TargetMemberKey,
)
from quorate_broker.groups.records.values import (
    STABLE,
    ClassicMetadata,
    CurrentValue,
    GroupValue,
    MemberValue,
    TargetMemberValue,
    TargetValue,
)

#: The most bytes of the classic members of a group that is converted. About twice as many are
#: written, in one batch and in one turn of the event loop.
CONVERTED_BYTES_MAX: Final = 2 << 20
#: The most partitions of its members that the coordinator does not see (Group.unseen).
UNSEEN_MAX: Final = 10_000


def to_consumer(classic: ClassicProtocol, turn: Turn) -> ConsumerProtocol:
    """Return a classic group as one of the consumer protocol.

    Its members have what the leader of the last generation gave them, in the epoch of that
    generation. Raises InconsistentGroupProtocolError if that cannot be: nothing is changed then.
    """
    group = classic.group
    topics = group.shared.subscriptions.topics
    values = [_member_of(member, group) for member in classic.members]
    shares = _shares(classic)
    unseen = {member_id: unknown(share, topics) for member_id, share in shares.items()}
    if sum(map(len, unseen.values())) > UNSEEN_MAX:
        raise _refused(group, f"they have more than {UNSEEN_MAX} partitions that do not exist")
    if classic.size > CONVERTED_BYTES_MAX:
        raise _refused(
            group,
            f"they have {classic.size} bytes of metadata and assignments, and "
            f"{CONVERTED_BYTES_MAX} are allowed, because all are written again at once",
        )
    if classic.protocol_type != CONSUMER and values:
        raise _refused(group, f"its members are of type {classic.protocol_type!r}")
    epoch = max(classic.generation, 1)
    members = classic.dissolve(turn)
    state = group.state
    for member, value in zip(members, values, strict=True):
        share = known(shares[member.member_id], topics)
        group.set_unseen(member.member_id, unseen[member.member_id])
        turn.write(state, MemberKey(group.id, member.member_id), value)
        key = TargetMemberKey(group.id, member.member_id)
        turn.write(state, key, TargetMemberValue(share))
        current = CurrentValue(epoch, epoch, STABLE, dict.fromkeys(sorted(share), epoch))
        turn.write(state, CurrentKey(group.id, member.member_id), current)
    turn.write(state, GroupKey(group.id), GroupValue(epoch))
    turn.write(state, TargetKey(group.id), TargetValue(epoch, turn.wall_ms))
    group.open(turn.now_ms)
    return ConsumerProtocol(group)


def _member_of(member: Member, group: Group) -> MemberValue:
    try:
        subscription = read_subscription(member.protocols[0][1])
    except CorruptRecordError as error:
        raise _refused(group, f"of member {member.member_id!r}, {error}") from error
    return MemberValue(
        member.instance_id,
        subscription.rack or None,
        member.client_id,
        member.client_host,
        tuple(sorted(subscription.topics)),
        None,
        member.rebalance_timeout_ms,
        None,
        classic=ClassicMetadata(member.session_timeout_ms, member.protocols),
    )


def _shares(classic: ClassicProtocol) -> dict[str, frozenset[tuple[str, int]]]:
    """Return what each member has. A partition that two members have cannot be taken over.

    A cooperative member has, until it joins again, what it had when it joined the last time, though
    its assignment does not name it any more. The leader gives that to no other member.
    """
    shares: dict[str, frozenset[tuple[str, int]]] = {}
    given: set[tuple[str, int]] = set()
    for member in classic.members:
        try:
            share = read_assignment(member.assignment)
        except CorruptRecordError as error:
            raise _refused(classic.group, f"of member {member.member_id!r}, {error}") from error
        if given & share:
            raise _refused(classic.group, "its leader gave a partition to two members")
        given |= share
        shares[member.member_id] = share
    for member in classic.members:
        kept = read_subscription(member.protocols[0][1]).owned - given
        given |= kept
        shares[member.member_id] |= kept
    return shares


def _refused(group: Group, why: str) -> InconsistentGroupProtocolError:
    return InconsistentGroupProtocolError(
        f"group {group.id!r} has classic members, and cannot take members of the consumer "
        f"protocol: {why}. Stop its members first, or use another group."
    )


def to_classic(consumer: ConsumerProtocol, turn: Turn) -> ClassicProtocol | None:
    """Return a group as a classic one, whose members join its next generation.

    None: it has members of the consumer protocol, or no members, or they cannot agree.
    """
    group = consumer.group
    if not group.classic_count or group.classic_count < consumer.member_count:
        return None
    members = [_classic_of(group, member_id, turn.now_ms) for member_id in group.state.members]
    if (
        not set[str]()
        .union(dict(members[0].protocols))
        .intersection(*(dict(one.protocols) for one in members))
    ):
        return None
    epochs = [group.state.current_of(one.member_id).epoch for one in members]
    for member in members:
        group.remove_member(member.member_id, turn)
    classic = ClassicProtocol(group, None, turn.now_ms)
    classic.begin_with(members, max(epochs), CONSUMER, turn)
    return classic


def _classic_of(group: Group, member_id: str, now_ms: int) -> Member:
    value, current = group.state.members[member_id], group.state.current_of(member_id)
    assert value.classic is not None, "checked by the caller"
    share = [*current.assigned, *current.revoking]
    session = group.sessions[member_id]
    return Member(
        member_id,
        value.instance_id,
        value.client_id,
        value.client_host,
        session.rebalance_timeout_ms,
        value.classic.session_timeout_ms,
        value.classic.protocols,
        now_ms + value.classic.session_timeout_ms,
        assignment=assignment_bytes(share, group.shared.subscriptions.topics),
    )
