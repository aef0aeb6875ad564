"""What the roles of one replica share: hard state, log, counters, and what is to be done next.

A role reads and changes this state and nothing else. What the machine wants done is collected in
an `Outbox`, and leaves as a Ready. Messages leave only once epoch and vote are on disk.
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

#: Times the id, this prime spreads the timeouts of voters that draw the same numbers.
_SPREAD = 7919


@dataclass(slots=True)
class Outbox:
    """What the machine wants done and the driver has not taken yet. Each Ready empties it."""

    role_changes: list[RoleChange] = field(default_factory=list)
    lost_epoch: int | None = None
    reign: Reign | None = None
    hard_state: HardState | None = None
    messages: list[Message] = field(default_factory=list)
    confirmed_reads: list[tuple[int, int]] = field(default_factory=list)
    transfers_given_up: list[tuple[int, str]] = field(default_factory=list)
    fatal: str | None = None
    wants_applied: int | None = None
    #: The next save cuts first, or begins anew, and then appends. One Ready has one save, so a cut
    #: after an append of the same Ready would cut the wrong records: `State.cut` asserts it.
    truncate_to: int | None = None
    begin_at: int | None = None
    appended: list[Batch] = field(default_factory=list)
    wants_sync: bool = False

    @property
    def wants_save(self) -> bool:
        return self.wants_sync or bool(self.appended)

    def has_news(self) -> bool:
        """Say whether a Ready would ask for anything; after most events it would not."""
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
    """Hard state, log and outbox of one replica. It outlives every role of this process.

    Invariants, asserted after every event: snapshot <= high watermark, synced end <= written end
    <= log end, the high watermark never goes back, and no record is of an epoch above ours.
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
        #: Elections that this process stood in. Answers carry the number: a vote that was granted
        #: to an earlier attempt must not count in a later one.
        self.attempts = 0
        #: Fetch streams that this process opened; what comes on an earlier one says nothing.
        self.sessions = 0
        #: Rounds of all reigns of this process, issued by leaders and echoed by fetches. It grows
        #: over all of them: an echo of one reign must not confirm a read of the next.
        self.round = 0
        self.last_led_epoch = -1
        #: The epoch whose leader handed over because it heard no broker. The next candidate says so
        #: in its EpochStart: else leadership could go round for ever, each new leader giving every
        #: broker a fresh session, and no dead broker would ever be fenced.
        self.silenced_epoch = -1
        self._chance = chance
        self._bootstrap_servers = bootstrap_servers
        self._hard_state_version = 0
        self._saved_version = 0
        self._gated: list[Message] = []
        self._high_watermark_before = ledger.high_watermark
        self._readable_told = -1
        self._install_told: Install | None = None
        # A log of a newer epoch than the file says can only be a snapshot's; no vote is known.
        epoch = max(ledger.last_epoch, 0)
        if epoch > hard_state.epoch:
            self.save(hard_state.entering(epoch))

    @property
    def epoch(self) -> int:
        return self.hard_state.epoch

    def check(self) -> None:
        """Assert the invariants of the class; nothing that a peer sends can break one."""
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
        """Take in what the disk did; return False for a completion that says nothing any more."""
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
        """Whether epoch and vote are on disk as they are here."""
        return self._saved_version == self._hard_state_version

    def save(self, state: HardState) -> None:
        """Change epoch, vote or memory; nothing is sent before the change is on disk."""
        if state != self.hard_state:
            self.hard_state = self.outbox.hard_state = state
            self._hard_state_version += 1

    def fall_behind(self) -> None:
        """Note that this disk holds less than it may have acknowledged."""
        self.save(replace(self.hard_state, is_behind=True))

    def may_enter(self, epoch: int, *, is_heeded: bool) -> bool:
        """Say whether word of an epoch above ours ends whatever we are in this one (Raft, 5.1).

        Not if its sender has no say here, or the epoch lies too far ahead: one message of any peer
        could use up the epochs, or depose a leader. A voter that has seen no epoch yet may be new
        in an old quorum, and takes any.
        """
        furthest = self.epoch + EPOCH_LEAP_MAX if self.epoch else EPOCH_MAX
        return is_heeded and self.epoch < epoch <= min(furthest, EPOCH_MAX)

    # --- voters ---------------------------------------------------------------------------------

    def is_voter(self) -> bool:
        return self.me in self.ledger.voters

    def is_sole_voter(self) -> bool:
        return len(self.ledger.voters.voters) == 1 and self.is_voter()

    def may_stand(self) -> bool:
        """Say whether this is a voter, or one whose removal it does not know to be committed.

        If that record is on no other disk, no other log is as complete as ours, and no other
        voter can be elected where our vote is needed (Raft dissertation, 4.2.2). A removed replica
        never counts its own vote.
        """
        return self.is_voter() or self.me in self.ledger.voters_before_change

    # --- time -----------------------------------------------------------------------------------

    def draw(self, low: int, high: int) -> int:
        """Draw a time from chance, shifted by our id.

        Voters that draw the same numbers (one seed, one image of a machine) would otherwise stand
        at the same moment and split the vote again and again.
        """
        span = high - low + 1
        return low + (self._chance(0, span - 1) + self.me.id * _SPREAD) % span

    def election_timeout_at(self) -> int:
        """Draw when the next election is due (Raft, 5.2)."""
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
        """Drop the log whole, what is not handed out yet too: a snapshot stands for it."""
        self.ledger.begin_anew(below)
        self.outbox.appended.clear()
        self.outbox.truncate_to, self.outbox.begin_at = None, below.offset
        self.outbox.wants_sync = True

    def raise_high_watermark(self, offset: int) -> None:
        # A leader's word can be older than what we know from its predecessor.
        self.ledger.high_watermark = max(self.ledger.high_watermark, offset)

    def sync_again(self) -> None:
        """Ask for a sync if one is missing: the completion of the last one will not be believed."""
        self.outbox.wants_sync |= self.ledger.synced_end < self.ledger.log_end_offset

    def _written(self, event: Written) -> bool:
        if event.truncations != self.ledger.truncations:
            return False
        self.ledger.written_end = max(self.ledger.written_end, event.end_offset)
        return True

    def _saved(self, event: Saved) -> bool:
        """Believe a sync only of the present log and epoch.

        A sync from before a cut is of records that were replaced since. Credited to those that
        replaced them, it would acknowledge to a leader what a power loss can still take.
        """
        ledger = self.ledger
        if event.truncations != ledger.truncations or event.epoch != self.epoch:
            self.sync_again()
            return False
        ledger.written_end = max(ledger.written_end, event.end_offset)
        ledger.synced_end = max(ledger.synced_end, event.end_offset)
        return True

    # --- what is to be done ---------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Say this once epoch and vote are on disk."""
        self._gated.append(message)

    def ask_who_leads(self, *endpoints: str) -> None:
        """Ask there, and at the bootstrap servers: all voters that we know may be replaced."""
        known = [voter.endpoint for voter in self.ledger.voters.voters]
        others = [server for server in self._bootstrap_servers if server not in known]
        for endpoint in dict.fromkeys((*endpoints, *others)):
            if endpoint != self.endpoint:
                self.send(FindLeader(endpoint))

    def take_ready(self, session: int, install: Install | None) -> Ready | None:
        """Return what is to be done since the last call; None if nothing is.

        Nothing of a snapshot may be on disk before the word that we fell behind is: after a crash
        between the two we would hold a history, and not know that we forgot parts of it.
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
        """A vote that is spoken and then forgotten in a crash would be given a second time."""
        if not self.is_saved:
            return
        for message in self._gated:
            if isinstance(message, Call | Fetch) and message.epoch != self.epoch:
                continue  # asked in an epoch that has passed meanwhile
            if isinstance(message, Fetch) and message.session != session:
                continue
            self.outbox.messages.append(message)
        self._gated.clear()
