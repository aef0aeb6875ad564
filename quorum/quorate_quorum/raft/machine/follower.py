"""The role of a replica that fetches from the leader of its epoch.

A fetch acknowledges everything below its offset, so it names what is synced and nothing more: what
a power loss can take must not count towards a majority.
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
        #: When the leader counts as gone: no answer came for a fetch timeout.
        self.timeout_at_ms = self._fetch_timeout_at()
        #: The leader answered on this unbroken stream: pre-votes are denied until then. Shorter
        #: than the timeout, so that voters which lost their leader grant each other in time.
        self.fresh_until_ms = NEVER
        #: A request is under way; the next one waits for its answer.
        self.is_waiting = False
        #: When to repeat the last synced offset while a sync is slow, or to ask again.
        self.repeat_at_ms = NEVER
        #: One break may be the network's; a second one without an answer between is the leader's.
        self.has_reconnected = False
        #: The newest round that the leader issued; echoed, it proves that we heard it.
        self.round = 0
        #: The first high watermark that this leader told while our log was as its own; 0: none yet.
        self.catch_up_to = 0
        #: The snapshot that the leader named instead of what we asked for; it is being downloaded.
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
        """Say whether our leader has ended its reign, and another voter is to stand first."""
        request = event.request
        is_ours = (request.epoch, request.leader_id) == (self.state.epoch, self.leader.id)
        return is_ours and self._successors(request)[:1] != (self.state.me.id,)

    # --- fetching -------------------------------------------------------------------------------

    def _fetch(self) -> None:
        """Acknowledge what is synced and ask for more."""
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
        """The next fetch acknowledges, so it waits for the sync or a snapshot; but not for long.

        While it is repeated, rounds, check-quorum and the fetch timeout go on as ever: a slow disk
        must cost neither the leader its reign nor the follower its leader.
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
        """A broken stream is opened again once. Refused, or broken again: stand soon."""
        self.fresh_until_ms = NEVER
        self.is_waiting = False
        self.repeat_at_ms = NEVER
        self.session = self._new_session()
        if not refused and not self.has_reconnected:
            self.has_reconnected = True
            self._fetch()
            return
        # Nothing is asked of the leader until then: a refusal a moment later says nothing new.
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
        """Take in what the leader says, and ask on."""
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
        # An answer to an earlier fetch, from before a cut, does not follow on our present log.
        if response.base_offset == state.ledger.log_end_offset:
            to = self._take_answer(response)
        if to is None and self.session == event.session:  # else it is suspected now
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
        """Take an answer to a fetch from our present end.

        Our past is the leader's, or diverges from it, or the leader has cut what we need.
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
        """Cut back to where our log may agree with the leader's; the next fetch asks again.

        The leader names the end of its newest epoch at or below our last one (KIP-101): one round
        an epoch, where Raft's consistency check (5.3) goes back record by record.
        """
        state, ledger = self.state, self.state.ledger
        epoch, end = ledger.end_offset_for(diverging.epoch)
        if epoch == diverging.epoch:
            end = min(end, diverging.end_offset)
        if end >= ledger.log_end_offset:
            self._suspect(refused=True)  # a leader that can't be agreed with is a broken one
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
        """Only by a snapshot do we go on; of two that one leader names the newer one counts.

        What we hold committed, the leader must hold too: one that names an older end, or an epoch
        that cannot follow, is broken.
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
        """Let the log begin anew at the snapshot, if it is the one that we wait for now.

        Since the leader named it nothing was appended or cut. Any other one may end below what we
        have acknowledged to a leader that came later.
        """
        if self.install is not None and self.install.snapshot == event.below.id:
            self.install = None
            self.state.begin_anew(event.below)
            self._fetch_or_wait()

    # --- history --------------------------------------------------------------------------------

    def _notice_history(self, response: FetchResponse) -> None:
        """A voter that holds only the bootstrap batch meets a quorum that has gone on without it.

        Its disk may have been replaced. A quorum that begins now shows nothing but the EpochStart
        of its present epoch.
        """
        if not response.batches or not self.state.ledger.holds_only_bootstrap:
            return
        end = response.batches[-1].end_offset
        if response.high_watermark > end or response.batches[0].epoch < response.epoch:
            self.state.fall_behind()

    def _notice_caught_up(self) -> None:
        """What was committed when we met this leader is ours now, and so is all that we forgot.

        Not its present high watermark, which under load is always a little ahead of us. And before
        the fetch that says how far we are: a replica that is made a voter by that fetch must be
        able to vote.
        """
        state = self.state
        if state.hard_state.is_behind and 0 < self.catch_up_to <= state.ledger.synced_end:
            state.save(replace(state.hard_state, is_behind=False))


def _contradicts(response: FetchResponse) -> bool:
    """Say whether an answer that does not end the fetch holds what only its end may hold."""
    told = response.batches or response.diverging or response.snapshot
    return response.interim and bool(told)


def _is_sound(ledger: Ledger, response: FetchResponse) -> bool:
    """Say whether the batches follow on our log and belong to epochs that have been.

    Offset and epoch of a batch lie outside its CRC: our end and the EpochStarts vouch for them.
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
