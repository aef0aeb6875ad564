"""Idempotence: what a partition remembers of each producer, rebuilt from the log's batch headers.

A machine. Producers implements the log's Observer. Leaders and followers observe every appended or
replayed batch in order, so a new leader knows the same last batches of each producer. Staging
checks batches that are about to be appended together. The rules:

* A batch that is in the log is never accepted as a new one. Leaders and followers never forget a
  producer that they heard from within KEPT_MS. If there is no room for a new producer, the leader
  refuses it, and the client may try again.
* The partition keeps one time for all forgotten producers: the time at which the last of them was
  heard. A client says how long ago it first sent a batch that may have been written. If the
  producer is not known and may have been forgotten since then, the broker cannot tell whether the
  batch was written, and answers UnknownProducerIdError. Otherwise the batch was not written.
* All times are those of the clock of ProducerMemory; snapshots keep the clock over restarts. A
  replayed batch counts as heard now, so one replica may remember a producer longer than another.
  The present leader decides, and the followers observe the batches that the leader accepted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, Protocol

from crc32c import crc32c

from quorate.errors import (
    CorruptRecordError,
    InvalidRequestError,
    OutOfOrderSequenceError,
    OverloadedError,
    ProducerFencedError,
    UnknownProducerIdError,
)
from quorate_broker.replica.producer_memory import KEPT_MS, PRODUCER_BYTES, ProducerMemory

#: The window: how many of each producer's last batches are remembered. A client has at most as many
#: unacknowledged batches for one partition.
BATCHES_REMEMBERED = 5
#: Sequences have 31 bits. After the largest one follows 0.
SEQUENCE_MASK = 0x7FFFFFFF
NO_PRODUCER = -1
#: The base offset in the answer to a duplicate that is older than the window. The batch is known to
#: be in the log, but its offset is forgotten.
UNKNOWN_OFFSET = -1
#: The longest time between the moment when a client computes `in_doubt_ms` and its check here.
TRANSIT_MS = 5 * 60 * 1000
#: The most producers that one call of `forget` forgets, so that a turn of the loop stays short.
FORGET_MAX = 1_000

SNAPSHOT_VERSION = 2
SNAPSHOT_HEAD = struct.Struct(
    ">"
    "H"  # version
    "I"  # crc: CRC-32C of all bytes after this field
    "q"  # the partition's clock
    "q"  # forgotten_ms, or BLANK
    "I"  # number of producers; the one that was heard least recently is first
)
#: One producer, in memory and in snapshots. Its batches follow, oldest first.
PRODUCER = struct.Struct(
    ">"
    "q"  # producer_id
    "h"  # producer_epoch
    "q"  # the time at which it was heard last, by the partition's clock
    "B"  # number of batches
)
BATCH = struct.Struct(
    ">"
    "i"  # base_sequence
    "i"  # last_offset_delta
    "q"  # base_offset
)
#: Values of forgotten_ms. NEVER: no producer was ever forgotten here. BLANK: no batch was ever
#: seen, so it is not known whether a producer was forgotten.
NEVER, BLANK = -1, -2

_HEARD = struct.Struct(">q")
#: The bytes in PRODUCER before the time and before the number of batches.
_HEARD_AT = 10
_COUNT_AT = 18


class Sequenced(Protocol):
    """The fields of a batch header that this module reads."""

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
    """One batch of a producer: its sequences and its offsets."""

    base_sequence: int
    last_sequence: int
    base_offset: int
    last_offset: int

    @property
    def end_offset(self) -> int:
        return self.last_offset + 1


class Producer(NamedTuple):
    """The state of one producer_id: its epoch and its last batches, oldest first."""

    epoch: int
    batches: tuple[Remembered, ...]

    def after(self, batch: Sequenced) -> Producer:
        """Return the state after `batch`. A newer epoch drops the batches of the older one."""
        remembered = _remembered(batch.base_sequence, batch.last_offset_delta, batch.base_offset)
        if batch.producer_epoch != self.epoch:
            return Producer(batch.producer_epoch, (remembered,))
        return Producer(self.epoch, (*self.batches[1 - BATCHES_REMEMBERED :], remembered))

    def check(self, batch: Sequenced) -> Remembered | None:
        """Return the original if `batch` is a duplicate; None if it is the next batch.

        Raises ProducerFencedError or OutOfOrderSequenceError for any other batch.
        """
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
            # Sequences are accepted without gaps, so this batch is in the log, before the window:
            # it is a duplicate. After an OutOfOrderSequenceError, the producer would write it again
            # in a new epoch.
            oldest = self.batches[0]
            return Remembered(*span, UNKNOWN_OFFSET, oldest.base_offset - 1)
        if batch.base_sequence != expected:
            raise OutOfOrderSequenceError(
                f"producer {producer_id} epoch {self.epoch}: sequence {batch.base_sequence} came, "
                f"and {expected} is next"
            )
        return None

    def _is_before_the_window(self, last: int, expected: int) -> bool:
        """Return whether a batch that ends with sequence `last` is older than the window."""
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


def _remembered(base_sequence: int, last_offset_delta: int, base_offset: int) -> Remembered:
    return Remembered(
        base_sequence,
        (base_sequence + last_offset_delta) & SEQUENCE_MASK,
        base_offset,
        base_offset + last_offset_delta,
    )


def _unpack(packed: bytes) -> Producer:
    batches = BATCH.iter_unpack(packed[PRODUCER.size :])
    return Producer(PRODUCER.unpack_from(packed)[1], tuple(_remembered(*one) for one in batches))


def oldest_batch(packed: bytes) -> tuple[int, int]:
    """Return (producer_id, base offset of the oldest remembered batch) of one packed producer."""
    _, _, base_offset = BATCH.unpack_from(packed, PRODUCER.size)
    return PRODUCER.unpack_from(packed)[0], base_offset


class Producers:
    """The producers of one partition. Each is stored as bytes, because there may be very many."""

    def __init__(self, memory: ProducerMemory | None = None) -> None:
        self._memory = memory or ProducerMemory()
        #: producer_id -> state. The producer that was heard least recently is first.
        self._known: dict[int, bytes] = {}
        #: The partition's clock minus the broker's clock. Snapshots keep the partition's clock over
        #: restarts.
        self._clock_ahead_ms = 0
        #: The time at which the last forgotten producer was heard, by the partition's clock; NEVER;
        #: or BLANK before the first batch.
        self._forgotten_ms = BLANK

    def __len__(self) -> int:
        return len(self._known)

    def get(self, producer_id: int) -> Producer | None:
        """Return the state of a producer; None if it is not known."""
        packed = self._known.get(producer_id)
        return None if packed is None else _unpack(packed)

    def packed(self) -> list[bytes]:
        """Return the known producers as bytes, for oldest_batch."""
        return list(self._known.values())

    def latest(self, most: int) -> list[bytes]:
        """Return the producers that were heard last, at most so many, as bytes for `read_packed`.

        The one that was heard last comes last.
        """
        found = [*islice(reversed(self._known.values()), most)]
        return found[::-1]

    @property
    def now_ms(self) -> int:
        """The partition's clock: the milliseconds in which a broker with this replica worked."""
        return self._memory.now_ms + self._clock_ahead_ms

    def staging(self) -> Staging:
        """Return a Staging for batches that will be appended together, in the order of checks."""
        return Staging(self)

    # Observer of the log

    def observe(self, header: Sequenced) -> None:
        """Remember a batch that is in the log now.

        The bounds do not count here, because the leader that accepted the batch has checked them.
        """
        if self._forgotten_ms == BLANK:
            self.begin(header.base_offset)
        producer_id = header.producer_id
        if producer_id == NO_PRODUCER:
            return
        epoch = header.producer_epoch
        known = self._known.pop(producer_id, None)
        if known is None:
            self._memory.count += 1
            kept = b""
        elif PRODUCER.unpack_from(known)[1] != epoch:
            kept = b""
        else:
            kept = known[PRODUCER.size :][(1 - BATCHES_REMEMBERED) * BATCH.size :]
        count = len(kept) // BATCH.size + 1
        self._known[producer_id] = (
            PRODUCER.pack(producer_id, epoch, self.now_ms, count)
            + kept
            + BATCH.pack(header.base_sequence, header.last_offset_delta, header.base_offset)
        )

    def reset(self) -> None:
        """Forget all producers, because the log is about to be read again."""
        self._memory.count -= len(self._known)
        self._known.clear()
        self._forgotten_ms = BLANK

    def snapshot(self) -> bytes:
        """Return the state as bytes, with version and checksum."""
        head = SNAPSHOT_HEAD.pack(
            SNAPSHOT_VERSION, 0, self.now_ms, self._forgotten_ms, len(self._known)
        )
        body = b"".join((head[6:], *self._known.values()))
        return struct.pack(">HI", SNAPSHOT_VERSION, crc32c(body)) + body

    def restore(self, data: bytes) -> None:
        """Replace the state by that of a snapshot.

        Raises CorruptRecordError if `data` is not a whole snapshot. The state is then empty.
        """
        self.reset()
        clock_ms, forgotten_ms, known = _read_snapshot(data)
        self._known = known
        self._memory.count += len(known)
        self._clock_ahead_ms = clock_ms - self._memory.now_ms
        self._forgotten_ms = forgotten_ms

    # what is forgotten

    def begin(self, offset: int) -> None:
        """Begin at `offset`, with the first batch that is seen. Earlier producers are not known."""
        if self._forgotten_ms == BLANK:
            self._forgotten_ms = NEVER if offset == 0 else self.now_ms

    def heard(self, producer_id: int) -> None:
        """Count a repeated batch as a sign of life of its producer."""
        known = self._known.pop(producer_id, None)
        if known is not None:
            now = _HEARD.pack(self.now_ms)
            self._known[producer_id] = known[:_HEARD_AT] + now + known[_COUNT_AT:]

    def remembers(self, ago_ms: int) -> bool:
        """Return whether every producer that was heard within the last `ago_ms` is still known."""
        if self._forgotten_ms == NEVER:
            return True
        return self._forgotten_ms < self.now_ms - ago_ms - TRANSIT_MS

    def forget(self, *, room_for: int = 1) -> int:
        """Forget producers that were silent too long, at most FORGET_MAX. Return their number.

        A silence of KEPT_MS is enough if `room_for` new producers have no room, or if there are
        more producers than partition_producers_max.
        """
        bounds = self._memory.bounds
        if bounds is None:
            return 0
        excess = len(self._known) - bounds.partition_producers_max
        is_full = not self.has_room(room_for)
        expires_ms = max(bounds.producer_id_expiration_ms, KEPT_MS)
        now = self.now_ms
        gone: list[int] = []
        for producer_id, packed in self._known.items():
            (heard,) = _HEARD.unpack_from(packed, _HEARD_AT)
            is_wanted = is_full or len(gone) < excess
            if now - heard <= (KEPT_MS if is_wanted else expires_ms):
                break
            gone.append(producer_id)
            self._forgotten_ms = max(self._forgotten_ms, heard)
            if len(gone) == FORGET_MAX:
                break
        for producer_id in gone:
            del self._known[producer_id]
        self._memory.count -= len(gone)
        return len(gone)

    def has_room(self, more: int) -> bool:
        """Return whether there is room for `more` new producers."""
        bounds = self._memory.bounds
        if bounds is None:
            return True
        size = (len(self._known) + more) * PRODUCER_BYTES
        is_within = size <= bounds.partition_producer_state_max_bytes
        return is_within and self._memory.has_room(more)

    def check_room(self, more: int) -> None:
        """Make room for `more` new producers. Raise OverloadedError if this is not possible."""
        while not self.has_room(more):
            if not self.forget(room_for=more):
                bounds = self._memory.bounds
                # bounds are set here, because without bounds has_room is True
                assert bounds is not None
                raise OverloadedError(
                    f"{len(self._known)} producers are remembered here and {self._memory.count} on "
                    f"this broker; at {PRODUCER_BYTES} bytes each, "
                    f"{bounds.partition_producer_state_max_bytes} and "
                    f"{bounds.producer_state_max_bytes} are allowed, and none was silent for "
                    f"{KEPT_MS // 60_000} minutes. Use fewer producers that live longer, or send "
                    "again later"
                )


class ReadProducer(NamedTuple):
    """One producer, and for how long it was silent."""

    producer_id: int
    silent_ms: int
    state: Producer


def producers_in(data: bytes) -> Iterator[ReadProducer]:
    """Yield the producers of a snapshot. Raise CorruptRecordError if it is not whole."""
    clock_ms, _, known = _read_snapshot(data)
    for packed in known.values():
        yield read_packed(packed, clock_ms)


def read_packed(packed: bytes, clock_ms: int) -> ReadProducer:
    """Return one packed producer, as the partition's clock has this time."""
    producer_id, _, heard, _ = PRODUCER.unpack_from(packed)
    return ReadProducer(producer_id, clock_ms - heard, _unpack(packed))


def _read_snapshot(data: bytes) -> tuple[int, int, dict[int, bytes]]:
    """Return (clock, forgotten_ms, packed producers). The batches in them are not checked."""
    if len(data) < SNAPSHOT_HEAD.size:
        raise CorruptRecordError(f"a producer snapshot of {len(data)} bytes is cut")
    version, checksum, clock_ms, forgotten_ms, count = SNAPSHOT_HEAD.unpack_from(data)
    if version != SNAPSHOT_VERSION:
        raise CorruptRecordError(
            f"a producer snapshot of version {version}; we know {SNAPSHOT_VERSION}"
        )
    if crc32c(memoryview(data)[6:]) != checksum:
        raise CorruptRecordError("a producer snapshot does not match its checksum")
    known: dict[int, bytes] = {}
    position, size = SNAPSHOT_HEAD.size, len(data)
    read_id, fixed, each = _HEARD.unpack_from, PRODUCER.size, BATCH.size
    for _ in range(count):
        if position + fixed > size:
            raise CorruptRecordError("a producer snapshot is cut")
        held = data[position + _COUNT_AT]
        if not 1 <= held <= BATCHES_REMEMBERED:
            raise CorruptRecordError(f"a producer snapshot has {held} batches of one producer")
        end = position + fixed + held * each
        known[read_id(data, position)[0]] = data[position:end]
        position = end
    if position != size:
        raise CorruptRecordError(
            f"a producer snapshot has {size} bytes, and its producers {position}"
        )
    return clock_ms, forgotten_ms, known


class Staging:
    """Checks the batches of one append, against the log's state and the batches before them.

    The object is dropped after the append. Producers changes only when it observes a written batch,
    so a failed append changes nothing.
    """

    def __init__(self, producers: Producers) -> None:
        self._producers = producers
        self._staged: dict[int, Producer] = {}
        self._new_count = 0

    def check(self, batch: Sequenced, *, in_doubt_ms: int = 0) -> Remembered | None:
        """Return the original of a duplicate. Count a new batch as appended, and return None.

        `batch.base_offset` is the offset that the batch will have. `in_doubt_ms`: the time since
        the batch was first sent, if an earlier attempt may have written it; otherwise 0.

        Raises ProducerFencedError, OutOfOrderSequenceError, UnknownProducerIdError,
        OverloadedError, InvalidRequestError.
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
            self._producers.begin(batch.base_offset)
            self._admit(batch, in_doubt_ms)
            state = Producer(batch.producer_epoch, ())
        else:
            original = state.check(batch)
            if original is not None:
                self._producers.heard(producer_id)
                return original
        self._staged[producer_id] = state.after(batch)
        return None

    def _admit(self, batch: Sequenced, in_doubt_ms: int) -> None:
        """Raise an error unless an unknown producer may begin with this batch."""
        producer_id, sequence = batch.producer_id, batch.base_sequence
        if in_doubt_ms and not self._producers.remembers(in_doubt_ms):
            raise UnknownProducerIdError(
                f"producer {producer_id} is not known here, and may have been forgotten since its "
                f"batch of sequence {sequence} was first sent, {in_doubt_ms} ms ago: whether that "
                "was written can't be told"
            )
        if sequence != 0 and in_doubt_ms:
            raise OutOfOrderSequenceError(
                f"producer {producer_id}: sequence {sequence} came, and 0 is next: nothing of it "
                "was written"
            )
        if sequence != 0:
            raise UnknownProducerIdError(
                f"producer {producer_id} is not known here and starts at sequence {sequence}; "
                "only 0 may"
            )
        self._producers.check_room(self._new_count + 1)
        self._new_count += 1
