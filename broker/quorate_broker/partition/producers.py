"""Idempotence: what a partition remembers of each producer, rebuilt from the log's batch headers.

A machine. Producers implements the log's Observer: every appended or replayed batch is observed
in order, on leaders and followers alike, so the window survives a change of leader. Staging
checks batches that are about to be appended together.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Protocol

from crc32c import crc32c

from quorate.errors import (
    CorruptRecordError,
    InvalidRequestError,
    OutOfOrderSequenceError,
    ProducerFencedError,
    UnknownProducerIdError,
)

#: The window: no more unacknowledged batches per producer and partition.
BATCHES_REMEMBERED = 5
#: Sequences are 31-bit and wrap to 0.
SEQUENCE_MASK = 0x7FFFFFFF
NO_PRODUCER = -1
#: Where a duplicate older than the window lies is not remembered; that it is there, is.
UNKNOWN_OFFSET = -1

SNAPSHOT_VERSION = 1
SNAPSHOT_HEAD = struct.Struct(
    ">"
    "H"  # version
    "I"  # crc: CRC-32C of all that follows
    "I"  # number of producers, least recently seen first
)
SNAPSHOT_PRODUCER = struct.Struct(
    ">"
    "q"  # producer_id
    "i"  # producer_epoch
    "B"  # number of batches, oldest first
)
SNAPSHOT_BATCH = struct.Struct(
    ">"
    "i"  # base_sequence
    "i"  # last_sequence
    "q"  # base_offset
    "q"  # last_offset
)


class Sequenced(Protocol):
    """What is read of a batch header."""

    @property
    def producer_id(self) -> int: ...
    @property
    def producer_epoch(self) -> int: ...
    @property
    def base_sequence(self) -> int: ...
    @property
    def base_offset(self) -> int: ...
    @property
    def last_offset_delta(self) -> int: ...


class Remembered(NamedTuple):
    """One batch of a producer, and where it lies."""

    base_sequence: int
    last_sequence: int
    base_offset: int
    last_offset: int

    @property
    def end_offset(self) -> int:
        return self.last_offset + 1


class Producer(NamedTuple):
    """What is known of one producer_id: its epoch and its last batches, oldest first."""

    epoch: int
    batches: tuple[Remembered, ...]

    def after(self, batch: Sequenced) -> Producer:
        """Return the state with `batch` appended; a newer epoch forgets the older one's."""
        remembered = Remembered(
            batch.base_sequence,
            last_sequence(batch),
            batch.base_offset,
            batch.base_offset + batch.last_offset_delta,
        )
        if batch.producer_epoch != self.epoch:
            return Producer(batch.producer_epoch, (remembered,))
        return Producer(self.epoch, (*self.batches[1 - BATCHES_REMEMBERED :], remembered))

    def check(self, batch: Sequenced) -> Remembered | None:
        """Return the original if `batch` is a duplicate, None if it comes next; raise else."""
        producer_id = batch.producer_id
        if batch.producer_epoch < self.epoch:
            raise ProducerFencedError(
                f"producer {producer_id}: epoch {batch.producer_epoch} was replaced by {self.epoch}"
            )
        if batch.producer_epoch > self.epoch:
            if batch.base_sequence != 0:
                raise OutOfOrderSequenceError(
                    f"producer {producer_id}: sequence {batch.base_sequence} begins the new epoch "
                    f"{batch.producer_epoch}; only 0 may"
                )
            return None
        span = (batch.base_sequence, last_sequence(batch))
        for known in reversed(self.batches):
            if (known.base_sequence, known.last_sequence) == span:
                return known
        expected = next_sequence(self.batches[-1].last_sequence)
        if self._is_before_the_window(span[1], expected):
            # Sequences are taken without gaps, so it was written, before all that we remember.
            # Called a gap, it would make its producer write it again under the next epoch.
            oldest = self.batches[0]
            return Remembered(*span, UNKNOWN_OFFSET, oldest.base_offset - 1)
        if batch.base_sequence != expected:
            raise OutOfOrderSequenceError(
                f"producer {producer_id} epoch {self.epoch}: sequence {batch.base_sequence} came, "
                f"and {expected} is next"
            )
        return None

    def _is_before_the_window(self, last: int, expected: int) -> bool:
        """Whether a batch that ends with sequence `last` ended before the oldest remembered."""
        window = (expected - self.batches[0].base_sequence) & SEQUENCE_MASK
        behind = (expected - 1 - last) & SEQUENCE_MASK
        return window <= behind < SEQUENCE_MASK // 2


def next_sequence(last: int) -> int:
    """Return the sequence after `last`.

    >>> next_sequence(2**31 - 1)
    0
    """
    return (last + 1) & SEQUENCE_MASK


def last_sequence(batch: Sequenced) -> int:
    """Return the sequence of a batch's last record."""
    return (batch.base_sequence + batch.last_offset_delta) & SEQUENCE_MASK


class Producers:
    """The producers of one partition, at most `producers_max`: the longest silent goes first."""

    def __init__(self, producers_max: int = 5_000) -> None:
        self.producers_max = producers_max
        self._known: dict[int, Producer] = {}  # least recently seen first

    def __len__(self) -> int:
        return len(self._known)

    def get(self, producer_id: int) -> Producer | None:
        """Return what is known of a producer."""
        return self._known.get(producer_id)

    def staging(self) -> Staging:
        """Return a check of batches that will be appended together, in the order checked."""
        return Staging(self)

    # Observer of the log

    def observe(self, header: Sequenced) -> None:
        """Remember a batch that is in the log now."""
        if header.producer_id == NO_PRODUCER:
            return
        known = self._known.pop(header.producer_id, None)
        state = known if known is not None else Producer(header.producer_epoch, ())
        self._known[header.producer_id] = state.after(header)
        while len(self._known) > self.producers_max:
            del self._known[next(iter(self._known))]

    def reset(self) -> None:
        """Forget all; the log is about to be read again."""
        self._known.clear()

    def snapshot(self) -> bytes:
        """Return the state as bytes, with version and checksum."""
        body = [struct.pack(">I", len(self._known))]
        for producer_id, state in self._known.items():
            body.append(SNAPSHOT_PRODUCER.pack(producer_id, state.epoch, len(state.batches)))
            body.extend(SNAPSHOT_BATCH.pack(*batch) for batch in state.batches)
        data = b"".join(body)
        return struct.pack(">HI", SNAPSHOT_VERSION, crc32c(data)) + data

    def restore(self, data: bytes) -> None:
        """Replace the state by a snapshot's; CorruptRecordError, and no state, if it is not one."""
        self._known.clear()
        if len(data) < SNAPSHOT_HEAD.size:
            raise CorruptRecordError(f"a producer snapshot of {len(data)} bytes is cut")
        version, checksum, count = SNAPSHOT_HEAD.unpack_from(data)
        if version != SNAPSHOT_VERSION:
            raise CorruptRecordError(
                f"a producer snapshot of version {version}; we know {SNAPSHOT_VERSION}"
            )
        if crc32c(memoryview(data)[6:]) != checksum:
            raise CorruptRecordError("a producer snapshot does not match its checksum")
        try:
            self._known = _read_producers(data, count)
        except struct.error:
            raise CorruptRecordError("a producer snapshot is cut") from None


def _read_producers(data: bytes, count: int) -> dict[int, Producer]:
    known: dict[int, Producer] = {}
    position = SNAPSHOT_HEAD.size
    for _ in range(count):
        producer_id, epoch, batch_count = SNAPSHOT_PRODUCER.unpack_from(data, position)
        position += SNAPSHOT_PRODUCER.size
        batches: list[Remembered] = []
        for _ in range(batch_count):
            batches.append(Remembered(*SNAPSHOT_BATCH.unpack_from(data, position)))
            position += SNAPSHOT_BATCH.size
        if not 1 <= batch_count <= BATCHES_REMEMBERED:
            raise CorruptRecordError(f"a producer snapshot has {batch_count} batches of one")
        known[producer_id] = Producer(epoch, tuple(batches))
    if position != len(data):
        raise CorruptRecordError(f"a producer snapshot has {len(data) - position} bytes too many")
    return known


class Staging:
    """Checks batches against the log's state plus those accepted before them, and then is dropped.

    The log observes what it really wrote, so a failed append leaves no trace here.
    """

    def __init__(self, producers: Producers) -> None:
        self._producers = producers
        self._staged: dict[int, Producer] = {}

    def check(self, batch: Sequenced) -> Remembered | None:
        """Return the original of a duplicate, or None and count the batch as appended.

        `batch.base_offset` is where it will lie. Raises ProducerFencedError,
        OutOfOrderSequenceError, UnknownProducerIdError, InvalidRequestError.
        """
        producer_id = batch.producer_id
        if producer_id == NO_PRODUCER:
            return None
        if producer_id < 0 or batch.producer_epoch < 0 or batch.base_sequence < 0:
            raise InvalidRequestError(
                f"a batch of producer {producer_id} has epoch {batch.producer_epoch} and "
                f"sequence {batch.base_sequence}; all must be 0 or more"
            )
        state = self._staged.get(producer_id) or self._producers.get(producer_id)
        if state is None:
            if batch.base_sequence != 0:
                raise UnknownProducerIdError(
                    f"producer {producer_id} is not known here and starts at sequence "
                    f"{batch.base_sequence}; only 0 may"
                )
            state = Producer(batch.producer_epoch, ())
        else:
            original = state.check(batch)
            if original is not None:
                return original
        self._staged[producer_id] = state.after(batch)
        return None
