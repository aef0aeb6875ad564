"""Lets the high watermark wait for followers that are about to enter the ISR: see awaited.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quorate_broker.replica.awaited import Wait
from quorate_broker.replica.leader import Leader, ReplicaStream
from quorate_broker.replica.replica import Replica
from quorate_broker.replica.replica_log import ReplicaLog


class IsrEntries:
    """The waits of one reign. `advance` moves the high watermark after the end of a wait."""

    def __init__(
        self, replica: Replica, log: ReplicaLog, leader: Leader, advance: Callable[[], None]
    ) -> None:
        self._replica = replica
        self._replica_log = log
        self._leader = leader
        self._advance = advance
        self._is_over = False

    def end(self) -> None:
        """End the use of this object, with the reign."""
        self._is_over = True

    def fetched(self, stream: ReplicaStream, now_ms: int) -> None:
        """Wait for the follower of an accepted fetch, if it is about to enter, and if it may."""
        broker_id, replica = stream.replica_id, self._replica
        if self._leader.waits_for(broker_id):
            return
        is_removed = replica.state is not None and broker_id in replica.state.removing
        if is_removed or replica.host.eligible_epoch(replica, broker_id) != stream.broker_epoch:
            return
        wait = self._leader.await_entry(broker_id, now_ms)
        if wait is not None:
            asyncio.get_running_loop().call_later(wait.ms / 1000, self._waited, wait)

    def _waited(self, wait: Wait) -> None:
        if self._is_over:
            return
        self._leader.awaited.over(wait)
        with self._replica_log.guard:
            self._advance()
        # if it is not in the ISR now, it is sent its records as one that catches up again
        self._replica.replica_watches.wake()
