"""The role of a replica that fetches from the leader of its epoch.

A fetch acknowledges all records below its offset. So a follower fetches from its synced end: a
record that a power loss can take must not count towards a majority.
"""

from __future__ import annotations

from dataclasses import replace

from quorate_quorum.log.epochs import misfit
from quorate_quorum.raft.machine.events import (
    Downloaded,
    EndEpochRequested,
    Event,
    FetchAnswered,
    FetchBroken,
    Saved,
)
from quorate_quorum.raft.machine.ledger import Ledger
from quorate_quorum.raft.machine.messages import DivergingEpoch, FetchRequest, FetchResponse
from quorate_quorum.raft.machine.ready import Fetch, Install
from quorate_quorum.raft.machine.role import Role, ended
from quorate_quorum.raft.machine.state import State
from quorate_quorum.raft.machine.timing import REFUSED_MS, REPEAT_MS
from quorate_quorum.raft.machine.transitions import ToUnattached, Transition
from quorate_quorum.raft.machine.voters import ReplicaKey
from quorate_quorum.snapshots.file import SnapshotId

NEVER = -1


class Follower(Role):
    """Fetches from the leader of its epoch. Nothing below the high watermark is ever cut."""

    leader: ReplicaKey
    endpoint: str

    def __init__(self, state: State, leader: ReplicaKey, endpoint: str) -> None:
        super().__init__(state)
        self.leader = leader
        self.endpoint = endpoint
        self.session = self._new_session()
        #: The time at which the leader counts as gone, if no answer comes before it.
        self.timeout_at_ms = self._fetch_timeout_at()
        #: Until this time the follower denies pre-votes, because the leader has answered on the
        #: present stream. The time is earlier than the timeout, so that voters that lost their
        #: leader grant pre-votes to each other in time.
        self.fresh_until_ms = NEVER
        #: Whether a fetch is under way. The next one is sent after its answer.
        self.is_waiting = False
        #: The time of the next fetch. It has the same offset as the last one if the sync is not
        #: done by then.
        self.repeat_at_ms = NEVER
        #: Whether the stream was opened again since the last answer. One break may come from the
        #: network. A second break without an answer in between shows that the leader is gone.
        self.has_reconnected = False
        #: The newest round in the leader's answers. The follower's echo of the round proves that
        #: the follower heard this leader.
        self.round = 0
        #: The high watermark in this leader's first answer after the two logs agreed; 0: there was
        #: no such answer yet.
        self.catch_up_to = 0
        #: The snapshot under download, which the leader named instead of sending records; None: no
        #: download.
        self.install: Install | None = None

    def begin(self) -> None:
        self._fetch()

    def deadline(self) -> int:
        if self.repeat_at_ms >= 0:
            return min(self.timeout_at_ms, self.repeat_at_ms)
        return self.timeout_at_ms

    def tick(self) -> Transition | None:
        if self.state.now_ms >= self.timeout_at_ms:
            return self._stand(f"leader {self.leader.id} was not heard for a fetch timeout")
        if 0 <= self.repeat_at_ms <= self.state.now_ms:
            self._fetch()
        return None

    def step(self, event: Event) -> Transition | None:
        match event:
            case FetchAnswered() if event.session == self.session:
                return self._fetch_answered(event)
            case FetchBroken() if event.session == self.session:
                self._suspect(refused=event.refused)
            case Saved():
                self._fetch_or_wait()
            case Downloaded():
                self._downloaded(event)
            case EndEpochRequested() if self._is_left(event):
                return ToUnattached(self.state.epoch, ended(event.request), event=event)
            case _:
                return super().step(event)
        return None

    def check(self) -> None:
        assert self.leader != self.state.me

    def hears_a_leader(self) -> bool:
        return self.state.now_ms < self.fresh_until_ms

    def _is_left(self, event: EndEpochRequested) -> bool:
        """Return whether the leader ended its reign without naming this replica first."""
        request = event.request
        is_ours = (request.epoch, request.leader_id) == (self.state.epoch, self.leader.id)
        return is_ours and self._successors(request)[:1] != (self.state.me.id,)

    # --- fetching -------------------------------------------------------------------------------

    def _fetch(self) -> None:
        """Acknowledge the synced records and ask for more."""
        ledger = self.state.ledger
        request = FetchRequest(
            self.state.epoch,
            ledger.synced_end,
            ledger.epoch_before(ledger.synced_end),
            ledger.log_start_offset,
            ledger.high_watermark,
            self.round,
            self.state.hard_state.is_behind,
        )
        self.is_waiting = True
        self.repeat_at_ms = NEVER
        self.state.send(Fetch(self.session, self.endpoint, request))

    def _fetch_or_wait(self) -> None:
        """Fetch at once if all is synced; else after the sync or the snapshot, or after REPEAT_MS.

        The next fetch acknowledges the synced records, so it waits for the sync. If a disk is slow,
        the last fetch is repeated after REPEAT_MS. Without its answer the follower would begin an
        election, and without its echo the leader would resign.
        """
        if self.is_waiting:
            return
        ledger = self.state.ledger
        if ledger.synced_end == ledger.log_end_offset and self.install is None:
            self._notice_caught_up()
            self._fetch()
        elif self.repeat_at_ms < 0:
            self.repeat_at_ms = self.state.now_ms + REPEAT_MS

    def _suspect(self, *, refused: bool) -> None:
        """Open a broken stream again, once.

        After a refusal or a second break, begin an election soon.
        """
        self.fresh_until_ms = NEVER
        self.is_waiting = False
        self.repeat_at_ms = NEVER
        self.session = self._new_session()
        if not refused and not self.has_reconnected:
            self.has_reconnected = True
            self._fetch()
            return
        # Send no fetch until the timeout: the leader would refuse it again.
        soon = self.state.now_ms + self.state.draw(*REFUSED_MS)
        self.timeout_at_ms = min(self.timeout_at_ms, soon)

    def _new_session(self) -> int:
        self.state.sessions += 1
        return self.state.sessions

    def _fetch_timeout_at(self) -> int:
        shortest = self.state.timing.fetch_timeout_ms
        return self.state.now_ms + self.state.draw(shortest, shortest * 3 // 2)

    # --- answers --------------------------------------------------------------------------------

    def _fetch_answered(self, event: FetchAnswered) -> Transition | None:
        """Take in the leader's answer, and fetch again."""
        response, state = event.response, self.state
        if response.epoch > state.epoch:
            return self._newer_epoch(response)
        self.is_waiting &= response.interim
        if response.refusal is not None or response.epoch < state.epoch or _contradicts(response):
            self._suspect(refused=True)
            return None
        self.timeout_at_ms = self._fetch_timeout_at()
        self.fresh_until_ms = state.now_ms + state.timing.fetch_timeout_ms
        self.has_reconnected = False
        self.round = response.round
        to = None
        # Skip an answer to a fetch that was sent before a cut: it does not fit the present log.
        if response.base_offset == state.ledger.log_end_offset:
            to = self._take_answer(response)
        # After _suspect, which may have begun another session, do not fetch here.
        if to is None and self.session == event.session:
            self._fetch_or_wait()
        return to

    def _newer_epoch(self, response: FetchResponse) -> Transition | None:
        sender = "the node fetched from"
        entered = self._enter(response.epoch, sender, is_heeded=True)
        if entered is None:
            self._suspect(refused=True)
            return None
        return replace(entered, follow=self._hint(response.leader, self.endpoint))

    def _take_answer(self, response: FetchResponse) -> Transition | None:
        """Take an answer to a fetch from the present end of this log.

        The answer has one of three forms: batches, if the leader's log continues this one; a
        diverging epoch; or a snapshot, if the leader has cut the records that this replica needs.
        """
        if response.snapshot is not None:
            self._install(response.snapshot)
            return None
        self.install = None
        if response.diverging is not None:
            return self._diverge(response.diverging)
        if not _is_sound(self.state.ledger, response):
            self._suspect(refused=True)
            return None
        self._notice_history(response)
        self.catch_up_to = self.catch_up_to or response.high_watermark
        self._notice_caught_up()
        for batch in response.batches:
            self.state.append(batch)
        end = min(response.high_watermark, self.state.ledger.log_end_offset)
        self.state.raise_high_watermark(end)
        return None

    def _diverge(self, diverging: DivergingEpoch) -> Transition | None:
        """Cut the log to where it may agree with the leader's log. The next fetch shows more.

        The leader names its newest epoch at or below this log's last epoch, and where that epoch
        ends (KIP-101). So each fetch goes back by a whole epoch. (In Raft, 5.3, it goes back by one
        record.)
        """
        state, ledger = self.state, self.state.ledger
        epoch, end = ledger.end_offset_for(diverging.epoch)
        if epoch == diverging.epoch:
            end = min(end, diverging.end_offset)
        if end >= ledger.log_end_offset:
            self._suspect(refused=True)  # no cut can make the logs agree: the leader is at fault
            return None
        if end < ledger.high_watermark:
            state.outbox.fatal = (
                f"leader {self.leader.id} of epoch {state.epoch} asks to cut the metadata log"
                f" at {end}, below the high watermark {ledger.high_watermark}: committed"
                " events would be lost; compare the voters' disks before restarting"
            )
            return ToUnattached(state.epoch, "its log contradicts the leader's")
        state.cut(end)
        return None

    # --- snapshots ------------------------------------------------------------------------------

    def _install(self, snapshot: SnapshotId) -> None:
        """Download the snapshot that the leader named, unless it named a newer one before.

        The leader must hold all records that are committed here. If the snapshot ends below those
        records, or has an epoch that can't follow theirs, the leader is at fault.
        """
        state, ledger = self.state, self.state.ledger
        committed_epoch = max(ledger.epoch_before(ledger.high_watermark), 0)
        follows = snapshot.offset > ledger.high_watermark
        if not follows or not committed_epoch <= snapshot.epoch <= state.epoch:
            self._suspect(refused=True)
            return
        if ledger.holds_only_bootstrap:
            state.fall_behind()
        if self.install is None or self.install.snapshot < snapshot:
            self.install = Install(snapshot, state.epoch, self.endpoint)

    def _downloaded(self, event: Downloaded) -> None:
        """Begin the log anew at the snapshot, if this role waits for this snapshot.

        Since the leader named that snapshot, this log was neither cut nor appended to. Any other
        snapshot may end below records that this replica has acknowledged to a later leader.
        """
        if self.install is not None and self.install.snapshot == event.below.id:
            self.install = None
            self.state.begin_anew(event.below)
            self._fetch_or_wait()

    # --- history --------------------------------------------------------------------------------

    def _notice_history(self, response: FetchResponse) -> None:
        """Note that this disk may have been replaced, if the leader's log shows it.

        The sign: this log holds only the bootstrap batch, but the leader's log holds more than that
        batch and the EpochStart of its present epoch. So the quorum did not begin just now.
        """
        if not response.batches or not self.state.ledger.holds_only_bootstrap:
            return
        end = response.batches[-1].end_offset
        if response.high_watermark > end or response.batches[0].epoch < response.epoch:
            self.state.fall_behind()

    def _notice_caught_up(self) -> None:
        """Clear `is_behind` once all records below `catch_up_to` are synced.

        Those records include everything that this disk forgot. The leader's present high watermark
        can't be the goal: under load it is always a little ahead of the follower. The flag is
        cleared before the fetch that acknowledges the records: that fetch may make this replica a
        voter, and a voter must be able to vote.
        """
        state = self.state
        if state.hard_state.is_behind and 0 < self.catch_up_to <= state.ledger.synced_end:
            state.save(replace(state.hard_state, is_behind=False))


def _contradicts(response: FetchResponse) -> bool:
    """Return whether an interim answer has fields that only a final answer may have."""
    told = response.batches or response.diverging or response.snapshot
    return response.interim and bool(told)


def _is_sound(ledger: Ledger, response: FetchResponse) -> bool:
    """Return whether the batches continue the log, and each epoch begins with its EpochStart.

    A batch's CRC does not cover the batch's offset and epoch, so this function checks both.
    """
    offset, epoch = ledger.log_end_offset, ledger.last_epoch
    for batch in response.batches:
        follows = batch.base_offset == offset and batch.end_offset > offset
        if not follows or batch.epoch > response.epoch:
            return False
        if misfit(batch.epoch, batch.epoch_start, epoch) is not None:
            return False
        offset, epoch = batch.end_offset, batch.epoch
    return True
