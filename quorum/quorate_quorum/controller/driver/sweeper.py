"""Runs the sweep of one reign: it changes the partitions of brokers whose state has changed.

The Sweep machine walks over all partitions. This driver proposes one slice of the sweep in each
turn of the event loop. It also keeps the log's offset at which the sweep for a broker ended: a
broker may be unfenced, or may stop, only after that offset is applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from quorate.aio.bell import Bell
from quorate_quorum.controller.decisions.lossy_elections import LossyElections
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.decisions.sweep import Slice, Sweep
from quorate_quorum.controller.driver.reign import Reign
from quorate_quorum.controller.driver.sessions import Sessions
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1.events_pb2 import MetadataEvent


@dataclass(eq=False)
class Sweeper:
    """Proposes the slices of the sweep.

    `retry_ms`: the pause if the log is full. `idle_ms`: the longest wait for new work.
    """

    _reign: Reign
    _sessions: Sessions
    _lossy_elections: LossyElections
    retry_ms: int
    idle_ms: int
    _sweep: Sweep = field(default_factory=Sweep)
    _has_work: Bell = field(default_factory=Bell)
    #: By broker: one past the offset of the last change of a partition that the broker's
    #: registration or fencing caused.
    _fencing_ends: dict[int, int] = field(default_factory=dict)
    #: By broker: one past the offset of the last change of a partition that the broker's shutdown
    #: caused.
    shutdown_ends: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._reign.when_proposed = self._proposed

    def fencing_end(self, broker_id: int) -> int | None:
        """Return the offset one past all changes that a broker's registration or fencing caused.

        None while some of these changes are not proposed yet.
        """
        return self._fencing_ends.get(broker_id) if self.is_swept(broker_id) else None

    def is_swept(self, broker_id: int) -> bool:
        """Return whether all changes of partitions by a broker's state are proposed."""
        return self._sweep.is_swept(broker_id)

    def sweep(self, broker_ids: Iterable[int]) -> None:
        """Check all partitions of these brokers."""
        self._sweep.begin(broker_ids)
        self._has_work.ring()

    def sweep_all(self) -> None:
        """Check all partitions of all brokers."""
        self.sweep([broker.id for broker in self._reign.pending.sorted_brokers()])

    def complete_torn(self) -> None:
        """If the log was full after a part of an Outcome, complete the Outcome by a sweep."""
        if self._reign.is_torn:
            self._reign.is_torn = False
            self.sweep_all()

    async def run(self) -> None:
        """Propose slice after slice until the reign ends."""
        while True:
            self._has_work.reset()
            while self._sweep.is_busy:
                if not self.take_step():
                    await asyncio.sleep(self.retry_ms / 1000)  # the log takes no more now
                await asyncio.sleep(0)
            await self._has_work.wait(self.idle_ms)

    def take_step(self) -> bool:
        """Propose the next slice. Return whether the log took it."""

        def step(image: MetadataImage, context: Context) -> Outcome[Slice]:
            part = self._sweep.next(image, context.free_space)
            return Outcome(tuple(part.events), part)

        part = self._reign.attempt("settle", step)
        if part is None:
            return False
        self._lossy_elections.changed(self._reign.pending, part.leaderless)
        for broker_id, has_changed in self._sweep.took(part).items():
            self._swept(broker_id, has_changed)
        return True

    def _proposed(self, events: Sequence[MetadataEvent]) -> None:
        """Sweep for the brokers whose state these events change. Called for every proposal."""
        for event in events:
            if event.HasField("broker_change"):
                change = event.broker_change
                self._state_changed(change.broker_id, is_fenced=change.fenced)
            elif event.HasField("register_broker"):
                self._state_changed(event.register_broker.broker_id, is_fenced=True)

    def _state_changed(self, broker_id: int, *, is_fenced: bool) -> None:
        if is_fenced:
            self.shutdown_ends.pop(broker_id, None)  # the run that was shutting down has ended
        self.sweep([broker_id])

    def _swept(self, broker_id: int, has_changed: bool) -> None:
        broker = self._reign.pending.brokers.get(broker_id)
        if broker is None:
            return
        end = self._reign.pending.offset
        if broker.fenced:
            self._fencing_ends[broker_id] = end
        elif broker.shutting_down and (has_changed or broker_id not in self.shutdown_ends):
            self.shutdown_ends[broker_id] = end
        elif not broker.shutting_down:
            return
        # Answer the heartbeats now: an answer may ask for a report of this offset.
        self._sessions.ring_all()
