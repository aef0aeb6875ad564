"""Rules of the machine for snapshots: which follower gets one, installs it, and what moves."""

from __future__ import annotations

import pytest

from quorate_quorum.raft.machine.events import (
    Downloaded,
    FetchAnswered,
    HardStateSaved,
    LogCut,
    Saved,
    SnapshotTaken,
    Written,
)
from quorate_quorum.raft.machine.ledger import Below
from quorate_quorum.raft.machine.messages import DivergingEpoch, FetchResponse
from quorate_quorum.raft.machine.ready import Fetch
from quorate_quorum.raft.machine.timing import REPEAT_MS
from quorate_quorum.snapshots.file import SnapshotId
from tests.harness.raft_machines import (
    Machine,
    batch,
    candidate,
    follower,
    key,
    machine,
    serving_leader,
    voters,
)

HELD = (0, 1, 1, 2, 2, 2, 3, 3)  # then 4 at offset 8, of the reign under test


def cut_leader(log_start: int) -> Machine:
    """A leader with a snapshot of all below 6, which ends in epoch 2."""
    made = serving_leader(log=HELD, epoch=3)
    made.step(SnapshotTaken(SnapshotId(6, 2)))
    made.step(LogCut(log_start))
    return made


@pytest.mark.parametrize(
    ("log_start", "offset", "last_epoch", "expected"),
    [
        pytest.param(6, 6, 2, None, id="at-the-snapshot"),
        pytest.param(6, 7, 3, None, id="above-it"),
        pytest.param(6, 9, 4, None, id="at-the-end"),
        pytest.param(6, 6, 1, "snapshot", id="at-it-with-another-past"),
        pytest.param(6, 7, 1, "snapshot", id="above-it-but-parted-below"),
        pytest.param(6, 5, 2, "snapshot", id="one-below"),
        pytest.param(6, 0, -1, "snapshot", id="empty"),
        pytest.param(6, 1, 0, "snapshot", id="bootstrap-only"),
        pytest.param(6, 8, 2, DivergingEpoch(2, 6), id="parted-at-the-snapshot"),
        pytest.param(6, 12, 3, DivergingEpoch(3, 8), id="parted-above-it"),
        pytest.param(6, 9, 9, DivergingEpoch(4, 9), id="of-an-epoch-that-we-never-saw"),
        pytest.param(4, 4, 2, None, id="start-below-the-snapshot"),
        pytest.param(4, 6, 2, None, id="start-below-the-snapshot-and-at-it"),
        pytest.param(4, 4, 1, "snapshot", id="start-below-the-snapshot-with-another-past"),
        pytest.param(4, 3, 2, "snapshot", id="below-a-start-below-the-snapshot"),
    ],
)
def test_a_leader_whose_log_is_cut_answers_by_batches_divergence_or_snapshot(
    log_start: int, offset: int, last_epoch: int, expected: DivergingEpoch | str | None
) -> None:
    """Exactly at the snapshot's end the log goes on. It is cut though others probe it."""
    made = cut_leader(log_start)
    made.tick(1000)
    before = made.reign.replicas.of(key(2)).log_end_offset
    told = made.fetch(2, offset, last_epoch, number=2)
    if not told:
        told = [m for m in made.due() if hasattr(m, "response")]  # type: ignore[misc]
    response = told[0].response
    assert response.diverging == (expected if isinstance(expected, DivergingEpoch) else None)
    assert response.snapshot == (SnapshotId(6, 2) if expected == "snapshot" else None)
    if expected is not None:
        assert told[0].end == 0
        progress = made.reign.replicas.of(key(2))
        assert progress.log_end_offset == before, "it moves no state"


def test_a_log_that_was_never_cut_is_given_from_its_start() -> None:
    made = serving_leader(log=HELD, epoch=3)
    made.step(SnapshotTaken(SnapshotId(6, 2)))
    (told,) = made.fetch(2, 0, -1, number=2)
    assert (told.response.snapshot, told.response.diverging, told.end) == (None, None, 9)


def test_a_round_echoed_with_a_fetch_below_the_log_counts() -> None:
    """A voter that downloads for minutes still hears the leader: check-quorum must count it."""
    made = cut_leader(6)
    for _ in range(20):
        made.now_ms += 200
        for replica in (2, 3):
            made.fetch(replica, 1, 0, round=made.raft.state.round, number=2)
        made.tick()
    assert made.role == "leader"


def test_what_is_cut_takes_epochs_and_voters_with_it_but_not_the_last_of_each() -> None:
    """The voters of a snapshot are those of its offset, not of what was appended since."""
    made = serving_leader(ids=(1, 2, 3), log=(0, 1, 2, 2), epoch=2)
    more = voters(1, 2, 3, 4)
    made.raft.ledger.append(batch(5, 3, members=more))
    made.step(SnapshotTaken(SnapshotId(4, 2)))
    below = made.raft.ledger.snapshot
    assert below == Below(4, 2, voters(1, 2, 3))
    made.step(LogCut(3))
    ledger = made.raft.ledger
    assert ledger.log_start_offset == 3
    assert ledger.epochs() == ((2, 2), (3, 4))
    assert [ledger.epoch_before(offset) for offset in (2, 3, 4, 5)] == [-1, 2, 2, 3]
    assert ledger.voters == more
    ledger.truncate(5)
    assert ledger.voters == voters(1, 2, 3)


def test_news_of_an_older_snapshot_or_cut_changes_nothing() -> None:
    """One taken while a newer one was installed."""
    made = cut_leader(6)
    made.step(SnapshotTaken(SnapshotId(3, 1)))
    made.step(LogCut(2))
    ledger = made.raft.ledger
    assert ledger.snapshot is not None
    assert (ledger.snapshot.id, ledger.log_start_offset) == (SnapshotId(6, 2), 6)


# --- the follower -------------------------------------------------------------------------------


def answer(made: Machine, snapshot: SnapshotId | None, leader: int = 2) -> FetchResponse:
    return FetchResponse(
        made.epoch, leader, made.raft.ledger.log_end_offset, 90, 80, 3, snapshot=snapshot
    )


def told_of(snapshot: SnapshotId, *, log: tuple[int, ...] = (0, 1, 1), epoch: int = 4) -> Machine:
    made = follower(log=log, epoch=epoch)
    made.answered(answer(made, snapshot))
    return made


def wanted(made: Machine) -> SnapshotId | None:
    install = made.readies[-1].install
    return None if install is None else install.snapshot


SNAPSHOT = SnapshotId(90, 3)


def below(snapshot: SnapshotId = SNAPSHOT) -> Downloaded:
    return Downloaded(Below(*snapshot, voters(1, 2, 3)))


def test_a_follower_that_is_told_of_a_snapshot_wants_it_and_fetches_on_slowly() -> None:
    made = told_of(SNAPSHOT)
    install = made.readies[-1].install
    assert install is not None
    assert (install.snapshot, install.epoch, install.endpoint) == (SNAPSHOT, 4, "host2:1")
    for _ in range(30):  # much longer than a fetch timeout
        assert made.tick(REPEAT_MS - 1) == []
        (fetch,) = made.tick(1)
        assert isinstance(fetch, Fetch)
        assert (fetch.request.fetch_offset, fetch.request.round) == (3, 3)
        made.answered(answer(made, SNAPSHOT))
        assert (made.role, wanted(made)) == ("follower", SNAPSHOT)


@pytest.mark.parametrize(
    "snapshot",
    [
        pytest.param(SnapshotId(3, 1), id="at-the-high-watermark"),
        pytest.param(SnapshotId(1, 0), id="below-it"),
        pytest.param(SnapshotId(-1, -1), id="negative"),
        pytest.param(SnapshotId(90, 5), id="of-an-epoch-to-come"),
        pytest.param(SnapshotId(90, 0), id="of-an-epoch-before-what-is-committed"),
    ],
)
def test_a_snapshot_that_no_honest_leader_names_is_not_taken_up(snapshot: SnapshotId) -> None:
    """At or below our high watermark it could only take back what is committed."""
    made = follower(log=(0, 1, 1), epoch=4)
    made.answered(FetchResponse(4, 2, 3, 3))
    assert made.raft.high_watermark == 3
    made.drain()
    session = made.raft.role.session
    said = made.answered(answer(made, snapshot))
    assert said == [], "nothing is asked of it for a while"
    assert made.raft.role.session != session
    assert wanted(made) is None
    made.step(below(snapshot))
    assert made.raft.ledger.log_end_offset == 3


def test_a_newer_snapshot_of_the_leader_replaces_the_download_and_an_older_one_does_not() -> None:
    """Two snapshots quickly, one after the other (etcd #18055)."""
    made = told_of(SNAPSHOT)
    made.due()
    made.answered(answer(made, SnapshotId(80, 3)))
    assert wanted(made) == SNAPSHOT
    made.due()
    made.answered(answer(made, SnapshotId(120, 4)))
    assert wanted(made) == SnapshotId(120, 4)
    made.step(below())
    assert made.raft.ledger.log_end_offset == 3, "the one before is not wanted any more"
    made.step(below(SnapshotId(120, 4)))
    assert made.raft.ledger.log_end_offset == 120


def test_another_leader_is_asked_for_the_rest_of_what_it_names_too() -> None:
    made = told_of(SNAPSHOT)
    made.begin_epoch(3, 5)
    assert wanted(made) is None, "until it has named one"
    made.answered(answer(made, SNAPSHOT, leader=3))
    install = made.readies[-1].install
    assert install is not None
    assert (install.snapshot, install.epoch, install.endpoint) == (SNAPSHOT, 5, "host3:1")


def test_what_is_installed_moves_every_end_at_once_and_the_log_begins_anew() -> None:
    """Never a high watermark beyond the log. Nothing of the old log comes back."""
    made = told_of(SNAPSHOT, log=(0, 1, 1, 2, 2))
    truncations = made.raft.ledger.truncations
    made.saves_at_once = False
    said = made.step(below())
    made.saves_at_once = True
    ledger = made.raft.ledger
    save = next(ready.save for ready in reversed(made.readies) if ready.save is not None)
    assert (save.begin_at, save.truncate_to, save.batches, save.end_offset) == (90, None, (), 90)
    assert ledger.log_start_offset == ledger.log_end_offset == ledger.high_watermark == 90
    assert ledger.written_end == ledger.synced_end == 90
    assert (ledger.truncations, ledger.last_epoch) == (truncations + 1, 3)
    assert ledger.end_offset_for(2) == (-1, 90), "no epoch of the old log"
    assert made.readies[-1].readable_end == 90
    assert wanted(made) is None
    fetches = [message for message in said if isinstance(message, Fetch)]
    assert [(f.request.fetch_offset, f.request.last_fetched_epoch) for f in fetches] == [(90, 3)]
    made.answered(FetchResponse(4, 2, 90, 90, batches=(batch(90, 4, begins=True),)))
    assert ledger.log_end_offset == ledger.synced_end == 91


def test_what_was_not_handed_out_before_an_install_is_not_written_after_it() -> None:
    """Neither a cut of the old log nor a batch on its end belongs to the one that begins."""
    made = follower(log=(0, 1, 1), epoch=4)
    made.drain()
    session = made.raft.role.session

    def told(response: FetchResponse) -> None:
        made.raft.step(FetchAnswered(session, response), 0)

    told(FetchResponse(4, 2, 3, 1, diverging=DivergingEpoch(1, 2)))
    told(FetchResponse(4, 2, 2, 1, batches=(batch(2, 1),)))
    told(answer(made, SNAPSHOT))
    made.raft.step(below(), 0)
    ready = made.raft.ready()
    assert ready is not None
    assert ready.save is not None
    save = ready.save
    assert (save.begin_at, save.truncate_to, save.batches, save.end_offset) == (90, None, (), 90)


def test_completions_from_before_an_install_say_nothing_after_it() -> None:
    """They name the same offset, but of another log."""
    made = told_of(SNAPSHOT)
    before = made.raft.ledger.truncations
    made.saves_at_once = False
    made.step(below())
    made.answered(FetchResponse(4, 2, 90, 90, batches=(batch(90, 4, count=10, begins=True),)))
    made.step(Written(100, before))
    made.step(Saved(4, 100, before))
    assert (made.raft.ledger.written_end, made.raft.ledger.synced_end) == (90, 90)


def test_a_download_that_is_done_too_late_drops_nothing_that_was_acknowledged() -> None:
    """The follower has acknowledged more to the next leader than the snapshot holds.

    A leader or candidate does not install it either: others count on its log.
    """
    made = told_of(SnapshotId(4, 3), log=(0, 1, 1), epoch=4)
    made.begin_epoch(3, 5)
    made.answered(
        FetchResponse(5, 3, 3, 0, batches=(batch(3, 3, begins=True), batch(4, 5, begins=True)))
    )
    assert made.raft.ledger.synced_end == 5
    made.step(below(SnapshotId(4, 3)))
    assert made.raft.ledger.log_end_offset == 5
    for other in (serving_leader(), candidate(), machine()):
        end = other.raft.ledger.log_end_offset
        other.step(below())
        assert other.raft.ledger.log_end_offset == end


def test_an_answer_with_batches_ends_the_download() -> None:
    made = told_of(SNAPSHOT)
    made.due()
    made.answered(FetchResponse(4, 2, 3, 3, batches=(batch(3, 3, begins=True),)))
    assert wanted(made) is None
    made.step(below())
    assert made.raft.ledger.log_end_offset == 4


def test_who_installs_votes_by_the_log_that_it_has_and_takes_the_snapshot_up_afterwards() -> None:
    made = told_of(SNAPSHOT, log=(0, 1, 1))
    assert not made.ask_vote(3, 4, last_epoch=3, end=95, pre_vote=True).granted, "it hears one"
    assert made.ask_vote(3, 5, last_epoch=3, end=95).granted
    assert wanted(made) is None
    made.step(below())
    assert made.raft.ledger.log_end_offset == 3
    made.begin_epoch(3, 5)
    made.answered(answer(made, SNAPSHOT, leader=3))
    made.step(below())
    assert made.raft.ledger.log_end_offset == 90
    assert not made.ask_vote(2, 6, last_epoch=3, end=89).granted
    assert made.ask_vote(2, 7, last_epoch=3, end=90).granted


def test_a_replaced_disk_that_is_told_of_a_snapshot_gives_no_votes_until_it_caught_up() -> None:
    """It holds the bootstrap batch only, and the quorum has a history."""
    made = follower(log=(0,), epoch=4)
    made.answered(answer(made, SNAPSHOT))
    assert made.raft.hard_state.is_behind
    made.step(below())
    assert made.raft.hard_state.is_behind, "its leader has committed more"
    made.answered(FetchResponse(4, 2, 90, 91, batches=(batch(90, 4, begins=True),)))
    made.answered(FetchResponse(4, 2, 91, 91))
    assert not made.raft.hard_state.is_behind


def test_nothing_is_downloaded_before_it_is_on_disk_that_the_disk_may_have_forgotten() -> None:
    """A crash between the two would leave a history, and votes for logs that lack the rest of it.

    The file of epoch and vote is written in order with the log; the download is not.
    """
    made = follower(log=(0,), epoch=4)
    made.saves_at_once = False
    made.readies.clear()
    made.answered(answer(made, SNAPSHOT))
    assert [ready.install for ready in made.readies] == [None]
    (told,) = [ready for ready in made.readies if ready.hard_state is not None]
    assert told.hard_state is not None
    assert told.hard_state.is_behind
    made.step(HardStateSaved(told.hard_state_version))
    assert wanted(made) == SNAPSHOT
