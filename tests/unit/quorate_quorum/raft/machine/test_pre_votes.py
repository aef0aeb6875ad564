"""Who grants a pre-vote: every state of a voter against every kind of request (KIP-996).

`+` granted, `.` refused. No grant is remembered, and none raises an epoch that no voter is in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quorate_quorum.raft.machine.events import FetchBroken
from quorate_quorum.raft.machine.follower import Follower
from quorate_quorum.raft.machine.hard_state import EPOCH_LEAP_MAX
from quorate_quorum.raft.machine.messages import FetchResponse
from quorate_quorum.raft.machine.voters import ReplicaKey
from tests.harness.raft_machines import Machine, candidate, leader, machine, serving_leader

EPOCH = 4
#: The bootstrap record, two of epoch 1, one of epoch 3.
LOG = (0, 1, 1, 3)
GIVEN: dict[str, Any] = {"log": LOG, "epoch": EPOCH}


def follower() -> Machine:
    made = machine(**GIVEN)
    made.begin_epoch(2, EPOCH)
    return made


def fresh() -> Machine:
    made = follower()
    made.answered(FetchResponse(EPOCH, 2, len(LOG)))
    return made


def stale() -> Machine:
    made = fresh()
    made.now_ms += 1000
    return made


def broken() -> Machine:
    made = fresh()
    assert isinstance(made.raft.role, Follower)
    made.step(FetchBroken(made.raft.role.session, refused=False))
    return made


def prospective() -> Machine:
    made = machine(**GIVEN)
    made.due()
    return made


def resigned() -> Machine:
    made = leader(**GIVEN)
    made.tick(1500)
    return made


def serving() -> Machine:
    return serving_leader(**GIVEN)


def left() -> Machine:
    """A leader whose followers left it a moment ago, and which does not know it yet."""
    made = serving_leader(**GIVEN)
    made.now_ms += 1400
    return made


def voted_for(voter: int) -> Callable[[], Machine]:
    return lambda: machine(**GIVEN, voted_for=voter)


def behind(first_vote_epoch: int) -> Callable[[], Machine]:
    return lambda: machine(**GIVEN, is_behind=True, first_vote_epoch=first_vote_epoch)


def bootstrap() -> Machine:
    return machine(log=(0,), epoch=EPOCH)


def observer() -> Machine:
    return machine(ids=(2, 3, 4), **GIVEN)


#: One column a kind of request, in the order of REQUESTS.
STATES: dict[str, tuple[Callable[[], Machine], str]] = {
    #                                               same log
    #                                               | shorter log
    #                                               | | log of a newer epoch
    #                                               | | | longer log of an older epoch
    #                                               | | | | earlier epoch
    #                                               | | | | | later epoch
    #                                               | | | | | | stranger
    #                                               | | | | | | | stranger, later epoch
    #                                               | | | | | | | | furthest epoch
    #                                               | | | | | | | | | epoch too far
    #                                               | | | | | | | | | | another disk of ours
    #                                               | | | | | | | | | | | from ourselves
    "unattached": (lambda: machine(**GIVEN), "        + . + . . + + + + . . ."),
    "voted for another": (voted_for(2), "             + . + . . + + + + . . ."),
    "resigned at start": (voted_for(1), "             + . + . . + + + + . . ."),
    "resigned": (resigned, "                          + . + . . + + + + . . ."),
    "prospective": (prospective, "                    + . + . . + + + + . . ."),
    "candidate": (lambda: candidate(**GIVEN), "       + . + . . + + + + . . ."),
    "follower, unheard": (follower, "                 + . + . . + + + + . . ."),
    "follower": (fresh, "                             . . + . . + . . + . . ."),
    "follower, silence": (stale, "                    + . + . . + + + + . . ."),
    "follower, broken": (broken, "                    + . + . . + + + + . . ."),
    "leader": (lambda: leader(**GIVEN), "             . . + . . + . . + . . ."),
    "leader, serving": (serving, "                    . . + . . + . . + . . ."),
    "leader, left": (left, "                          . . + . . + . . + . . ."),
    "amnesiac": (behind(0), "                         . . . . . . . . . . . ."),
    "amnesiac, voted in 3": (behind(3), "             + . + . . + + + + . . ."),
    "bootstrap only": (bootstrap, "                   + . . . . + + + + . . ."),
    "observer": (observer, "                          + . + . . + + + + . . ."),
}


REQUESTS: dict[str, Callable[[Machine], dict[str, Any]]] = {
    "same log": lambda of: {},
    "shorter log": lambda of: {"end": of.raft.ledger.log_end_offset - 1},
    "log of a newer epoch": lambda of: {
        "last_epoch": of.raft.ledger.last_epoch + 1,
        "end": 2,
        "epoch": of.epoch + 1,
    },
    "longer log of an older epoch": lambda of: {
        "last_epoch": of.raft.ledger.last_epoch - 1,
        "end": 99,
    },
    "earlier epoch": lambda of: {"epoch": of.epoch - 1},
    "later epoch": lambda of: {"epoch": of.epoch + 1},
    "stranger": lambda of: {"candidate": 9},
    "stranger, later epoch": lambda of: {"candidate": 9, "epoch": of.epoch + 1},
    "furthest epoch": lambda of: {"epoch": of.epoch + EPOCH_LEAP_MAX},
    "epoch too far": lambda of: {"epoch": of.epoch + EPOCH_LEAP_MAX + 1},
    "another disk of ours": lambda of: {"voter": ReplicaKey(1, b"another disk....")},
    "from ourselves": lambda of: {"candidate": 1},
}
CASES = [
    pytest.param(make, request, granted == "+", id=f"{state} - {name}")
    for state, (make, row) in STATES.items()
    for (name, request), granted in zip(REQUESTS.items(), row.split(), strict=True)
]


@pytest.mark.parametrize(("make", "request_of", "granted"), CASES)
def test_who_grants_which_pre_vote(
    make: Callable[[], Machine], request_of: Callable[[Machine], dict[str, Any]], granted: bool
) -> None:
    """KIP-996: a leader denies all of its epoch, a follower while it hears its leader.

    A stranger that asks is heard only where no leader is; a log that holds less gets
    nothing, nor does anybody from a disk that forgot.
    """
    made = make()
    before = made.raft.hard_state
    ledger = made.raft.ledger
    request: dict[str, Any] = {
        "candidate": 3,
        "epoch": made.epoch,
        "last_epoch": ledger.last_epoch,
        "end": ledger.log_end_offset,
    } | request_of(made)

    assert made.ask_vote(**request, pre_vote=True).granted is granted

    after = made.raft.hard_state
    assert after.epoch in (before.epoch, request["epoch"]), "no epoch that no voter is in"
    if after.epoch == before.epoch:
        assert after.voted_for == before.voted_for, "a grant is no vote"
    else:
        assert after.voted_for is None
