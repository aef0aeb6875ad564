"""A bad batch in a log that is in use: how the leader finds it, and how the leader reacts.

A leader does not compute the CRC of the batches that it sends. A receiver does, and reports a bad
batch. Then the leader reads the batch from its own disk, because the network may have changed the
bytes. If the batch is bad on this disk, the leader resigns in favour of another member of the ISR,
whose copy is good; if there is none, of the ELR, which has all that is committed. The log of the
former leader is repaired while another broker leads.

Before the leader resigns, it notes on its disk that its log is corrupt. Without this note a crash
before the repair would be harmful: the next start checks only the log's end, and would trust the
bad batch again.

If neither has another member, the leader continues to lead and writes no note. With the note, the
next start would cut the log at the bad batch, and lose the good batches after it. The leader serves
the good batches, and answers a read of the bad one with CorruptRecordError.
"""

from __future__ import annotations

import asyncio

import structlog

from quorate.aio.clock import loop_ms
from quorate.errors import QuorateError
from quorate_broker.replica.replica import Replica
from quorate_broker.replica.replica_log import ReplicaLog
from quorate_quorum.log.disk_errors import TryAgainError
from quorate_quorum.log.log import LogCorruptError

log_line = structlog.get_logger(__name__)

#: Least time between two checks of one partition. Otherwise a peer that reports good batches as bad
#: could keep the disk busy.
LOOK_INTERVAL_MS = 1_000


class Damage:
    """The damage of one log, if there is any.

    The object stays when the role changes, until this broker drops the replica.
    """

    def __init__(self, replica: Replica, log: ReplicaLog) -> None:
        self._replica = replica
        self._log = log
        #: What is wrong with the bad batch; None if no bad batch was found.
        self.reason: str | None = None
        #: Whether the note on the disk says that the log is corrupt. Only then may the leader
        #: resign.
        self.is_noted = False
        self._looking = False
        self._look_again_ms = 0
        #: The task that writes or removes the note; None if no such task runs.
        self.noting: asyncio.Task[None] | None = None

    def suspect(self, offset: int) -> None:
        """Check the batch at `offset` of this log: a receiver reports a wrong CRC."""
        now_ms = loop_ms()
        is_busy = self._looking or now_ms < self._look_again_ms
        if self.reason is not None or is_busy:
            return
        self._look_again_ms = now_ms + LOOK_INTERVAL_MS
        self._looking = True
        self._log.start(self._look(offset), "look at")

    def found(self, reason: str) -> None:
        """Remember a bad batch of this leader's log.

        From now on the leader asks for another leader.
        """
        if self.reason is None and self._replica.is_leader and not self._log.is_closed:
            self.reason = reason
            log_line.error(
                "replica_damaged", partition=self._replica.name, role="leader", reason=reason
            )
            self._replica.isr_wanted()

    def keep_note(self, *, is_wanted: bool) -> None:
        """Write or remove the note that the log is corrupt, in the background.

        After that, the ISR keeper checks the partition again.
        """
        if is_wanted != self.is_noted and self.noting is None:
            self.noting = self._log.start(self._change_note(is_wanted), "note damage of")

    async def _look(self, offset: int) -> None:
        try:
            await self._log.log.verification.check_batch(offset)
        except LogCorruptError as error:
            self._replica.found_damage(str(error))
        except QuorateError as error:
            # the read failed without damage: the log is closed, or `offset` is out of range now
            log_line.info("not looked at", partition=self._replica.name, reason=str(error))
        finally:
            self._looking = False

    async def _change_note(self, is_wanted: bool) -> None:
        log = self._log.log
        try:
            await (log.damage.note_corrupt() if is_wanted else log.damage.forget_corrupt())
        except TryAgainError as error:
            # no retry here: the ISR keeper calls keep_note again
            name = self._replica.name
            log_line.warning("damage_not_noted", partition=name, reason=str(error))
        else:
            self.is_noted = is_wanted
            self._replica.isr_wanted()
        finally:
            self.noting = None
