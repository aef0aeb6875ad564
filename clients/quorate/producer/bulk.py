"""The records of one call on their way into batches. A machine: it waits for nothing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from quorate.errors import QuorateError
from quorate.producer.partition_queue import Batch
from quorate.record.column_builder import RecordColumns

#: The batch of a record and its index there, or the error that kept it from every batch.
Place = tuple[Batch, int] | QuorateError


class Bulk:
    """Records of one topic that are put into batches in order, and the place of each.

    The first `position` records have their place. Any thread may ask for places while one thread
    adds them. When all records have their place, the bulk keeps no bytes.
    """

    __slots__ = (
        "_bounds",
        "_places",
        "_starts",
        "arrived_at",
        "asked",
        "partition",
        "position",
        "records",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        partition: int | None,
        records: RecordColumns,
        arrived_at: float | None = None,
    ) -> None:
        """`partition`: of all records; None: each record's depends on its key.

        `arrived_at`: the time from which the delivery time-out counts; None: it counts from the
        time at which a record is put into a batch.
        """
        self.topic = topic
        self.partition = partition
        self.arrived_at = arrived_at
        self.records = records
        self.position = 0
        #: The records without a place that a caller waits for. Any thread may add its index.
        self.asked: set[int] = set()
        #: Upper bound of the bytes of all records before each index; empty before `seal`.
        self._bounds: Sequence[int] = ()
        #: Each place is of the records from its start up to the next one's.
        self._starts: list[int] = []
        self._places: list[Place] = []

    def seal(self) -> None:
        """Get ready to put the records into batches. No record is added from now on."""
        self._bounds = self.records.bounds()

    @property
    def count(self) -> int:
        """Number of records. Call `seal` first."""
        return max(len(self._bounds) - 1, self.position)

    @property
    def is_done(self) -> bool:
        """Whether each record has its place."""
        return self.position == self.count

    def size(self, stop: int) -> int:
        """Return an upper bound of the bytes of the next records, up to `stop`."""
        return self._bounds[stop] - self._bounds[self.position]

    def fitting(self, room: int, stop: int) -> int:
        """Return the end of the next records that fit into `room` bytes, `stop` at most."""
        most = self._bounds[self.position] + max(0, room)
        return bisect_right(self._bounds, most, self.position, stop + 1) - 1

    def put(self, batch: Batch, first: int, stop: int) -> None:
        """Note that the next records, up to `stop`, are in `batch` from the index `first` on."""
        start = self.position
        last = self._places[-1] if self._places else None
        is_same = isinstance(last, tuple) and last[0] is batch
        if not is_same or last != (batch, first - (start - self._starts[-1])):
            self._places.append((batch, first))
            self._starts.append(start)
        self._placed(stop)

    def skip(self, error: QuorateError) -> None:
        """Note why the next record got into no batch."""
        self._places.append(error)
        self._starts.append(self.position)
        self._placed(self.position + 1)

    def _placed(self, stop: int) -> None:
        is_last = stop == self.count
        self.position = stop
        if is_last:
            self.records = RecordColumns()
            self._bounds = ()
            self.asked = set()

    def place(self, index: int) -> Place | None:
        """Return the place of a record; None if it has none yet."""
        if index >= self.position:
            return None
        number = bisect_right(self._starts, index) - 1
        found = self._places[number]
        if isinstance(found, QuorateError):
            return found
        batch, first = found
        return batch, first + index - self._starts[number]
