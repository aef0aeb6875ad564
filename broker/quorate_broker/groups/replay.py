"""Reads the log of a partition of __consumer_offsets into a machine, a bounded part at a time."""

from __future__ import annotations

from quorate.aio.turns import Turns
from quorate.record.batch import check, records, split
from quorate_broker.groups.machine.shard import ShardMachine
from quorate_broker.replica.leader_replica import EARLIEST, LeaderReplica

#: Bytes of one read. A larger batch is read alone.
READ_BYTES = 256 << 10
#: Records that are replayed in one turn of the event loop, over all partitions: 2 to 5 ms.
RECORDS_A_TURN = 500
#: Records for which a replay asks for its turn: a part of the above, so that loads take turns.
RECORDS_AT_A_TIME = 125


async def replay(leader: LeaderReplica, end: int, machine: ShardMachine, turns: Turns) -> int:
    """Replay all records below the offset `end`, which must be committed. Return their number.

    Raises the errors of LeaderReplica.fetch, and CorruptRecordError.
    """
    offset, _, _ = await leader.list_offset(EARLIEST)
    count = 0
    while offset < end:
        fetched = await leader.fetch(offset, bytes_max=READ_BYTES)
        if not fetched.batches:
            # compaction took away what was there
            return count
        for header, batch in split(fetched.batches):
            check(batch, header)
            if not header.is_control:
                for record in records(batch, header):
                    if count % RECORDS_AT_A_TIME == 0:
                        await turns.take(RECORDS_AT_A_TIME)
                    if record.offset >= offset and record.key is not None:
                        machine.replay(record.key, record.value)
                    count += 1
            offset = header.end_offset
            if offset >= end:
                break
    return count
