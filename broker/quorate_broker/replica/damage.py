"""A bad batch in a log that is in use: looked for where somebody says that one is, and what then.

A leader does not compute the CRC of what it sends; those who receive it do, and say so. Then the
batch is looked at here, for the bytes may have changed on the way. If it is bad on this disk, the
leader gives way to another member of the ISR, whose copy is good, and is repaired as a follower.
Before it gives way it notes on its disk that its log is corrupt: if it dies before the repair, the
next start would look only at the log's end, and trust the bad batch again. Without another member
it leads on, without that note, which would cost what is good behind the bad batch: it serves what
is good, and who reads the bad batch is told.

Functions over the replica of partition.py, which holds all state.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from quorate.errors import CorruptRecordError, QuorateError
from quorate.record import batch as record_batch
from quorate_broker.replica.host import loop_ms
from quorate_quorum.log.log import LogCorruptError

if TYPE_CHECKING:
    from quorate_broker.replica.partition import Partition

log_line = structlog.get_logger(__name__)

#: Between two looks at one partition: who complains for nothing must not keep the disk busy.
LOOK_INTERVAL_MS = 1_000


def suspect(partition: Partition, offset: int) -> None:
    """Somebody was sent a batch from `offset` of this leader's log, and its CRC did not hold."""
    now_ms = loop_ms()
    is_busy = partition.look_task is not None or now_ms < partition.look_again_ms
    if partition.damage is not None or not partition.is_leader or is_busy:
        return
    partition.look_again_ms = now_ms + LOOK_INTERVAL_MS
    partition.look_task = asyncio.get_running_loop().create_task(
        _look(partition, offset), name=f"look at {partition.name}"
    )


async def _look(partition: Partition, offset: int) -> None:
    log = partition.log
    try:
        truncations = log.truncations
        batch = await log.read(offset, end=log.log_end_offset, bytes_max=1, at_least_one=True)
        reason = _fault(batch, offset)
        if reason is not None and truncations == log.truncations:
            found(partition, reason)
    except LogCorruptError as error:
        found(partition, str(error))
    except QuorateError as error:  # closed, or out of range by now: there is nothing to look at
        log_line.info("not looked at", partition=partition.name, reason=str(error))
    finally:
        partition.look_task = None


def _fault(batch: bytes, offset: int) -> str | None:
    """Return what is wrong with the batch that should hold `offset`; None if nothing is."""
    if not batch:
        return None
    try:
        header = record_batch.check(batch)
    except CorruptRecordError as error:
        return str(error)
    if not header.base_offset <= offset < header.end_offset:
        return f"where offset {offset} should be lies a batch of {header.base_offset}"
    return None


def found(partition: Partition, reason: str) -> None:
    """A leader's log has a bad batch: others of the ISR are asked to lead, as long as it leads."""
    if partition.damage is None and partition.is_leader and not partition.is_closed:
        partition.damage = reason
        log_line.error("replica_damaged", partition=partition.name, role="leader", reason=reason)
        partition.host.isr_wanted(partition)
