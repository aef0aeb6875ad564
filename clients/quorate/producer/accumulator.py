"""Records on their way: batches per partition, the buffer's bound, sequences, retry and order.

A machine: no clock, no wire. The producer appends, the sender drains by broker and reports what
became of each batch. Its laws:

* Order holds within a partition, under retry too: while a batch waits to be sent again, nothing
  behind it is sent before everything in flight of that partition has been answered.
* A batch keeps its sequence over all attempts, so that a broker can tell it is a duplicate. It
  gets another one only when a broker has proved that it was not written (OutOfOrderSequence or
  UnknownProducerId, with nothing earlier of that partition open): then the partition waits for
  all its batches in flight, and goes on under the next producer_epoch from sequence 0; what is
  late under the old one is fenced.
* Bytes count against the buffer from append to the batch's end, whatever that end is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quorate.errors import (
    DeliveryTimeoutError,
    OutOfOrderSequenceError,
    QuorateError,
    UnknownServerError,
)
from quorate.errors import UnknownProducerIdError as UnknownProducer
from quorate.model import Header
from quorate.producer.partition_queue import Batch, PartitionQueue, ProducerIdentity, comes_after
from quorate.record.batch import BatchBuilder

SEQUENCE_END = 1 << 31  # sequences wrap here
PRODUCER_EPOCH_MAX = 32767


@dataclass(frozen=True, slots=True, kw_only=True)
class AccumulatorConfig:
    """The bounds of a producer's buffer."""

    batch_bytes_max: int
    buffer_bytes_max: int
    linger_s: float
    delivery_timeout_s: float
    max_in_flight: int
    codec: int
    idempotent: bool


class Accumulator:
    """All partitions' queues of one producer, and the bytes they hold."""

    def __init__(self, config: AccumulatorConfig) -> None:
        self.config = config
        self.identity: ProducerIdentity | None = None
        self.bytes_used = 0
        self.flushes = 0
        self._queues: dict[tuple[str, int], PartitionQueue] = {}
        #: Queues that hold something, in order of their last turn.
        self._active: dict[PartitionQueue, None] = {}

    # -- in ------------------------------------------------------------------------------------

    def queue(self, topic: str, topic_id: bytes, partition: int) -> PartitionQueue:
        """Return the queue of a partition; a topic made again under its name gets a new one."""
        found = self._queues.get((topic, partition))
        if found is None or found.topic_id != topic_id:
            found = PartitionQueue(topic, topic_id, partition)
            self._queues[topic, partition] = found
        return found

    def has_room(self, size: int) -> bool:
        """Whether `size` more bytes fit."""
        return self.bytes_used + size <= self.config.buffer_bytes_max

    def append(
        self,
        queue: PartitionQueue,
        now: float,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
    ) -> tuple[Batch, int, bool]:
        """Add a record; return its batch, its index there, and whether a batch became ready.

        Raises what the builder raises for an impossible record; then all is as it was.
        """
        batch = queue.open
        if batch is not None:
            size = (len(key) if key else 0) + (len(value) if value else 0) + 32
            if batch.builder.size + size <= self.config.batch_bytes_max:
                return batch, self.add(batch, timestamp_ms, key, value, headers), False
        fresh = Batch(
            queue, BatchBuilder(codec=self.config.codec), now, now + self.config.delivery_timeout_s
        )
        index = self.add(fresh, timestamp_ms, key, value, headers)
        if batch is not None:
            queue.ready.append(batch)
        queue.open = fresh
        queue.batches_opened += 1
        self._active[queue] = None
        return fresh, index, batch is not None

    def add(
        self,
        batch: Batch,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
    ) -> int:
        """Add a record to an open batch that has room for it; return its index there."""
        builder = batch.builder
        before = builder.size
        index = builder.append(timestamp_ms, key, value, headers)
        grown = builder.size - before
        batch.bytes += grown
        self.bytes_used += grown
        return index

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
        """Take at most one batch of each partition that `is_ours`, about `bytes_max` in all.

        What is taken is in flight until succeeded(), failed() or retry() says more. Partitions
        take turns. `carrier` is who will carry it; a partition with batches in flight stays with
        theirs.
        """
        if self.config.idempotent and self.identity is None:
            return []
        taken: list[Batch] = []
        size = 0
        for queue in list(self._active):
            if size >= bytes_max:
                break
            if not self._may_send(queue, now) or not is_ours(queue):
                continue
            if queue.in_flight and queue.carrier is not carrier:
                continue  # first learn what became of those, or the order is lost
            batch = self._next(queue, now, may_linger)
            if batch is None:
                continue
            queue.carrier = carrier
            try:
                self._send(queue, batch, now)
            except Exception as error:  # ours or a codec's: this batch only, and never silently
                self._finish(batch, UnknownServerError(f"a batch can't be encoded: {error!r}"))
                continue
            taken.append(batch)
            size += len(batch.encoded or b"")
            del self._active[queue]
            self._active[queue] = None
        return taken

    def linger_ends(self, now: float, is_ours: Callable[[PartitionQueue], bool]) -> float | None:
        """Return when the first open or backing-off batch may be sent, None if there is none."""
        ends: float | None = None
        for queue in self._active:
            if not is_ours(queue):
                continue
            if queue.ready or queue.has_gap:
                end = queue.retry_at if queue.retry_at > now else None
            elif queue.open is not None:
                end = max(queue.open.opened_at + self.config.linger_s, queue.retry_at)
            else:
                end = None
            if end is not None and (ends is None or end < ends):
                ends = end
        return ends

    def waiting(self) -> Iterator[PartitionQueue]:
        """Queues that hold something."""
        return iter(list(self._active))

    def unfinished(self) -> list[Batch]:
        """Every batch that is not done yet."""
        return [batch for queue in self._active for batch in queue.batches()]

    def _may_send(self, queue: PartitionQueue, now: float) -> bool:
        if (
            queue.has_gap
            or queue.retry_at > now
            or len(queue.in_flight) >= self.config.max_in_flight
        ):
            return False
        return not (queue.is_retrying and queue.in_flight and not self._same_run(queue))

    @staticmethod
    def _same_run(queue: PartitionQueue) -> bool:
        """In flight are only batches that come before the next one: resending goes on in order."""
        following = queue.ready[0]
        return queue.identity is not None and all(
            comes_after(following, batch) for batch in queue.in_flight
        )

    def _next(self, queue: PartitionQueue, now: float, may_linger: bool) -> Batch | None:
        if queue.ready:
            return queue.ready.popleft()
        batch = queue.open
        if batch is None:
            return None
        lingers = (
            may_linger
            and not batch.urgent
            and not self.flushes
            and now < batch.opened_at + self.config.linger_s
        )
        if lingers:
            return None
        queue.open = None
        return batch

    def _send(self, queue: PartitionQueue, batch: Batch, now: float) -> None:
        if self.config.idempotent and batch.base_sequence < 0:
            if queue.identity is None:
                queue.identity = self.identity
                queue.next_sequence = 0
            self._number(queue, batch)
        if batch.encoded is None:
            batch.encoded = batch.builder.build()
        batch.attempts += 1
        batch.sent_at = now
        queue.in_flight.append(batch)

    @staticmethod
    def _number(queue: PartitionQueue, batch: Batch) -> None:
        assert queue.identity is not None
        batch.base_sequence = queue.next_sequence
        queue.next_sequence = (queue.next_sequence + batch.count) % SEQUENCE_END
        builder = batch.builder
        builder.producer_id = queue.identity.producer_id
        builder.producer_epoch = queue.identity.producer_epoch
        builder.base_sequence = batch.base_sequence
        batch.encoded = None

    # -- what became of it ---------------------------------------------------------------------

    def succeeded(self, batch: Batch, base_offset: int, append_time_ms: int) -> None:
        """The broker acknowledged the batch."""
        batch.queue.has_gap = False  # it has this one, so it has those before it too
        batch.base_offset = base_offset
        batch.append_time_ms = append_time_ms
        self._finish(batch, None)

    def failed(self, batch: Batch, error: QuorateError) -> None:
        """The batch will not be sent again."""
        self._finish(batch, error)

    def retry(self, batch: Batch, error: QuorateError, now: float, backoff_s: float) -> None:
        """Send the batch again later, before all that follows it in its partition."""
        if batch.done or batch not in batch.queue.in_flight:
            return
        queue = batch.queue
        batch.refusal = error
        is_first = queue.in_flight[0] is batch and not (
            queue.is_retrying and comes_after(batch, queue.ready[0])
        )
        queue.in_flight.remove(batch)
        self._put_back(queue, batch)
        proves_a_gap = isinstance(error, OutOfOrderSequenceError | UnknownProducer)
        if is_first and proves_a_gap:
            queue.has_gap = True
        queue.retry_at = max(queue.retry_at, now + backoff_s)
        self._restart_after_gap(queue)

    def expire(self, now: float) -> list[Batch]:
        """Fail every batch past its delivery timeout, oldest first; return them."""
        expired = [
            batch
            for queue in list(self._active)
            for batch in list(queue.batches())
            if now >= batch.deadline
        ]
        for batch in expired:
            how = (
                f"was sent {batch.attempts} times, and may have been written"
                if batch.attempts
                else "was never sent"
            )
            self._finish(
                batch,
                DeliveryTimeoutError(
                    f"{batch.count} records for {batch.queue.topic}-{batch.queue.partition} were "
                    f"not acknowledged within {self.config.delivery_timeout_s * 1000:.0f} ms; "
                    f"their batch {how}" + (f" (last: {batch.refusal})" if batch.refusal else "")
                ),
            )
        return expired

    def fail_all(self, error: QuorateError) -> None:
        """Fail whatever is left, when the producer stops."""
        for batch in self.unfinished():
            self._finish(batch, error)

    def _put_back(self, queue: PartitionQueue, batch: Batch) -> None:
        """Insert by age among those that wait to be sent again."""
        index = 0
        for waiting in queue.ready:
            if waiting.attempts == 0 or comes_after(waiting, batch):
                break
            index += 1
        queue.ready.insert(index, batch)

    def _restart_after_gap(self, queue: PartitionQueue) -> None:
        """Go on under the next epoch from 0: nothing from the gap on was written.

        Nothing earlier is open, so a gap proves that the batch before it was lost (it expired, or
        failed for good), and what follows the gap could not have been written either. Batches
        in flight behind it meet the same gap and come back first.
        """
        if not queue.has_gap or queue.in_flight:
            return
        queue.has_gap = False
        identity = queue.identity
        assert identity is not None, "a gap was answered to a batch without a sequence"
        if identity.producer_epoch < PRODUCER_EPOCH_MAX:
            queue.identity = ProducerIdentity(identity.producer_id, identity.producer_epoch + 1)
        else:
            self.identity = None  # a new id is asked for; the queue takes it at the next send
            queue.identity = None
        queue.next_sequence = 0
        for waiting in queue.ready:
            waiting.base_sequence = -1
            waiting.encoded = None

    def _finish(self, batch: Batch, error: QuorateError | None) -> None:
        if batch.done:
            return
        queue = batch.queue
        if batch in queue.in_flight:
            queue.in_flight.remove(batch)
        elif batch is queue.open:
            queue.open = None
        elif batch in queue.ready:
            queue.ready.remove(batch)
        batch.done = True
        batch.error = error
        batch.encoded = None
        self.bytes_used -= batch.bytes
        self._restart_after_gap(queue)
        if not queue.in_flight and not queue.ready and queue.open is None:
            self._active.pop(queue, None)
        callbacks, batch.callbacks = batch.callbacks, []
        for callback in callbacks:
            callback()
