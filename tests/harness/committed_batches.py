"""The batches below the high watermarks of all replicas, read from disk after every event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from quorate.record.batch import HEADER, HEADER_BYTES
from quorate_broker.replica.partition import Partition
from quorate_quorum.log.log import Log
from quorate_quorum.log.segment import LOG, file_name
from quorate_quorum.metadata.partitions import NEVER
from quorate_testing.simulated.cluster import SimulatedNode
from tests.harness.invariants import Run, Violation

#: The topic id, the partition, and the last leader_epoch whose election may have lost records: it
#: begins another past.
Past = tuple[bytes, int, int]
_BEFORE_LENGTH = 12


class Batch(NamedTuple):
    """What the header of a committed batch says."""

    base_offset: int
    end_offset: int
    leader_epoch: int
    crc: int
    producer_id: int
    producer_epoch: int
    base_sequence: int


@dataclass(slots=True)
class _Place:
    """How far the log of one replica was read, within one run."""

    log: Log
    truncations: int
    #: The segment's base offset, and the next batch's position in its file.
    base: int
    position: int = 0

    def is_of(self, log: Log) -> bool:
        return self.log is log and self.truncations == log.truncations


@dataclass(slots=True)
class _Agreed:
    """The committed batches of one past of a partition, as the first replica had them."""

    batches: dict[int, Batch] = field(default_factory=dict)
    #: One past the last of them; None: there is none yet.
    end: int | None = None
    #: Producer id -> its epoch and next sequence.
    producers: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class CommittedBatches:
    """Compares what replicas hold below their high watermarks, with each move of one.

    Rules: no two replicas differ in a committed batch. Offsets have no gap. The sequences of a
    producer have neither gap nor repeat, and those of a new producer or producer epoch begin at 0.
    A leader has all that is committed.

    A partition that was ever compacted is left out: its batches are not the ones that were
    committed. So is a log with a flipped bit, for as long as that is on the disk: the caller knows.
    """

    #: How far each replica was read, in each run.
    _places: dict[tuple[Run, Past], _Place] = field(default_factory=dict)
    _agreed: dict[Past, _Agreed] = field(default_factory=dict)
    _compacted: set[tuple[bytes, int]] = field(default_factory=set)
    #: Batches that were compared.
    compared: int = 0

    def moved(self, node: SimulatedNode, partition: Partition) -> None:
        """Read what lies below a replica's new high watermark; raise Violation."""
        log = partition.log
        recovered = NEVER if partition.state is None else partition.state.recovered_epoch
        if partition.config.compacts or log.compaction.has_gaps:
            self._compacted.add(partition.key)
        if partition.key in self._compacted or log.hw_epoch < recovered:
            return
        past = (*partition.key, recovered)
        agreed = self._agreed.setdefault(past, _Agreed())
        for batch in self._next(node, partition, past):
            if batch.end_offset <= log.log_start_offset:
                continue  # nothing is claimed of what lies below a log's start
            self.compared += 1
            try:
                _compare(agreed, batch, log.log_start_offset, is_first=recovered == NEVER)
            except Violation as error:
                error.add_note(f"{partition.name} of {node.name}")
                raise

    def check_leader(self, node: SimulatedNode, partition: Partition) -> None:
        """A leader has every committed batch; raise Violation."""
        recovered = NEVER if partition.state is None else partition.state.recovered_epoch
        agreed = self._agreed.get((*partition.key, recovered))
        end = partition.log_end_offset
        if agreed is not None and agreed.end is not None and end < agreed.end:
            raise Violation(
                f"{node.name} leads {partition.name} in leader_epoch {partition.leader_epoch} and "
                f"ends at {end}: {agreed.end} is committed"
            )

    def _next(self, node: SimulatedNode, partition: Partition, past: Past) -> Iterator[Batch]:
        """Yield the batches below the high watermark that were not read yet."""
        log = partition.log
        bases = list(log.compaction.bases)
        if not bases:
            return
        key = (node.name, node.starts), past
        place = self._places.get(key)
        if place is None or not place.is_of(log) or place.base not in bases:
            place = self._places[key] = _Place(log, log.truncations, bases[0])
        mark = log.high_watermark
        while True:
            path = f"{log.compaction.directory}/{file_name(place.base, LOG)}"
            try:
                content = node.disk.content(path)
            except FileNotFoundError:  # it is being deleted
                return
            yield from _batches(content, place, mark)
            later = [base for base in bases if base > place.base]
            if not later or later[0] > mark or place.position < len(content):
                return
            place.base, place.position = later[0], 0


def _batches(content: bytes, place: _Place, mark: int) -> Iterator[Batch]:
    while place.position + HEADER_BYTES <= len(content):
        fields: Sequence[int] = HEADER.unpack_from(content, place.position)
        base, length, end = fields[0], fields[1], fields[0] + fields[6] + 1
        if end > mark:
            return
        if length < HEADER_BYTES - _BEFORE_LENGTH:
            raise Violation(f"the batch at offset {base} has a length of {length}")
        place.position += _BEFORE_LENGTH + length
        yield Batch(base, end, fields[2], fields[4], fields[9], fields[10], fields[11])


def _compare(agreed: _Agreed, batch: Batch, log_start: int, *, is_first: bool) -> None:
    if agreed.end is None or batch.base_offset >= agreed.end:
        if agreed.end is not None and batch.base_offset > max(agreed.end, log_start):
            raise Violation(f"committed offsets go from {agreed.end} to {batch.base_offset}")
        _check_sequence(agreed, batch, is_first=is_first)
        agreed.batches[batch.base_offset] = batch
        agreed.end = batch.end_offset
        return
    known = agreed.batches.get(batch.base_offset)
    if known is None:
        # A replica that was read later may begin earlier, and the batch across the start of a log
        # is there as a whole.
        if batch.end_offset > min(agreed.batches):
            raise Violation(f"no other replica has a committed batch like {batch}")
        agreed.batches[batch.base_offset] = batch
    elif known != batch:
        raise Violation(f"committed batches differ: {batch}, elsewhere {known}")


def _check_sequence(agreed: _Agreed, batch: Batch, *, is_first: bool) -> None:
    if batch.producer_id < 0:
        return
    known = agreed.producers.get(batch.producer_id)
    epoch, sequence = batch.producer_epoch, batch.base_sequence
    if known is None:
        wanted = 0 if is_first else sequence  # after a loss, what its sequences go on from is gone
    elif epoch < known[0]:
        raise Violation(f"producer epoch {epoch} after {known[0]}: {batch}")
    else:
        wanted = known[1] if epoch == known[0] else 0
    if sequence != wanted:
        raise Violation(f"sequence {sequence} came, and {wanted} is next: {batch}")
    count = batch.end_offset - batch.base_offset
    agreed.producers[batch.producer_id] = epoch, sequence + count
