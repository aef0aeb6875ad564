"""Leadership transfer, at the machine, as a table under the names of etcd's tests.

Each is named after the TestLeaderTransfer* that it follows; hashicorp/raft 570 and 581 are the
same races.
"""

from __future__ import annotations

import pytest

from quorate.errors import InvalidRequestError, NotControllerError, OverloadedError
from quorate_quorum.raft.machine.messages import EndEpochRequest
from quorate_quorum.raft.machine.ready import Call, Message
from tests.harness.raft_machines import (
    Cluster,
    Machine,
    batch,
    cluster,
    follower,
    key,
    machine,
    serving_leader,
    voters,
)

ELECTION_TIMEOUT_MS = 500


def propose(made: Machine, *ids: int) -> None:
    end = made.raft.ledger.log_end_offset
    members = voters(*ids) if ids else None
    made.raft.propose(batch(end, made.epoch, members=members), made.now_ms)
    made.drain()


def transfer(made: Machine, voter_id: int | None) -> list[Message]:
    named = made.raft.check_may_transfer(voter_id)
    made.raft.transfer(named, made.now_ms)
    return made.drain()


def successors(said: list[Message]) -> list[tuple[int, ...]]:
    """The successors that the EndEpoch requests of a reign name."""
    return [
        one.request.preferred_successors
        for one in said
        if isinstance(one, Call) and isinstance(one.request, EndEpochRequest)
    ]


def given_up(made: Machine) -> list[int]:
    return [voter for ready in made.readies for voter, _ in ready.transfers_given_up]


def behind(made: Machine, *ids: int) -> None:
    """Propose a record that those voters do not get, and all others do."""
    propose(made)
    for voter in made.raft.ledger.voters.others(made.raft.me):
        if voter.id not in ids:
            catch_up(made, voter.id)


def catch_up(made: Machine, voter_id: int) -> list[Message]:
    before = len(made.sent)
    made.fetch(voter_id, made.raft.ledger.log_end_offset, made.epoch, round=made.raft.state.round)
    return made.sent[before:]


def elected(*ids: int) -> tuple[Cluster, int]:
    made = cluster(*ids)
    made.run(3_000)
    (leader,) = made.leading
    return made, leader


def test_to_up_to_date_node() -> None:
    """It makes way at once, names that voter first, and that voter is elected."""
    assert successors(transfer(serving_leader(), 3)) == [(3, 2), (3, 2)]
    made, leader = elected(1, 2, 3)
    for named in [one for one in (1, 2, 3) if one != leader] + [leader]:
        (now,) = made.leading
        epoch = made.machines[now].epoch
        transfer(made.machines[now], named)
        made.deliver()
        assert (made.leading, made.machines[named].epoch) == ([named], epoch + 1)
        made.run(1_000)
        assert made.leading == [named]


def test_to_up_to_date_node_from_follower() -> None:
    """A follower transfers nothing, and says who can."""
    with pytest.raises(NotControllerError, match="leader 2"):
        transfer(follower(), 3)


def test_with_check_quorum() -> None:
    """The others vote at once, although they have just heard the leader."""
    made, leader = elected(1, 2, 3, 4, 5)
    named = leader % 5 + 1
    now_ms = made.machines[leader].now_ms
    transfer(made.machines[leader], named)
    made.deliver()
    assert made.leading == [named]
    assert made.machines[named].now_ms == now_ms  # no machine waited for a timeout


def test_to_slow_follower() -> None:
    """It leads until that voter holds all that it does, and goes in that very turn."""
    made = serving_leader()
    behind(made, 3)
    assert successors(transfer(made, 3)) == []
    assert successors(catch_up(made, 2)) == []
    assert made.role == "leader"
    assert successors(catch_up(made, 3)) == [(3, 2), (3, 2)]
    assert (made.role, given_up(made)) == ("resigned", [])


def test_to_self() -> None:
    """Nothing happens."""
    made = serving_leader()
    assert transfer(made, 1) == []
    propose(made)
    assert made.role == "leader"


def test_to_non_existing_node() -> None:
    """and TestTransferNonMember: the voters are named."""
    made = serving_leader()
    with pytest.raises(InvalidRequestError, match=r"4 is not the id of a voter.*\[1, 2, 3\]"):
        transfer(made, 4)
    propose(made)


def test_to_an_observer() -> None:
    """TestLeaderTransferToLearner: one that does not vote cannot lead."""
    made = serving_leader()
    catch_up(made, 4)
    with pytest.raises(InvalidRequestError):
        transfer(made, 4)


def test_timeout() -> None:
    """After an election timeout it is given up, once, and proposals are taken again."""
    made = serving_leader()
    behind(made, 3)
    transfer(made, 3)
    made.tick(ELECTION_TIMEOUT_MS - 1)
    assert given_up(made) == []
    made.tick(1)
    assert given_up(made) == [3]
    propose(made)
    catch_up(made, 3)
    assert (made.role, given_up(made)) == ("leader", [3])


def test_the_end_of_a_transfer_is_a_deadline_of_the_machine() -> None:
    """Nothing else need happen for it to be given up."""
    made = serving_leader()
    behind(made, 3)
    made.tick(37)  # nothing else is due half a second after this
    transfer(made, 3)
    since_ms = made.now_ms
    while not given_up(made):
        made.due()
    assert made.now_ms == since_ms + ELECTION_TIMEOUT_MS
    assert made.role == "leader"


def test_ignore_proposal() -> None:
    """During a transfer proposals are refused, with an error that allows a retry."""
    made = serving_leader()
    behind(made, 3)
    transfer(made, 3)
    end = made.raft.ledger.log_end_offset
    with pytest.raises(OverloadedError, match="goes to voter 3"):
        propose(made)
    assert made.raft.ledger.log_end_offset == end


def test_receive_higher_epoch_vote() -> None:
    """Another election ends the reign and the transfer with it."""
    made = serving_leader()
    behind(made, 3)
    transfer(made, 3)
    made.ask_vote(2, made.epoch + 1, last_epoch=made.epoch, end=99)
    assert made.role == "unattached"
    with pytest.raises(NotControllerError):
        made.raft.check_may_transfer(3)
    assert successors(made.sent[-3:]) == []


def test_remove_node() -> None:
    """A removed node is no voter; and a voter that is to lead cannot be removed."""
    made = serving_leader()
    behind(made, 3)
    transfer(made, 3)
    with pytest.raises(OverloadedError):
        propose(made, 1, 2)
    removed = serving_leader()
    propose(removed, 1, 2)
    with pytest.raises(InvalidRequestError):
        transfer(removed, 3)


def test_demote_node() -> None:
    """One that fetches on as an observer after its removal is not made the leader."""
    made = serving_leader()
    propose(made, 1, 2)
    catch_up(made, 2)
    catch_up(made, 3)
    with pytest.raises(InvalidRequestError):
        transfer(made, 3)
    assert made.raft.check_may_transfer(None) == 2


def test_back() -> None:
    """Naming the leader itself takes a transfer back."""
    made = serving_leader()
    behind(made, 3)
    transfer(made, 3)
    assert transfer(made, 1) == []
    assert given_up(made) == [3]
    propose(made)
    catch_up(made, 3)
    assert made.role == "leader"


def test_second_transfer_to_another_node() -> None:
    """The newer transfer counts, with its own deadline. The older one's caller gets an error."""
    made = serving_leader()
    behind(made, 3)
    transfer(made, 3)
    assert successors(transfer(made, 2)) == [(2, 3), (2, 3)]
    assert given_up(made) == [3]


def test_second_transfer_to_same_node() -> None:
    """The first one goes on; its time is not prolonged."""
    made = serving_leader()
    behind(made, 3)
    transfer(made, 3)
    made.tick(ELECTION_TIMEOUT_MS - 1)
    transfer(made, 3)
    transfer(made, None)
    assert given_up(made) == []
    made.tick(1)
    assert given_up(made) == [3]


def test_to_a_voter_that_is_silent() -> None:
    """hashicorp/raft 570: an end that was equal once says nothing of one that is gone."""
    made = serving_leader()
    made.now_ms += 1_000
    for _ in range(2):  # it echoes the round that the first one began
        catch_up(made, 2)
    assert successors(transfer(made, 3)) == []
    made.tick(ELECTION_TIMEOUT_MS)
    assert (made.role, given_up(made)) == ("leader", [3])


def test_to_nobody_in_particular() -> None:
    """The voter that is heard and holds most; a sole voter has no successor."""
    made = serving_leader()
    behind(made, 2)
    assert made.raft.check_may_transfer(None) == 3
    silent = serving_leader()
    silent.now_ms += 1_000
    catch_up(silent, 3)
    assert silent.raft.check_may_transfer(None) == 3
    alone = machine(1, (1,))
    alone.due()
    assert alone.role == "leader"
    with pytest.raises(InvalidRequestError, match="no other voter"):
        alone.raft.check_may_transfer(None)
    assert transfer(alone, 1) == []


def test_a_successor_that_is_not_elected_leaves_the_place_to_another() -> None:
    """The named voter dies in that moment; the quorum elects a leader all the same."""
    made, leader = elected(1, 2, 3)
    named = leader % 3 + 1
    transfer(made.machines[leader], named)
    made.cut.append(named)
    made.run(5_000)
    leads = [one for one in made.leading if one != named]
    assert len(leads) == 1
    assert key(leads[0]) in made.machines[leads[0]].raft.ledger.voters
