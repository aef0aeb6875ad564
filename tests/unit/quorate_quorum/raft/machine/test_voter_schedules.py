"""Changes of voters in flight while leaders change: Ongaro's three schedules of 2015.

A leader appends a change and is cut off before it is committed; the others elect another, which
makes its own change; then the first is back, counting by its set. Two leaders that each commit by
another set could lose what the other committed. What prevents it: no change before a record of the
leader's own epoch is committed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from quorate.errors import NotControllerError, OverloadedError
from tests.harness.raft_machines import (
    Cluster,
    Machine,
    batch,
    cluster,
    follower,
    machine,
    serving_leader,
    voters,
)

VOTERS = (1, 2, 3, 4)
OBSERVERS = (5, 6)


def change(made: Machine, ids: list[int]) -> None:
    end = made.raft.ledger.log_end_offset
    made.raft.propose(batch(end, made.epoch, members=voters(*ids)), made.now_ms)


def ids_of(made: Machine) -> list[int]:
    return [voter.id for voter in made.raft.ledger.voters.voters]


@dataclass
class Eager(Cluster):
    """Machines of which one proposes a change as soon as it may, in the middle of all else."""

    wanted: Callable[[int], list[int]] | None = None
    refused: int = 0
    proposed_by: int = 0

    def check(self) -> None:
        super().check()
        if self.wanted is None or self.proposed_by:
            return
        for one in self.leading:
            if one in self.cut:
                continue
            try:
                change(self.machines[one], self.wanted(one))
            except NotControllerError:
                self.refused += 1
            except OverloadedError:
                pass  # too few have been heard since it was elected
            else:
                self.proposed_by = one


def begun(seed: int) -> Eager:
    """Four voters and two observers that have caught up."""
    among = Eager(cluster(*VOTERS, seed=seed).machines)
    servers = tuple(f"host{voter}:1" for voter in VOTERS)
    for one in OBSERVERS:
        among.machines[one] = machine(one, (), (), bootstrap_servers=servers)
    among.run(6_000)
    (leads,) = among.leading
    assert all(one.raft.leader_id == leads for one in among.machines.values())
    return among


def schedule(name: str, first: int, second: int) -> tuple[list[int], list[int]]:
    """Return the set that each of the two leaders wants."""
    match name:
        case "an add and a removal":
            return [*VOTERS, 5], [voter for voter in VOTERS if voter != first]
        case "two adds":
            return [*VOTERS, 5], [*VOTERS, 6]
        case _:
            ours = next(voter for voter in VOTERS if voter not in (first, second))
            return [v for v in VOTERS if v != ours], [v for v in VOTERS if v != first]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["an add and a removal", "two adds", "two removals"])
def test_two_leaders_with_a_change_each_never_both_commit(name: str, seed: int) -> None:
    """The second leader's change commits, the first one's is undone, nothing is lost."""
    among = begun(seed)
    (first,) = among.leading
    others = [voter for voter in VOTERS if voter != first]
    before = among.machines[first].raft.high_watermark
    # The change reaches an observer at most, which it makes a voter in one's own eyes.
    among.cut[:] = others
    change(among.machines[first], schedule(name, first, others[0])[0])
    among.deliver()
    assert among.machines[first].raft.high_watermark == before
    among.cut[:] = [first, 5]
    among.wanted = lambda second: schedule(name, first, second)[1]
    among.run(10_000)
    second = among.proposed_by
    assert second not in (0, first)
    assert among.refused > 0  # elected, and nothing of its own was committed yet
    wanted = among.wanted(second)
    assert among.machines[second].raft.ledger.are_voters_committed
    committed = among.machines[second].raft.high_watermark
    among.cut.clear()
    among.run(20_000)
    (leads,) = among.leading
    for one in among.machines.values():
        assert ids_of(one) == wanted
        assert one.raft.high_watermark >= committed
        assert one.raft.ledger.epochs() == among.machines[leads].raft.ledger.epochs()


def test_a_voter_that_only_knows_itself_to_be_an_observer_gives_its_vote() -> None:
    """etcd, campaign_learner_must_vote: the leader that made it a voter died with the news.

    Of 1, 2 and 3, made of 1 and 2 by adding 3, the first is dead: 2 knows of the change and needs
    the vote of 3, which does not.
    """
    knows = follower(2, leader=1, ids=(1, 2))
    knows.raft.state.append(batch(1, 1, members=voters(1, 2, 3)))
    learner = machine(3, (1, 2), (0, 1), epoch=1)
    assert not learner.raft.state.is_voter()
    assert learner.ask_vote(2, 1, last_epoch=1, end=3, pre_vote=True).granted
    assert learner.ask_vote(2, 2, last_epoch=1, end=3).granted


def test_who_is_asked_under_the_id_of_its_former_disk_gives_no_vote() -> None:
    """A candidate that still counts on the wiped disk must not be elected by the new one."""
    made = machine(3, (1, 2, 3))
    old = made.raft.me._replace(directory_id=b"wiped".ljust(16))
    assert not made.ask_vote(2, 1, voter=old).granted
    assert made.ask_vote(2, 1).granted


def test_a_member_of_the_new_set_alone_counts_at_once() -> None:
    """Effective when appended: four voters need three from then on (KIP-853)."""
    made = serving_leader()
    end = made.raft.ledger.log_end_offset
    made.fetch(4, end, made.epoch)
    change(made, [1, 2, 3, 4])
    made.drain()
    made.fetch(2, end + 1, made.epoch)
    assert made.raft.high_watermark == end
    made.fetch(4, end + 1, made.epoch)
    assert made.raft.high_watermark == end + 1
