"""Carries out the effects of the Liveness machine: dials, fencings, handovers of leadership."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from quorate.net.network import Answered, Network, NoAnswer, Refused
from quorate_quorum.controller.decisions import brokers
from quorate_quorum.controller.decisions.liveness import Dial, Effect, Fence, HandOver, Liveness
from quorate_quorum.controller.driver.reign import Reign
from quorate_quorum.metadata.explanation import clause
from quorate_quorum.metadata.history import Cause

log = structlog.get_logger(__name__)

DIALS_AT_ONCE_MAX = 64


class Leadership(Protocol):
    """The part of RaftNode that Fencing needs: to hand leadership over."""

    def hand_over(self, *, for_silence: bool) -> None: ...


@dataclass(eq=False)
class Fencing:
    """Dials, fences and hands leadership over, as the Liveness machine decides.

    `spawn` runs a background task of the reign. While the tasks of the reign are being cancelled,
    `spawn` drops the task.
    """

    _liveness: Liveness
    _reign: Reign
    _raft: Leadership
    _network: Network
    _spawn: Callable[[Coroutine[Any, Any, None], str], object]
    dial_timeout_ms: int
    #: The fencings that wait because the log was full, by broker: (broker_epoch, cause).
    _put_off: dict[int, tuple[int, Cause]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._dials = asyncio.Semaphore(DIALS_AT_ONCE_MAX)

    def carry_out(self, effects: Iterable[Effect]) -> None:
        """Carry out effects of the machine."""
        for effect in effects:
            match effect:
                case Dial(broker_id, number):
                    self._spawn(self._dial(broker_id, number), f"dial-{broker_id}")
                case Fence(_, because):
                    self.fence(because)
                case HandOver(reason):
                    log.warning("controller_hands_over", reason=reason)
                    self._raft.hand_over(for_silence=True)

    def fence(self, because: Cause) -> None:
        """Fence the broker that the cause names.

        If the metadata log takes no more proposals, a later tick tries again.
        """
        broker_id = because.broker_id
        broker = self._reign.pending.brokers.get(broker_id)
        if broker is None or broker.fenced:
            return
        # An announced stop needs no warning.
        say = log.info if broker.shutting_down else log.warning
        say("broker_fenced", broker=broker_id, reason=clause(because, "it"))
        has_changed = self._reign.attempt(
            "fence", lambda i, _: brokers.fence(i, broker_id, because)
        )
        if has_changed is None:
            self._put_off[broker_id] = broker.epoch, because
        elif has_changed:
            self._liveness.fenced(broker_id)

    def fence_put_off(self) -> None:
        """Try again to fence the brokers for which the log was full, unless they registered again.

        A broker that registered again is fenced already.
        """
        put_off, self._put_off = self._put_off, {}
        for broker_id, (epoch, because) in put_off.items():
            broker = self._reign.pending.brokers.get(broker_id)
            if broker is not None and broker.epoch == epoch:
                self.fence(because)

    async def _dial(self, broker_id: int, number: int) -> None:
        broker = self._reign.pending.brokers.get(broker_id)
        if broker is None:
            return
        async with self._dials:
            result = await self._network.probe(broker.endpoint, timeout_ms=self.dial_timeout_ms)
        if self._reign.is_over:
            return
        match result:
            case Refused():
                effects = self._liveness.dial_refused(broker_id, number)
            case NoAnswer():
                effects = self._liveness.dial_unanswered(broker_id, number)
            case Answered(_, incarnation):
                effects = self._liveness.dial_answered(broker_id, number, incarnation)
        self.carry_out(effects)
