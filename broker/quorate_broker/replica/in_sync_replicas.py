"""The ISR of one reign: the committed one, the proposed one, and the largest possible one.

A machine, and a part of the Leader. The controller decides the ISR. The leader proposes a change
(AlterPartition), and learns the result later: a refusal from the answer, a new ISR from the image.
Until it has learnt the result, it does not know whether the old or the proposed ISR is valid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from quorate_quorum.metadata.history import Cause
from quorate_quorum.v1 import events_pb2 as ev


@dataclass(frozen=True, slots=True)
class Proposal:
    """An ISR that the leader proposes to the controller, as a change of state `partition_epoch`."""

    leader_epoch: int
    partition_epoch: int
    #: (broker_id, broker_epoch) of each member, in the order of broker_id.
    members: tuple[tuple[int, int], ...]
    #: Why brokers leave or enter the ISR, a cause for each. The controller writes them down.
    causes: tuple[Cause, ...] = field(default=(), compare=False)

    @property
    def is_lossy(self) -> bool:
        """Whether the leader leaves itself out because its log is damaged."""
        return any(cause.kind == ev.CAUSE_KIND_LEADER_DAMAGED for cause in self.causes)

    @property
    def isr(self) -> tuple[int, ...]:
        return tuple(broker_id for broker_id, _ in self.members)


def maximal_isr(*sets: Iterable[int]) -> tuple[int, ...]:
    """Return the union, sorted: every broker that may be in the controller's ISR now.

    >>> maximal_isr((3, 1), (2, 1))
    (1, 2, 3)
    """
    return tuple(sorted({broker_id for members in sets for broker_id in members}))


@dataclass(slots=True, kw_only=True)
class InSyncReplicas:
    """The ISR of one reign: see the module.

    Invariant: every broker that may be in the controller's ISR is in `maximal`. The controller may
    elect any of them, so a record that one of them lacks must not count as committed.
    """

    broker_id: int
    #: The partition_epoch of the state that `committed` comes from.
    partition_epoch: int
    #: The ISR that the controller committed last, as far as this leader knows.
    committed: tuple[int, ...]
    #: After the answer to a proposal is lost, the proposal can still reach the controller within
    #: this time, but not later.
    doubt_ms: int
    maximal: tuple[int, ...] = ()
    #: The proposal that is neither committed nor refused; None if there is none.
    proposal: Proposal | None = None
    _is_in_flight: bool = False
    _lost_ms: int | None = None
    #: The answer to a proposal was lost, and a second try was refused. The controller may still
    #: commit the first try. So the members of the proposal count in `maximal` until the
    #: partition_epoch changes or doubt_ms have passed. Broker id -> when the answer was lost.
    _doubtful: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._recount()

    def ask(self, now_ms: int, wanted: Callable[[], Proposal | None]) -> Proposal | None:
        """Return the proposal to send now: the undecided one, or if there is none, `wanted()`."""
        self._forget_doubts(now_ms)
        if self._is_in_flight:
            return None
        if self.proposal is None:
            self.proposal = wanted()
            self._recount()
        self._is_in_flight = self.proposal is not None
        return self.proposal

    @property
    def is_decided(self) -> bool:
        """Whether the controller surely has the committed ISR, and no other."""
        return self.proposal is None and self.maximal == self.committed

    def decided(self, partition_epoch: int, isr: Sequence[int]) -> None:
        """Take over a newer state from the controller.

        The state decides every earlier proposal: either it contains the proposal, or the controller
        will never accept the proposal.
        """
        self.partition_epoch = partition_epoch
        self.committed = tuple(sorted(isr))
        self._doubtful.clear()
        self._drop_proposal()
        self._recount()

    def refused(self, proposal: Proposal) -> None:
        """Return to the committed ISR, because the controller refused the proposal (KIP-841)."""
        if proposal is not self.proposal:
            return
        if self._lost_ms is not None:
            for broker_id in proposal.isr:
                self._doubtful[broker_id] = self._lost_ms
        self._drop_proposal()
        self._recount()

    def lost(self, proposal: Proposal, now_ms: int) -> None:
        """Keep the proposal, to send it again. It got no answer, or one that decides nothing."""
        if proposal is self.proposal:
            self._is_in_flight = False
            self._lost_ms = now_ms

    def _drop_proposal(self) -> None:
        self.proposal = None
        self._is_in_flight = False
        self._lost_ms = None

    def _forget_doubts(self, now_ms: int) -> None:
        if not self._doubtful:
            return
        self._doubtful = {
            broker_id: lost_ms
            for broker_id, lost_ms in self._doubtful.items()
            if now_ms - lost_ms <= self.doubt_ms
        }
        self._recount()

    def _recount(self) -> None:
        isr = self.committed
        assert self.broker_id in isr, f"leader {self.broker_id} is not in its ISR {isr}"
        proposed = self.proposal.isr if self.proposal is not None else ()
        self.maximal = maximal_isr(isr, proposed, self._doubtful)
