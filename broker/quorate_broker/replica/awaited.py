"""The replicas outside the ISR for which the high watermark waits: they are about to enter it.

A machine, and a part of the Leader. A replica enters the ISR when its fetch shows that it has all
committed records. While a producer writes, more records are committed during the round trip of that
fetch, so a replica at a distance would never have them all. So the high watermark waits for a
replica that keeps up, as in Kafka (Partition.maybeIncrementLeaderHW). The rules:

* It waits for a replica that had, at its fetch, all records that the leader had at the fetch
  before. Such a replica has all that is committed now after one more round.
* It waits for two such rounds and a little more; if that is longer than a part of the lag time, it
  does not wait at all. So a replica that dies just then delays commits by little.
* It waits once in a lag time for a replica. So one that never gets there delays few commits.
* It waits for none while the controller decides a proposal, because no other one can be made. A
  proposal ends all waits: its members count in the maximal ISR, and the others may try again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

#: A wait lasts for so many rounds, and one part in MARGIN_PART of the lag time: the ISR keeper has
#: to make the proposal.
ROUNDS = 2
MARGIN_PART = 100
#: The longest wait is one part in WAIT_PART of the lag time.
WAIT_PART = 4


def wait_ms(round_ms: int, lag_ms: int) -> int | None:
    """Return how long to wait for a replica that needs `round_ms` for a round; None: not at all.

    >>> wait_ms(60, 10_000), wait_ms(1_200, 10_000), wait_ms(1_201, 10_000)
    (220, 2500, None)
    """
    wait = ROUNDS * round_ms + lag_ms // MARGIN_PART
    return wait if wait <= lag_ms // WAIT_PART else None


@dataclass(frozen=True, slots=True, eq=False)
class Wait:
    """A wait for one replica. The caller ends it after `ms`: see AwaitedReplicas.over."""

    broker_id: int
    ms: int


@dataclass(slots=True)
class AwaitedReplicas:
    """The waits of one reign: see the module.

    Invariant: at most one wait for each replica.
    """

    lag_ms: int
    _waits: dict[int, Wait] = field(default_factory=dict)
    #: When the last wait for a replica began.
    _began_ms: dict[int, int] = field(default_factory=dict)

    @property
    def broker_ids(self) -> Collection[int]:
        return self._waits.keys()

    def begin(self, broker_id: int, round_ms: int, now_ms: int) -> Wait | None:
        """Begin to wait for a replica whose last round took `round_ms`. None: it may not be."""
        began_ms = self._began_ms.get(broker_id)
        if began_ms is not None and now_ms - began_ms < self.lag_ms:
            return None
        ms = wait_ms(round_ms, self.lag_ms)
        if ms is None:
            return None
        self._began_ms[broker_id] = now_ms
        wait = self._waits[broker_id] = Wait(broker_id, ms)
        return wait

    def over(self, wait: Wait) -> None:
        """End a wait, if it has not ended yet."""
        if self._waits.get(wait.broker_id) is wait:
            del self._waits[wait.broker_id]

    def leave(self, broker_id: int) -> None:
        """Wait no longer for a replica that fetches no more, or has begun again."""
        self._waits.pop(broker_id, None)

    def proposed(self, isr: Iterable[int]) -> None:
        """End all waits. Those for replicas outside the proposed ISR count as never begun."""
        for broker_id in set(self._waits).difference(isr):
            del self._began_ms[broker_id]
        self._waits.clear()

    def keep(self, replicas: Collection[int]) -> None:
        """Forget all brokers but these."""
        self._waits = {one: wait for one, wait in self._waits.items() if one in replicas}
        self._began_ms = {one: ms for one, ms in self._began_ms.items() if one in replicas}
