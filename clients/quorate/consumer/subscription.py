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
