"""Where a consumer is in one partition. A machine: it has no clock and no network.

    position          the offset of the next record that the user gets
    fetch_offset      the next offset to ask a broker for
    between them      held records: fetched, but not read by the user yet

Each of the two offsets has the leader_epoch of the record before it. The next fetch sends this
epoch, so the leader notices if the log was cut and has grown again (KIP-320).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal, Protocol

from quorate.errors import QuorateError
from quorate.model import AnyRecord, TopicPartition
from quorate.record.batch import BatchHeader
from quorate.settings import INT32_MAX

Reset = Literal["earliest", "latest", "none"]
Batch = tuple[BatchHeader, memoryview]
UNKNOWN = -1
#: The most epochs of read records that are remembered.
EPOCHS_MAX = 32


@dataclass(slots=True)
class Corruption:
    """A corrupt batch that the consumer met, and fetches again."""

    offset: int
    #: The time at which it was found, on the event loop's clock.
    since: float
    #: The endpoints of the leaders that sent it. A dict keeps their order.
    leaders: dict[str, None] = field(default_factory=dict)


class Reading(Protocol):
    """The reading of one chunk, from its first record to its last. See ChunkReader."""

    def take_one(self) -> AnyRecord | None: ...

    def take(self, records: list[AnyRecord], limit: int) -> int: ...


@dataclass(slots=True, eq=False)
class PartitionState:
    """One assigned partition."""

    topic_partition: TopicPartition
    topic_id: bytes
    #: Where to begin if the position is not known. The consumer's policy or a seek sets it.
    reset: Reset = "latest"
    position: int = UNKNOWN
    position_epoch: int = UNKNOWN
    fetch_offset: int = UNKNOWN
    fetch_epoch: int = UNKNOWN
    #: Grows whenever the next fetch differs from the one before. So the answer to an older fetch is
    #: recognised, even if the offset is the same again.
    version: int = 0
    #: The leader_epoch in the last request. The leader that answers has this epoch.
    asked_epoch: int = INT32_MAX
    high_watermark: int = UNKNOWN
    log_start_offset: int = UNKNOWN
    paused: bool = False
    #: The group decides about the partition: a callback of the application runs, or the partition
    #: is given back. Nothing is fetched or given to the user.
    is_held: bool = False
    #: The group's committed offset is looked up. It comes before `reset`.
    is_placing: bool = False
    #: A fetch failed, and the next one waits for a moment.
    is_backing_off: bool = False
    #: The held records were dropped to make room. The partition is not fetched until the user reads
    #: it.
    is_resting: bool = False
    #: The corrupt batch that was met last; None: there was none since the last seek. A fetch from
    #: its offset tells the broker of it.
    corruption: Corruption | None = None
    #: The endpoint of the broker that answered last.
    answered_by: str = ""
    #: The next read raises this error and forgets it; None: there is no error.
    error: QuorateError | None = None
    #: The batches that the user reads now, all of one answer. The batches of later answers are in
    #: `ahead`.
    chunk: deque[Batch] = field(default_factory=deque)
    chunk_bytes: int = 0
    #: None before the first record of the chunk.
    reading: Reading | None = None
    ahead: deque[tuple[deque[Batch], int]] = field(default_factory=deque)
    ahead_bytes: int = 0
    #: (epoch, offset of the first record read with it), for the epochs read since the last seek.
    epochs: list[tuple[int, int]] = field(default_factory=list)

    @property
    def needs_offset(self) -> bool:
        """Whether the position must be looked up before anything can be fetched."""
        return self.fetch_offset == UNKNOWN and self.error is None and not self.is_placing

    @property
    def was_corrupt(self) -> bool:
        """Whether the batch at fetch_offset came corrupt before."""
        return self.corruption is not None and self.corruption.offset == self.fetch_offset

    @property
    def held_bytes(self) -> int:
        """Bytes of all answers that were fetched and are not read to their end."""
        return self.chunk_bytes + self.ahead_bytes

    @property
    def is_readable(self) -> bool:
        """Whether there is something for the user: records or an error."""
        has_news = bool(self.chunk or self.ahead or self.error is not None)
        return has_news and not self.paused and not self.is_held

    def is_wanted(self, ahead_bytes_max: int) -> bool:
        """Return whether more of this partition should be fetched."""
        return (
            not self.paused
            and not self.is_held
            and self.fetch_offset != UNKNOWN
            and self.ahead_bytes < ahead_bytes_max
            and not self.is_backing_off
            and not self.is_resting
            and self.error is None
        )

    # -- where to read ---------------------------------------------------------------------------

    def seek(self, offset: int, epoch: int = UNKNOWN) -> None:
        """Set the position to an offset.

        `epoch` is the epoch of the last record before the offset, if known. Held records from this
        offset on are kept, unless `epoch` is given.
        """
        self.error = self.corruption = None
        self.is_backing_off = self.is_resting = False
        is_held = self.position != UNKNOWN and self.position <= offset < self.fetch_offset
        if is_held and epoch == UNKNOWN and self.held_bytes:
            if offset != self.position:
                self.position, self.position_epoch = offset, UNKNOWN
            return
        self._drop_held()
        self.position, self.position_epoch = offset, epoch
        self.epochs = [(epoch, offset)] if epoch != UNKNOWN else []
        self.fetch_again()

    def seek_to_known_end(self) -> bool:
        """Set the position to the last known high watermark. Return False if none is known."""
        end = self.high_watermark
        if end == UNKNOWN:
            return False
        self.seek(end, self.fetch_epoch if end == self.fetch_offset else UNKNOWN)
        return True

    def seek_to(self, reset: Reset) -> None:
        """Set the position to the beginning or the end of the log. Its offset is then looked up.

        Drop the held records.
        """
        self.seek(UNKNOWN)
        self.reset = reset

    def found(self, offset: int, epoch: int, version: int) -> None:
        """Take over the offset that was looked up, unless a seek came in between."""
        if version == self.version and self.fetch_offset == UNKNOWN:
            self.seek(offset, epoch)

    def fetch_again(self) -> None:
        """Drop the held records, and fetch again from the position on."""
        self._drop_held()
        self.fetch_offset, self.fetch_epoch = self.position, self.position_epoch
        self.version += 1

    def _drop_held(self) -> None:
        self.chunk, self.reading = deque(), None
        self.ahead.clear()
        self.chunk_bytes = self.ahead_bytes = 0

    # -- fetched, then read ----------------------------------------------------------------------

    def fetched(self, batches: list[Batch], size: int) -> None:
        """Add the batches of one answer. They are whole, and begin at or below fetch_offset."""
        self.ahead.append((deque(batches), size))
        self.ahead_bytes += size
        last = batches[-1][0]
        self.fetch_offset, self.fetch_epoch = last.end_offset, last.leader_epoch
        self.version += 1

    def take(self) -> None:
        """Make the next answer the chunk that the user reads."""
        self.chunk, self.chunk_bytes = self.ahead.popleft()
        self.ahead_bytes -= self.chunk_bytes

    def finish(self) -> None:
        """Drop the chunk, because all its records are read."""
        self.chunk_bytes = 0
        self.reading = None

    def reads(self, header: BatchHeader) -> None:
        """Note the epoch of a batch that the user begins to read."""
        epoch = header.leader_epoch
        if not self.epochs or self.epochs[-1][0] < epoch:
            self.epochs.append((epoch, max(self.position, header.base_offset)))
            del self.epochs[:-EPOCHS_MAX]

    def passes(self, header: BatchHeader) -> None:
        """Move the position past a batch that was read, or that had no records for the user."""
        if header.end_offset > self.position:
            self.position, self.position_epoch = header.end_offset, header.leader_epoch

    def safe_offset(self, epoch: int, end_offset: int) -> int:
        """Return the first offset at which the log may now have another record than the user read.

        `epoch`: the leader's largest epoch that is not above the position's epoch. `end_offset`:
        the offset at which this epoch ends in the leader's log. All records of later epochs that
        the user has read are gone.
        """
        gone = [start for known, start in self.epochs if known > epoch]
        return max(min(end_offset, self.position, *gone), 0)
