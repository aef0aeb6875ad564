"""A batch that a program fills itself: its records are written together, or none of them is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Never

from quorate.argument_names import named, takes_no_others, unknown_in
from quorate.errors import ClosedError, InvalidRequestError, RecordTooLargeError
from quorate.model import Header
from quorate.producer.arguments import as_headers, as_timestamp, encoded
from quorate.record.batch import HEADER_BYTES
from quorate.record.column_builder import ColumnBuilder
from quorate.record.record import record_bytes_max


class RecordBatch:
    """Records for one partition that are written together, or none of them. Fill it, then send it.

    Made by `Producer.create_batch`, and sent once by `send_batch` of the same producer. Keys and
    values are bytes or None: serializers are not used, because they need the topic.

        batch = producer.create_batch()
        for value in values:
            if batch.append(value) is None:
                break  # the batch is full
        delivery = await producer.send_batch(batch, "invoice", partition=0)
    """

    def __init__(
        self,
        owner: object,
        builder: ColumnBuilder,
        bytes_max: int,
        wall_clock_ms: Callable[[], int],
    ) -> None:
        self._owner = owner
        self._builder = builder
        self._bytes_max = bytes_max
        self._wall_clock_ms = wall_clock_ms
        self._is_closed = False
        self._is_sent = False

    @takes_no_others
    def append(
        self,
        value: bytes | None = None,
        key: bytes | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[Header] | None = None,
        **wrong: Never,
    ) -> int | None:
        """Add a record. Return how many the batch has now; None: the batch has no room for it.

        Raises RecordTooLargeError if not even an empty batch has room for the record (it may have
        `max_batch_size` bytes), and ClosedError after `close` or `send_batch`.
        """
        if wrong:
            raise unknown_in(RecordBatch.append, self, wrong)
        if self._is_closed:
            raise ClosedError("this batch takes no more records; make another with create_batch()")
        value = encoded("", "value", value, None)
        key = encoded("", "key", key, None)
        pairs: Sequence[Header] = () if headers is None else as_headers(headers)
        time_ms = as_timestamp("append", timestamp_ms, self._wall_clock_ms)
        size = record_bytes_max(key, value, pairs)
        if HEADER_BYTES + size > self._bytes_max:
            raise RecordTooLargeError(
                f"a record of {size} bytes; a batch has {self._bytes_max} bytes (max_batch_size), "
                f"{HEADER_BYTES} of them for its header"
            )
        builder = self._builder
        if builder.size + size > self._bytes_max:
            builder.settle()
        if builder.size + size > self._bytes_max:
            return None
        return builder.append(time_ms, key, value, pairs, size) + 1

    @property
    def count(self) -> int:
        """Number of records in the batch."""
        return self._builder.count

    @property
    def size(self) -> int:
        """Upper bound of the batch's bytes. Compression makes it smaller."""
        return self._builder.size

    @named
    def close(self) -> None:
        """Take no more records. The batch can still be sent."""
        self._is_closed = True

    def _take(self, owner: object) -> ColumnBuilder:
        """Return the records, to send them. Raises ValueError or InvalidRequestError."""
        if self._owner is not owner:
            raise ValueError("send_batch: batch must be of this producer's create_batch()")
        if self._is_sent:
            raise InvalidRequestError("this batch was sent already; make another by create_batch()")
        if not self.count:
            raise ValueError("send_batch: batch must have a record; append one first")
        self._is_closed = self._is_sent = True
        self._builder.settle()
        return self._builder

    def _give_back(self) -> None:
        """Allow to send the batch again: it was not put into the buffer."""
        self._is_sent = False
