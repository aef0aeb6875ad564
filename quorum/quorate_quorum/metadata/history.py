"""The last changes of a partition, and their causes: what `quorate explain` tells.

The controller writes the causes into the record of each change. Every node keeps the changes of a
partition encoded, as one value of bytes: ten thousand partitions then cost no objects that the
garbage collector visits, and a replay does not decode what no one may ever ask for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from quorate_quorum.metadata.carried import Carrier, Codec, carried
from quorate_quorum.v1 import events_pb2 as ev

#: The most bytes of one partition's history: some 35 changes of a partition with 3 replicas. The
#: oldest changes go first; the newest one always stays.
HISTORY_BYTES_MAX: Final = 1_536
#: The most causes of one change that are kept. A leader tells one for each replica.
CAUSES_MAX: Final = 16
#: The first byte of an encoded PartitionHistory: field 1, length-delimited.
_CHANGES_TAG: Final = 0x0A
#: What its creation is called in the history of a partition.
CREATIONS: Final = (ev.CAUSE_KIND_TOPIC_CREATED, ev.CAUSE_KIND_TOPIC_GROWN)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a partition changed. What the other fields mean, the kind says: see events.proto."""

    kind: ev.CauseKind.ValueType
    broker_id: int = 0
    ms: int = 0
    records: int = 0

    @property
    def name(self) -> str:
        """The name of the kind, such as "broker_silent"; "unknown" for one of a newer program."""
        if self.kind not in ev.CauseKind.values():
            return "unknown"
        return ev.CauseKind.Name(self.kind).removeprefix("CAUSE_KIND_").lower()


NOT_RECORDED: Final = Cause(ev.CAUSE_KIND_UNSPECIFIED)
CAUSE: Final = Carrier(Cause, ev.Cause)
#: A cause that may be absent. Its place in a message is then not set.
OPTIONAL_CAUSE: Final = Codec(
    lambda told: CAUSE.image(told) if told.ByteSize() else None,
    lambda cause: None if cause is None else CAUSE.message(cause),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastChange:
    """A change of a partition, and the state after it."""

    #: The offset of its record in the metadata log.
    offset: int
    #: The time by the controller's clock, in milliseconds since 1970; 0: not known.
    time_ms: int
    causes: tuple[Cause, ...] = field(metadata=carried(codec=CAUSE.codec))
    leader: int
    leader_epoch: int
    isr: tuple[int, ...]
    elr: tuple[int, ...]
    replicas: tuple[int, ...]
    adding: tuple[int, ...]
    removing: tuple[int, ...]

    @property
    def is_creation(self) -> bool:
        """Whether the partition was created by this change, so that none came before it."""
        return any(cause.kind in CREATIONS for cause in self.causes)


_PAST_CHANGE: Final = Carrier(PastChange, ev.PastChange)


def extended(history: bytes, change: ev.PastChange) -> bytes:
    """Return the history with one more change, and without old ones if it is too long."""
    added = ev.PartitionHistory(changes=[change]).SerializeToString()
    start = 0
    while start < len(history) and len(history) - start + len(added) > HISTORY_BYTES_MAX:
        start = _end_of_first(history, start)
    return history[start:] + added


def _end_of_first(history: bytes, start: int) -> int:
    """Return where the change ends that begins at `start`: its tag, its length, and its bytes.

    >>> _end_of_first(bytes([0x0A, 2, 8, 1, 0x0A, 0]), 0)
    4
    """
    assert history[start] == _CHANGES_TAG, "a history is a row of changes"
    at, shift, size = start + 1, 0, 0
    while True:
        byte = history[at]
        size |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return at + size


def changes_of(history: bytes) -> tuple[PastChange, ...]:
    """Return the changes of a history, the oldest first."""
    return tuple(newest_first(history))[::-1]


def newest_first(history: bytes) -> Iterator[PastChange]:
    """Yield the changes of a history, the newest first. Those not asked for cost little."""
    return map(_PAST_CHANGE.image, reversed(ev.PartitionHistory.FromString(history).changes))
