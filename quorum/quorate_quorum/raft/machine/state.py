"""The state that the roles of one replica share: hard state, log, counters and pending effects.

A role reads and changes only this state and its own fields. Effects are collected in an `Outbox`,
which `take_ready` turns into a Ready. Messages leave only after epoch and vote are on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from quorate_quorum.raft.machine.events import (
    Event,
    HardStateSaved,
    LogCut,
    Saved,
    SnapshotTaken,
    Written,
)
from quorate_quorum.raft.machine.hard_state import EPOCH_LEAP_MAX, EPOCH_MAX, HardState
from quorate_quorum.raft.machine.ledger import Batch, Below, Ledger
from quorate_quorum.raft.machine.ready import (
    Call,
    Fetch,
    FindLeader,
    Install,
    Message,
    Ready,
    Reign,
    RoleChange,
    Save,
)
from quorate_quorum.raft.machine.timing import Timing
from quorate_quorum.raft.machine.voters import ReplicaKey

#: (epoch, handed_over_for_silence, base offset) -> the batch that holds the EpochStart event.
EpochStartEncoder = Callable[[int, bool, int], Batch]
#: (low, high) -> a whole number between them, both included.
Chance = Callable[[int, int], int]

#: A prime. The id times this number spreads the timeouts of voters that draw equal random numbers.
_SPREAD = 7919


@dataclass(slots=True)
class Outbox:
    """The effects that the driver has not taken yet. Each Ready empties it."""

    role_changes: list[RoleChange] = field(default_factory=list)
    lost_epoch: int | None = None
    reign: Reign | None = None
    hard_state: HardState | None = None
    messages: list[Message] = field(default_factory=list)
    confirmed_reads: list[tuple[int, int]] = field(default_factory=list)
    transfers_given_up: list[tuple[int, str]] = field(default_factory=list)
    fatal: str | None = None
    wants_applied: int | None = None
    #: A save first cuts or empties the log, and then appends. One Ready has one save, so no cut may
    #: come after an append in the same Ready. `State.cut` asserts this rule.
    truncate_to: int | None = None
    begin_at: int | None = None
    appended: list[Batch] = field(default_factory=list)
    wants_sync: bool = False

    @property
    def wants_save(self) -> bool:
        return self.wants_sync or bool(self.appended)

    def has_news(self) -> bool:
        """Return whether there is any effect. After most events there is none."""
        return bool(
            self.messages
            or self.wants_save
            or self.role_changes
            or self.confirmed_reads
            or self.transfers_given_up
            or self.lost_epoch is not None
            or self.reign is not None
            or self.hard_state is not None
            or self.fatal is not None
            or self.wants_applied is not None
        )


class State:
    """Hard state, log and outbox of one replica. The object lives as long as the process.

    Invariants, asserted after every event: snapshot <= high watermark; synced end <= written end
    <= log end; the high watermark never goes back; no record has an epoch above this replica's.
    """

    def __init__(
        self,
        me: ReplicaKey,
        ledger: Ledger,
        hard_state: HardState,
        *,
        timing: Timing,
        chance: Chance,
        epoch_start: EpochStartEncoder,
        endpoint: str,
        now_ms: int,
        bootstrap_servers: tuple[str, ...],
    ) -> None:
        self.me = me
        self.ledger = ledger
        self.hard_state = hard_state
        self.timing = timing
        self.epoch_start = epoch_start
        self.endpoint = endpoint
        self.now_ms = now_ms
        self.outbox = Outbox()
        #: The number of elections that this process began. Vote requests and answers have it: a
        #: vote for an earlier attempt must not count in a later one.
        self.attempts = 0
        #: The number of fetch streams that this process opened. Answers on older streams are
        #: ignored.
        self.sessions = 0
        #: The newest round. It grows over all reigns of this process: an echo from one reign must
        #: not confirm a read of the next.
        self.round = 0
        self.last_led_epoch = -1
        #: The epoch whose leader handed over because it heard no broker; -1: none. The next leader
        #: writes this reason into its EpochStart. Otherwise leadership could change for ever: each
        #: new leader would give every broker a fresh session, and would fence no dead broker.
        self.silenced_epoch = -1
        self._chance = chance
        self._bootstrap_servers = bootstrap_servers
        self._hard_state_version = 0
        self._saved_version = 0
        self._gated: list[Message] = []
        self._high_watermark_before = ledger.high_watermark
        self._readable_told = -1
        self._install_told: Install | None = None
        # Only a snapshot can have a newer epoch than the hard state. This replica did not vote in
        # that epoch.
        epoch = max(ledger.last_epoch, 0)
        if epoch > hard_state.epoch:
            self.save(hard_state.entering(epoch))

    @property
    def epoch(self) -> int:
        return self.hard_state.epoch

    def check(self) -> None:
        """Assert the invariants of the class. Nothing that a peer sends can break them."""
        ledger = self.ledger
        below = ledger.snapshot
        assert ledger.log_start_offset <= ledger.high_watermark <= ledger.log_end_offset
        assert ledger.log_start_offset <= (0 if below is None else below.offset), (
            "snapshot at start"
        )
        assert below is None or below.offset <= ledger.high_watermark
        assert ledger.synced_end <= ledger.written_end <= ledger.log_end_offset
        assert ledger.high_watermark >= self._high_watermark_before, "the high watermark went back"
        self._high_watermark_before = ledger.high_watermark
        assert ledger.last_epoch <= self.epoch

    def step(self, event: Event) -> bool:
        """Take in a completion of the disk. Return False if it is out of date."""
        match event:
            case Written():
                return self._written(event)
            case Saved():
                return self._saved(event)
            case HardStateSaved():
                self._saved_version = max(self._saved_version, event.version)
            case SnapshotTaken():
                self.ledger.note_snapshot(event.snapshot)
            case LogCut():
                self.ledger.cut_below(event.log_start_offset)
            case _:
                pass
        return True

    # --- the hard state -------------------------------------------------------------------------

    @property
    def is_saved(self) -> bool:
        """Whether the present epoch and vote are on disk."""
        return self._saved_version == self._hard_state_version

    def save(self, state: HardState) -> None:
        """Change the hard state. No message is sent before the change is on disk."""
        if state != self.hard_state:
            self.hard_state = self.outbox.hard_state = state
            self._hard_state_version += 1

    def fall_behind(self) -> None:
        """Note that this disk may lack records that this replica acknowledged."""
        self.save(replace(self.hard_state, is_behind=True))

    def may_enter(self, epoch: int, *, is_heeded: bool) -> bool:
        """Return whether this replica enters a peer's higher epoch (Raft, 5.1). It ends the role.

        The epoch is refused if the sender is not heeded, or if the epoch is too far ahead: one
        wrong message could depose a leader, or use up the epochs. A voter in epoch 0 may be new in
        an old quorum, so it accepts any epoch.
        """
        furthest = self.epoch + EPOCH_LEAP_MAX if self.epoch else EPOCH_MAX
        return is_heeded and self.epoch < epoch <= min(furthest, EPOCH_MAX)

    # --- voters ---------------------------------------------------------------------------------

    def is_voter(self) -> bool:
        return self.me in self.ledger.voters

    def is_sole_voter(self) -> bool:
        return len(self.ledger.voters.voters) == 1 and self.is_voter()

    def may_stand(self) -> bool:
        """Return whether this replica may begin an election.

        It may if it is a voter, or if its removal is not known to be committed.

        If no other disk has the removal's record, this log is more complete than all others. If the
        quorum needs this vote, no other voter can then be elected, so this replica must stand (Raft
        dissertation, 4.2.2). A replica that is removed never counts its own vote.
        """
        return self.is_voter() or self.me in self.ledger.voters_before_change

    # --- time -----------------------------------------------------------------------------------

    def draw(self, low: int, high: int) -> int:
        """Draw a random number from `low` to `high`, shifted by this replica's id.

        Voters may draw equal numbers (one seed, one image of a machine). Without the shift they
        would begin elections at the same moment, and split the vote again and again.
        """
        span = high - low + 1
        return low + (self._chance(0, span - 1) + self.me.id * _SPREAD) % span

    def election_timeout_at(self) -> int:
        """Draw the time at which this replica begins an election (Raft, 5.2)."""
        shortest = self.timing.election_timeout_ms
        return self.now_ms + self.draw(shortest, shortest * 2)

    # --- the log --------------------------------------------------------------------------------

    def append(self, batch: Batch) -> None:
        self.ledger.append(batch)
        self.outbox.appended.append(batch)

    def cut(self, end: int) -> None:
        assert not self.outbox.appended, "a cut comes before the appends of one Ready"
        self.ledger.truncate(end)
        self.outbox.truncate_to = end
        self.outbox.wants_sync = True

    def begin_anew(self, below: Below) -> None:
        """Drop the whole log and the appends not yet in a Ready: a snapshot replaces them."""
        self.ledger.begin_anew(below)
        self.outbox.appended.clear()
        self.outbox.truncate_to, self.outbox.begin_at = None, below.offset
        self.outbox.wants_sync = True

    def raise_high_watermark(self, offset: int) -> None:
        # A new leader may know a lower high watermark than its predecessor did.
        self.ledger.high_watermark = max(self.ledger.high_watermark, offset)

    def sync_again(self) -> None:
        """Ask for a sync if records are unsynced: the last sync's completion will be ignored."""
        self.outbox.wants_sync |= self.ledger.synced_end < self.ledger.log_end_offset

    def _written(self, event: Written) -> bool:
        if event.truncations != self.ledger.truncations:
            return False
        self.ledger.written_end = max(self.ledger.written_end, event.end_offset)
        return True

    def _saved(self, event: Saved) -> bool:
        """Accept the completion of a sync only for the present log and epoch.

        A sync from before a cut covers records that may have been replaced since. If such a
        completion counted for the new records, this replica would acknowledge records that are not
        synced.
        """
        ledger = self.ledger
        if event.truncations != ledger.truncations or event.epoch != self.epoch:
            self.sync_again()
            return False
        ledger.written_end = max(ledger.written_end, event.end_offset)
        ledger.synced_end = max(ledger.synced_end, event.end_offset)
        return True

    # --- effects --------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send a message as soon as epoch and vote are on disk."""
        self._gated.append(message)

    def ask_for_leader(self, *endpoints: str) -> None:
        """Ask these nodes and, in case all known voters were replaced, the bootstrap servers."""
        known = [voter.endpoint for voter in self.ledger.voters.voters]
        others = [server for server in self._bootstrap_servers if server not in known]
        for endpoint in dict.fromkeys((*endpoints, *others)):
            if endpoint != self.endpoint:
                self.send(FindLeader(endpoint))

    def take_ready(self, session: int, install: Install | None) -> Ready | None:
        """Return the effects since the last call; None if there are none.

        A download begins only after `is_behind` is on disk. Otherwise, after a crash in between,
        the disk would have a long log, and no sign that it lacks records that it acknowledged.
        """
        self._release_gated(session)
        if not self.is_saved:
            install = None
        readable = min(self.ledger.high_watermark, self.ledger.written_end)
        is_told = readable == self._readable_told and install == self._install_told
        if is_told and not self.outbox.has_news():
            return None
        outbox, self.outbox = self.outbox, Outbox()
        self._readable_told, self._install_told = readable, install
        return Ready(
            role_changes=tuple(outbox.role_changes),
            lost_epoch=outbox.lost_epoch,
            reign=outbox.reign,
            hard_state=outbox.hard_state,
            hard_state_version=self._hard_state_version,
            save=self._save_of(outbox) if outbox.wants_save else None,
            messages=tuple(outbox.messages),
            session=session,
            readable_end=readable,
            confirmed_reads=tuple(outbox.confirmed_reads),
            transfers_given_up=tuple(outbox.transfers_given_up),
            fatal=outbox.fatal,
            wants_applied=outbox.wants_applied,
            install=install,
        )

    def _save_of(self, outbox: Outbox) -> Save:
        return Save(
            self.epoch,
            self.ledger.log_end_offset,
            self.ledger.truncations,
            outbox.truncate_to,
            tuple(outbox.appended),
            outbox.begin_at,
        )

    def _release_gated(self, session: int) -> None:
        """Release the messages if the hard state is on disk.

        If a vote were sent before it is on disk, the voter could crash, forget the vote, and vote
        again.
        """
        if not self.is_saved:
            return
        for message in self._gated:
            if isinstance(message, Call | Fetch) and message.epoch != self.epoch:
                continue  # drop the request: its epoch is over
            if isinstance(message, Fetch) and message.session != session:
                continue
            self.outbox.messages.append(message)
        self._gated.clear()
