"""The state of a partition in lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from quorate import PartitionDescription
from quorate.durations import duration


def out_of_sync_lines(partition: PartitionDescription) -> Iterator[str]:
    """Yield a line for each replica that is not in the ISR: since when, and why."""
    for one in partition.out_of_sync:
        since = ""
        if one.since_ms:
            since = f" since {moment(one.since_ms)} ({duration(one.for_ms)})"
        yield f"broker {one.broker_id}: out of the ISR{since}, because {one.reason}"


def moment(time_ms: int) -> str:
    """Return a time in UTC, to the second; as a number if the calendar does not reach it.

    >>> moment(1_700_000_000_123), moment(0), moment(10**18)
    ('2023-11-14T22:13:20Z', 'an unknown time', '1000000000000000000')
    """
    if not time_ms:
        return "an unknown time"
    try:
        found = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return str(time_ms)
    return found.strftime("%Y-%m-%dT%H:%M:%SZ")


def ids(members: Sequence[int]) -> str:
    """Return the ids of brokers as a list.

    >>> ids((1, 2)), ids(())
    ('1,2', 'none')
    """
    return ",".join(map(str, members)) or "none"
