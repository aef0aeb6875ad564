"""What a producer is told if too few replicas are in sync: how many, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from quorate.durations import duration
from quorate_broker.replica.replica import Replica
from quorate_quorum.metadata.explanation import OutOfSync, out_of_sync
from quorate_quorum.metadata.history import newest_first

#: The most replicas whose reasons one message has.
NAMED_MAX: Final = 3


def too_few_replicas(replica: Replica, isr: Sequence[int], min_isr: int) -> str:
    """Return the end of a sentence: too few replicas are in sync, and why the others are not."""
    name = f"{replica.topic}/{replica.partition}"
    members = ", ".join(f"broker {broker_id}" for broker_id in isr)
    counted = "1 in-sync replica" if len(isr) == 1 else f"{len(isr)} in-sync replicas"
    parts = [
        f"partition {name} has {counted} ({members}), and {min_isr} are needed"
        " (min.insync.replicas)"
    ]
    state = replica.state
    if state is not None:
        now_ms = replica.host.environment.wall_clock_ms()
        absent = out_of_sync(newest_first(state.history), state.broker_ids, isr)
        parts += [_told(one, now_ms) for one in absent[:NAMED_MAX]]
        if len(absent) > NAMED_MAX:
            parts.append(f"{len(absent) - NAMED_MAX} others are out of the ISR, too")
    return "; ".join([*parts, f"`quorate explain {name}` tells more"])


def _told(one: OutOfSync, now_ms: int) -> str:
    for_ms = one.for_ms(now_ms)
    how_long = "" if for_ms < 0 else f" for {duration(for_ms)}"
    return f"broker {one.broker_id} has been out of the ISR{how_long}, because {one.reason}"
