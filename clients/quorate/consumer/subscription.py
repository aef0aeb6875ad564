"""Which partitions a consumer reads, and where it stands in each.

A machine: no clock, no wire. `position` is the offset of the next record that the user gets,
`fetch_offset` the next one to ask a broker for; between them lies what is buffered. A seek makes
a new `generation`, so that bytes fetched for the old position are dropped when they come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from quorate.errors import QuorateError
from quorate.model import AnyRecord, TopicPartition

Reset = Literal["earliest", "latest", "none"]
UNKNOWN = -1


@dataclass(slots=True)
class PartitionState:
    """One assigned partition."""

    topic_partition: TopicPartition
    topic_id: bytes
    position: int = UNKNOWN
    fetch_offset: int = UNKNOWN
    #: Where to begin when the position is not known: by the consumer's policy, or by a seek.
    reset: Reset = "latest"
    paused: bool = False
    generation: int = 0
    high_watermark: int = UNKNOWN
    log_start_offset: int = UNKNOWN
    buffered: deque[memoryview] = field(default_factory=deque)
    buffered_bytes: int = 0
    #: The records of the bytes taken last; the user is in their midst.
    reading: Iterator[AnyRecord] | None = None
    #: Told to the user by the next read, then forgotten.
    error: QuorateError | None = None
    retry_at: float = 0.0

    @property
    def needs_offset(self) -> bool:
        """The position must be looked up before anything can be fetched."""
        return self.fetch_offset == UNKNOWN and self.error is None

    def seek(self, offset: int) -> None:
        """Go to an offset; what was fetched is dropped."""
        self._forget()
        self.position = self.fetch_offset = offset

    def seek_to(self, reset: Reset) -> None:
        """Go to one end, to be looked up; what was fetched is dropped."""
        self._forget()
        self.position = self.fetch_offset = UNKNOWN
        self.reset = reset

    def found(self, offset: int, generation: int) -> None:
        """The offset that was looked up, if nobody has sought elsewhere since."""
        if generation == self.generation and self.fetch_offset == UNKNOWN:
            self.position = self.fetch_offset = offset

    def fetched(self, payload: memoryview, end_offset: int) -> None:
        """Take whole batches that begin at or below fetch_offset and end at end_offset."""
        self.buffered.append(payload)
        self.buffered_bytes += len(payload)
        self.fetch_offset = end_offset

    def take(self) -> memoryview | None:
        """Return the next buffered bytes."""
        if not self.buffered:
            return None
        payload = self.buffered.popleft()
        self.buffered_bytes -= len(payload)
        return payload

    def let_go(self) -> None:
        """It is not assigned any more: nothing more is read from it."""
        self._forget()

    def _forget(self) -> None:
        self.generation += 1
        self.reading = None
        self.buffered.clear()
        self.buffered_bytes = 0
        self.error = None
        self.retry_at = 0.0


class Subscription:
    """The assigned partitions in a fixed order, taking turns."""

    def __init__(self, policy: Reset) -> None:
        self.policy = policy
        self.states: dict[TopicPartition, PartitionState] = {}

    def assign(self, partitions: Iterable[tuple[TopicPartition, bytes]], *, late: bool) -> bool:
        """Make these the assigned partitions, keeping the state of those that stay.

        `late`: new ones appeared under a running subscription. They start at their beginning,
        whatever the policy, or records written before we heard of them would be lost.
        Returns whether anything changed.
        """
        wanted = dict(partitions)
        changed = False
        for key in [key for key in self.states if key not in wanted]:
            self.states.pop(key).let_go()
            changed = True
        for key, topic_id in wanted.items():
            known = self.states.get(key)
            if known is not None and known.topic_id == topic_id:
                continue
            if known is not None:
                known.let_go()
            reset: Reset = "earliest" if late and self.policy != "none" else self.policy
            self.states[key] = PartitionState(key, topic_id, reset=reset)
            changed = True
        return changed

    def turns(self) -> Iterator[PartitionState]:
        """Partitions with something for the user, whose turn is next first."""
        for state in list(self.states.values()):
            if not state.paused and (
                state.reading is not None or state.buffered or state.error is not None
            ):
                yield state

    def had_turn(self, state: PartitionState) -> None:
        """Move a partition behind the others."""
        key = state.topic_partition
        if self.states.get(key) is state:
            del self.states[key]
            self.states[key] = state

    @property
    def buffered_bytes(self) -> int:
        """All that is fetched and not yet read by the user."""
        return sum(state.buffered_bytes for state in self.states.values())
