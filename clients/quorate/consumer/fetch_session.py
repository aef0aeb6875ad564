"""The consumer's side of one fetch session: what the broker was told, and what to ask next.

A machine. A partition stays in the broker's session, at the offset last named, until it is
forgotten; so a request names the partitions whose next fetch is another one than before, and
forgets those that are not wanted now. Only partitions that something happened to are looked at,
in the order in which it happened: each is named after a bounded number of requests, and a request
costs what changed, not how many partitions there are.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

from quorate.consumer.partition_state import PartitionState

Key = tuple[bytes, int]

#: The broker reads no more of a stream before it has answered so many requests.
REQUESTS_IN_FLIGHT_MAX = 2
#: Partitions that one request names or forgets: the rest goes into the next.
CHANGES_MAX = 1000


class Told(NamedTuple):
    """The fetch that the broker was told for a partition, and the request that named it."""

    version: int
    request_id: int


class Asked(NamedTuple):
    """What the next request says."""

    request_id: int
    named: list[PartitionState]
    forgotten: list[Key]


class FetchSession:
    """See the module."""

    def __init__(self, ahead_bytes_max: int) -> None:
        self.ahead_bytes_max = ahead_bytes_max
        self._members: dict[Key, PartitionState] = {}
        self._told: dict[Key, Told] = {}
        self._changed: OrderedDict[Key, None] = OrderedDict()
        #: Not wanted any more, and in the broker's session until the next request says so.
        self._leaving: dict[Key, None] = {}
        self._in_flight: deque[int] = deque()
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._members)

    def members(self) -> list[PartitionState]:
        """Return the partitions that are fetched here."""
        return list(self._members.values())

    @property
    def awaits_answer(self) -> bool:
        """A request is under way."""
        return bool(self._in_flight)

    @property
    def is_idle(self) -> bool:
        """The broker has nothing to do for us, as far as it was told."""
        return not self._told and not self._changed

    def add(self, state: PartitionState) -> None:
        """Let a partition be fetched here from now on."""
        self._members[_key(state)] = state
        self.touch(state)

    def remove(self, state: PartitionState) -> None:
        """Stop fetching a partition here."""
        key = _key(state)
        if self._members.get(key) is state:
            del self._members[key]
            self._changed[key] = None

    def touch(self, state: PartitionState) -> None:
        """Something happened to a partition: look at it for the next request."""
        self._changed[_key(state)] = None

    def restart(self) -> None:
        """The stream ended: the next one knows nothing."""
        self._told.clear()
        self._leaving.clear()
        self._in_flight.clear()
        self._changed = OrderedDict.fromkeys(self._members)

    def next_request(self) -> Asked | None:
        """Return the next request, None if there is nothing to ask for now.

        While one is under way, another is sent only to name a partition.
        """
        if len(self._in_flight) >= REQUESTS_IN_FLIGHT_MAX:
            return None
        named = self._look_at_changed()
        if not named and (self._in_flight or not self._told):
            return None
        self._last_id += 1
        for state in named:
            key = _key(state)
            self._told[key] = Told(state.version, self._last_id)
            self._leaving.pop(key, None)
        forgotten = list(self._leaving)
        self._leaving.clear()
        self._in_flight.append(self._last_id)
        return Asked(self._last_id, named, forgotten)

    def _look_at_changed(self) -> list[PartitionState]:
        named: list[PartitionState] = []
        for _ in range(min(len(self._changed), CHANGES_MAX)):
            key = self._changed.popitem(last=False)[0]
            state, told = self._members.get(key), self._told.get(key)
            if state is None or not state.is_wanted(self.ahead_bytes_max):
                if told is not None:
                    del self._told[key]
                    self._leaving[key] = None
            elif told is None or told.version != state.version:
                named.append(state)
        return named

    def answered(self, request_id: int) -> None:
        """An answer came; they come in order."""
        while self._in_flight and self._in_flight[0] <= request_id:
            self._in_flight.popleft()

    def awaits(
        self, request_id: int, topic_id: bytes, partition: int, fetch_offset: int
    ) -> PartitionState | None:
        """Return the partition that an answer is for, None if it answers an older fetch."""
        key = (topic_id, partition)
        state, told = self._members.get(key), self._told.get(key)
        if state is None or told is None:
            return None
        is_current = told.version == state.version and told.request_id <= request_id
        return state if is_current and state.fetch_offset == fetch_offset else None


def _key(state: PartitionState) -> Key:
    return (state.topic_id, state.topic_partition.partition)
