"""The partitions that a consumer reads. A machine: it has no clock and no network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from quorate.consumer.partition_state import PartitionState, Reset
from quorate.model import TopicPartition


class Change(NamedTuple):
    """The partitions that an assignment removed, and those that it added."""

    removed: list[PartitionState]
    added: list[PartitionState]


class Subscription:
    """The assigned partitions, by name and number."""

    def __init__(self, policy: Reset) -> None:
        self.policy = policy
        self.states: dict[TopicPartition, PartitionState] = {}

    def assign(
        self,
        wanted: Mapping[TopicPartition, bytes],
        *,
        late: bool,
        whole_topics: Collection[bytes] = (),
    ) -> Change:
        """Make these partitions, given with their topic ids, the assigned ones.

        A partition that stays assigned keeps its state.

        `late`: new partitions appeared under a running subscription. They start at their beginning,
        unless the policy is "none". With "latest" the consumer would miss records that were written
        before it knew the partition. `whole_topics`: the ids of topics of which the consumer had
        every partition before. A new partition of such a topic is always late.
        """
        change = Change([], [])
        for key in [key for key in self.states if key not in wanted]:
            change.removed.append(self.states.pop(key))
        for key, topic_id in wanted.items():
            known = self.states.get(key)
            if known is not None and known.topic_id == topic_id:
                continue
            if known is not None:
                change.removed.append(known)
            is_late = late or topic_id in whole_topics
            reset: Reset = "earliest" if is_late and self.policy != "none" else self.policy
            self.states[key] = PartitionState(key, topic_id, reset)
            change.added.append(self.states[key])
        for state in change.removed:
            # drop the records that the user has not read yet
            state.seek_to("none")
        return change

    def take(self, key: TopicPartition, topic_id: bytes, reset: Reset) -> Change:
        """Add one partition. `reset`: where to begin if its position is not set."""
        known = self.states.get(key)
        if known is not None and known.topic_id == topic_id:
            return Change([], [])
        removed = [] if known is None else self.drop(known)
        self.states[key] = PartitionState(key, topic_id, reset)
        return Change(removed, [self.states[key]])

    def drop(self, state: PartitionState) -> list[PartitionState]:
        """Remove one partition, with the records that the user has not read yet."""
        if self.states.get(state.topic_partition) is not state:
            return []
        del self.states[state.topic_partition]
        state.seek_to("none")
        return [state]
