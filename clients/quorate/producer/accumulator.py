"""The records that wait or are in flight: batches, the buffer's bound, sequences, retries, order.

A machine: it has no clock and no network. The producer appends records. The sender takes out
batches for a broker, and reports the outcome of each batch. The rules:

* Order holds within a partition, also under retries: while a batch waits to be sent again, no later
  batch of its partition is sent before all its batches in flight are answered.
* A batch keeps its sequences over all attempts, so that a broker recognises a duplicate. It gets
  other sequences only if it was certainly not written, and no earlier batch of its partition is
  open. OutOfOrderSequence proves that the batch was not written. UnknownProducerId (the broker has
  forgotten the producer) proves this only for a batch that no earlier attempt may have written; any
  other batch fails with OutcomeUnknown. After both errors the partition waits for all its batches
  in flight, and continues with the next producer_epoch from sequence 0. Brokers fence late batches
  of the old epoch.
* A batch that is too large, and was certainly not written, is split into parts. The parts share its
  sequences and its place in the order. A single record that is too large fails alone.
* A partition's queue may be dropped when it has no batches. Later batches of the partition have a
  higher epoch. With the old epoch the producer would use their sequences twice, and the broker
  would take the batches for duplicates.
* A record's bytes count against the buffer from the append until its batch has an outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quorate.errors import (
    DeliveryTimeoutError,
    OutcomeUnknownError,
    OutOfOrderSequenceError,
    QuorateError,
    RecordTooLargeError,
    UnknownServerError,
)
from quorate.errors import UnknownProducerIdError as UnknownProducer
from quorate.model import Header
from quorate.producer.batch_split import parts_of
from quorate.producer.partition_queue import (
    PRODUCER_EPOCH_MAX,
    Batch,
    PartitionQueue,
    ProducerIdentity,
    comes_after,
)
from quorate.record.batch import DECOMPRESSED_BYTES_MAX
from quorate.record.column_builder import ColumnBuilder
from quorate.record.record import record_bytes_max

#: A request that has reached this many bytes takes no further batch.
REQUEST_BYTES_MAX = 1 << 20
REQUEST_BATCHES_MAX = 4096
#: Largest batch that is sent. A message of 64 MiB has room for it, other batches, and the header.
WIRE_BATCH_BYTES_MAX = (64 << 20) - 2 * REQUEST_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class AccumulatorConfig:
    """The bounds of a producer's buffer."""

    batch_bytes_max: int
    buffer_bytes_max: int
    linger_s: float
    delivery_timeout_s: float
    max_in_flight: int
    codec: int
    level: int | None = None
    idempotent: bool


class Accumulator:
    """The queues of all partitions of one producer, and the sum of their bytes."""

    def __init__(self, config: AccumulatorConfig) -> None:
        self.config = config
        self.identity: ProducerIdentity | None = None
        #: Why no batch can be sent yet, or None. Batches that expire name it in their error.
        self.hindrance: QuorateError | None = None
        self.bytes_used = 0
        self.flushes = 0
        #: Why no more records are taken; None while the producer works.
        self.closed: QuorateError | None = None
        #: Number of records without an outcome at the time when the accumulator was closed.
        self.abandoned = 0
        self._queues: dict[tuple[str, int], PartitionQueue] = {}
        #: The queues that have batches. The queue that sent a batch last is at the end.
        self._active: dict[PartitionQueue, None] = {}

    # -- in ------------------------------------------------------------------------------------

    def queue(self, topic: str, topic_id: bytes, partition: int) -> PartitionQueue:
        """Return the queue of a partition. A topic that was created again gets new queues."""
        found = self._queues.get((topic, partition))
        if found is not None and found.topic_id == topic_id:
            return found
        made = PartitionQueue(topic, topic_id, partition, self.config.batch_bytes_max)
        if found is not None and not found.is_empty:
            made.predecessor = found
            made.batches_opened = found.batches_opened
        self._queues[topic, partition] = made
        return made

    def has_room(self, size: int) -> bool:
        """Return whether `size` more bytes fit."""
        return self.bytes_used + size <= self.config.buffer_bytes_max

    def room_in(self, batch: Batch | None, size: int) -> int:
        """Return for how many bytes of records an open batch has room; None: there is no batch.

        If this is less than `size`, no record of this size fits into the batch.
        """
        if batch is None:
            return 0
        if batch.builder.size + size > batch.bytes_max and batch.builder.is_worth_settling:
            self.bytes_used -= batch.builder.settle()
        return batch.bytes_max - batch.builder.size

    def append(
        self,
        queue: PartitionQueue,
        now: float,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
    ) -> tuple[Batch, int, bool]:
        """Add a record. Return its batch, its index there, and whether a batch became ready.

        Raises the error in `closed`, and InvalidTimestampError. After an error nothing has changed.
        """
        if self.closed is not None:
            raise self.closed.with_traceback(None)
        size = record_bytes_max(key, value, headers)
        batch = queue.open
        if batch is not None and self.room_in(batch, size) >= size:
            index = batch.builder.append(timestamp_ms, key, value, headers, size)
            self.bytes_used += size
            return batch, index, False
        builder = self.new_builder()
        builder.append(timestamp_ms, key, value, headers, size)
        fresh, completed = self.begin(queue, now, builder)
        return fresh, 0, completed

    def new_builder(self) -> ColumnBuilder:
        """Return a batch without records, for `begin`."""
        return ColumnBuilder(codec=self.config.codec, level=self.config.level)

    def begin(
        self, queue: PartitionQueue, now: float, builder: ColumnBuilder
    ) -> tuple[Batch, bool]:
        """Open a batch that has records. Return it, and whether the one before became ready."""
        number = (queue.batches_opened,)
        batch = Batch(queue, builder, now, now + self.config.delivery_timeout_s, number)
        self.bytes_used += batch.bytes
        self._active[queue] = None
        return batch, queue.begin(batch)

    # -- out -----------------------------------------------------------------------------------

    def drain(
        self,
        now: float,
        is_ours: Callable[[PartitionQueue], bool],
        *,
        bytes_max: int,
        may_linger: bool,
        carrier: object = None,
    ) -> list[Batch]:
        """Take out at most one batch of each partition that `is_ours`, about `bytes_max` in all.

        The batches are in flight until succeeded(), failed() or retry(). The next call begins with
        other partitions. `carrier` is the stream that will send the batches. While a partition has
        batches in flight on one stream, no batch of the partition is taken for another stream.
        """
        if self.config.idempotent and self.identity is None:
            return []
        taken: list[Batch] = []
        size = 0
        lingers_since = now - self.config.linger_s if may_linger and not self.flushes else None
        for queue in list(self._active):
            if size >= bytes_max or len(taken) >= REQUEST_BATCHES_MAX:
                break
            if not queue.may_send(now, self.config.max_in_flight) or not is_ours(queue):
                continue
            if queue.in_flight and queue.carrier is not carrier:
                continue  # wait for their outcome: two streams would not keep the order
            batch = self._next_encoded(queue, lingers_since)
            if batch is None:
                continue
            queue.carrier = carrier
            if not batch.attempts:
                batch.first_sent_at = now
            batch.attempts += 1
            queue.in_flight.append(batch)
            taken.append(batch)
            size += len(batch.encoded or b"")
            del self._active[queue]
            self._active[queue] = None
        return taken

    def linger_ends(self, now: float, is_ours: Callable[[PartitionQueue], bool]) -> float | None:
        """Return the time at which the first waiting batch may be sent; None if there is none."""
        linger_s = self.config.linger_s
        ends = [queue.waits_until(now, linger_s) for queue in self._active if is_ours(queue)]
        return min((end for end in ends if end is not None), default=None)

    def waiting(self) -> Iterator[PartitionQueue]:
        """Return the queues that have batches."""
        return iter(list(self._active))

    def unfinished(self) -> list[Batch]:
        """Return every batch that has no outcome yet."""
        return [batch for queue in self._active for batch in queue.batches()]

    def _next_encoded(self, queue: PartitionQueue, lingers_since: float | None) -> Batch | None:
        """Take the next batch that fits into a message, or None. Split, or fail, larger ones."""
        while (batch := queue.take_next(lingers_since)) is not None:
            if self.config.idempotent and batch.base_sequence < 0:
                assert self.identity is not None or queue.identity is not None
                queue.number(batch, self.identity)
            try:
                self.bytes_used -= batch.settle()  # counted before the codec can fail
                size = batch.encode()
                too_large = _too_large(size, batch.builder.size)
            except Exception as error:  # a bug of the codec or of Quorate: only this batch fails
                queue.unnumber(batch)
                self._finish(batch, UnknownServerError(f"a batch can't be encoded: {error!r}"))
                continue
            if not too_large:
                return batch
            queue.unnumber(batch)
            queue.put_back(batch)
            self.split(batch, RecordTooLargeError(too_large))
        return None

    # -- outcomes ------------------------------------------------------------------------------

    def succeeded(self, batch: Batch, base_offset: int, append_time_ms: int) -> None:
        """Finish a batch that the broker acknowledged."""
        batch.queue.has_gap = False  # the broker has this batch, and so all earlier ones
        batch.base_offset = base_offset
        batch.append_time_ms = append_time_ms
        self._finish(batch, None)

    def failed(self, batch: Batch, error: QuorateError) -> None:
        """Finish a batch that is not sent again: with OutcomeUnknownError if it may be written."""
        if batch.is_uncertain and not isinstance(error, OutcomeUnknownError):
            error = _unknown(batch, error)
        self._finish(batch, error)

    def retry(self, batch: Batch, error: QuorateError, now: float, backoff_s: float) -> None:
        """Send a batch again after `backoff_s`, before the later batches of its partition."""
        if batch.done or batch not in batch.queue.in_flight:
            return
        queue = batch.queue
        batch.refusal = error
        is_first = queue.in_flight[0] is batch and not (
            queue.is_retrying and comes_after(batch, queue.ready[0])
        )
        queue.in_flight.remove(batch)
        queue.put_back(batch)
        proves_a_gap = isinstance(error, OutOfOrderSequenceError | UnknownProducer)
        if is_first and proves_a_gap:
            queue.has_gap = True
            queue.is_forgotten = isinstance(error, UnknownProducer)
        queue.retry_at = max(queue.retry_at, now + backoff_s)
        self._restart_after_gap(queue)

    def split(self, batch: Batch, error: QuorateError) -> None:
        """Split a batch that was refused for its size into parts of half its size or less.

        Later batches of the partition get the same size limit. A batch of a single record fails,
        and so does a whole one. A batch that an earlier attempt may have written fails too: its
        sequences may be in use.
        """
        if batch.done:
            return
        queue = batch.queue
        if batch.count == 1 or batch.is_whole or batch.is_uncertain:
            self.failed(batch, error)
            return
        queue.batch_bytes_max = min(queue.batch_bytes_max, batch.builder.size // 2)
        if queue.open is not None:
            queue.open.bytes_max = queue.batch_bytes_max
        batch.refusal = error
        parts = parts_of(batch, queue.batch_bytes_max)
        batch.replace_by(parts)
        self.bytes_used += sum(part.bytes for part in parts)
        self._leave(batch)
        for part in parts:
            queue.put_back(part)
        self._restart_after_gap(queue)
        self._tell(batch)

    def move(self, old: PartitionQueue, new: PartitionQueue, made_at: float) -> None:
        """Move records of a deleted topic, sent since `made_at`, to the new topic of its name.

        Batches that may have been written to the old topic stay in its queue. A batch in flight may
        still fail and be queued again, so the new queue sends nothing while there is one.
        """
        if new.take_over(old, made_at):
            self._active[new] = None
        if old.is_empty:
            self._active.pop(old, None)

    def drop(self, queue: PartitionQueue, *, is_gone: bool) -> None:
        """Forget an empty queue. `is_gone`: its topic was deleted."""
        assert queue.is_empty, "records of that partition are on their way"
        if self._queues.get((queue.topic, queue.partition)) is queue:
            del self._queues[queue.topic, queue.partition]
        used, identity = queue.identity, self.identity
        if is_gone or used is None or identity is None:
            return
        if identity.producer_id != used.producer_id:
            return
        if used.producer_epoch >= PRODUCER_EPOCH_MAX:
            self.identity = None  # the sender asks for a new id
        elif used.producer_epoch >= identity.producer_epoch:
            self.identity = ProducerIdentity(used.producer_id, used.producer_epoch + 1)

    def expire(self, now: float) -> list[Batch]:
        """Fail every batch past its delivery timeout, oldest first. Return these batches."""
        expired = [batch for batch in self.unfinished() if now >= batch.deadline]
        for batch in expired:
            self._finish(batch, _timed_out(batch, self.config.delivery_timeout_s, self.hindrance))
        return expired

    def close(self, error: QuorateError) -> None:
        """Take no more records, and fail all batches. The outcome of those in flight is unknown."""
        self.closed = self.closed or error
        for batch in self.unfinished():
            self.abandoned += batch.count
            batch.is_uncertain |= batch in batch.queue.in_flight
            self.failed(batch, error)

    def _restart_after_gap(self, queue: PartitionQueue) -> None:
        if not queue.has_gap or queue.in_flight:
            return
        if not queue.restart():
            self.identity = None  # the sender asks for a new id, which the next batches get
        for batch in [batch for batch in queue.ready if batch.is_uncertain]:
            assert batch.refusal is not None
            self.failed(batch, batch.refusal)

    def _finish(self, batch: Batch, error: QuorateError | None) -> None:
        if batch.done:
            return
        batch.error = error
        self._leave(batch)
        self._restart_after_gap(batch.queue)
        if batch.queue.is_empty:
            self._active.pop(batch.queue, None)
        self._tell(batch)

    def _leave(self, batch: Batch) -> None:
        """Take a batch that has its outcome out of its queue, and free its bytes."""
        batch.queue.remove(batch)
        batch.done = True
        batch.encoded = None
        batch.builder.release()
        self.bytes_used -= batch.bytes

    @staticmethod
    def _tell(batch: Batch) -> None:
        if batch.on_end is not None and not batch.parts:
            batch.on_end(batch)
        batch.on_end = batch.observed = None
        for callback in batch.take_callbacks():
            callback()


def _unknown(batch: Batch, error: QuorateError) -> OutcomeUnknownError:
    unknown = OutcomeUnknownError(
        f"{_records(batch)} sent and not acknowledged, and may have been written; now: {error}"
    )
    unknown.__cause__ = error
    return unknown


def _timed_out(
    batch: Batch, timeout_s: float, hindrance: QuorateError | None
) -> DeliveryTimeoutError:
    may_be_written = batch.is_uncertain or batch in batch.queue.in_flight
    how = "was never sent"
    if batch.attempts:
        became = "may have been" if may_be_written else "was not"
        times = "once" if batch.attempts == 1 else f"{batch.attempts} times"
        how = f"was sent {times}, and {became} written"
    why = batch.queue.hindrance or batch.refusal or (None if batch.attempts else hindrance)
    error = DeliveryTimeoutError(
        f"{_records(batch)} not acknowledged within {timeout_s * 1000:.0f} ms; "
        f"the batch {how}" + (f" (last: {why})" if why else "")
    )
    error.may_be_written = may_be_written
    error.__cause__ = why
    return error


def _records(batch: Batch) -> str:
    """Return the subject of a sentence about the records of a batch, with its verb."""
    noun, verb = ("record", "was") if batch.count == 1 else ("records", "were")
    return f"{batch.count} {noun} for {batch.queue.topic}/{batch.queue.partition} {verb}"


def refusal_of(size: int, codec: int) -> RecordTooLargeError | None:
    """Return why no message carries a record of `size` bytes; None: one does.

    A codec may make the record small enough for a message, but readers decompress it.
    """
    why = _too_large(0 if codec else size, size)
    return RecordTooLargeError(f"a record of {why}") if why else None


def _too_large(size: int, raw_size: int) -> str:
    """Return why a batch of this size cannot be sent or read; empty if it can."""
    if size > WIRE_BATCH_BYTES_MAX:
        return f"{size} bytes; a message of the wire carries a batch of {WIRE_BATCH_BYTES_MAX}"
    if raw_size > DECOMPRESSED_BYTES_MAX:
        return f"{raw_size} bytes before compression; {DECOMPRESSED_BYTES_MAX} are allowed"
    return ""
