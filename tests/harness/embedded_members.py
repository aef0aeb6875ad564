"""Consumers of the classic protocol that follow ConsumerProtocol: Kafka's clients, before KIP-848.

An *eager* one gives all back before it joins. A *cooperative* one joins with what it has, gives
back what its assignment does not name, and then joins again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

from quorate.errors import QuorateError, RebalanceInProgressError
from quorate_broker.groups.assignors.values import PartitionSet
from quorate_broker.groups.machine.classic.embedded import (
    assignment_bytes,
    known,
    read_assignment,
)
from quorate_broker.groups.machine.classic.values import JoinGroup
from quorate_broker.groups.machine.values import Conversation
from quorate_broker.groups.records.wire import INT16, INT32, nullable_string, sized_bytes, string
from tests.harness.classic_desk import ClassicDesk, ClassicMember
from tests.harness.polled_members import CONVERSATIONS


def subscription_bytes(
    topics: frozenset[str], owned: frozenset[tuple[str, int]] = frozenset(), rack: str | None = None
) -> bytes:
    """Return a subscription of version 3."""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for name, number in sorted(owned):
        numbers[name].append(number)
    return (
        INT16.pack(3)
        + INT32.pack(len(topics))
        + b"".join(map(string, sorted(topics)))
        + sized_bytes(b"")
        + INT32.pack(len(numbers))
        + b"".join(
            string(name) + INT32.pack(len(listed)) + b"".join(map(INT32.pack, listed))
            for name, listed in numbers.items()
        )
        + INT32.pack(-1)
        + nullable_string(rack)
    )


class EmbeddedMember(ClassicMember):
    """A consumer with a classic member. `owned`: what it reads."""

    def __init__(
        self,
        desk: ClassicDesk,
        name: str,
        *topics: str,
        is_cooperative: bool = False,
        **fields: Any,
    ) -> None:
        super().__init__(desk, name, is_id_required=True, **fields)
        self.topics = frozenset(topics)
        self.is_cooperative = is_cooperative
        self.owned: PartitionSet = frozenset()
        self.conversation = Conversation(next(CONVERSATIONS))

    def request(self) -> JoinGroup:
        owned = frozenset((self.desk.made[one[0]].name, one[1]) for one in self.owned)
        metadata = subscription_bytes(self.topics, owned)
        self.protocols = (("sticky" if self.is_cooperative else "range", metadata),)
        self.protocols += (("shared", metadata),)
        return replace(super().request(), conversation=self.conversation)

    def begin(self) -> None:
        """Join, and take up what is given. Errors are raised. Rounds of a classic group wait."""
        if not self.is_cooperative:
            self.owned = frozenset()
        self.join()

    def go_on(self) -> None:
        """Do the next thing: join, take an answer, or send a heartbeat."""
        if self.waits:
            return
        try:
            if self.is_syncing:
                self._take_up(self.take_sync())
            elif self.is_joining:
                answer = self.take_join()
                self.sync(self.plan() if answer.members else {})
            elif self.answer is None:
                self.begin()
            else:
                self.beat()
        except RebalanceInProgressError:
            self.forget_call()

    def _take_up(self, assignment: bytes) -> None:
        given = known(read_assignment(assignment), self.desk.topics)
        must_join = self.is_cooperative and bool(self.owned - given)
        self.owned = given
        if must_join:
            self.forget_call()

    def plan(self) -> dict[str, bytes]:
        """As a leader: deal the partitions out to all members, in turn."""
        assert self.answer is not None
        ids = sorted(one.member_id for one in self.answer.members)
        shares: dict[str, set[Any]] = {one: set() for one in ids}
        every = [one for name in sorted(self.topics) for one in sorted(self.desk.of(name))]
        for at, partition in enumerate(every):
            shares[ids[at % len(ids)]].add(partition)
        return {one: assignment_bytes(shares[one], self.desk.topics) for one in ids}


def calm(desk: ClassicDesk, *members: Any, rounds: int = 40) -> None:
    """Let members of all kinds do what they must, until all have come to rest."""
    for _ in range(rounds):
        desk.run(250)
        for member in members:
            if isinstance(member, EmbeddedMember):
                for _ in range(4):
                    try:
                        member.go_on()
                    except QuorateError as error:
                        raise AssertionError(f"{member.name}: {error}") from error
            else:
                member.catch_up()
