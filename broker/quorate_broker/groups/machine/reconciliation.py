"""One member on its way to the target assignment (KIP-848): give back first, then take.

STABLE                 has what it shall have
UNREVOKED_PARTITIONS   must give partitions back; keeps its epoch until it has
UNRELEASED_PARTITIONS  waits for partitions that other members have not given back yet
"""

from __future__ import annotations

from collections.abc import Callable

from quorate_broker.groups.assignors.values import PartitionSet
from quorate_broker.groups.records.values import (
    STABLE,
    UNRELEASED_PARTITIONS,
    UNREVOKED_PARTITIONS,
    CurrentValue,
    Partition,
)


def reconciled(
    current: CurrentValue,
    target_epoch: int,
    target: PartitionSet,
    is_free: Callable[[Partition], bool],
    *,
    has_released: bool = False,
) -> CurrentValue:
    """Return the member's next state; `current` itself if nothing changes.

    `is_free` tells of a partition whether no other member has it. `has_released`: the member has
    given back all of `current.revoking`.
    """
    if current.state == UNREVOKED_PARTITIONS:
        if not has_released:
            return current
        # A commit that the member sent before it gave the partitions back is older than this epoch.
        return _next(current, current.epoch + 1, target_epoch, target, is_free)
    if current.state == STABLE and current.epoch == target_epoch:
        return current
    following = _next(current, current.epoch, target_epoch, target, is_free)
    unchanged = (following.epoch, following.state) == (current.epoch, current.state)
    return current if unchanged and following.assigned == current.assigned else following


def _next(
    current: CurrentValue,
    epoch: int,
    target_epoch: int,
    target: PartitionSet,
    is_free: Callable[[Partition], bool],
) -> CurrentValue:
    """Return the state after `current` towards the target. `epoch`: while it gives back."""
    kept = {one: since for one, since in current.assigned.items() if one in target}
    revoking = {one: since for one, since in current.assigned.items() if one not in target}
    if revoking:
        return CurrentValue(epoch, current.epoch, UNREVOKED_PARTITIONS, kept, revoking)
    missing = target.difference(kept)
    # In order: a run that is repeated must not depend on how sets are hashed.
    taken = {one: target_epoch for one in sorted(missing) if is_free(one)}
    state = STABLE if len(taken) == len(missing) else UNRELEASED_PARTITIONS
    return CurrentValue(target_epoch, current.epoch, state, kept | taken)
