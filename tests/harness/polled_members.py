"""Members without a stream at a coordinator's machine: they learn all by their heartbeats."""

from __future__ import annotations

from itertools import count
from typing import Any

from quorate_broker.groups.machine.values import JOIN, LEAVE, Conversation, Heartbeat, MemberState
from tests.harness.group_desk import Desk, Member

CONVERSATIONS = count(1)


class PolledMember(Member):
    """A member as Kafka's clients are: it says again only what has changed.

    It says all when it joins, and after a call that had no good answer; and what it has, when it
    has taken up an assignment.
    """

    def __init__(self, desk: Desk, member_id: str, *topics: str, **fields: Any) -> None:
        super().__init__(desk, member_id, desk.member(member_id, *topics).subscription)
        self.fields = {"rebalance_timeout_ms": 60_000, **fields}
        self.conversation = Conversation(0)
        self._said: frozenset[Any] | None = None
        self._says_all = True

    def connect(self) -> None:
        """Begin another connection. It is not known what became of the last call."""
        self.conversation = Conversation(next(CONVERSATIONS))
        self._says_all = True

    def open(self) -> None:
        self.connect()

    def heartbeat(self, **changes: Any) -> Heartbeat:
        """Return the next heartbeat."""
        whole: dict[str, Any] = {}
        if self._says_all or self.epoch == JOIN:
            whole = {
                "topics": self.subscription.topics,
                "pattern": self.subscription.pattern,
                **self.fields,
            }
        if self._says_all or self.owned != self._said:
            whole["owned"] = self.owned
        self._said, self._says_all = self.owned, False
        return Heartbeat(
            self.group_id,
            self.id,
            **{
                "member_epoch": self.epoch,
                "client_id": f"client-{self.id}",
                "client_host": "10.0.0.1",
                "conversation": self.conversation,
                **whole,
                **changes,
            },
        )

    def lost_call(self) -> MemberState:
        """Send a heartbeat whose answer is lost; return that answer. The connection is given up."""
        answer = self.desk.beat(self.heartbeat())
        self.connect()
        return answer

    def catch_up(self) -> bool:
        """Send a heartbeat; follow the assignment if there is another one; return whether so."""
        self.send()
        if not self.has_news:
            return False
        self.has_news = False
        self.owned = self.target
        self._said = None  # it answers each assignment, also one that changes nothing for it
        self.send()
        return True

    def leave(self, epoch: int = LEAVE) -> None:
        """Leave, with all given back."""
        self.owned = self.target = frozenset()
        self.desk.beat(self.heartbeat(member_epoch=epoch))
        self.epoch = JOIN


def polled(desk: Desk, member_id: str, *topics: str, **fields: Any) -> PolledMember:
    """Return a member without a stream that has joined."""
    member = PolledMember(desk, member_id, *topics, **fields)
    member.join()
    return member
