"""Schedules by hand on the pure machine: voters that change while leaders come and go."""

from __future__ import annotations

import pytest

from tests.harness.raft_machines import Cluster, Machine, batch, cluster, machine, voters


def cut_off_with_its_own_removal(*ids: int) -> tuple[Cluster, int]:
    """The leader appends its own removal, and is cut off before another node has it."""
    among = cluster(*ids)
    among.run(5_000)
    (leads,) = among.leading
    made = among.machines[leads]
    among.cut.append(leads)
    end = made.raft.ledger.log_end_offset
    others = voters(*(one for one in ids if one != leads))
    made.raft.propose(batch(end, made.epoch, members=others), made.now_ms)
    made.drain()
    return among, leads


def test_of_two_voters_the_removed_one_is_needed_until_its_removal_is_on_the_others_disk() -> None:
    """Raft dissertation 4.2.2: it alone holds the record, so the other can't be elected.

    Without this both would wait for ever: the one may not stand, the other gets no vote.
    """
    among, removed = cut_off_with_its_own_removal(1, 2)
    (other,) = [one for one in among.machines if one != removed]
    among.run(5_000)
    assert among.leading == []
    among.cut.clear()
    among.run(10_000)
    assert among.leading == [other]
    assert among.machines[other].raft.ledger.voters == voters(other)
    outside = among.machines[removed]
    assert (outside.role, outside.raft.leader_id) == ("follower", other)


def test_the_removed_leader_of_four_completes_its_removal_where_another_voter_is_down() -> None:
    """Three of the old four are a majority, and the longest log among them is its own."""
    among, removed = cut_off_with_its_own_removal(1, 2, 3, 4)
    others = [one for one in among.machines if one != removed]
    among.cut.append(others[-1])
    among.run(5_000)
    among.cut.remove(removed)
    among.run(10_000)
    (leads,) = among.leading
    assert leads in others[:-1]
    assert among.machines[leads].raft.ledger.voters == voters(*others)
    assert among.machines[removed].raft.leader_id == leads


def whose_removal_is_open(*left: int) -> Machine:
    """Voter 1 of 1, 2, 3 has written a record that leaves only those voters, and started again."""
    made = machine()
    end = made.raft.ledger.log_end_offset
    made.raft.state.append(batch(end, 0, members=voters(*left)))
    made.drain()
    return made


def test_who_is_removed_does_not_count_itself_when_it_stands() -> None:
    """Its own vote, on its disk, and one other are no majority of the two that are left."""
    made = whose_removal_is_open(2, 3)
    made.due()
    assert made.role == "prospective"
    made.vote_answered(2)
    assert made.role == "prospective"
    made.vote_answered(3)
    made.vote_answered(2)
    assert made.role == "candidate"
    made.vote_answered(3)
    assert made.role == "leader"
    made.fetch(2, made.raft.ledger.log_end_offset, made.epoch)
    assert made.raft.high_watermark == 1


@pytest.mark.parametrize("since", ["committed", "another change"])
def test_who_is_removed_for_good_does_not_stand(since: str) -> None:
    """A change that came after its removal, or the high watermark, says that it is committed.

    After a start the high watermark is not known, and no other change comes before the commit.
    """
    made = whose_removal_is_open(2, 3)
    end = made.raft.ledger.log_end_offset
    if since == "committed":
        made.raft.state.raise_high_watermark(end)
    else:
        made.raft.state.append(batch(end, 0, members=voters(2, 3, 4)))
    made.drain()
    made.due()
    assert made.role == "unattached"
