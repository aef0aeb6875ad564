"""The rule of snapshots in a simulated quorum: what was cut from a log is in a snapshot.

It is checked on the disk itself, after every event: a log that begins above 0, on disk or to its
voter's knowledge, has a whole snapshot at or above its start. Snapshots that voters install and
take are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from crc32c import crc32c

from quorate.errors import CorruptRecordError
from quorate.record import batch as record_batch
from quorate_quorum.log.events import decode_events
from quorate_quorum.raft.driver.bootstrap import metadata_directory
from quorate_quorum.raft.machine.ledger import Below
from quorate_quorum.raft.machine.raft import Raft
from quorate_quorum.snapshots import file as files
from quorate_quorum.snapshots.file import SnapshotId
from tests.harness.invariants import Violation
from tests.harness.quorum_machines import DATA, Machine


@dataclass(slots=True)
class SnapshotRules:
    """The rule of snapshots. Call `begin` at each run of a voter, `look` after each event."""

    installed: int = 0
    taken: int = 0
    #: (machine, its run) -> the newest snapshot that its machine knew of.
    known: dict[tuple[str, int], Below | None] = field(default_factory=dict)
    #: (machine, its run, file) -> whether it is whole. A file never changes under its name.
    whole: dict[tuple[str, int, str], bool] = field(default_factory=dict)
    #: Machine -> its run, the names in its directory at the last look, its whole snapshots.
    held: dict[str, tuple[int, tuple[str, ...], list[SnapshotId]]] = field(default_factory=dict)

    def begin(self, machine: Machine, raft: Raft) -> None:
        """Follow a run that begins now."""
        self.known[machine.name, machine.runs] = raft.ledger.snapshot
        begin_anew = raft.state.begin_anew

        def installed(below: Below) -> None:
            begin_anew(below)
            self.installed += 1
            self.known[machine.name, machine.runs] = below

        raft.state.begin_anew = installed  # type: ignore[method-assign]

    def look(self, machine: Machine, raft: Raft) -> None:
        """Raise Violation if the log begins above all whole snapshots on its disk."""
        if raft.ledger.snapshot is not self.known[machine.name, machine.runs]:
            self.known[machine.name, machine.runs] = raft.ledger.snapshot
            self.taken += 1
        log = machine.server._log if machine.server is not None else None
        start = max(raft.ledger.log_start_offset, log.log_start_offset if log else 0)
        if start == 0:
            return
        held = self._held(machine)
        if not any(snapshot.offset >= start for snapshot in held):
            raise Violation(f"{machine.name}: its log begins at {start}, and it has {held}")

    def _held(self, machine: Machine) -> list[SnapshotId]:
        directory = metadata_directory(DATA)
        names = machine.disk.names(directory)
        run, seen, held = self.held.get(machine.name, (-1, (), []))
        if run == machine.runs and seen == names:
            return held
        held = []
        for name in names:
            snapshot = files.id_of(name)
            if snapshot is None:
                continue
            key = (machine.name, machine.runs, name)
            if key not in self.whole:
                self.whole[key] = is_whole(machine.disk.content(f"{directory}/{name}"))
            if self.whole[key]:
                held.append(snapshot)
        self.held[machine.name] = (machine.runs, names, held)
        return held


def is_whole(content: bytes) -> bool:
    """Return whether a snapshot's bytes have the size and CRC that its end names."""
    last = b""
    try:
        for _, batch in record_batch.split(content):
            record_batch.check(batch)
            last = bytes(batch)
        end = decode_events(last, snapshot_ends=True)[-1].snapshot_end
    except (CorruptRecordError, IndexError):
        return False
    size = len(content) - len(last)
    return end.size == size and bool(end.crc32c == crc32c(content[:size]))
