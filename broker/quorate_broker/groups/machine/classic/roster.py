"""The members of a classic group, and what they agree on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from quorate_broker.groups.machine.classic.member import Member
from quorate_broker.groups.machine.classic.values import JoinGroup
from quorate_broker.groups.machine.group import Tally


class Roster:
    """The members by id, in the order in which they came, and the holders of static names."""

    def __init__(self, tally: Tally) -> None:
        """`tally` counts the bytes of all classic groups of the shard."""
        self._tally = tally
        self._members: dict[str, Member] = {}
        self.instances: dict[str, str] = {}
        #: How many members support each protocol.
        self._support: Counter[str] = Counter()
        #: Bytes of all members, as in the record of the group.
        self.size = 0

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def find(self, member_id: str) -> Member | None:
        """Return the member with this id."""
        return self._members.get(member_id)

    def add(self, member: Member) -> None:
        """Add a member whose id and static name are free."""
        assert member.member_id not in self._members, "joined twice"
        self._members[member.member_id] = member
        self._count(member, 1)
        if member.instance_id is not None:
            self.instances[member.instance_id] = member.member_id

    def remove(self, member_id: str) -> Member:
        """Remove a member, and free its static name."""
        member = self._members.pop(member_id)
        self._count(member, -1)
        if member.instance_id is not None:
            self.instances.pop(member.instance_id, None)
        return member

    def update(self, member: Member, request: JoinGroup) -> None:
        """Take over what a member says of itself when it joins again."""
        self._count(member, -1)
        member.take(request)
        self._count(member, 1)

    def assign(self, assignments: Mapping[str, bytes]) -> None:
        """Give each member its assignment; one that is left out gets none."""
        for member in self:
            self._count(member, -1)
            member.assignment = bytes(assignments.get(member.member_id, b""))
            self._count(member, 1)

    def _count(self, member: Member, by: int) -> None:
        for name in dict(member.protocols):
            self._support[name] += by
            if not self._support[name]:
                del self._support[name]
        self.size += by * member.size
        self._tally.total += by * member.size

    def supports(self, names: Sequence[str], without: Member | None = None) -> bool:
        """Return whether all members support one of these protocols, `without` left out."""
        own = dict(without.protocols) if without is not None else {}
        others = len(self) - (without is not None)
        return any(self._support[name] - (name in own) == others for name in names)

    def common(self) -> set[str]:
        """Return the protocols that all members support."""
        return {name for name, count in self._support.items() if count == len(self)}

    def voted(self) -> str | None:
        """Return the protocol that most members prefer among those that all support.

        Between equal ones the vote of the first member decides. None: there are no members.
        """
        candidates = self.common()
        votes: Counter[str] = Counter()
        for member in self:
            votes[next(name for name, _ in member.protocols if name in candidates)] += 1
        return max(votes, key=votes.__getitem__, default=None)

    @property
    def rebalance_timeout_ms(self) -> int:
        """The longest time that a member wants to have for joining again."""
        return max((one.rebalance_timeout_ms for one in self), default=0)
