"""The history of the clients of a simulated cluster, and the judge of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from quorate import Delivery
from quorate.errors import OutcomeUnknownError, QuorateError
from tests.harness.invariants import Violation


@dataclass(slots=True)
class History:
    """What producers were told and consumers have seen. A value is the number of a send."""

    sent: dict[bytes, Delivery] = field(default_factory=dict)
    #: value -> (partition, offset)
    acked: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    failed: dict[bytes, QuorateError] = field(default_factory=dict)
    #: Sends that their caller gave up before an answer.
    unsure: dict[bytes, None] = field(default_factory=dict)
    #: (partition, offset) -> the value that the first reader found there.
    seen: dict[tuple[int, int], bytes] = field(default_factory=dict)
    #: value -> the number of its producer, where that is not 0.
    producer_of: dict[bytes, int] = field(default_factory=dict)
    #: The values that each of the consumers which run all the time has read.
    live: list[dict[bytes, None]] = field(default_factory=lambda: [{}])
    reads: int = 0
    #: Seconds at which something was acknowledged.
    acked_at: list[float] = field(default_factory=list)
    #: Errors that consumers raised, by type.
    told: Counter[str] = field(default_factory=Counter)
    #: Partition -> its values in the order of the log, as read at the end.
    final: dict[int, list[bytes]] = field(default_factory=dict)
    #: (partition, offset) -> the value that was read there at the end.
    final_at: dict[tuple[int, int], bytes] = field(default_factory=dict)
    #: value -> the second at which it was sent, which is in its timestamp.
    sent_s: dict[bytes, float] = field(default_factory=dict)
    #: Partition -> the highest offset below which somewhere a deletion was asked for, and the
    #: highest below which one was done.
    trim_asked: dict[int, int] = field(default_factory=dict)
    trimmed: dict[int, int] = field(default_factory=dict)
    #: Partition -> where its log begins at the end.
    starts: dict[int, int] = field(default_factory=dict)
    #: Acknowledged records in whose place a later one of their key was read at the end.
    compacted: int = 0
    #: Sends from this number on were begun after the topic was made for the last time.
    first_of_topic: int = 0
    #: The first send that was not begun when the topic was deleted for the last time, and how many
    #: may have been under way: a send for each producer.
    next_at_deletion: int = 0
    under_way_max: int = 1


def judge(
    history: History,
    told_lost: set[int],
    *,
    recreates: bool,
    is_patient: bool,
    compacts: bool = False,
    clocks_agree: bool = True,
    kept_since_s: float = 0.0,
    keeps_starts: bool = True,
) -> None:
    """Raise Violation unless the log holds what was acknowledged: once, in order, at its offset.

    `told_lost`: partitions of which the controller says that acknowledged records may be lost.
    `kept_since_s`: what was sent from this second on is within the topic's retention.
    `keeps_starts`: no disk may have forgotten where a log begins.
    """
    for partition, values in history.final.items():
        if len(set(values)) != len(values):
            doubled = [value for value, n in Counter(values).items() if n > 1]
            raise Violation(f"partition {partition}: {doubled[:5]} were written twice")
        if partition not in told_lost:
            _check_order(history, partition, values)
        # The last sends before the deletion were under way: the new topic may have got them.
        first = min(map(int, values), default=history.next_at_deletion)
        if recreates and clocks_agree and first < history.next_at_deletion - history.under_way_max:
            raise Violation(f"partition {partition}: {first} was sent to the topic before")
    final = {value: partition for partition, values in history.final.items() for value in values}
    if not recreates:
        _check_starts(history, told_lost, kept_since_s, keeps_starts)
    newest = _newest_of_keys(history) if compacts else {}
    _check_acknowledged(history, final, told_lost, newest)
    _check_failed(history, final)
    wanted = must_be_seen(history, compacts=compacts)
    for number, seen in enumerate(history.live):
        missed = wanted - seen.keys()
        if missed and not recreates and not told_lost:
            told = f"{len(missed)} records: {sorted(missed)[:5]}"
            raise Violation(f"consumer {number} has not seen {told}")
    if not history.acked:
        raise Violation("nothing was committed")
    if is_patient and not recreates and len(history.failed) > len(history.acked):
        first_failure = next(iter(history.failed.values()))
        raise Violation(f"more failed than was acknowledged: {first_failure!r}")


def _check_order(history: History, partition: int, values: list[bytes]) -> None:
    """The records of each producer are in the order of its sends."""
    last: dict[int, int] = {}
    for value in values:
        producer, number = history.producer_of.get(value, 0), int(value)
        if number < last.get(producer, -1):
            raise Violation(f"partition {partition}: records are out of order at {number}")
        last[producer] = number


#: Keys of a compacted topic, in each partition.
KEYS = 5


def key_of(value: bytes) -> bytes:
    """Return the key of a record of a compacted topic."""
    return b"key %d" % (int(value) % KEYS)


def must_be_seen(history: History, *, compacts: bool) -> set[bytes]:
    """Return the values that a consumer which runs all the time must see.

    In a compacted topic the others may have gone after they were read at the end, and before that
    consumer came there.
    """
    if not compacts:
        return {value for values in history.final.values() for value in values}
    newest = _newest_of_keys(history)
    return {history.final_at[partition, offset] for (partition, _), offset in newest.items()}


def _newest_of_keys(history: History) -> dict[tuple[int, bytes], int]:
    """Return the offset of the last record of each key, by partition, as read at the end."""
    newest: dict[tuple[int, bytes], int] = {}
    for (partition, offset), value in history.final_at.items():
        place = partition, key_of(value)
        newest[place] = max(offset, newest.get(place, -1))
    return newest


def _check_acknowledged(
    history: History,
    final: dict[bytes, int],
    told_lost: set[int],
    newest: dict[tuple[int, bytes], int],
) -> None:
    """`newest`: the offset of the last record of each key of a compacted topic."""
    for value, (partition, offset) in history.acked.items():
        if int(value) < history.first_of_topic or partition in told_lost:
            continue
        if offset < history.starts.get(partition, 0):
            continue  # it was deleted: _check_starts looks whether that was right
        if value not in final and newest.get((partition, key_of(value)), -1) > offset:
            history.compacted += 1
            continue
        if final.get(value) != partition:
            raise Violation(
                f"{value!r} was acknowledged at partition {partition} offset {offset}, and is lost"
            )
        if history.final_at.get((partition, offset)) != value:
            raise Violation(f"{value!r} was acknowledged at another offset than {offset}")


def _check_starts(
    history: History, told_lost: set[int], kept_since_s: float, keeps_starts: bool
) -> None:
    """A record below the start of its log was old, or its deletion was asked for."""
    for partition, done in history.trimmed.items():
        start = history.starts.get(partition, 0)
        if start < done and keeps_starts and partition not in told_lost:
            raise Violation(
                f"partition {partition}: records were deleted below {done}, and the "
                f"log begins at {start}"
            )
    for value, (partition, offset) in history.acked.items():
        if offset >= history.starts.get(partition, 0) or partition in told_lost:
            continue
        is_trimmed = offset < history.trim_asked.get(partition, 0)
        if not is_trimmed and history.sent_s[value] >= kept_since_s:
            raise Violation(f"{value!r} at partition {partition} offset {offset} was deleted early")


def _check_failed(history: History, final: dict[bytes, int]) -> None:
    """A failed send was not written, unless its error is OutcomeUnknownError."""
    for value, error in history.failed.items():
        if value in final and not isinstance(error, OutcomeUnknownError):
            raise Violation(f"{value!r} failed with {error!r}, and was written")
