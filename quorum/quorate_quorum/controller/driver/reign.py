"""One reign of the controller: the pending image, what was proposed on it, and who waits.

Decisions are taken on the pending image (committed plus proposed), one after the other, without
waiting; so each sees all before it. Nothing is told before it is committed, and a decision that
proposed nothing is told only when all that it saw is committed and this is still the leader:
otherwise a leader of yesterday would tell the news of yesterday (Redpanda 3003).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from quorate.errors import (
    NotControllerError,
    OutcomeUnknownError,
    OverloadedError,
    QuorateError,
)
from quorate_quorum.controller.decisions.outcome import Context, Outcome, split
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1.events_pb2 import MetadataEvent

R = TypeVar("R")
Decision = Callable[[MetadataImage, Context], Outcome[R]]

WAITERS_MAX = 10_000
#: Events that a decision in many turns leaves uncommitted before it waits.
UNCOMMITTED_MAX = 5_000


class Proposer(Protocol):
    """The part of RaftNode that a reign needs."""

    def propose(self, epoch: int, events: Sequence[MetadataEvent]) -> int:
        """Return the base offset of the batch; NotControllerError if not leading in `epoch`."""

    async def read_round(self) -> int:
        """Prove that this node still leads; return the high watermark to wait for."""


@dataclass(frozen=True, slots=True)
class Decided(Generic[R]):
    """An answer that is committed; whoever has applied `apply_offset` sees its effect."""

    response: R
    apply_offset: int


class Reign:
    """Lives exactly as long as the reign; `pending.offset` is where the next proposal goes."""

    def __init__(
        self,
        epoch: int,
        image: MetadataImage,
        raft: Proposer,
        context: Callable[[int], Context],
    ) -> None:
        self.epoch = epoch
        #: All brokers' records below were committed before this reign decided anything.
        self.start_offset = image.offset
        self.pending = image
        self.committed_offset = image.offset
        self.is_over = False
        #: A large Outcome was cut off by a full log: settling all brokers completes it.
        self.is_torn = False
        #: Told of each batch in the turn in which it is proposed.
        self.when_proposed: Callable[[Sequence[MetadataEvent]], None] = _nobody
        self._raft = raft
        self._context = context
        self._waiters: deque[_Waiter] = deque()

    def decide(self, decision: Decision[R]) -> R:
        """Decide on the pending image and propose what comes out; the answer is not committed.

        For what the controller does of itself: nobody is told but by the commit. Raises what the
        decision raises, NotControllerError and OverloadedError.
        """
        self._check_reigns()
        outcome = decision(self.pending, self._context(self.pending.offset))
        self._propose(outcome.events)
        return outcome.response

    async def run(self, decision: Decision[R]) -> Decided[R]:
        """Decide, propose, and return when the answer may be told.

        Raises what the decision raises (once it is sure that it was ours to say so),
        NotControllerError if nothing was proposed, OutcomeUnknownError if something was.
        """
        if len(self._waiters) >= WAITERS_MAX:
            raise OverloadedError(f"{len(self._waiters)} requests wait for their commit already")
        self._check_reigns()
        before = self.pending.offset
        try:
            response = self.decide(decision)
        except NotControllerError:
            if self.pending.offset > before or self.is_over:
                raise OutcomeUnknownError("the reign ended amid a change") from None
            raise
        except (OverloadedError, OutcomeUnknownError):
            raise
        except QuorateError:
            await self._settle(before, has_proposed=False)
            raise
        after = self.pending.offset
        await self._settle(after, has_proposed=after > before)
        return Decided(response, after)

    async def run_in_turns(self, step: Decision[bool]) -> int:
        """Decide step after step, with a turn of the loop between, until one says that it was the
        last; return one past all of it when that is committed.

        Raises as `run`; where something was proposed already, OutcomeUnknownError.
        """
        has_proposed = is_done = False
        try:
            while not is_done:
                before = self.pending.offset
                is_done = self.decide(step)
                has_proposed = has_proposed or self.pending.offset > before
                if self.pending.offset - self.committed_offset > UNCOMMITTED_MAX:
                    await self._settle(self.pending.offset, has_proposed=has_proposed)
                await asyncio.sleep(0)
        except (NotControllerError, OverloadedError) as error:
            if has_proposed:
                raise OutcomeUnknownError(f"only a part of the change was made: {error}") from error
            raise
        after = self.pending.offset
        await self._settle(after, has_proposed=has_proposed)
        return after

    async def run_parts(self, decisions: Sequence[Decision[R]]) -> Decided[list[R]]:
        """Decide one after the other, with a turn of the loop between; tell all answers together.

        For a request whose parts each have a result of their own. Raises as `run_in_turns`.
        """
        responses: list[R] = []

        def step(image: MetadataImage, context: Context) -> Outcome[bool]:
            outcome = decisions[len(responses)](image, context)
            responses.append(outcome.response)
            return Outcome(outcome.events, len(responses) == len(decisions))

        end = await self.run_in_turns(step)
        return Decided(responses, end)

    async def confirm(self) -> None:
        """Return when all that is decided so far is committed, and this is the leader still."""
        await self._settle(self.pending.offset, has_proposed=False)

    def committed(self, offset: int) -> None:
        """Tell those whose change is below `offset`."""
        self.committed_offset = offset
        while self._waiters and self._waiters[0].offset <= offset:
            waiter = self._waiters.popleft()
            if not waiter.done.done():
                waiter.done.set_result(None)

    def end(self) -> None:
        """The reign is over: the pending image goes, and who waits learns what is known."""
        self.is_over = True
        for waiter in self._waiters:
            if not waiter.done.done():
                waiter.done.set_exception(waiter.failure)
        self._waiters.clear()

    def _check_reigns(self) -> None:
        if self.is_over:
            raise NotControllerError("this voter is not the controller any more")

    def _propose(self, events: Sequence[MetadataEvent]) -> None:
        image, parts = self.pending, []
        for part in split(events):  # all is asserted before any of it is proposed
            image = replayed(image, part, epoch=self.epoch)
            parts.append((part, image))
        for number, (part, image) in enumerate(parts):
            try:
                base_offset = self._raft.propose(self.epoch, part)
            except OverloadedError as error:
                if number == 0:
                    raise
                self.is_torn = True
                raise OutcomeUnknownError(f"only a part of the change fitted: {error}") from error
            assert base_offset == self.pending.offset, (
                f"proposed at {base_offset}, decided at {self.pending.offset}"
            )
            self.pending = image
            self.when_proposed(part)

    async def _settle(self, offset: int, *, has_proposed: bool) -> None:
        """Wait until all below `offset` is committed, and it is sure that this leader says so.

        What is proposed proves that by its own commit; all else needs a round, also where an
        earlier proposal commits meanwhile: it may have been acknowledged before we decided.
        """
        if not has_proposed:
            await self._raft.read_round()
            self._check_reigns()
        if offset <= self.committed_offset:
            return
        failure: QuorateError = (
            OutcomeUnknownError("the controller lost its reign before the change was committed")
            if has_proposed
            else NotControllerError("this voter is not the controller any more")
        )
        waiter = _Waiter(offset, asyncio.get_running_loop().create_future(), failure)
        index = len(self._waiters)
        while index and self._waiters[index - 1].offset > offset:  # a round took its time
            index -= 1
        self._waiters.insert(index, waiter)
        await waiter.done


def _nobody(events: Sequence[MetadataEvent]) -> None:
    """Nobody has asked to be told."""


@dataclass(frozen=True, slots=True)
class _Waiter:
    offset: int
    done: asyncio.Future[None]
    #: What to raise if the reign ends first.
    failure: QuorateError
