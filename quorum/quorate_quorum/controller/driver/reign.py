"""One reign of the controller: the pending image, its proposals, and the requests that wait.

A reign is the time in which this voter leads the quorum in one epoch. Each decision is made without
waiting, on the pending image (committed plus proposed), so it sees all decisions before it.

An answer is sent only after its change is committed. A decision without events waits, too: until
the whole image that it saw is committed, and until a round has proved that this voter still leads.
Otherwise a deposed leader would answer from an old image (Redpanda, issue 3003).
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
#: If more events than this are uncommitted, run_in_turns waits for their commit.
UNCOMMITTED_MAX = 5_000


class Proposer(Protocol):
    """The part of RaftNode that a reign needs."""

    def propose(self, epoch: int, events: Sequence[MetadataEvent]) -> int:
        """Propose a batch, and return its base offset. NotControllerError if not the leader."""

    async def read_round(self) -> int:
        """Prove that this node still leads. Return the high watermark that must be applied."""


@dataclass(frozen=True, slots=True)
class Decided(Generic[R]):
    """An answer that may be sent. Its effect is in each image from `apply_offset` on."""

    response: R
    apply_offset: int


def _ignore(events: Sequence[MetadataEvent]) -> None:
    """Do nothing: the default of those that are told of a proposed batch."""


@dataclass(eq=False)
class Reign:
    """Makes decisions and proposes their events, while this voter is the controller.

    `fail` stops the node. It is called when a decision that no request asked for breaks an
    invariant.
    """

    epoch: int
    #: The committed image.
    image: MetadataImage
    _raft: Proposer
    _context: Callable[[int], Context]
    _fail: Callable[[str], None]
    is_over: bool = False
    #: Whether the log took only a part of a large Outcome. If so, a sweep for all brokers completes
    #: the Outcome.
    is_torn: bool = False
    #: Called with each batch, in the turn of the event loop in which the batch is proposed.
    when_proposed: Callable[[Sequence[MetadataEvent]], None] = _ignore

    def __post_init__(self) -> None:
        #: The committed image plus all proposed events. The next proposal begins at its offset.
        self.pending = self.image
        self._watches: list[Callable[[Sequence[MetadataEvent]], None]] = []
        self._committed = ReachedOffset(
            WAITERS_MAX, "requests wait for their commit", self.image.offset
        )

    def attempt(self, what: str, decision: Decision[R]) -> R | None:
        """Make a decision that no request asked for: a fencing, unfencing, sweep or election.

        Return its response; None if its events could not be proposed. A later tick decides again:
        the image still has the cause, or the caller keeps it. Brokers learn of the decision when it
        is committed.
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
        """Decide and propose, then wait until the answer may be sent, and return it.

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

    async def run_in_turns(
        self,
        step: Decision[bool],
        watch: Callable[[Sequence[MetadataEvent]], None] = _ignore,
    ) -> int:
        """Call `step` once in each turn of the event loop, until its response is True.

        `watch`: called with each batch that any decision proposes meanwhile.

        Wait for the commit of all its events, and return the offset one past them. Raises the
        errors of `run`; OutcomeUnknownError if an earlier call's events were proposed already.
        """
        self._committed.check_room()
        has_proposed = is_done = False
        self._watches.append(watch)
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
        finally:
            self._watches.remove(watch)
        return after

    async def run_parts(
        self, decide: Callable[[MetadataImage, Q, Context], Outcome[R]], parts: Sequence[Q]
    ) -> Decided[list[R]]:
        """Decide the parts of a request, one in each turn of the event loop. Return all answers.

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
        """Wait until all decisions so far are committed and a round has proved the leadership."""
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

        The node does not stop, because nothing was proposed and the image is intact. If the node
        stopped, the repeated request would stop the next controller, too.
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
        now_ms = self._context(image.offset).now_ms
        for part in split(events):  # replay all parts before one is proposed: a replay asserts
            image = replayed(image, part, epoch=self.epoch, time_ms=now_ms)
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
            for told in (self.when_proposed, *self._watches):
                told(part)

    async def _wait_committed(self, offset: int, *, has_proposed: bool) -> None:
        """Wait until all records below `offset` are committed, and this voter is known to lead.

        The commit of an own proposal proves both. Without a proposal, a round is needed. An earlier
        proposal that commits meanwhile is no proof: its acknowledgements may be older than the
        decision.
        """
        if not has_proposed:
            await self._raft.read_round()
            self._check_reigns()
        lost = OutcomeUnknownError("the controller lost its reign before the change was committed")
        await self._committed.wait(offset, if_ended=lost if has_proposed else _not_controller())


def _not_controller() -> NotControllerError:
    return NotControllerError("this voter is not the controller any more")
