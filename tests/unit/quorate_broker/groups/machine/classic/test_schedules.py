"""Classic members that join, crash, restart, stall and leave by chance, and coordinators that fail.

What must hold is stated at `Group`.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from random import Random

import pytest

from quorate.errors import (
    FencedInstanceIdError,
    NotMemberError,
    QuorateError,
    RebalanceInProgressError,
)
from tests.harness.classic_desk import ClassicDesk, ClassicMember

STEPS = 250
MEMBERS = 6


class Group:
    """Members driven by chance. The rules:

    * all that are told a generation are told one leader and one protocol;
    * the leader of a generation alone is told its members, and it is one of them;
    * an assignment that a member is told is what the leader of its generation gave it;
    * a generation is larger than all before;
    * after a calm time all members that are alive are in one stable generation.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.d = ClassicDesk(initial_rebalance_delay_ms=self.random.choice([0, 500]))
        self.alive: list[ClassicMember] = []
        self.made = 0
        self.protocols: dict[int, str]
        self.leaders: dict[int, str]
        self.given: dict[int, dict[str, bytes]]
        self.assigned: int
        self.begin_life()

    def start(self) -> None:
        self.made += 1
        instance = self.random.choice([None, None, f"i{self.random.randrange(3)}"])
        names = self.random.sample(["range", "sticky", "uniform"], 3)
        protocols = tuple((one, b"m") for one in names)
        self.alive.append(
            self.d.classic(
                f"m{self.made}",
                instance_id=instance,
                protocols=protocols,
                is_id_required=self.random.random() < 0.5,
                rebalance_timeout_ms=self.random.choice([3_000, 9_000]),
                session_timeout_ms=6_000,
            )
        )

    def drive(self, member: ClassicMember) -> None:
        """Let a member do the next thing, as a client would."""
        try:
            if member.waits:
                return
            if member.is_syncing:
                given = member.take_sync()
                assert given == self.given[member.generation].get(member.id, given)
            elif member.is_joining:
                self.told(member)
            elif member.answer is None:
                member.join()
            else:
                member.beat()
        except RebalanceInProgressError:
            member.forget_call()
        except FencedInstanceIdError:
            self.alive.remove(member)
        except NotMemberError:
            member.id = ""
            member.forget_call()

    def told(self, member: ClassicMember) -> None:
        answer = member.take_join()
        assert self.protocols.setdefault(answer.generation, answer.protocol) == answer.protocol
        if answer.members:
            assert answer.leader == member.id
            assert member.id in {one.member_id for one in answer.members}
            # A restarted leader has another id, and the same static name.
            leader = member.instance_id or member.id
            assert self.leaders.setdefault(answer.generation, leader) == leader
        if member.leads and not answer.is_assignment_skipped:
            plan = {one.member_id: self.random.randbytes(4) for one in answer.members}
            before = self.d.phase()
            member.sync(plan)
            if before == "CompletingRebalance":
                assert answer.generation > self.assigned
                self.assigned = answer.generation
                self.given[answer.generation] = plan
        else:
            member.sync({})

    def step(self) -> None:
        chance = self.random.random()
        if chance < 0.08 and len(self.alive) < MEMBERS:
            self.start()
        elif chance < 0.11 and self.alive:
            self.alive.remove(self.random.choice(self.alive))  # killed
        elif chance < 0.13 and self.alive:
            member = self.random.choice(self.alive)
            if member.id and not member.waits:
                self.alive.remove(member)
                with suppress(QuorateError):
                    member.leave()
        elif chance < 0.15:
            self.fail_over()
        elif chance < 0.3:
            self.d.run(self.random.choice([100, 1_000, 2_500]))
            if self.d.phase() == "none":
                self.begin_life()
        elif self.alive:
            self.drive(self.random.choice(self.alive))

    def fail_over(self) -> None:
        """Whoever waited is told that the coordinator is another one, and asks again."""
        self.d.fail_over(self.d.compacted())
        for member in self.alive:
            if member.is_joining or member.is_syncing:
                member.forget_call()
        self.begin_life()

    def begin_life(self) -> None:
        """A generation that was not assigned is in no log: the next coordinator numbers it anew."""
        self.protocols, self.leaders, self.given = {}, {}, defaultdict(dict)
        self.assigned = 0

    def calm(self) -> None:
        for _ in range(120):
            for member in [*self.alive]:
                for _ in range(3):
                    if member in self.alive:
                        self.drive(member)
            self.d.run(500)
        generations = {(one.generation, one.answer is not None) for one in self.alive}
        assert len(generations) <= 1
        assert self.d.phase() in ({"Stable"} if self.alive else {"Empty", "none"})
        assert not any(one.waits for one in self.alive)
        assert all(one.assignment is not None for one in self.alive)


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_members_of_chance_come_to_one_generation(first: int) -> None:
    for seed in range(first, first + 20):
        print(f"seed {seed}")
        group = Group(seed)
        for _ in range(STEPS):
            group.step()
        group.calm()
