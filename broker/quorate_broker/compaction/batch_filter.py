"""Decides what is left of one batch after compaction.

A machine. The rules:

* The last record of each key stays. A record is removed only if the offset map has a later offset
  of its key.
* A record without a key stays. A batch that does not decode stays, too: it was written before the
  topic's policy forbade it. Control and transactional batches stay as they are.
* A tombstone gets its delete horizon in the first pass whose map has the tombstone: after this pass
  no earlier record of its key is left. A pass after the horizon removes the tombstone, so that a
  reader that has seen the record before the tombstone sees the tombstone, too (KIP-534). After a
  batch that stays as it is, no tombstone is removed, because this batch may have an earlier record
  of its key.
* The records that stay keep their offsets, timestamps, headers, sequences and epoch. The batch
  keeps its first and last offset and its codec.
* A batch without records stays, empty, if it is the first of its leader_epoch among the batches,
  the last of its segment, or one of the last of a producer: epochs, ends and sequences are read
  from the batches. The log's start does not matter: the batches of an epoch may begin below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quorate.errors import CorruptRecordError, UnsupportedError
from quorate.record import batch as record_batch
from quorate.record.batch import BatchHeader
from quorate.record.filtered import emptied, outlines, with_records
from quorate.record.walks import Outline
from quorate_broker.compaction.offset_map import OffsetMap
from quorate_broker.compaction.survivors import Survivors

Buffer = bytes | bytearray | memoryview

#: A batch with more records stays as it is, because its outlines would take too much memory.
RECORDS_MAX = 400_000


@dataclass(slots=True)
class Counts:
    """The numbers of records and batches that a pass has met."""

    records: int = 0
    dropped: int = 0
    #: Records that stay because they have no key.
    without_key: int = 0
    #: Batches that stay because they do not decode here.
    not_decoded: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of one pass."""

    #: The offset map has the records in [first_dirty, map_end).
    first_dirty: int
    #: If a batch ends above this offset, only its superseded records are removed.
    map_end: int
    now_ms: int
    delete_retention_ms: int
    #: Whether this pass may remove tombstones: only if every replica is in the ISR (compactor.py).
    may_drop_tombstones: bool
    #: producer_id -> base offset of its oldest remembered batch.
    producers: Mapping[int, int]


def may_be_filtered(header: BatchHeader) -> bool:
    """Return whether records may be removed from a batch, and its keys belong into the map."""
    is_of_transaction = header.is_control or header.is_transactional
    return 0 < header.count <= RECORDS_MAX and not is_of_transaction


class BatchFilter:
    """Filters the batches of one pass, in the order of the log."""

    def __init__(self, offsets: OffsetMap, survivors: Survivors, rules: Rules) -> None:
        self._offsets = offsets
        self._survivors = survivors
        self._rules = rules
        #: Whether the pass has met a batch that stays as it is, and so may have any keys.
        self._has_passed_over = False
        #: The leader_epoch of the last batch, and whether this batch is the first of it.
        self._epoch = -1
        self._begins_epoch = False
        self.counts = Counts()

    def filtered(self, header: BatchHeader, batch: Buffer, *, segment_end: int) -> Buffer | None:
        """Return the batch (the same object), a new one with the records that stay, or None.

        `segment_end` is the offset at which the new segment will end.
        """
        self._begins_epoch = header.leader_epoch != self._epoch
        self._epoch = header.leader_epoch
        if not header.count:
            return batch if self._must_stay(header, segment_end) else None
        if not may_be_filtered(header):
            self._has_passed_over = self._has_passed_over or not header.is_control
            return batch
        is_covered = header.end_offset <= self._rules.map_end
        if is_covered and self._survivors.has_none(header.base_offset, header.end_offset):
            self.counts.records += header.count
            self.counts.dropped += header.count
            return self._without_records(header, segment_end)
        try:
            data, found = outlines(batch, header)
            kept, tombstones = self._kept(header, found)
        except (CorruptRecordError, UnsupportedError):
            self.counts.not_decoded += 1
            self._has_passed_over = True
            return batch
        self.counts.records += header.count
        self.counts.dropped += header.count - len(kept)
        if not kept:
            return self._without_records(header, segment_end)
        horizon = self._new_horizon(header) if tombstones else None
        if len(kept) == header.count and horizon is None:
            return batch
        return with_records(header, data, kept, delete_horizon_ms=horizon)

    def _kept(self, header: BatchHeader, found: Iterator[Outline]) -> tuple[list[Outline], bool]:
        """Return the records that stay, and whether one of them is a tombstone."""
        base, last_offset_of = header.base_offset, self._offsets.get
        has_expired = self._has_expired(header)
        kept: list[Outline] = []
        tombstones = False
        without_key = 0
        for outline in found:
            _, _, _, delta, key, has_value = outline
            if key is None:
                without_key += 1
            elif last_offset_of(key) > base + delta:
                continue
            elif not has_value:
                if has_expired:
                    continue
                tombstones = True
            kept.append(outline)
        self.counts.without_key += without_key
        return kept, tombstones

    def _has_expired(self, header: BatchHeader) -> bool:
        """Return whether the tombstones of a batch are removed now."""
        rules = self._rules
        return (
            rules.may_drop_tombstones
            and not self._has_passed_over
            and header.end_offset <= rules.map_end
            and bool(header.attributes & record_batch.DELETE_HORIZON)
            and rules.now_ms >= header.base_timestamp
        )

    def _new_horizon(self, header: BatchHeader) -> int | None:
        """Return the delete horizon to write into a batch.

        None if the batch has one, or if the map does not have all records of the batch.
        """
        rules = self._rules
        is_covered = (
            rules.first_dirty <= header.base_offset < header.end_offset <= rules.map_end
            and header.count <= self._offsets.keys_max
        )
        if header.attributes & record_batch.DELETE_HORIZON or not is_covered:
            return None
        return min(rules.now_ms + rules.delete_retention_ms, record_batch.TIMESTAMP_MAX)

    def _without_records(self, header: BatchHeader, segment_end: int) -> Buffer | None:
        return emptied(header) if self._must_stay(header, segment_end) else None

    def _must_stay(self, header: BatchHeader, segment_end: int) -> bool:
        """Return whether a batch stays even if it is empty."""
        oldest = self._rules.producers.get(header.producer_id)
        return (
            header.end_offset >= segment_end
            or self._begins_epoch
            or (oldest is not None and header.base_offset >= oldest)
        )
