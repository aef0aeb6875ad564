"""What the log says of one group. Only records change it: at replay, and when they are decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from quorate_broker.groups.assignors.values import PartitionSet
from quorate_broker.groups.machine.topics import NO_PARTITIONS
from quorate_broker.groups.records.classic import ClassicValue
from quorate_broker.groups.records.keys import (
    ClassicKey,
    CurrentKey,
    GroupKey,
    Key,
    MemberKey,
    OffsetKey,
    TargetKey,
    TargetMemberKey,
)
from quorate_broker.groups.records.values import (
    STABLE,
    CurrentValue,
    GroupValue,
    MemberValue,
    OffsetValue,
    Partition,
    TargetMemberValue,
    TargetValue,
    Value,
)

#: Of a member that has nothing yet.
NOTHING: Final = CurrentValue(0, 0, STABLE)
#: The epoch of a static member that left and will come back.
AWAY_EPOCH: Final = -2


@dataclass(slots=True)
class GroupState:
    """The records of one group, the last of each key.

    Invariant, once all records are replayed: a partition is in the current assignment of one member
    at most, be it assigned or to be given back. `holders` is the index of this.
    """

    group_id: str
    #: None: the group never had a member of the consumer protocol.
    metadata: GroupValue | None = None
    #: None: the group is not a classic one.
    classic: ClassicValue | None = None
    target: TargetValue = field(default=TargetValue(0))
    members: dict[str, MemberValue] = field(default_factory=dict)
    targets: dict[str, PartitionSet] = field(default_factory=dict)
    current: dict[str, CurrentValue] = field(default_factory=dict)
    #: By topic name and partition.
    offsets: dict[str, dict[int, OffsetValue]] = field(default_factory=dict)

    #: Who has a partition, and who shall have it; the member of each instance id.
    holders: dict[Partition, str] = field(default_factory=dict)
    owners: dict[Partition, str] = field(default_factory=dict)
    instances: dict[str, str] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """The group epoch; 0: the group never had a member."""
        return 0 if self.metadata is None else self.metadata.epoch

    @property
    def is_blank(self) -> bool:
        """Whether no record is left of the group."""
        return not (
            self.metadata
            or self.classic
            or self.target.epoch
            or self.members
            or self.targets
            or self.current
            or self.offsets
        )

    @property
    def phase(self) -> str:
        """Empty, Assigning, Reconciling or Stable: the group's state, as Kafka names it."""
        if not self.members:
            return "Empty"
        if self.target.epoch < self.epoch:
            return "Assigning"
        currents = (self.current_of(member_id) for member_id in self.members)
        settled = all(
            (one.state, one.epoch) == (STABLE, self.target.epoch) or one.epoch == AWAY_EPOCH
            for one in currents
        )
        return "Stable" if settled else "Reconciling"

    def current_of(self, member_id: str) -> CurrentValue:
        """Return what a member has."""
        return self.current.get(member_id, NOTHING)

    def target_of(self, member_id: str) -> PartitionSet:
        """Return what a member shall have."""
        return self.targets.get(member_id, NO_PARTITIONS)

    def apply(self, key: Key, value: Value | None) -> None:
        """Take a record in; None: a tombstone. No record needs another one to be there."""
        match key, value:
            case OffsetKey(), OffsetValue():
                self.offsets.setdefault(key.topic, {})[key.partition] = value
            case OffsetKey(), None:
                self._forget_offset(key)
            case ClassicKey(), (ClassicValue() | None):
                self.classic = value
            case GroupKey(), (GroupValue() | None):
                self.metadata = value
            case TargetKey(), (TargetValue() | None):
                self.target = value or TargetValue(0)
            case MemberKey(), (MemberValue() | None):
                self._set_member(key.member_id, value)
            case TargetMemberKey(), (TargetMemberValue() | None):
                self._set_target(key.member_id, value)
            case CurrentKey(), (CurrentValue() | None):
                self._set_current(key.member_id, value)

    def prune(self) -> None:
        """Drop what belongs to no member. Called once all records are replayed."""
        for member_id in [*self.targets]:
            if member_id not in self.members:
                self._set_target(member_id, None)
        for member_id in [*self.current]:
            if member_id not in self.members:
                self._set_current(member_id, None)

    def _forget_offset(self, key: OffsetKey) -> None:
        partitions = self.offsets.get(key.topic)
        if partitions is not None:
            partitions.pop(key.partition, None)
            if not partitions:
                del self.offsets[key.topic]

    def _set_member(self, member_id: str, value: MemberValue | None) -> None:
        old = self.members.pop(member_id, None)
        if old and old.instance_id and self.instances.get(old.instance_id) == member_id:
            del self.instances[old.instance_id]
        if value is not None:
            self.members[member_id] = value
            if value.instance_id:
                self.instances[value.instance_id] = member_id

    def _set_target(self, member_id: str, value: TargetMemberValue | None) -> None:
        for partition in self.targets.pop(member_id, ()):
            if self.owners.get(partition) == member_id:
                del self.owners[partition]
        if value is not None:
            self.targets[member_id] = value.partitions
            self.owners.update(dict.fromkeys(value.partitions, member_id))

    def _set_current(self, member_id: str, value: CurrentValue | None) -> None:
        old = self.current.pop(member_id, None)
        for partition in () if old is None else (*old.assigned, *old.revoking):
            if self.holders.get(partition) == member_id:
                del self.holders[partition]
        if value is not None:
            self.current[member_id] = value
            self.holders.update(dict.fromkeys((*value.assigned, *value.revoking), member_id))
