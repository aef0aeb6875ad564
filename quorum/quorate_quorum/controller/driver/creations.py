"""Carries out the CreateTopics and CreatePartitions requests of the active controller."""

from __future__ import annotations

import asyncio
from typing import Protocol

from quorate.aio.tasks import Tasks
from quorate.errors import OverloadedError
from quorate_quorum.controller.decisions.creation import abandon
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.driver.reign import Reign
from quorate_quorum.metadata.image import MetadataImage

#: The most large requests that may wait for each other, and the most bytes of them. A request goes
#: on after its caller has gone, so the bounds of the caller's connection do not limit it.
CREATIONS_MAX = 100
CREATION_BYTES_MAX = 64 << 20


class InTurns(Protocol):
    """A request that is decided in one turn of the event loop or in several: see Creation."""

    def fits_in_a_turn(self, image: MetadataImage) -> bool: ...
    def next(self, image: MetadataImage, context: Context) -> Outcome[bool]: ...


class Creations:
    """Decides a small request at once, and large requests one after the other, in parts."""

    def __init__(self, reign: Reign) -> None:
        self._reign = reign
        #: Held by the large request in progress. While this lock is free, each forming topic
        #: belongs to a request that has failed.
        self._turn = asyncio.Lock()
        self._tasks = Tasks(lambda name, error: None)  # no log line: the caller gets the error
        self._held_bytes = 0

    async def create(self, creation: InTurns, size: int) -> int:
        """Create topics or partitions. After their commit, return the offset one past their events.

        `size`: the bytes of the request. Raises the errors of Reign.run and Reign.run_in_turns.
        """
        if not creation.fits_in_a_turn(self._reign.pending):
            return await self._create_large(creation, size)
        if not self._turn.locked():
            # Otherwise the forming topic of a failed request would block its name.
            self._reign.decide(abandon)
        decided = await self._reign.run(creation.next)
        assert decided.response, "all of it fitted"
        return decided.apply_offset

    async def settle(self) -> None:
        """Wait for the large requests that have been asked for. No topic is forming after that.

        Raises the errors of Reign.decide.
        """
        async with self._turn:
            self._reign.decide(abandon)

    async def ended(self) -> None:
        """Wait until every large request has ended."""
        await self._tasks.ended()

    async def _create_large(self, creation: InTurns, size: int) -> int:
        held = self._held_bytes
        if len(self._tasks) >= CREATIONS_MAX or held + size > CREATION_BYTES_MAX:
            raise OverloadedError(
                f"{len(self._tasks)} large requests for topics or partitions, of {held} bytes,"
                f" wait already: at most {CREATIONS_MAX} of {CREATION_BYTES_MAX} bytes may"
            )
        self._held_bytes += size
        return await asyncio.shield(self._tasks.spawn(self._create(creation, size), "create"))

    async def _create(self, creation: InTurns, size: int) -> int:
        try:
            async with self._turn:
                self._reign.decide(abandon)  # remove the topic that a failed request left forming
                return await self._reign.run_in_turns(creation.next)
        finally:
            self._held_bytes -= size
