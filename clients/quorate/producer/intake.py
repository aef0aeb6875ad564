"""Puts records into the open batches of their partitions: one record, or many in bulk."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence

from quorate.cluster.cluster import Cluster
from quorate.cluster.topic_views import TopicView
from quorate.errors import QuorateError
from quorate.model import Header
from quorate.producer.accumulator import Accumulator, refusal_of
from quorate.producer.buffer_room import BufferRoom
from quorate.producer.bulk import Bulk
from quorate.producer.partition_queue import Batch, PartitionQueue
from quorate.producer.record_batch import RecordBatch
from quorate.producer.routes import Routes
from quorate.producer.sender import Sender
from quorate.record.batch import HEADER_BYTES
from quorate.record.column_builder import ColumnBuilder, RecordColumns


class Intake:
    """The way of records into the buffer of one producer.

    A record waits for room first. Then its partition is chosen and it is put into a batch, with no
    await between the two: what happened during the wait is visible to the choice.
    """

    def __init__(
        self,
        cluster: Cluster,
        accumulator: Accumulator,
        routes: Routes,
        room: BufferRoom,
        sender: Sender,
        on_end: Callable[[Batch], object],
    ) -> None:
        """`on_end` is called with each batch that has its outcome. It is a method.

        A batch without an outcome keeps the object of this method alive, and this Intake does not.
        """
        self._cluster = cluster
        self._accumulator = accumulator
        self._routes = routes
        self._room = room
        self._sender = sender
        self._on_end = weakref.WeakMethod(on_end)
        #: Whether a batch became full since the last yield to the event loop. The next record must
        #: yield first, so that a program that only sends lets the streams work.
        self.must_yield = False

    async def wait_for_room(self, size: int, since: float | None = None) -> None:
        """Wait until the buffer has room for `size` bytes. See BufferRoom.wait."""
        self._sender.wake()
        await self._room.wait(size, since)

    def put(
        self,
        view: TopicView,
        partition: int | None,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        size: int,
        arrived_at: float | None = None,
    ) -> tuple[Batch, int]:
        """Put a record of at most `size` bytes, which the buffer has, into a batch.

        Return its place. `arrived_at`: see Bulk.

        Raises the errors of Routes.choose and Accumulator.append. Then nothing has changed.
        """
        accumulator = self._accumulator
        self._check_open()
        queue = self._routes.choose(view, key, partition)
        sticky = self._routes.sticky.get(view.name) if key is None and partition is None else None
        if sticky is not None and accumulator.room_in(queue.open, size) < size:
            queue = self._move_on(view, queue)
        refusal = refusal_of(size, accumulator.config.codec)
        if refusal is not None:
            return self._refused(queue, timestamp_ms, refusal), 0
        now = _time(arrived_at)
        batch, index, completed = accumulator.append(queue, now, timestamp_ms, key, value, headers)
        if index == 0:
            self._opened(batch, completed=completed)
            if sticky is not None:
                sticky.batch = batch
        return batch, index

    async def put_many(self, topic: str, partition: int | None, records: RecordColumns) -> Bulk:
        """Put many records of a topic into batches, in order. Return their places."""
        view = await self._routes.find(topic)
        if partition is not None:
            view = await self._routes.find_partition(view, partition, "send_many")
            self._routes.choose(view, None, partition)  # raises if there is no such partition
        bulk = Bulk(topic, partition, records)
        bulk.seal()
        await self.put_all(bulk)
        return bulk

    async def put_all(self, bulk: Bulk) -> None:
        """Put the records of `bulk` that have no place yet into batches, in order.

        Raises the error of the record at `position`. The caller may skip it and call again.
        """
        while not bulk.is_done:
            if self.must_yield:
                self.must_yield = False
                await asyncio.sleep(0)
            view = self._cluster.topics.get(bulk.topic)
            if view is None:
                view = await self._routes.find(bulk.topic)
                continue
            stop = self._fitting(bulk)
            if stop == bulk.position:
                await self.wait_for_room(bulk.size(stop + 1), bulk.arrived_at)
                view = self._cluster.topics.get(bulk.topic, view)
                stop = self._fitting(bulk, is_next=True)
            self._check_open()
            if self._routes.is_one_by_one(bulk.records.keys, bulk.partition):
                self._put_one_by_one(bulk, view, stop)
            else:
                self._put_run(bulk, view, stop)

    def new_batch(self) -> RecordBatch:
        """Return a batch that the program fills, for `put_whole`. Raises the error in `closed`."""
        self._check_open()
        builder = self._accumulator.new_builder()
        bytes_max = self._accumulator.config.batch_bytes_max
        return RecordBatch(self, builder, bytes_max, self._cluster.wall_clock_ms)

    async def put_whole(self, topic: str, partition: int, given: RecordBatch) -> Batch:
        """Put the records of a batch of `new_batch` into the buffer, behind all earlier ones.

        They get a batch of their own. After an error `given` can be put again.
        """
        self._check_open()
        builder = given._take(self)
        try:
            return await self._put_whole(topic, partition, builder)
        except BaseException:
            given._give_back()
            raise

    async def _put_whole(self, topic: str, partition: int, builder: ColumnBuilder) -> Batch:
        size = builder.size - HEADER_BYTES
        if self.must_yield:
            self.must_yield = False
            await asyncio.sleep(0)
        view = await self._routes.find_partition(await self._routes.find(topic), partition)
        self._routes.choose(view, None, partition)  # raises if there is no such partition
        if self._room.waiting or not self._accumulator.has_room(size):
            await self.wait_for_room(size)
        self._check_open()
        queue = self._routes.choose(self._cluster.topics.get(topic, view), None, partition)
        now = asyncio.get_running_loop().time()
        batch, _ = self._accumulator.begin(queue, now, builder)
        batch.is_whole = True
        queue.complete()  # it gets no further record
        self._opened(batch, completed=True)
        return batch

    def _fitting(self, bulk: Bulk, *, is_next: bool = False) -> int:
        """Return the end of the next records for which the buffer has room.

        `is_next`: no other call has a right to the room before them, and one of them fits.
        """
        if self._room.waiting and not is_next:
            return bulk.position
        accumulator = self._accumulator
        room = accumulator.config.buffer_bytes_max - accumulator.bytes_used
        return bulk.fitting(room, bulk.count)

    def _put_one_by_one(self, bulk: Bulk, view: TopicView, stop: int) -> None:
        records = bulk.records
        while bulk.position < stop and not self.must_yield:
            index = bulk.position
            batch, place = self.put(
                view,
                bulk.partition,
                records.time_of(index),
                None if records.keys is None else records.keys[index],
                records.values[index],
                records.headers.get(index, ()),
                bulk.size(index + 1),
                bulk.arrived_at,
            )
            bulk.put(batch, place, index + 1)

    def _put_run(self, bulk: Bulk, view: TopicView, stop: int) -> None:
        """Put the next records, up to `stop`, into the same batch, as many as it has room for."""
        queue = self._routes.choose(view, None, bulk.partition)
        sticky = self._routes.sticky[view.name] if bulk.partition is None else None
        end = self._fitting_into(queue.open, bulk, stop)
        if end == bulk.position and sticky is not None:
            queue = self._move_on(view, queue)
            end = self._fitting_into(queue.open, bulk, stop)
        if queue.open is not None and end > bulk.position:
            batch, size = queue.open, bulk.size(end)
            first = batch.builder.extend(bulk.records, bulk.position, end, size)
            self._accumulator.bytes_used += size
        else:
            first = 0
            batch, end = self._begin(queue, bulk, stop)
            if sticky is not None and batch is queue.open:
                sticky.batch = batch
        bulk.put(batch, first, end)

    def _fitting_into(self, batch: Batch | None, bulk: Bulk, stop: int) -> int:
        room = self._accumulator.room_in(batch, bulk.size(bulk.position + 1))
        return bulk.fitting(room, stop)

    def _begin(self, queue: PartitionQueue, bulk: Bulk, stop: int) -> tuple[Batch, int]:
        """Begin a batch with the next records. It has at least one, however large that is."""
        start = bulk.position
        refusal = refusal_of(bulk.size(start + 1), self._accumulator.config.codec)
        if refusal is not None:
            return self._refused(queue, bulk.records.time_of(start), refusal), start + 1
        end = bulk.fitting(queue.batch_bytes_max - HEADER_BYTES, stop)
        end = max(end, start + 1)
        builder = self._accumulator.new_builder()
        builder.extend(bulk.records, start, end, bulk.size(end))
        now = _time(bulk.arrived_at)
        batch, completed = self._accumulator.begin(queue, now, builder)
        self._opened(batch, completed=completed)
        return batch, end

    def _refused(self, queue: PartitionQueue, timestamp_ms: int, error: QuorateError) -> Batch:
        """Return a batch for a record that no message carries. It has no place in the buffer.

        It fails in the next turn of the loop. So the caller can ask for its outcome before, and it
        is counted if no caller does, as that of any other record.
        """
        loop = asyncio.get_running_loop()
        builder = self._accumulator.new_builder()
        builder.append(timestamp_ms, None, None, (), 0)
        batch = Batch(queue, builder, loop.time(), loop.time(), (queue.batches_opened,))
        batch.on_end = self._on_end()
        loop.call_soon(self._accumulator.failed, batch, error)
        return batch

    def _check_open(self) -> None:
        if self._accumulator.closed is not None:
            raise self._accumulator.closed.with_traceback(None)

    def _move_on(self, view: TopicView, queue: PartitionQueue) -> PartitionQueue:
        """Return the queue for the next batch without a key.

        If this is another queue, the open batch of the old one gets no more records.
        """
        left, queue = queue, self._routes.begin(view, queue)
        if queue is not left and left.complete():
            self._tell(left, completed=True)
        return queue

    def _opened(self, batch: Batch, *, completed: bool) -> None:
        """`completed`: the batch before it became full. Then the next record yields."""
        batch.on_end = self._on_end()
        self._tell(batch.queue, completed=completed)

    def _tell(self, queue: PartitionQueue, *, completed: bool) -> None:
        self._sender.opened(queue, is_urgent=completed)
        self.must_yield |= completed


def _time(arrived_at: float | None) -> float:
    """Return the time from which a new batch lingers, and its delivery time-out counts."""
    return asyncio.get_running_loop().time() if arrived_at is None else arrived_at
