"""One reign of the controller: the pending image, its proposals, and the requests that wait.

A reign is the time in which this voter leads the quorum in one epoch. Each decision is made on the
pending image (committed plus proposed) without waiting, so it sees all decisions before it.

An answer is sent only after its change is committed. The answer of a decision without events is
sent only after everything that the decision saw is committed, and a round has proved that this
voter still leads. Otherwise a deposed leader would answer from an image that is out of date, as in
issue 3003 of Redpanda.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import structlog

from quorate.aio.reached_offset import ReachedOffset
from quorate.errors import (
    NotControllerError,
    OutcomeUnknownError,
    OverloadedError,
    QuorateError,
    UnknownServerError,
)
from quorate_quorum.controller.decisions.outcome import Context, Outcome, split
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1.events_pb2 import MetadataEvent

log = structlog.get_logger(__name__)

Q = TypeVar("Q")
R = TypeVar("R")
Decision = Callable[[MetadataImage, Context], Outcome[R]]

WAITERS_MAX = 10_000
#: The number of uncommitted events above which a decision in many turns waits for a commit.
UNCOMMITTED_MAX = 5_000


class Proposer(Protocol):
    """The part of RaftNode that a reign needs."""

    def propose(self, epoch: int, events: Sequence[MetadataEvent]) -> int:
        """Return the base offset of the batch; NotControllerError if not leading in `epoch`."""

    async def read_round(self) -> int:
        """Prove that this node still leads; return the high watermark to wait for."""


@dataclass(frozen=True, slots=True)
class Decided(Generic[R]):
    """An answer that may be sent. An image at `apply_offset` or later shows its effect."""

    response: R
    apply_offset: int


class Reign:
    """See the module. Made when this voter becomes the controller; dropped when that ends.

    `fail` stops the node; it is called when a decision of the controller itself breaks an
    invariant.
    """

    def __init__(
        self,
        epoch: int,
        image: MetadataImage,
        raft: Proposer,
        context: Callable[[int], Context],
        fail: Callable[[str], None],
    ) -> None:
        self.epoch = epoch
        #: The committed image.
        self.image = image
        #: The committed image plus all proposed events. The next proposal begins at its offset.
        self.pending = image
        self.is_over = False
        #: Whether a full log took only a part of a large Outcome. A sweep for all brokers then
        #: completes it.
        self.is_torn = False
        #: The function that is called with each batch in the turn in which it is proposed.
        self.when_proposed: Callable[[Sequence[MetadataEvent]], None] = _ignore
        self._raft = raft
        self._context = context
        self._fail = fail
        self._committed = ReachedOffset(WAITERS_MAX, "requests wait for their commit", image.offset)

    def attempt(self, what: str, decision: Decision[R]) -> R | None:
        """Make a decision that no request asked for: fencing, unfencing, sweeps, elections.

        Returns None if its events could not be proposed. The cause is still in the image, or the
        caller keeps it, so a later tick decides again. Brokers learn the decision by its commit.
        """
        try:
            return self.decide(decision)
        except (NotControllerError, OverloadedError, OutcomeUnknownError) as error:
            log.info("decision_dropped", what=what, reason=str(error), repeats=True)
        except Exception as error:
            log.exception("decision_failed", what=what)
            self._fail(f"the controller's decision to {what} broke: {error!r}")
        return None

    def decide(self, decision: Decision[R]) -> R:
        """Decide on the pending image and propose the events, without waiting for the commit.

        Raises the errors of the decision, and
        NotControllerError: this voter does not lead in this epoch any more;
        OverloadedError: the log is full, and nothing was proposed;
        OutcomeUnknownError: the log is full, and only a part was proposed.
        """
        self._check_reigns()
        outcome = decision(self.pending, self._context(self.pending.offset))
        self._propose(outcome.events)
        return outcome.response

    async def run(self, decision: Decision[R]) -> Decided[R]:
        """Decide, propose, and return when the answer may be sent.

        Raises the errors of the decision, after a round has proved that this voter still leads, and
        NotControllerError: leadership was lost, and nothing was proposed;
        OutcomeUnknownError: leadership was lost after a proposal, or the log took only a part;
        OverloadedError: the log is full or too many requests wait, and nothing was proposed;
        UnknownServerError: the decision contradicts itself, and nothing was proposed.
        """
        self._committed.check_room()
        self._check_reigns()
        before = self.pending.offset
        try:
            response = self._decide_for_request(decision)
        except NotControllerError:
            if self.pending.offset > before or self.is_over:
                raise OutcomeUnknownError("the reign ended amid a change") from None
            raise
        except (OverloadedError, OutcomeUnknownError, UnknownServerError):
            raise
        except QuorateError:
            await self._wait_committed(before, has_proposed=False)
            raise
        after = self.pending.offset
        await self._wait_committed(after, has_proposed=after > before)
        return Decided(response, after)

    async def run_in_turns(self, step: Decision[bool]) -> int:
        """Decide step after step, one in each turn of the loop, until a step returns True.

        Returns the offset one past the events of all steps, when they are committed. Raises the
        errors of `run`; OutcomeUnknownError if an earlier step was proposed already.
        """
        has_proposed = is_done = False
        try:
            while not is_done:
                before = self.pending.offset
                is_done = self._decide_for_request(step)
                has_proposed = has_proposed or self.pending.offset > before
                if self.pending.offset - self.image.offset > UNCOMMITTED_MAX:
                    await self._wait_committed(self.pending.offset, has_proposed=has_proposed)
                await asyncio.sleep(0)
            after = self.pending.offset
            await self._wait_committed(after, has_proposed=has_proposed)
        except (NotControllerError, OverloadedError) as error:
            if has_proposed:
                raise OutcomeUnknownError(f"only a part of the change was made: {error}") from error
            raise
        return after

    async def run_parts(
        self, decide: Callable[[MetadataImage, Q, Context], Outcome[R]], parts: Sequence[Q]
    ) -> Decided[list[R]]:
        """Decide the parts of a request, one in each turn of the loop; return all their answers.

        Raises the errors of `run_in_turns`.
        """
        if len(parts) == 1:
            only = await self.run(lambda image, context: decide(image, parts[0], context))
            return Decided([only.response], only.apply_offset)
        responses: list[R] = []

        def step(image: MetadataImage, context: Context) -> Outcome[bool]:
            outcome = decide(image, parts[len(responses)], context)
            responses.append(outcome.response)
            return Outcome(outcome.events, len(responses) == len(parts))

        end = await self.run_in_turns(step)
        return Decided(responses, end)

    async def confirm(self) -> None:
        """Return when everything decided so far is committed and this voter still leads."""
        await self._wait_committed(self.pending.offset, has_proposed=False)

    def committed(self, image: MetadataImage) -> None:
        """Answer the requests that waited for this image."""
        self.image = image
        self._committed.advance(image.offset)

    def end(self) -> None:
        """End the reign: fail every request that waits for a commit."""
        self.is_over = True
        self._committed.end(_not_controller())

    def _decide_for_request(self, decision: Decision[R]) -> R:
        """Decide for a request. Raises UnknownServerError if the decision fails an assertion.

        Such a failure does not stop the node. Nothing was proposed, so the image is intact; and the
        same request would stop the next controller too.
        """
        try:
            return self.decide(decision)
        except AssertionError as error:
            log.exception("decision_refused")
            raise UnknownServerError(
                f"the controller's decision contradicts itself: {error}"
            ) from error

    def _check_reigns(self) -> None:
        if self.is_over:
            raise _not_controller()

    def _propose(self, events: Sequence[MetadataEvent]) -> None:
        image, parts = self.pending, []
        for part in split(events):  # the replay asserts all parts before one is proposed
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

    async def _wait_committed(self, offset: int, *, has_proposed: bool) -> None:
        """Wait until everything below `offset` is committed and this voter is known to lead.

        The commit of an own proposal proves both. Without a proposal, a round is needed. An earlier
        proposal that commits meanwhile is no proof: its acknowledgements may be older than the
        decision.
        """
        if not has_proposed:
            await self._raft.read_round()
            self._check_reigns()
        lost = OutcomeUnknownError("the controller lost its reign before the change was committed")
        await self._committed.wait(offset, if_ended=lost if has_proposed else _not_controller())


def _ignore(events: Sequence[MetadataEvent]) -> None:
    """Do nothing: no part of the controller has subscribed."""


def _not_controller() -> NotControllerError:
    return NotControllerError("this voter is not the controller any more")
