"""One group: its records, its members' sessions and subscriptions, and its committed offsets.

This is what every protocol of membership shares. How members come to their partitions is the
matter of a protocol object (consumer_protocol.py, classic/protocol.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from typing import NamedTuple

from quorate.errors import QuorateError
from quorate.net.principal import Principal
from quorate_broker.groups.machine.config import GroupsConfig
from quorate_broker.groups.machine.session import Session
from quorate_broker.groups.machine.state import AWAY_EPOCH, GroupState
from quorate_broker.groups.machine.subscriptions import Subscriptions, View
from quorate_broker.groups.machine.timers import Timers
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import Push
from quorate_broker.groups.records.keys import (
    ClassicKey,
    CurrentKey,
    GroupKey,
    MemberKey,
    OffsetKey,
    TargetKey,
    TargetMemberKey,
)
from quorate_broker.groups.records.values import MemberValue

#: What a timer is for: a group as a whole, or a member of it.
TimerName = tuple[str, str | None]


@dataclass(slots=True)
class Tally:
    """A number of bytes that many count in."""

    total: int = 0


@dataclass(frozen=True, slots=True)
class Shared:
    """What all groups of a shard share."""

    config: GroupsConfig
    subscriptions: Subscriptions
    timers: Timers[TimerName] = field(default_factory=Timers)
    #: Members (group and member id) that have a stream.
    streams: set[tuple[str, str]] = field(default_factory=set)
    #: Bytes of what classic members told, and of the assignments of classic groups.
    classic_bytes: Tally = field(default_factory=Tally)
    #: The numbers of the states that members get. 0 in a heartbeat means "none yet".
    numbers: Iterator[int] = field(default_factory=lambda: count(1))


class Followed(NamedTuple):
    """What a member subscribes to, as far as it may see it."""

    names: frozenset[str]
    view: View | None


class Group:
    """A group. Every member has a session, and follows its subscription, while it is a member.

    The log does not say who a member is. So a new coordinator does not know what a member with a
    pattern may see, until it hears the member. Meanwhile the member follows the topics of its
    share by name: it keeps what it has.
    """

    def __init__(self, state: GroupState, shared: Shared) -> None:
        self.state = state
        self.shared = shared
        self.sessions: dict[str, Session] = {}
        #: What each member follows; how many follow each of these, and how many of those name a
        #: topic. So a member that comes or goes costs its own names, not those of all members.
        self._follows: dict[str, Followed] = {}
        self._followed: Counter[Followed] = Counter()
        self._named: Counter[str] = Counter()
        #: How many members are of the classic protocol, in a group of the consumer protocol.
        self.classic_count = 0
        #: Topic names and numbers of partitions that classic members have and that this coordinator
        #: does not see: they are deleted, or its image is older than that of the members.
        self.unseen: dict[str, frozenset[tuple[str, int]]] = {}
        #: Members with a pattern that this coordinator has not heard yet.
        self._unheard: set[str] = set()
        #: Members joined, left, or subscribe otherwise: the group needs a new assignment.
        self.has_changed = False

    @property
    def id(self) -> str:
        return self.state.group_id

    def open(self, now_ms: int) -> None:
        """Begin the sessions of the members that the log tells of."""
        self.state.prune()
        config = self.shared.config
        topics = self.shared.subscriptions.topics
        for member_id, value in self.state.members.items():
            self._count_classic(value, 1)
            if value.pattern:
                self._unheard.add(member_id)
                share = {topic_id for topic_id, _ in self.state.target_of(member_id)}
                found = (topics.with_id(topic_id) for topic_id in share)
                names = {topic.name for topic in found if topic is not None}
                self._follow(member_id, Followed(frozenset(names.union(value.topics)), None))
            else:
                self._follow(member_id, Followed(frozenset(value.topics), None))
            rebalance_ms = value.rebalance_timeout_ms
            if rebalance_ms <= 0:
                rebalance_ms = config.rebalance_timeout_ms
            number = next(self.shared.numbers)
            classic_ms = 0 if value.classic is None else value.classic.session_timeout_ms
            session_ms = classic_ms or value.session_timeout_ms or config.session_timeout_ms
            session = Session(session_ms, rebalance_ms, 0, number)
            session.is_classic = value.classic is not None
            session.has_stream = (self.id, member_id) in self.shared.streams
            is_awaited = value.has_stream and not session.has_stream
            session.awaited_ms = now_ms if is_awaited else None
            session.renew(now_ms)
            # What its last state was, and whether it has it, is not known.
            session.state_changed(number, now_ms)
            self.begin_session(member_id, session)

    # Members.

    def is_static(self, member_id: str) -> bool:
        """Return whether a member has a name that outlives it."""
        return bool(self.state.members[member_id].instance_id)

    def begin_session(self, member_id: str, session: Session) -> None:
        """Begin a member's session, in place of an older one."""
        self.sessions[member_id] = session
        self.watch(member_id)

    def watch(self, member_id: str) -> None:
        """Set the timer of a member. Call it when it may be due earlier than before."""
        self.shared.timers.at(self.due_ms(member_id), (self.id, member_id))

    def due_ms(self, member_id: str) -> int:
        """Return when a member is removed, if nothing is heard of it until then."""
        grace_ms = self.shared.config.disconnect_grace_ms
        return self.sessions[member_id].due_ms(grace_ms, is_static=self.is_static(member_id))

    def is_gone(self, member_id: str, now_ms: int) -> bool:
        """Return whether the holder of a static name has left, or lost its stream for too long."""
        is_away = self.state.current_of(member_id).epoch == AWAY_EPOCH
        grace_ms = self.shared.config.disconnect_grace_ms
        return is_away or self.sessions[member_id].is_deserted(grace_ms, now_ms)

    def set_member(
        self, member_id: str, value: MemberValue, principal: Principal, turn: Turn
    ) -> None:
        """Write what a member told about itself, if it differs; a new subscription counts."""
        old = self.state.members.get(member_id)
        if old != value:
            self._count_classic(old, -1)
            self._count_classic(value, 1)
            turn.write(self.state, MemberKey(self.id, member_id), value)
        view = View(value.pattern, principal) if value.pattern else None
        self._unheard.discard(member_id)
        self._follow(member_id, Followed(frozenset(value.topics), view))

    def remove_member(self, member_id: str, turn: Turn, reason: QuorateError | None = None) -> None:
        """Remove a member with all that it has. A reason is told on the stream that it has."""
        session = self.sessions.pop(member_id)
        self.shared.timers.forget((self.id, member_id))
        turn.write(self.state, CurrentKey(self.id, member_id), None)
        turn.write(self.state, TargetMemberKey(self.id, member_id), None)
        self._count_classic(self.state.members[member_id], -1)
        turn.write(self.state, MemberKey(self.id, member_id), None)
        self._unheard.discard(member_id)
        self.unseen.pop(member_id, None)
        self._unfollow(self._follows.pop(member_id))
        if reason is not None and session.has_stream:
            turn.pushes.append(Push(self.id, member_id, reason))

    def set_unseen(self, member_id: str, named: frozenset[tuple[str, int]]) -> None:
        """Note what a member has of topics that this coordinator does not see."""
        if named:
            self.unseen[member_id] = named
        else:
            self.unseen.pop(member_id, None)

    def _count_classic(self, value: MemberValue | None, by: int) -> None:
        if value is not None and value.classic is not None:
            self.classic_count += by
            self.shared.classic_bytes.total += by * value.classic_bytes

    # Subscriptions.

    def _follow(self, member_id: str, followed: Followed) -> None:
        """Follow what a member subscribes to now, in place of what it did before."""
        old = self._follows.get(member_id)
        if old == followed:
            return
        self._follows[member_id] = followed
        self._followed[followed] += 1
        if self._followed[followed] == 1:
            self._named.update(followed.names)
            self.shared.subscriptions.follow(self.id, *followed)
        if old is not None:
            self._unfollow(old)

    def _unfollow(self, followed: Followed) -> None:
        self._followed[followed] -= 1
        if self._followed[followed]:
            return
        del self._followed[followed]
        names, view = followed
        self._named.subtract(names)
        gone = [name for name in names if not self._named[name]]
        for name in gone:
            del self._named[name]
        is_kept = any(view == other.view for other in self._followed)
        self.shared.subscriptions.unfollow(self.id, gone, None if is_kept else view)

    @property
    def knows_rights(self) -> bool:
        """Whether this coordinator has heard all members that have a pattern."""
        return not self._unheard

    def followed_by(self, member_id: str) -> Followed:
        """Return what a member follows."""
        return self._follows[member_id]

    def followed(self) -> list[Followed]:
        """Return all that is followed, each once."""
        return [*self._followed]

    def views(self) -> list[View]:
        """Return the different patterns of the members."""
        return [*dict.fromkeys(one.view for one in self._followed if one.view is not None)]

    def topic_names(self) -> set[str]:
        """Return the names of all topics that members subscribe to."""
        matched = (self.shared.subscriptions.matched(view) for view in self.views())
        return {*self._named}.union(*matched)

    # The whole group.

    def delete(self, turn: Turn, offsets_max: int) -> bool:
        """Take the records of a group without members away; return whether none is left.

        Of the offsets, at most so many are taken away.
        """
        assert not self.state.members, "checked by the caller"
        keys = (
            OffsetKey(self.id, topic, partition)
            for topic, partitions in self.state.offsets.items()
            for partition in partitions
        )
        for key in [*islice(keys, offsets_max)]:
            turn.write(self.state, key, None)
        if self.state.offsets:
            return False
        self.forget_consumer_protocol(turn)
        self.forget_classic_protocol(turn)
        return True

    def forget_consumer_protocol(self, turn: Turn) -> None:
        """Take away what the log says of a group that has no members of the consumer protocol."""
        if self.state.target.epoch:
            turn.write(self.state, TargetKey(self.id), None)
        if self.state.metadata is not None:
            turn.write(self.state, GroupKey(self.id), None)

    def forget_classic_protocol(self, turn: Turn) -> None:
        """Take away what the log says of a group that has no classic members."""
        if self.state.classic is not None:
            turn.write(self.state, ClassicKey(self.id), None)


def subscription_of(value: MemberValue) -> tuple[frozenset[str], str]:
    """Return the topics and the pattern that a member subscribes to."""
    return frozenset(value.topics), value.pattern or ""
