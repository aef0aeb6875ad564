"""Holds fetched records until the user reads them: the order of reading, and the bound. A machine.

* Partitions take turns. In one turn the user gets the data of one partition from one answer. The
  cost of a turn does not depend on the number of partitions.
* All held data counts against the bound, also that of paused and unread partitions. At `bytes_max`
  the fetching stops.
* A partition that the user reads never waits for one that the user does not read. If a read finds
  nothing and the buffer is full, it is full of the data of other partitions. This data is dropped,
  the longest unread first. It is fetched again when the user reads these partitions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping

from quorate.consumer.partition_state import PartitionState
from quorate.model import TopicPartition


class Buffer:
    """The buffer. Its rules stand at the top of the module.

    Call `changed` after each change of a partition's state.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes_held = 0
        #: Partition with data -> the size that is counted for it. The longest unread is first.
        self._holders: OrderedDict[PartitionState, int] = OrderedDict()
        #: Partition with something to read -> the number of its turn, in the order of the turns.
        self._turns: OrderedDict[PartitionState, int] = OrderedDict()
        self._turns_given = 0
        self._resting: dict[TopicPartition, PartitionState] = {}

    @property
    def is_full(self) -> bool:
        """Whether no more data may be fetched."""
        return self.bytes_held >= self.bytes_max

    def changed(self, state: PartitionState) -> None:
        """Count the data of a partition. Give the partition a turn if it has something to read."""
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
        """Return the partition whose turn it is; None if no partition has something to read."""
        return next(iter(self._turns), None)

    def in_turn(
        self, only: Collection[TopicPartition], states: Mapping[TopicPartition, PartitionState]
    ) -> list[PartitionState]:
        """Return the partitions of `only` that have something to read, in order of their turns."""
        if len(self._turns) < len(only):
            return [state for state in self._turns if state.topic_partition in only]
        known = (states.get(key) for key in only)
        ready = [state for state in known if state is not None and state in self._turns]
        return sorted(ready, key=self._turns.__getitem__)

    def had_turn(self, state: PartitionState) -> None:
        """Give a partition that was just read the last turn."""
        self.changed(state)
        if state in self._turns:
            self._give_turn(state)
        if state in self._holders:
            self._holders.move_to_end(state)

    def asked_for(self, only: Collection[TopicPartition]) -> list[PartitionState]:
        """Let the resting partitions of `only` be fetched again, and return them.

        An empty `only` means all partitions.
        """
        if not self._resting:
            return []
        woken = self._asked_of_resting(only)
        for state in woken:
            state.is_resting = False
            del self._resting[state.topic_partition]
        return woken

    def found_nothing(self) -> list[PartitionState]:
        """Make room in a full buffer after a read that found nothing.

        Returns the partitions whose data was dropped.
        """
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
