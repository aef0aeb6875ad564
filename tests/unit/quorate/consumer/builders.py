"""Partitions and batches that tests of the consumer's machines begin with."""

from __future__ import annotations

from quorate.consumer.partition_state import UNKNOWN, Batch, PartitionState
from quorate.model import TopicPartition
from quorate.record.batch import BatchBuilder, parse_header

TOPIC_ID = b"t" * 16


def state_at(partition: int = 0, offset: int = 0, epoch: int = UNKNOWN) -> PartitionState:
    state = PartitionState(TopicPartition("t", partition), TOPIC_ID)
    state.seek(offset, epoch)
    return state


def batch(offset: int, count: int = 1, epoch: int = 0) -> Batch:
    builder = BatchBuilder()
    for _ in range(count):
        builder.append(0, None, b"v")
    data = memoryview(builder.build(base_offset=offset, leader_epoch=epoch))
    return parse_header(data), data


def fetch(state: PartitionState, size: int, *batches: Batch) -> None:
    state.fetched(list(batches) or [batch(state.fetch_offset)], size)


def read(state: PartitionState) -> None:
    """Read all that is held, as the reader of records does."""
    while state.chunk or state.ahead:
        if not state.chunk:
            state.take()
        header, _ = state.chunk[0]
        state.reads(header)
        state.position, state.position_epoch = header.end_offset, header.leader_epoch
        state.chunk.popleft()
        state.passes(header)
    state.finish()
