"""The Follower machine: truncation by epochs, the high watermark as a floor."""

from __future__ import annotations

from quorate_broker.replica.follower import (
    Append,
    Follower,
    Ignore,
    Refuse,
    StartAt,
    Step,
    Truncate,
)
from quorate_quorum.log.epochs import EpochCache

OURS = EpochCache([(1, 0), (3, 10), (4, 14)])
END = 20


def follower(*, high_watermark: int = 0, learnt_in: int = 0, recovered: int = -1) -> Follower:
    return Follower(
        leader=2,
        leader_epoch=6,
        recovered_epoch=recovered,
        high_watermark=high_watermark,
        high_watermark_epoch=learnt_in,
    )


def diverged(machine: Follower, epoch: int, end_offset: int) -> Step:
    return machine.diverged(
        leader_epoch=6,
        epoch=epoch,
        end_offset=end_offset,
        log_start_offset=0,
        log_end_offset=END,
        end_offset_for=lambda epoch: OURS.end_offset_for(epoch, END),
    )


def test_it_cuts_to_where_the_leaders_epoch_ends() -> None:
    assert diverged(follower(), 4, 16) == Truncate(16)


def test_it_cuts_to_where_its_own_epoch_ends_if_that_is_less() -> None:
    assert diverged(follower(), 3, 18) == Truncate(14)


def test_it_steps_down_where_it_lacks_the_leaders_epoch() -> None:
    """KIP-279: the follower never saw epoch 2: it goes to the end of its epoch 1 and asks again."""
    assert diverged(follower(), 2, 12) == Truncate(10)


def test_all_of_it_goes_if_the_leader_has_only_older_epochs() -> None:
    assert diverged(follower(), 0, 5) == Truncate(0)


def test_an_answer_that_cuts_nothing_is_no_answer() -> None:
    assert isinstance(diverged(follower(), 4, 25), Ignore)
    assert isinstance(diverged(follower(), 5, 25), Ignore)
    assert isinstance(diverged(follower(), 4, -1), Ignore)


def test_law_4_it_never_cuts_below_its_high_watermark() -> None:
    assert diverged(follower(high_watermark=16), 4, 16) == Truncate(16)
    assert isinstance(diverged(follower(high_watermark=17), 4, 16), Refuse)


def test_law_4_except_across_a_recovery_after_it_was_learnt() -> None:
    across = follower(high_watermark=17, learnt_in=4, recovered=5)
    assert diverged(across, 4, 16) == Truncate(16, drops_committed=True)
    across.truncated(16)
    assert across.high_watermark == 16

    since = follower(high_watermark=17, learnt_in=5, recovered=5)
    assert isinstance(diverged(since, 4, 16), Refuse)


def test_an_answer_of_another_leader_epoch_is_ignored() -> None:
    machine = follower()

    step = machine.answered(leader_epoch=5, base_offset=20, log_end_offset=20, has_batches=True)

    assert isinstance(step, Ignore)


def test_batches_for_another_offset_are_ignored() -> None:
    machine = follower()

    late = machine.answered(leader_epoch=6, base_offset=10, log_end_offset=20, has_batches=True)
    bare = machine.answered(leader_epoch=6, base_offset=10, log_end_offset=20, has_batches=False)

    assert isinstance(late, Ignore)
    assert isinstance(bare, Append)


def test_the_high_watermark_is_at_most_what_we_have_and_never_goes_back() -> None:
    machine = follower()
    assert machine.learn(30, 20)
    assert (machine.high_watermark, machine.high_watermark_epoch) == (20, 6)

    assert not machine.learn(15, 25)
    assert machine.high_watermark == 20


def test_a_lower_high_watermark_of_a_new_leader_does_not_renew_its_epoch() -> None:
    """What was learnt in epoch 4 is not confirmed by a leader that knows less."""
    machine = follower(high_watermark=18, learnt_in=4)

    machine.learn(10, 20)

    assert machine.high_watermark_epoch == 4


def out_of_range(machine: Follower, *, leader_start: int, start: int, end: int) -> Step:
    return machine.out_of_range(
        leader_epoch=6,
        leader_log_start_offset=leader_start,
        log_start_offset=start,
        log_end_offset=end,
    )


def test_below_the_leaders_start_it_begins_again_and_moves_its_high_watermark() -> None:
    """The high watermark moves along, or it would lie below the log's start."""
    machine = follower(high_watermark=20, learnt_in=6)
    step = out_of_range(machine, leader_start=50, start=0, end=20)
    assert step == StartAt(50)

    machine.started_at(50)

    assert machine.high_watermark == 50


def test_an_empty_log_above_the_leaders_end_begins_again_unless_that_drops_committed() -> None:
    assert out_of_range(follower(), leader_start=0, start=50, end=50) == StartAt(0)
    kept = follower(high_watermark=50, learnt_in=6)
    assert isinstance(out_of_range(kept, leader_start=0, start=50, end=50), Refuse)


def test_a_log_with_records_is_not_dropped_for_being_out_of_range() -> None:
    assert isinstance(out_of_range(follower(), leader_start=0, start=0, end=20), Ignore)
