"""The partitions that a consumer reads from a follower in its own rack (KIP-392).

A leader names the follower. The consumer reads there until the follower answers with an error, its
stream breaks, or the lease is over; then it asks the leader again. An error of a follower is never
an error of the partition: only the leader knows whether a position exists. After an error the
leader must serve the partition itself for a while, so that a follower that cannot does not make the
consumer go to and fro.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from quorate.cluster.cluster import Cluster
from quorate.consumer.partition_state import PartitionState

#: After this time the leader is asked again, because another follower may be better by now.
LEASE_S: Final = 60.0
#: The time for which the leader serves a partition itself after a follower did not.
STAY_S: Final = 5.0


class _Away(NamedTuple):
    broker_id: int
    until: float


class ReadReplicas:
    """The partitions that are read from followers. `place` moves a partition to its stream."""

    def __init__(
        self, cluster: Cluster, now: Callable[[], float], place: Callable[[PartitionState], None]
    ) -> None:
        self._cluster = cluster
        self._now = now
        self._place = place
        self._away: dict[PartitionState, _Away] = {}
        #: The partitions that the leader serves itself -> until when.
        self._staying: dict[PartitionState, float] = {}

    def endpoint_of(self, state: PartitionState) -> str:
        """Return the endpoint of the follower from which to read; empty: read from the leader."""
        away = self._away.get(state)
        return "" if away is None else self._cluster.brokers.get(away.broker_id, "")

    def stays(self, state: PartitionState) -> bool:
        """Return whether the leader must serve the partition itself."""
        return state in self._staying

    def sent(self, state: PartitionState, broker_id: int) -> None:
        """Read from this broker, because the leader says so.

        If its address is not known, the leader serves the partition.
        """
        if broker_id in self._cluster.brokers:
            self._away[state] = _Away(broker_id, self._now() + LEASE_S)
        else:
            self._cluster.request_refresh()
            self._staying[state] = self._now() + STAY_S
        self._move(state)

    def refused(self, state: PartitionState) -> bool:
        """Go back to the leader. Return False if the partition was read there."""
        if self._away.pop(state, None) is None:
            return False
        self._staying[state] = self._now() + STAY_S
        self._move(state)
        return True

    def forget(self, state: PartitionState) -> None:
        """Forget a partition that is not assigned any more."""
        self._away.pop(state, None)
        self._staying.pop(state, None)

    def tick(self) -> None:
        """End the leases, and the stays with leaders, whose time is over."""
        now = self._now()
        for state in [one for one, until in self._staying.items() if now >= until]:
            del self._staying[state]
        for state in [one for one, away in self._away.items() if now >= away.until]:
            del self._away[state]
            self._move(state)

    def _move(self, state: PartitionState) -> None:
        # a new version: an answer of the other broker, or one from before, is not taken
        state.version += 1
        self._place(state)
