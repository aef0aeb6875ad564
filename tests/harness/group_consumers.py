"""A consumer that keeps to the protocol of membership, as a schedule sees it.

It has one stream at a time (two queues of messages), takes states in, gives partitions back, begins
others at the committed offset, processes, and commits. It may crash, pause, and lose its stream. An
error makes it drop all and join again.

A client that *polls* has a connection in place of the stream: one call is on its way at a time, and
it is told nothing but the answers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import count

from quorate.errors import QuorateError, StaleMemberEpochError
from quorate_broker.groups.assignors.table import CLIENT, DEFAULT
from quorate_broker.groups.assignors.values import PartitionSet
from quorate_broker.groups.machine.target import assigned_by
from quorate_broker.groups.machine.values import (
    JOIN,
    Committed,
    Conversation,
    Heartbeat,
    MemberState,
    Proposal,
    Subscription,
    Task,
)
from quorate_broker.groups.records.values import Partition

CONNECTIONS = count(1)


@dataclass(eq=False)
class Stream:
    """The messages on their way, and whether each side still has the stream."""

    #: Of a client that polls: the number of the connection, and whether a call has no answer yet.
    number: int = field(default_factory=lambda: next(CONNECTIONS))
    is_asked: bool = False
    up: deque[Heartbeat] = field(default_factory=deque)
    down: deque[MemberState | QuorateError] = field(default_factory=deque)
    #: Nothing arrives any more in either direction.
    is_cut: bool = False


class Client:
    """A consumer. `owned`: what it processes, or is about to process, or has not given back."""

    def __init__(
        self,
        group_id: str,
        name: str,
        instance_id: str,
        session_timeout_ms: int,
        *,
        polls: bool = False,
    ) -> None:
        self.group_id, self.instance_id = group_id, instance_id
        self.polls = polls
        self._name = name
        self._lives = 0
        self._session_timeout_ms = session_timeout_ms
        self.id = ""
        self.rack = ""
        self.assignor = ""
        self.subscription = Subscription()
        self.is_paused = False
        self.stream: Stream | None = None
        self.restart()

    def restart(self) -> None:
        """Begin a new life, as another process would: with another member id, and nothing."""
        self._lives += 1
        self.id = f"{self._name}.{self._lives}"
        self.lose_all()

    def lose_all(self) -> None:
        """Drop all partitions, at once; join again with the next heartbeat."""
        self.epoch = JOIN
        self.number = 0
        self.target: PartitionSet = frozenset()
        self.owned: PartitionSet = frozenset()
        self.positions: dict[Partition, int] = {}
        #: Partitions whose committed offset is asked for, each with the call that asks.
        self.reading: dict[Partition, object] = {}
        #: Of the commit on its way; None: there is none.
        self.committing: dict[Partition, int] | None = None
        self.task: Task | None = None
        self.stream = None
        #: It has something to say, and waits for the answer to its last call.
        self.owes_call = False
        self.last_sent_ms = -1_000_000

    @property
    def has_news(self) -> bool:
        """Whether it must give back, or may begin."""
        return self.owned != self.target

    # Messages.

    def open(self) -> None:
        """Open another stream, and say all."""
        self.stream = Stream()
        self.number = 0
        if not self.polls:
            # What it had not taken up when the stream broke is forgotten.
            self.target = self.target & self.owned
        self.send()

    def send(self, *, member_epoch: int | None = None) -> None:
        """Send a heartbeat."""
        assert self.stream is not None
        if self.polls and self.stream.is_asked and member_epoch is None:
            # It says what it has with its next call.
            self.owes_call = True
            return
        self.stream.is_asked, self.owes_call = True, False
        proposal = None
        if self.task is not None:
            proposal = Proposal(self.task.group_epoch, assigned_by(DEFAULT, self.task))
            self.task = None
        self.stream.up.append(
            Heartbeat(
                self.group_id,
                self.id,
                self.epoch if member_epoch is None else member_epoch,
                self.number,
                instance_id=self.instance_id or (None if self.polls else ""),
                rack=self.rack,
                client_id=self._name,
                session_timeout_ms=None if self.polls else self._session_timeout_ms,
                rebalance_timeout_ms=20_000,
                topics=self.subscription.topics,
                pattern=self.subscription.pattern,
                assignor=self.assignor,
                owned=self.owned,
                proposal=proposal if self.assignor == CLIENT else None,
                conversation=Conversation(self.stream.number) if self.polls else None,
            )
        )

    def receive(self, state: MemberState | QuorateError) -> None:
        """Take a state in, and say so. An error costs all."""
        if isinstance(state, QuorateError):
            self.lose_all()
            return
        self.epoch = state.member_epoch
        if state.task is not None:
            self.task = state.task
        if state.assignment is not None:
            self.number, self.target = state.state_number, state.assignment
        assert self.stream is not None
        self.stream.is_asked = False
        if self.owes_call or (
            not self.polls and (state.assignment is not None or state.task is not None)
        ):
            self.send()

    # Work.

    def give_back(self) -> None:
        """Stop what it shall not have any more, and say so."""
        self.owned &= self.target
        self.positions = {one: at for one, at in self.positions.items() if one in self.owned}
        self.reading = {one: call for one, call in self.reading.items() if one in self.owned}
        self.send()

    def begin(self) -> PartitionSet:
        """Take up what is new; return it. From now on it is owned."""
        new = self.target - self.owned
        self.owned |= new
        self.send()
        return new

    def committed(self, answer: Committed | QuorateError) -> dict[Partition, int]:
        """Take the answer to a commit; return what was committed."""
        sent, self.committing = self.committing or {}, None
        if isinstance(answer, QuorateError):
            if not isinstance(answer, StaleMemberEpochError):
                self.lose_all()
            return {}
        return {one: at for one, at in sent.items() if one not in answer.refused}
