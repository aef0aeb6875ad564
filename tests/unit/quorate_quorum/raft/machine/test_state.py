"""What all roles share: completions of the disk, and what waits for them."""

from __future__ import annotations

from quorate_quorum.raft.machine.events import (
    HardStateSaved,
    Saved,
)
from quorate_quorum.raft.machine.messages import (
    DivergingEpoch,
    FetchResponse,
)
from quorate_quorum.raft.machine.ready import Fetch
from tests.harness.raft_machines import (
    batch,
    follower,
    machine,
)


def test_a_completion_from_before_a_cut_is_not_credited_to_what_replaced_it() -> None:
    """The ABA problem of asynchronous appends, as in etcd."""
    made = follower(log=[0, 1, 1], epoch=2, synced=1)
    made.saves_at_once = False
    made.raft.ledger.synced_end = 1
    made.answered(FetchResponse(2, 3, 3))  # another leader's answer, our session: no batches
    made.answered(FetchResponse(2, 2, 3, diverging=DivergingEpoch(0, 1)))
    made.answered(FetchResponse(2, 2, 1, batches=(batch(1, 2, begins=True), batch(2, 2))))
    made.step(Saved(2, 3, 0))
    assert made.raft.ledger.synced_end == 1
    made.step(Saved(1, 3, 1))
    assert made.raft.ledger.synced_end == 1
    made.step(Saved(2, 3, 1))
    assert made.raft.ledger.synced_end == 3


def test_a_completion_that_is_ignored_is_followed_by_another_sync() -> None:
    made = follower(log=[0, 1, 1], epoch=2)
    made.saves_at_once = False
    made.raft.ledger.synced_end = 1
    made.readies.clear()
    made.step(Saved(1, 3, 0))
    (save,) = [r.save for r in made.readies if r.save]
    assert (save.epoch, save.end_offset, save.truncations) == (2, 3, 0)


def test_nothing_is_said_with_an_epoch_that_is_not_on_disk() -> None:
    made = machine(saves_at_once=False)
    assert made.begin_epoch(2, 4) == []
    version = made.readies[-1].hard_state_version
    said = made.step(HardStateSaved(version))
    assert [m.request.epoch for m in said if isinstance(m, Fetch)] == [4]
