"""The rules of a simulated quorum, checked after every event on the machines that ran.

Log matching is kept by induction: a batch at (base offset, epoch) has one content and one epoch
before it, wherever it is appended; so two logs that agree on an epoch at an offset agree on all
before. Leader completeness and lost records follow from epochs at committed ends.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from quorate.record import batch as record_batch
from quorate_quorum.log.events import decode_events
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.loader import Loaded
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.leader import Leader
from quorate_quorum.raft.machine.ledger import Batch
from quorate_quorum.raft.machine.raft import Raft
from quorate_quorum.raft.machine.voters import ReplicaKey, VoterSet
from tests.harness.invariants import Violation
from tests.harness.quorum_machines import Machine, Quorum
from tests.harness.quorum_snapshots import SnapshotRules

DIGEST_EVERY = 16


@dataclass(slots=True)
class _Run:
    """The state of one run of a voter, as it was last seen."""

    raft: Raft
    number: int
    high_watermark: int = 0
    truncations: int = 0
    applied_end: int = 0
    saved: HardState | None = None


@dataclass(slots=True)
class Rules:
    """Remembers what was seen, and compares what is seen now with it."""

    quorum: Quorum
    runs: dict[str, _Run] = field(default_factory=dict)
    #: epoch -> the one reign in it. A second reign of the same node is another object.
    reigns: dict[int, Leader] = field(default_factory=dict)
    leaders: dict[int, str] = field(default_factory=dict)
    #: (base offset, epoch) -> content, and the epoch before it.
    batches: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    #: base offset -> the batch that is committed there.
    committed: dict[int, bytes] = field(default_factory=dict)
    committed_end: int = 0
    committed_epoch: int = -1
    #: (directory, epoch) -> the candidate that it voted for, once that was on disk. The vote stays
    #: here when the disk is emptied: it must not vote twice.
    votes: dict[tuple[ReplicaKey, int], ReplicaKey] = field(default_factory=dict)
    #: (disk, number of disks that it replaced) -> the newest epoch that was on it.
    epochs: dict[tuple[ReplicaKey, int], int] = field(default_factory=dict)
    digests: dict[int, int] = field(default_factory=dict)
    #: The first image that any voter showed at an offset.
    images: dict[int, MetadataImage] = field(default_factory=dict)
    snapshots: SnapshotRules = field(default_factory=SnapshotRules)
    snapshots_loaded: int = 0
    truncations: int = 0
    checks: int = 0

    def check(self) -> None:
        """Look at every machine on which anything ran in this instant; raise Violation."""
        for machine in self.quorum.machines:
            if machine.name in self.quorum.loop.ran:
                raft = machine.raft
                if raft is not None:
                    self._look(machine, raft)

    def _look(self, machine: Machine, raft: Raft) -> None:
        run = self.runs.get(machine.name)
        if run is None or run.raft is not raft:
            run = self._begin(machine, raft)
        self.checks += 1
        role = raft.role
        if isinstance(role, Leader) and self.reigns.get(role.epoch) is not role:
            self._reign_began(machine, raft, role)
        if raft.state.is_saved and raft.hard_state is not run.saved:
            self._saved(machine, raft, run)
        self.snapshots.look(machine, raft)
        ledger = raft.ledger
        if ledger.high_watermark != run.high_watermark:
            self._moved(machine, raft, run)
        if ledger.truncations != run.truncations:
            self.truncations += ledger.truncations - run.truncations
            run.truncations = ledger.truncations

    def _begin(self, machine: Machine, raft: Raft) -> _Run:
        run = self.runs[machine.name] = _Run(raft, machine.runs, raft.ledger.high_watermark)
        known = self.epochs.get((raft.me, machine.disks_lost), 0)
        if raft.epoch < known:
            raise Violation(
                f"{machine.name}: its disk was in epoch {known}, and it starts in {raft.epoch}"
            )
        controller = machine.controller
        assert controller is not None
        assert controller.image.offset == 0, "looked at before anything is applied"
        applied = controller.committed

        def committed(batches: Sequence[bytes], high_watermark: int) -> None:
            applied(batches, high_watermark)
            self._applied(machine, run, batches, controller.image)

        show = controller._show

        def shown(loaded: Sequence[Loaded]) -> None:
            for _, image in loaded:
                self.images.setdefault(image.offset, image)
            show(loaded)

        ended = controller.snapshot_end

        def snapshot_end(offset: int, epoch: int) -> None:
            ended(offset, epoch)
            run.applied_end = offset
            self._loaded(machine, controller.image)

        append = raft.state.append

        def appended(batch: Batch) -> None:
            self._appended(machine, raft, batch)
            append(batch)
            self._check_voters(machine, raft, batch)

        self.snapshots.begin(machine, raft)
        controller._show = shown  # type: ignore[method-assign]
        controller.committed = committed  # type: ignore[method-assign]
        controller.snapshot_end = snapshot_end  # type: ignore[method-assign]
        raft.state.append = appended  # type: ignore[method-assign]
        return run

    # -- one rule each

    def _reign_began(self, machine: Machine, raft: Raft, reign: Leader) -> None:
        """Election safety, one reign in each epoch, leader completeness."""
        before = self.leaders.get(reign.epoch)
        if before is not None:
            raise Violation(f"{before} and {machine.name} both lead in epoch {reign.epoch}")
        self.leaders[reign.epoch] = machine.name
        self.reigns[reign.epoch] = reign
        self._check_complete(machine, raft)

    def _check_complete(self, machine: Machine, raft: Raft) -> None:
        end, ledger = self.committed_end, raft.ledger
        holds = ledger.log_end_offset >= end and (
            ledger.log_start_offset >= end or ledger.epoch_before(end) == self.committed_epoch
        )
        if end and raft.epoch >= self.committed_epoch and not holds:
            raise Violation(
                f"{machine.name} leads in epoch {raft.epoch} without the committed record "
                f"{end - 1} of epoch {self.committed_epoch}"
            )

    def _saved(self, machine: Machine, raft: Raft, run: _Run) -> None:
        """The epoch on disk never falls; one vote an epoch for each disk."""
        state = run.saved = raft.hard_state
        disk = raft.me, machine.disks_lost
        if state.epoch < self.epochs.get(disk, 0):
            raise Violation(f"{machine.name}: its epoch fell to {state.epoch}")
        self.epochs[disk] = state.epoch
        if state.voted_for is not None:
            vote = self.votes.setdefault((raft.me, state.epoch), state.voted_for)
            if vote != state.voted_for:
                raise Violation(
                    f"{machine.name} voted for {vote.id} and {state.voted_for.id} "
                    f"in epoch {state.epoch}"
                )

    def _moved(self, machine: Machine, raft: Raft, run: _Run) -> None:
        """The high watermark of a run never falls; every newer leader has what is committed."""
        mark = raft.ledger.high_watermark
        if mark < run.high_watermark:
            raise Violation(
                f"{machine.name}: the high watermark fell from {run.high_watermark} to {mark}"
            )
        run.high_watermark = mark
        if mark <= self.committed_end:
            return
        self.committed_end, self.committed_epoch = mark, raft.ledger.epoch_before(mark)
        for other in self.quorum.machines:
            if other.raft is not None and isinstance(other.raft.role, Leader):
                self._check_complete(other, other.raft)

    def _appended(self, machine: Machine, raft: Raft, batch: Batch) -> None:
        """Log matching."""
        content = zlib.crc32(batch.data), raft.ledger.epoch_before(batch.base_offset)
        known = self.batches.setdefault((batch.base_offset, batch.epoch), content)
        if known != content:
            raise Violation(
                f"{machine.name}: another batch at {batch.base_offset}, epoch {batch.epoch}"
            )

    def _check_voters(self, machine: Machine, raft: Raft, batch: Batch) -> None:
        """Voters change one at a time, and not before the last change is committed."""
        if batch.voters is None or batch.base_offset == 0:
            return
        sets = raft.ledger._voters
        if len(sets) > 1 and _differing(sets[-2][1], sets[-1][1]) > 1:
            raise Violation(f"{machine.name}: more than one voter changed at {batch.base_offset}")
        if sum(base >= self.committed_end for base, _ in sets) > 1:
            raise Violation(f"{machine.name}: two changes of voters wait for their commit")

    def _applied(
        self, machine: Machine, run: _Run, batches: Sequence[bytes], image: MetadataImage
    ) -> None:
        """State-machine safety: what is applied at an offset is the same everywhere."""
        for batch in batches:
            header = record_batch.parse_header(batch)
            known = self.committed.setdefault(header.base_offset, batch)
            if known != batch:
                raise Violation(f"{machine.name} applies another batch at {header.base_offset}")
            if header.base_offset != run.applied_end:
                raise Violation(
                    f"{machine.name} applies {header.base_offset} after {run.applied_end}"
                )
            run.applied_end = header.end_offset
        if image.offset % DIGEST_EVERY == 0:
            self.compare_image(machine, image)

    def _loaded(self, machine: Machine, image: MetadataImage) -> None:
        """A snapshot gives the image that its voter showed when it was taken."""
        self.snapshots_loaded += 1
        shown = self.images.get(image.offset)
        if shown is None:
            raise Violation(
                f"{machine.name} loads a snapshot at {image.offset}, an image of nobody"
            )
        self.compare_image(machine, shown)
        self.compare_image(machine, image)

    def compare_image(self, machine: Machine, image: MetadataImage) -> None:
        """Equal images at equal offsets."""
        events = (event.SerializeToString(deterministic=True) for event in image.to_events())
        digest = zlib.crc32(b"".join(events))
        if self.digests.setdefault(image.offset, digest) != digest:
            raise Violation(f"{machine.name} has another image at {image.offset}")

    # -- at the end

    def values(self) -> dict[str, list[str]]:
        """Return what each key was set to, in the order of the committed log."""
        found: dict[str, list[str]] = {}
        for base in sorted(self.committed):
            for event in decode_events(self.committed[base]):
                if event.WhichOneof("event") == "config":
                    found.setdefault(event.config.name, []).append(event.config.value)
        return found

    def voter_changes(self) -> int:
        """Return how many changes of the voters were committed."""
        events = (e for base in self.committed if base for e in decode_events(self.committed[base]))
        return sum(event.WhichOneof("event") == "voters" for event in events)


def _differing(one: VoterSet, other: VoterSet) -> int:
    """Return how many voters came plus how many went; a changed endpoint is no change."""
    ours = [(voter.id, voter.directory_id) for voter in one.voters]
    theirs = [(voter.id, voter.directory_id) for voter in other.voters]
    return sum(v not in theirs for v in ours) + sum(v not in ours for v in theirs)
