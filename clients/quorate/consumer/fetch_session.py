"""The consumer's side of one fetch session: what the broker knows, and what to ask next.

A machine. The broker's session keeps a partition, with the fetch offset that a request gave last,
until a request forgets the partition. So a request names only the partitions whose fetch has
changed, and those to forget. FetchSession looks only at changed partitions, in the order of their
changes. So each change is sent after a bounded number of requests, and the cost of a request
depends on the number of changes, not of partitions.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

from quorate.consumer.partition_state import PartitionState

Key = tuple[bytes, int]

#: The most requests without an answer. The broker reads no further request before it answers one.
REQUESTS_IN_FLIGHT_MAX = 2
#: The most changed partitions that one request covers. The next request covers the rest.
CHANGES_MAX = 1000


class Told(NamedTuple):
    """What the broker knows of a partition's fetch, and the request from which it knows this."""

    version: int
    request_id: int


class Asked(NamedTuple):
    """The content of the next request."""

    request_id: int
    named: list[PartitionState]
    forgotten: list[Key]


class FetchSession:
    """The session of one stream; its rules stand at the top of the module."""

    def __init__(self, ahead_bytes_max: int) -> None:
        self.ahead_bytes_max = ahead_bytes_max
        self._members: dict[Key, PartitionState] = {}
        self._told: dict[Key, Told] = {}
        self._changed: OrderedDict[Key, None] = OrderedDict()
        #: Partitions that are not wanted any more. The next request forgets them.
        self._leaving: dict[Key, None] = {}
        self._in_flight: deque[int] = deque()
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._members)

    def members(self) -> list[PartitionState]:
        """Return the partitions that are fetched on this stream."""
        return list(self._members.values())

    @property
    def awaits_answer(self) -> bool:
        """Whether a request is under way."""
        return bool(self._in_flight)

    @property
    def is_idle(self) -> bool:
        """Whether the broker's session is empty, and no partition has changed here."""
        return not self._told and not self._changed

    def add(self, state: PartitionState) -> None:
        """Fetch a partition on this stream from now on."""
        self._members[_key(state)] = state
        self.touch(state)

    def remove(self, state: PartitionState) -> None:
        """Stop fetching a partition on this stream."""
        key = _key(state)
        if self._members.get(key) is state:
            del self._members[key]
            self._changed[key] = None

    def touch(self, state: PartitionState) -> None:
        """Note that a partition has changed: the next request covers it."""
        self._changed[_key(state)] = None

    def restart(self) -> None:
        """Begin again after the stream's end. The broker's session of the next stream is empty."""
        self._told.clear()
        self._leaving.clear()
        self._in_flight.clear()
        self._changed = OrderedDict.fromkeys(self._members)

    def next_request(self) -> Asked | None:
        """Return the next request; None if there is nothing to ask for now.

        While a request is under way, another one is sent only for a partition whose fetch has
        changed.
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
        """Note an answer. Answers come in the order of the requests."""
        while self._in_flight and self._in_flight[0] <= request_id:
            self._in_flight.popleft()

    def awaits(
        self, request_id: int, topic_id: bytes, partition: int, fetch_offset: int
    ) -> PartitionState | None:
        """Return the partition that an answer is for; None if it answers an older fetch."""
        key = (topic_id, partition)
        state, told = self._members.get(key), self._told.get(key)
        if state is None or told is None:
            return None
        is_current = told.version == state.version and told.request_id <= request_id
        return state if is_current and state.fetch_offset == fetch_offset else None


def _key(state: PartitionState) -> Key:
    return (state.topic_id, state.topic_partition.partition)
