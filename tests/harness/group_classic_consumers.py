"""A consumer of Kafka's classic protocol, as a schedule sees it, in a group with others.

It joins, syncs, sends heartbeats, and leads a generation if it is told to. An *eager* one gives all
back before it joins. A *cooperative* one joins with what it has, and joins again after it gave back
what its assignment does not name. As a leader it gives nothing to a member that another has still.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from quorate.errors import IllegalGenerationError, QuorateError, RebalanceInProgressError
from quorate_broker.groups.machine.classic.embedded import (
    assignment_bytes,
    known,
    read_assignment,
    read_subscription,
)
from quorate_broker.groups.machine.classic.values import (
    Joined,
    JoinedMember,
    JoinGroup,
    LeaveGroup,
    Leaving,
    MemberIdRequired,
    MemberRequest,
    Synced,
    SyncGroup,
)
from quorate_broker.groups.machine.values import Committed, Conversation
from quorate_broker.groups.records.values import Partition
from tests.harness.embedded_members import subscription_bytes
from tests.harness.group_consumers import Client, Stream
from tests.harness.group_desk import FakeTopics

Request = JoinGroup | SyncGroup | MemberRequest | LeaveGroup


class ClassicClient(Client):
    """A client that is a classic member. `epoch` is its generation."""

    def __init__(
        self,
        group_id: str,
        name: str,
        instance_id: str,
        session_timeout_ms: int,
        topics: Callable[[], FakeTopics],
        is_wanted: Callable[[Any, Client], bool],
        *,
        is_cooperative: bool,
    ) -> None:
        self._topics, self._is_wanted = topics, is_wanted
        self.is_cooperative = is_cooperative
        super().__init__(group_id, name, instance_id, session_timeout_ms, polls=True)

    def lose_all(self) -> None:
        """Drop all. The coordinator makes another id for a member that comes without one."""
        super().lose_all()
        self._lives += 1
        self.id = f"{self._name}.{self._lives}"
        self._joins = 0
        #: Its id is known to the coordinator; it is in the generation `epoch`; what it sees.
        self.has_id = False
        self.is_in = False
        self._seen: object = None
        self._protocol = ""

    def _wanted(self) -> list[Any]:
        return [one for one in self._topics().every() if self._is_wanted(one, self)]

    @property
    def has_news(self) -> bool:
        return self.is_in and self.owned != self.target

    def open(self) -> None:
        """Open another connection. A join or a sync without an answer is made again."""
        self.stream = Stream()
        self.owes_call = False
        self.send()

    def send(self, *, member_epoch: int | None = None) -> None:
        """Send what is due: a join, a heartbeat, or the leave."""
        assert self.stream is not None
        if member_epoch is not None:
            leaving = Leaving(self.id, self.instance_id or None)
            self._call(LeaveGroup(self.group_id, [leaving]))
        elif self.stream.is_asked:
            self.owes_call = True
        elif not self.is_in:
            self._join()
        elif self._seen != self._wanted():
            self.is_in = False
            self._join()
        else:
            instance_id = self.instance_id or None
            self._call(MemberRequest(self.group_id, self.id, self.epoch, instance_id))

    def _call(self, request: Request) -> None:
        assert self.stream is not None
        self.stream.is_asked, self.owes_call = True, False
        self.stream.up.append(request)  # type: ignore[arg-type]

    def _join(self) -> None:
        if not self.is_cooperative:
            self._drop(set(self.owned))
        self._seen = self._wanted()
        names = {one.id: one.name for one in self._topics().every()}
        owned = frozenset((names[one[0]], one[1]) for one in self.owned if one[0] in names)
        topics = frozenset(one.name for one in self._wanted()) | self.subscription.topics
        metadata = subscription_bytes(topics, owned, self.rack)
        assert self.stream is not None
        self._joins += 1
        self._call(
            JoinGroup(
                self.group_id,
                self.id if self.has_id else "",
                f"{self.id}-{self._joins}",
                self.instance_id or None,
                self._name,
                "h",
                self._session_timeout_ms,
                20_000,
                "consumer",
                (("range", metadata),),
                is_id_required=True,
                can_skip_assignment=True,
                conversation=Conversation(self.stream.number),
            )
        )

    def receive(self, state: Any) -> None:
        """Take an answer."""
        assert self.stream is not None
        self.stream.is_asked = False
        match state:
            case RebalanceInProgressError():
                self.is_in = False
                self.send()
            case QuorateError():
                self.lose_all()
            case MemberIdRequired():
                self.id, self.has_id = state.member_id, True
                self.send()
            case Joined():
                self.id, self.epoch, self.has_id = state.member_id, state.generation, True
                self._protocol = state.protocol
                self._sync(self._plan(state.members))
            case Synced():
                self.is_in = True
                self.target = known(read_assignment(state.assignment), self._topics())
        if self.stream is not None and self.owes_call:
            self.send()

    def _sync(self, plan: dict[str, bytes]) -> None:
        self._call(
            SyncGroup(
                self.group_id,
                self.id,
                self.epoch,
                self.instance_id or None,
                "consumer",
                self._protocol,
                plan,
            )
        )

    def _plan(self, members: tuple[JoinedMember, ...]) -> dict[str, bytes]:
        """As a leader: deal out what each subscribes to, but for what others have still."""
        topics = self._topics()
        told = {one.member_id: read_subscription(one.metadata) for one in members}
        owners = {one: who for who, sub in told.items() for one in known(sub.owned, topics)}
        shares: defaultdict[str, set[Partition]] = defaultdict(set)
        for topic in topics.every():
            able = sorted(who for who, sub in told.items() if topic.name in sub.topics)
            for number in range(topic.partitions if able else 0):
                who, partition = able[number % len(able)], (topic.id, number)
                if owners.get(partition, who) == who:
                    shares[who].add(partition)
        return {who: assignment_bytes(shares[who], topics) for who in told}

    # Work.

    def _drop(self, partitions: set[Partition]) -> None:
        self.owned -= partitions
        self.positions = {one: at for one, at in self.positions.items() if one in self.owned}
        self.reading = {one: call for one, call in self.reading.items() if one in self.owned}

    def give_back(self) -> None:
        """Stop what it shall not have any more, and join again."""
        self._drop(set(self.owned - self.target))
        self.is_in = False
        self.send()

    def begin(self) -> frozenset[Partition]:
        """Take up what is new; return it."""
        new = self.target - self.owned
        self.owned |= new
        return new

    def committed(self, answer: Committed | QuorateError) -> dict[Partition, int]:
        """Take the answer to a commit; return what was committed."""
        if isinstance(answer, RebalanceInProgressError | IllegalGenerationError):
            # It may be a commit of the generation before; else its heartbeat tells the truth.
            self.committing = None
            return {}
        return super().committed(answer)
