"""A bad batch in a log that is in use: how it is found, and what is remembered of it.

A leader does not compute the CRC of what it sends; the receivers do, and complain. Then the batch
is looked at here, because the bytes may have changed on the way. If it is bad on this disk, the
leader gives way to another member of the ISR, whose copy is good, and is repaired as a follower.

Before it gives way it notes on its disk that its log is corrupt. If it died before the repair
without that note, the next start would look only at the log's end, and trust the bad batch again.

Without another member it leads on, and without that note: at the next start the note would cost
what is good behind the bad batch. It serves what is good, and a reader of the bad batch is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from quorate.aio.clock import loop_ms
from quorate.errors import CorruptRecordError, QuorateError
from quorate.record import batch as record_batch
from quorate_quorum.log.disk_errors import TryAgainError
from quorate_quorum.log.log import LogCorruptError

if TYPE_CHECKING:
    import asyncio

    from quorate_broker.replica.replica import Replica
    from quorate_broker.replica.replica_log import ReplicaLog

log_line = structlog.get_logger(__name__)

#: Between two looks at one partition: a peer that complains for nothing must not keep the disk
#: busy.
LOOK_INTERVAL_MS = 1_000


class Damage:
    """The damage of one log, if there is any. It outlives the roles, and ends with the replica."""

    def __init__(self, replica: Replica, log: ReplicaLog) -> None:
        self._replica = replica
        self._log = log
        #: What is wrong with the bad batch; None: none was found.
        self.reason: str | None = None
        #: The disk says that the log is corrupt: the leader may resign.
        self.is_noted = False
        self._looking = False
        self._look_again_ms = 0
        #: The change of the note that is under way.
        self.noting: asyncio.Task[None] | None = None

    def suspect(self, offset: int) -> None:
        """A receiver got a batch from `offset` of this leader's log, and its CRC did not hold."""
        now_ms = loop_ms()
        is_busy = self._looking or now_ms < self._look_again_ms
        if self.reason is not None or not self._replica.is_leader or is_busy:
            return
        self._look_again_ms = now_ms + LOOK_INTERVAL_MS
        self._looking = True
        self._log.start(self._look(offset), "look at")

    def found(self, reason: str) -> None:
        """A leader's log has a bad batch: as long as it leads, it asks for another leader."""
        if self.reason is None and self._replica.is_leader and not self._log.is_closed:
            self.reason = reason
            log_line.error(
                "replica_damaged", partition=self._replica.name, role="leader", reason=reason
            )
            self._replica.isr_wanted()

    def keep_note(self, *, is_wanted: bool) -> None:
        """Make or take back the note that the log is corrupt. Looked at again when it is done."""
        if is_wanted != self.is_noted and self.noting is None:
            self.noting = self._log.start(self._change_note(is_wanted), "note damage of")

    async def _look(self, offset: int) -> None:
        log = self._log.log
        try:
            truncations = log.truncations
            batch = await log.read(offset, end=log.log_end_offset, bytes_max=1, at_least_one=True)
            reason = _fault(batch, offset)
            if reason is not None and truncations == log.truncations:
                self.found(reason)
        except LogCorruptError as error:
            self.found(str(error))
        except QuorateError as error:  # closed, or out of range by now: there is nothing to look at
            log_line.info("not looked at", partition=self._replica.name, reason=str(error))
        finally:
            self._looking = False

    async def _change_note(self, is_wanted: bool) -> None:
        log = self._log.log
        try:
            await (log.note_corrupt() if is_wanted else log.forget_corrupt())
        except TryAgainError as error:  # the ISR keeper looks again
            name = self._replica.name
            log_line.warning("damage_not_noted", partition=name, reason=str(error))
        else:
            self.is_noted = is_wanted
            self._replica.isr_wanted()
        finally:
            self.noting = None


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
