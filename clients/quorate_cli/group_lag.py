"""How far a consumer group is behind, in records and in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from quorate import Admin, CommittedOffset, Consumer, GroupDescription, TopicPartition
from quorate.errors import QuorateError
from quorate_cli.session import Session

#: Longest wait for the first unread records. The lag in time of the others is then not known.
FIRST_RECORDS_S = 3.0
#: So much of a partition is fetched to see its first unread record.
FETCH_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """A partition that a group reads or has read.

    `committed`, `lag` and `lag_ms` are None if they are not known: nothing is committed, or the
    first unread record could not be read. `lag_ms` is the age of that record.
    """

    topic: str
    partition: int
    committed: int | None
    end: int | None
    lag: int | None
    lag_ms: int | None
    metadata: str
    member_id: str
    client_id: str
    client_host: str


async def lags(session: Session, admin: Admin, group: GroupDescription) -> list[PartitionLag]:
    """Return the partitions of a group: those with a committed offset, and those assigned."""
    committed = await admin.list_group_offsets(group.group_id)
    owners = {key: member for member in group.members for key in member.assignment}
    keys = sorted({*committed, *owners})
    ends, ages = await _ends_and_ages(session, keys, committed)
    found = []
    for key in keys:
        offset, end, owner = committed.get(key), ends.get(key), owners.get(key)
        lag = None if offset is None or end is None else max(0, end - offset.offset)
        found.append(
            PartitionLag(
                key.topic,
                key.partition,
                None if offset is None else offset.offset,
                end,
                lag,
                0 if lag == 0 else ages.get(key),
                "" if offset is None else offset.metadata,
                "" if owner is None else owner.member_id,
                "" if owner is None else owner.client_id,
                "" if owner is None else owner.client_host,
            )
        )
    return found


async def _ends_and_ages(
    session: Session,
    keys: list[TopicPartition],
    committed: Mapping[TopicPartition, CommittedOffset],
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    if not keys:
        return {}, {}
    async with Consumer(
        bootstrap_servers=session.bootstrap,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=FETCH_BYTES,
    ) as consumer:
        ends = await consumer.end_offsets(keys)
        late = [key for key in keys if key in committed and committed[key].offset < ends[key]]
        await consumer.assign(late)
        for key in late:
            consumer.seek(key, committed[key].offset)
        return ends, await _ages(consumer, late)


async def _ages(consumer: Consumer, keys: list[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the age in milliseconds of the next record of each partition, as far as it comes."""
    found: dict[TopicPartition, int] = {}
    waiting = set(keys)
    try:
        async with asyncio.timeout(FIRST_RECORDS_S):
            while waiting:
                for key, records in (await consumer.getmany(timeout_ms=500, max_records=1)).items():
                    found[key] = max(0, time.time_ns() // 1_000_000 - records[0].timestamp_ms)
                    consumer.pause(key)
                    waiting.discard(key)
    except (TimeoutError, QuorateError):
        pass  # the lag in time of the others is not known
    return found
