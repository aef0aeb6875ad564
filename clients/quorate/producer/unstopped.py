"""A producer that was never stopped before it was garbage collected or the interpreter ended."""

from __future__ import annotations

import asyncio
import logging
import warnings
from dataclasses import dataclass

from quorate.cluster.cluster import Cluster
from quorate.producer.accumulator import Accumulator
from quorate.producer.sender import Sender

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UnstoppedProducer:
    """The parts of a producer that outlive it. This object holds no reference to the producer."""

    loop: asyncio.AbstractEventLoop
    cluster: Cluster
    sender: Sender
    accumulator: Accumulator

    def tell(self) -> None:
        """Warn how many records were lost, and end the background tasks.

        While its loop runs, a producer is not collected before its records are delivered. So then
        no records are lost.
        """
        if not self.cluster.owner.is_in_this_process:
            return  # the producer belongs to the parent process
        lost = self.accumulator.abandoned + sum(one.count for one in self.accumulator.unfinished())
        text = (
            f"a Producer for {', '.join(self.cluster.bootstrap)} was never stopped, and {lost} of "
            "its records were not delivered; use `async with Producer(...)`, or await stop()"
        )
        log.warning("%s", text)
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._begin_to_end)
        warnings.warn(text, ResourceWarning, stacklevel=2)

    def _begin_to_end(self) -> None:
        self.cluster.owner.spawn(self._end(), "forgotten")

    async def _end(self) -> None:
        await self.sender.stop()
        await self.cluster.stop()
        await self.cluster.owner.end_all()
