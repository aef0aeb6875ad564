"""What is fetched and not read yet: the partition to read next, and the bound. A machine.

* Partitions take turns. A turn is what one answer brought of one partition, and costs the same
  however many partitions there are.
* All that is held is bounded, what paused and unread partitions hold included: at `bytes_max`
  nothing more is asked for.
* A partition that the user asks for never waits for one that the user does not ask for. When a
  read finds nothing and the buffer is full, all of it belongs to others: what they hold is
  dropped, the longest unread first, and fetched again when they are asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping

from quorate.consumer.partition_state import PartitionState
from quorate.model import TopicPartition


class Buffer:
    """See the module. `changed` must be called after each change of a partition's state."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes_held = 0
        #: Partitions that hold something -> its size as counted; the longest unread first.
        self._holders: OrderedDict[PartitionState, int] = OrderedDict()
        #: Partitions with something to read, in the order of their turns -> a number that grows.
        self._turns: OrderedDict[PartitionState, int] = OrderedDict()
        self._turns_given = 0
        self._resting: dict[TopicPartition, PartitionState] = {}

    @property
    def is_full(self) -> bool:
        """Nothing more may be asked for."""
        return self.bytes_held >= self.bytes_max

    def changed(self, state: PartitionState) -> None:
        """Count what a partition holds now, and give it a turn if it has something to read."""
        held = state.held_bytes
        self.bytes_held += held - self._holders.get(state, 0)
        if held:
            self._holders[state] = held
        else:
            self._holders.pop(state, None)
        if not state.is_readable:
            self._turns.pop(state, None)
        elif state not in self._turns:
            self._give_turn(state)
        if not state.is_resting:
            self._resting.pop(state.topic_partition, None)

    def first(self) -> PartitionState | None:
        """Return the partition whose turn it is."""
        return next(iter(self._turns), None)

    def in_turn(
        self, only: Collection[TopicPartition], states: Mapping[TopicPartition, PartitionState]
    ) -> list[PartitionState]:
        """Return those of `only` that have something to read, whose turn is next first."""
        if len(self._turns) < len(only):
            return [state for state in self._turns if state.topic_partition in only]
        known = (states.get(key) for key in only)
        ready = [state for state in known if state is not None and state in self._turns]
        return sorted(ready, key=self._turns.__getitem__)

    def had_turn(self, state: PartitionState) -> None:
        """Put a partition behind the others; it was read."""
        self.changed(state)
        if state in self._turns:
            self._give_turn(state)
        if state in self._holders:
            self._holders.move_to_end(state)

    def asked_for(self, only: Collection[TopicPartition]) -> list[PartitionState]:
        """These are read (all, if empty): return those whose fetch begins again."""
        if not self._resting:
            return []
        woken = self._asked_of_resting(only)
        for state in woken:
            state.is_resting = False
            del self._resting[state.topic_partition]
        return woken

    def found_nothing(self) -> list[PartitionState]:
        """A read has found nothing: make room if the buffer is full; return what was dropped."""
        dropped: list[PartitionState] = []
        if not self.is_full:
            return dropped
        while self._holders and self.bytes_held > self.bytes_max // 2:
            state = next(iter(self._holders))
            state.fetch_again()
            if not state.paused:
                state.is_resting = True
                self._resting[state.topic_partition] = state
            self.changed(state)
            dropped.append(state)
        return dropped

    def _asked_of_resting(self, only: Collection[TopicPartition]) -> list[PartitionState]:
        if only and len(only) < len(self._resting):
            return [self._resting[key] for key in only if key in self._resting]
        return [one for key, one in self._resting.items() if not only or key in only]

    def _give_turn(self, state: PartitionState) -> None:
        self._turns_given += 1
        self._turns[state] = self._turns_given
        self._turns.move_to_end(state)
