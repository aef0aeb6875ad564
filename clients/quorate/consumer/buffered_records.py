"""Takes the records of a read out of the buffer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from quorate.consumer.buffer import Buffer
from quorate.consumer.chunk_reader import ChunkReader, Deserializers
from quorate.consumer.corruption import Corruptions
from quorate.consumer.partition_state import PartitionState, Reading
from quorate.consumer.subscription import Subscription
from quorate.errors import CorruptRecordError, QuorateError
from quorate.model import AnyRecord, TopicPartition
from quorate.record.batch import check


class BufferedRecords:
    """Takes records of one partition after another out of the buffer.

    `had_turn` is called after each turn.

    An error belongs to one partition, and is raised at the partition's turn. The partition then
    gets the last turn. So a program that reads on gets the records of the others, and later the
    error again.
    """

    def __init__(
        self,
        buffer: Buffer,
        subscription: Subscription,
        deserializers: Deserializers,
        corruptions: Corruptions,
        had_turn: Callable[[PartitionState], None],
    ) -> None:
        self._buffer = buffer
        self._subscription = subscription
        self._deserializers = deserializers
        self._corruptions = corruptions
        self._had_turn = had_turn

    def take_one(self) -> AnyRecord | None:
        """Return the next record of the buffer; None if the buffer has none."""
        while (state := self._buffer.first()) is not None:
            try:
                record = self._reading(state).take_one()
            except QuorateError as error:
                self._failed(state, error)
                continue
            if record is not None:
                return record
            self._finish(state)
        return None

    def take(
        self, only: Collection[TopicPartition], limit: int
    ) -> dict[TopicPartition, list[AnyRecord]]:
        """Return up to `limit` records of the buffer, by partition.

        If `only` has partitions, returns records of these alone.
        """
        found: dict[TopicPartition, list[AnyRecord]] = {}
        left = limit
        for state in self._turns(only):
            records = found.get(state.topic_partition, [])
            taken = 0
            try:
                # Records that were taken before an error stay in the list. The position is after
                # them.
                taken = self._reading(state).take(records, left)
            except QuorateError as error:
                state.reading = None
                if not records and not found:
                    self._failed(state, error)
                    continue
                # return the records before the error now: the next read meets the error again
                left = 0
            if records:
                found[state.topic_partition] = records
            if taken < left:
                self._finish(state)
            left -= taken
            if left <= 0:
                break
        return found

    def _turns(self, only: Collection[TopicPartition]) -> Iterator[PartitionState]:
        if only:
            while turns := self._buffer.in_turn(only, self._subscription.states):
                yield from turns
        while (state := self._buffer.first()) is not None and not only:
            yield state

    def _reading(self, state: PartitionState) -> Reading:
        """Return the reading of the chunk, or else of the next chunk.

        If there is neither, raise the partition's error.
        """
        if state.reading is not None:
            return state.reading
        if not state.chunk:
            if not state.ahead:
                assert state.error is not None, "a partition that has a turn has something to read"
                raise state.error.with_traceback(None)
            state.take()
        state.reading = ChunkReader(state, self._deserializers)
        return state.reading

    def _finish(self, state: PartitionState) -> None:
        """Finish a chunk of which all records are read."""
        state.finish()
        self._had_turn(state)

    def _failed(self, state: PartitionState, error: QuorateError) -> None:
        """Raise a partition's error, unless a corrupt batch is fetched again."""
        state.reading = None
        told: QuorateError | None = error
        if error is state.error:
            state.error = None
        elif isinstance(error, CorruptRecordError):
            if not _is_as_written(state):
                told = self._corruptions.found(state, state.position, error)
            state.fetch_again()
        self._had_turn(state)
        if told is not None:
            raise told from error.__cause__


def _is_as_written(state: PartitionState) -> bool:
    """Return whether the batch that is read has a right CRC.

    Then it is the producer that wrote an impossible record, and all replicas have the same.
    """
    header, batch = state.chunk[0]
    try:
        check(batch, header)
    except CorruptRecordError:
        return False
    return True
