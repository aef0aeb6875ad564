"""The brokers' leases in one reign: heartbeat streams, and what the controller does of itself.

The machines decide (liveness: who is alive; Recovery: who may lead though it may lose); this
driver tells them what happened, dials, proposes what comes out, and pushes to each broker what
it must know in the turn in which it commits. It lives exactly as long as the reign, and all
silence is counted anew in each: no new controller fences for what it did not see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog

from quorate.errors import (
    FencedError,
    InvalidRequestError,
    NotControllerError,
    OutcomeUnknownError,
    OverloadedError,
    QuorateError,
)
from quorate.net.network import Answered, NoAnswer, Refused
from quorate_quorum.controller.decisions import brokers, topics
from quorate_quorum.controller.decisions.creation import abandon
from quorate_quorum.controller.decisions.liveness import (
    Dial,
    Effect,
    Fence,
    HandOver,
    Liveness,
    LivenessConfig,
)
from quorate_quorum.controller.decisions.lossy import LOSSY_PER_MESSAGE_MAX, replicas_lossy
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.decisions.recovery import AskEnds, Recover, Recovery, recover_all
from quorate_quorum.controller.decisions.settling import Settling, Slice
from quorate_quorum.controller.driver.reign import Decision, Reign
from quorate_quorum.controller.driver.session import Session
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import BrokerImage, MetadataImage
from quorate_quorum.node.bell import Bell
from quorate_quorum.node.environment import Environment
from quorate_quorum.v1.controller_pb2 import (
    HeartbeatRequest,
    HeartbeatResponse,
    LossyReplica,
    PartitionId,
    RegisterRequest,
)
from quorate_quorum.v1.events_pb2 import MetadataEvent

log = structlog.get_logger(__name__)

R = TypeVar("R")

SESSIONS_MAX = 10_000
DIALS_AT_ONCE_MAX = 64
ENDS_PER_MESSAGE_MAX = 10_000
FAILED_DIRECTORIES_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseConfig:
    """What the leases know of the configuration, in milliseconds."""

    heartbeat_interval_ms: int = 500
    session_timeout_ms: int = 3000
    disconnect_grace_ms: int = 500
    unclean_recovery_wait_ms: int = 60_000
    #: How often time is told to the machines; they count no more than this for one tick.
    tick_ms: int = 100


class LeaseRaft(Protocol):
    """The part of RaftNode that the leases need."""

    @property
    def leader_id(self) -> int: ...
    @property
    def leader_endpoint(self) -> str: ...
    def hand_over(self, *, for_silence: bool) -> None: ...


class Leases:
    """See the module."""

    def __init__(
        self,
        reign: Reign,
        raft: LeaseRaft,
        environment: Environment,
        config: LeaseConfig,
        fail: Callable[[str], None],
        *,
        handed_over_for_silence: bool,
    ) -> None:
        self.config = config
        self._reign = reign
        self._raft = raft
        self._environment = environment
        self._fail = fail
        self._image = reign.pending
        self._sessions: dict[int, Session] = {}
        self._streams = 0
        self._liveness = Liveness(
            LivenessConfig(
                session_timeout_ms=config.session_timeout_ms,
                disconnect_grace_ms=config.disconnect_grace_ms,
            ),
            self._now_ms(),
            unfenced=[(b.id, b.incarnation) for b in _sorted(reign.pending, fenced=False)],
            fenced=[(b.id, b.incarnation) for b in _sorted(reign.pending, fenced=True)],
            handed_over_for_silence=handed_over_for_silence,
            has_other_voter=len(reign.pending.voters) > 1,
        )
        #: Fences that a full log put off, by broker: (broker_epoch, reason).
        self._fences_put_off: dict[int, tuple[int, str]] = {}
        self._recovery = Recovery(config.unclean_recovery_wait_ms)
        self._settling = Settling()
        self._has_to_settle = Bell()
        #: One past all that a broker's registration or fencing asked of partitions, once known.
        self._outcome_ends: dict[int, int] = {}
        #: One past all that a broker's wish to shut down asked of partitions, once known.
        self._shutdown_ends: dict[int, int] = {}
        reign.when_proposed = self._proposed
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._dials = asyncio.Semaphore(DIALS_AT_ONCE_MAX)
        self._is_over = False

    # -- the reign

    def begin(self) -> None:
        """Complete what an earlier controller left, and let time run."""
        self._decide("abandon", abandon)
        self._settle_from([broker.id for broker in self._image.sorted_brokers()])
        self._settle_some()
        if self._is_over:
            return  # the voter failed meanwhile
        self._own(self._settle_for_good(), "leases-settle")
        self._ticking = self._own(self._tick_for_good(), "leases-tick")

    def end(self, failure: QuorateError) -> None:
        """The reign is over: every stream ends, and says where to go."""
        self._is_over = True
        for session in list(self._sessions.values()):
            session.end(failure)
        for task in self._tasks:
            task.cancel()

    async def ended(self) -> None:
        """Return when all tasks have ended."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def committed(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """An image is committed: tell the brokers that it speaks of."""
        self._image = image
        self._liveness.has_other_voter = len(image.voters) > 1
        self._recovery.changed(self._reign.pending, delta.changed_partitions)
        for broker_id in delta.changed_brokers:
            broker = image.brokers.get(broker_id)
            if broker is None and broker_id not in self._reign.pending.brokers:
                self._liveness.unregistered(broker_id)
            session = self._sessions.get(broker_id)
            if session is None:
                continue
            if broker is None or broker.epoch != session.broker_epoch:
                session.end(FencedError(f"broker {broker_id} was registered again"))
            session.bell.ring()
        self._ring_those_who_leave()

    # -- sessions

    def is_alive(self, broker_id: int) -> bool:
        """Whether a broker's registered incarnation is heard, or was a moment ago."""
        return self._liveness.session_lives(broker_id)

    def why_fenced(self, broker: BrokerImage) -> str:
        """Return what keeps a fenced broker from being unfenced."""
        session = self._sessions.get(broker.id)
        if session is None or session.broker_epoch != broker.epoch:
            return "it does not run, or cannot reach the controller"
        if session.wants_shutdown:
            return "it is shutting down"
        if session.wants_fence:
            return "it is starting, and has not opened its logs yet"
        why_not = brokers.may_unfence(
            self._reign.pending,
            broker.id,
            session.applied_offset,
            outcome_end=self._outcome_end(broker.id),
        )
        return why_not or "it comes back at this moment"

    def registered(self, request: RegisterRequest) -> None:
        """A registration has committed: the lease begins."""
        broker = self._reign.pending.brokers.get(request.broker_id)
        if self._is_over or broker is None or broker.incarnation != request.incarnation:
            return
        if broker.fenced:
            self._shutdown_ends.pop(broker.id, None)
        self._carry_out(self._liveness.registered(broker.id, broker.incarnation))

    def open(self, first: HeartbeatRequest, image: MetadataImage) -> Session:
        """Begin a stream; the same broker's older one ends."""
        broker = image.brokers.get(first.broker_id)
        if broker is None or broker.epoch != first.broker_epoch:
            raise FencedError(
                f"broker {first.broker_id} is not registered with broker_epoch "
                f"{first.broker_epoch}: register again"
            )
        if broker.incarnation != first.incarnation:
            raise FencedError(f"broker {first.broker_id} is registered by another process")
        if len(self._sessions) >= SESSIONS_MAX:
            raise OverloadedError(f"the controller holds {SESSIONS_MAX} heartbeat streams")
        older = self._sessions.pop(first.broker_id, None)
        if older is not None:
            older.end(FencedError("a newer stream of this broker is open"))
        self._streams += 1
        session = self._sessions[first.broker_id] = Session(self, first, self._streams)
        self._carry_out(
            self._liveness.stream_opened(session.broker_id, session.incarnation, session.number)
        )
        session.take(first)
        return session

    def closed(self, session: Session) -> None:
        """A stream is gone; if it was the broker's last, it is suspected, or known to have left."""
        is_newest = self._sessions.get(session.broker_id) is session
        if is_newest:
            del self._sessions[session.broker_id]
        if self._is_over:
            return
        if is_newest and session.was_told_to_go:
            self._fence(session.broker_id, "it asked to leave, was allowed to, and left")
        else:
            self._carry_out(
                self._liveness.stream_broken(
                    session.broker_id, session.incarnation, session.number, self._now_ms()
                )
            )

    def heard(self, session: Session, request: HeartbeatRequest) -> None:
        """A broker spoke: step in what it said, and decide what follows."""
        broker_id = session.broker_id
        broker = self._reign.pending.brokers.get(broker_id)
        if broker is None or broker.epoch != session.broker_epoch:
            return  # a newer registration is on its way: an older run has nothing to say of it
        session.applied_offset = max(session.applied_offset, request.applied_offset)
        session.wants_fence = request.want_fence
        session.wants_shutdown = session.wants_shutdown or request.want_shutdown
        self._liveness.heard(broker_id, session.incarnation)
        if len(request.failed_directories) > FAILED_DIRECTORIES_MAX:
            session.end(InvalidRequestError("more failed directories than a broker may have"))
            return
        if request.failed_directories:
            failed = list(request.failed_directories)
            self._decide(
                "directories failed",
                lambda image, context: brokers.directories_failed(
                    image, broker_id, failed, context
                ),
            )
        if len(request.lossy_replicas) > LOSSY_PER_MESSAGE_MAX:
            session.end(InvalidRequestError("more lossy replicas than one heartbeat may name"))
            return
        if request.lossy_replicas:
            self._distrust(broker_id, list(request.lossy_replicas))
        if len(request.replica_ends) > ENDS_PER_MESSAGE_MAX:
            session.end(InvalidRequestError("more ends of replicas than one heartbeat may tell"))
            return
        if request.replica_ends:
            self._recovery.answered(broker_id, session.broker_epoch, request.replica_ends)
        if session.wants_shutdown:
            self._shut_down(session)
        elif not session.wants_fence:
            self._unfence(session)
        self._ring_those_who_leave()

    def broken(self, reason: str) -> None:
        """A machine broke an invariant: the node stops (law 11)."""
        log.exception("leases_broken")
        self._fail(f"the controller's leases cannot go on: {reason}")

    def answer(self, session: Session) -> HeartbeatResponse:
        """Return what the committed image says to a broker."""
        broker = self._image.brokers.get(session.broker_id)
        fenced = broker is None or broker.fenced or broker.epoch != session.broker_epoch
        ends, session.ends_wanted = (
            session.ends_wanted[:ENDS_PER_MESSAGE_MAX],
            session.ends_wanted[ENDS_PER_MESSAGE_MAX:],
        )
        if session.ends_wanted:
            session.bell.ring()
        if session.wants_shutdown and (fenced or self._may_go(session)):
            session.was_told_to_go = True
        return HeartbeatResponse(
            leader_id=self._raft.leader_id,
            leader_endpoint=self._raft.leader_endpoint,
            epoch=self._reign.epoch,
            fenced=fenced,
            should_shut_down=session.was_told_to_go,
            notify_offset=self._notify_offset(session, fenced=fenced),
            high_watermark=self._image.offset,
            interval_ms=self.config.heartbeat_interval_ms,
            ends_wanted=[PartitionId(topic_id=t, partition=p) for t, p in ends],
        )

    # -- what the controller decides of itself

    def _unfence(self, session: Session) -> None:
        broker_id = session.broker_id
        pending = self._reign.pending
        broker = pending.brokers.get(broker_id)
        if broker is None or not broker.fenced or broker.epoch != session.broker_epoch:
            return
        why_not = brokers.may_unfence(
            pending,
            broker_id,
            session.applied_offset,
            outcome_end=self._outcome_end(broker_id),
        )
        if why_not is None:
            log.info("broker_unfenced", broker=broker_id)
            if self._decide("unfence", lambda i, c: brokers.unfence(i, broker_id, c)):
                self._liveness.unfenced(broker_id)
                self._decide("raise internal topics", topics.raise_internal_topics)

    def _fence(self, broker_id: int, reason: str) -> None:
        broker = self._reign.pending.brokers.get(broker_id)
        if broker is None or broker.fenced:
            return
        say = log.info if broker.shutting_down else log.warning  # a clean leave is no warning
        say("broker_fenced", broker=broker_id, reason=reason)
        changed = self._decide("fence", lambda i, c: brokers.fence(i, broker_id, c))
        if changed is None:
            self._fences_put_off[broker_id] = broker.epoch, reason
        elif changed:
            self._liveness.fenced(broker_id)
            self._shutdown_ends.pop(broker_id, None)

    def _shut_down(self, session: Session) -> None:
        broker_id = session.broker_id
        broker = self._reign.pending.brokers.get(broker_id)
        if broker is None or broker.epoch != session.broker_epoch or broker.fenced:
            return
        if self._decide("shut down", lambda i, c: brokers.shut_down(i, broker_id, c)):
            log.info("broker_shuts_down", broker=broker_id)
        elif broker.shutting_down and self._settling.is_settled(broker_id):
            self._settle_from([broker_id])  # it may go by now where it had to stay

    def _distrust(self, broker_id: int, told: Sequence[LossyReplica]) -> None:
        count = self._decide("distrust", lambda i, c: replicas_lossy(i, broker_id, told, c))
        if count:
            log.warning("replicas_lossy", broker=broker_id, trusted_until_now=count)

    def _recover(self, effects: Iterable[AskEnds | Recover]) -> None:
        chosen: list[Recover] = []
        for effect in effects:
            if isinstance(effect, AskEnds):
                session = self._sessions.get(effect.broker_id)
                if session is not None:
                    session.ends_wanted = effect.partitions
                    session.bell.ring()
                continue
            log.warning(
                "partition_recovered_with_possible_loss",
                topic_id=effect.topic_id.hex(),
                partition=effect.partition,
                leader=effect.leader,
                reason=effect.reason,
            )
            chosen.append(effect)
        if chosen:
            self._decide("recover", lambda i, c: recover_all(i, chosen, c))

    def _may_go(self, session: Session) -> bool:
        """Whether all unfenced brokers know that this one leaves."""
        end = self._shutdown_ends.get(session.broker_id)
        if end is None or self._image.offset < end:
            return False
        if not self._settling.is_settled(session.broker_id):
            return False
        return all(
            (other := self._sessions.get(broker.id)) is not None and other.applied_offset >= end
            for broker in self._image.sorted_brokers()
            if not broker.fenced
        )

    def _notify_offset(self, session: Session, *, fenced: bool) -> int:
        """Return the next offset of which we want to hear at once; 0 if there is none."""
        wanted = list(self._shutdown_ends.values())
        end = self._outcome_end(session.broker_id)
        if fenced and end is not None:
            wanted.append(end)
        return min((end for end in wanted if end > session.applied_offset), default=0)

    def _outcome_end(self, broker_id: int) -> int | None:
        """One past all that a broker's state asked of partitions; None: not all is asked yet."""
        if not self._settling.is_settled(broker_id):
            return None
        return self._outcome_ends.get(broker_id)

    def _decide(self, what: str, decision: Decision[R]) -> R | None:
        """Decide and propose; nobody waits for the commit but the brokers it speaks of."""
        try:
            return self._reign.decide(decision)
        except (NotControllerError, OverloadedError, OutcomeUnknownError) as error:
            log.info(
                "decision_dropped", what=what, reason=str(error), repeats=True
            )  # seen again at a tick
            return None
        except Exception as error:
            log.exception("decision_failed", what=what)
            self._fail(f"the controller's decision to {what} broke: {error!r}")
            return None

    def _ring_those_who_leave(self) -> None:
        for broker_id in self._shutdown_ends:
            session = self._sessions.get(broker_id)
            if session is not None and session.wants_shutdown and self._may_go(session):
                session.bell.ring()

    # -- what a broker's state asks of partitions, some in each turn

    def _proposed(self, events: Sequence[MetadataEvent]) -> None:
        """Whoever decided it: a broker's new state is looked at in all partitions."""
        for event in events:
            if event.HasField("broker_change"):
                self._settle_from([event.broker_change.broker_id])
            elif event.HasField("register_broker"):
                self._settle_from([event.register_broker.broker_id])

    def _settle_from(self, broker_ids: Iterable[int]) -> None:
        self._settling.begin(broker_ids)
        self._has_to_settle.ring()

    async def _settle_for_good(self) -> None:
        while True:
            self._has_to_settle.reset()
            while self._settling.is_busy:
                if not self._settle_some():
                    await asyncio.sleep(self.config.tick_ms / 1000)  # the log is full
                await asyncio.sleep(0)
            await self._has_to_settle.wait(self.config.heartbeat_interval_ms)

    def _settle_some(self) -> bool:
        """Take one step; return whether it is proposed."""

        def step(image: MetadataImage, _: Context) -> Outcome[Slice]:
            part = self._settling.next(image)
            return Outcome(tuple(part.events), part)

        part = self._decide("settle", step)
        if part is None:
            return False
        self._recovery.changed(self._reign.pending, part.leaderless)
        for broker_id, has_changed in self._settling.took(part).items():
            self._settled(broker_id, has_changed)
        return True

    def _settled(self, broker_id: int, has_changed: bool) -> None:
        """All that a broker's state asked of partitions is proposed."""
        broker = self._reign.pending.brokers.get(broker_id)
        if broker is None:
            return
        end = self._reign.pending.offset
        if broker.fenced:
            self._outcome_ends[broker_id] = end
        elif broker.shutting_down and (has_changed or broker_id not in self._shutdown_ends):
            self._shutdown_ends[broker_id] = end
        elif not broker.shutting_down:
            return
        for session in self._sessions.values():
            session.bell.ring()  # they are asked to tell when they have applied it

    # -- time

    async def _tick_for_good(self) -> None:
        while True:
            await asyncio.sleep(self.config.tick_ms / 1000)
            for _ in range(3):  # frames that had arrived are stepped before time is
                await asyncio.sleep(0)
            self._make_up()
            self._carry_out(self._liveness.tick(self._now_ms()))
            self._recover(self._recovery.tick(self._reign.pending, self._now_ms()))

    def _make_up(self) -> None:
        """Do what a full log put off."""
        if self._reign.is_torn:
            self._reign.is_torn = False
            self._settle_from([broker.id for broker in self._reign.pending.sorted_brokers()])
        put_off, self._fences_put_off = self._fences_put_off, {}
        for broker_id, (epoch, reason) in put_off.items():
            broker = self._reign.pending.brokers.get(broker_id)
            if broker is not None and broker.epoch == epoch:
                self._fence(broker_id, reason)

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Dial(broker_id, number):
                    if self._ticking.cancelling():
                        continue  # the loop is closing around us: begin nothing new
                    self._own(self._dial(broker_id, number), f"dial-{broker_id}")
                case Fence(broker_id, reason):
                    self._fence(broker_id, reason)
                case HandOver(reason):
                    log.warning("controller_hands_over", reason=reason)
                    self._raft.hand_over(for_silence=True)

    async def _dial(self, broker_id: int, number: int) -> None:
        broker = self._reign.pending.brokers.get(broker_id)
        if broker is None:
            return
        async with self._dials:
            result = await self._environment.network.probe(
                broker.endpoint, timeout_ms=max(self.config.disconnect_grace_ms // 2, 1)
            )
        if self._is_over:
            return
        match result:
            case Refused():
                effects = self._liveness.dial_refused(broker_id, number)
            case NoAnswer():
                effects = self._liveness.dial_unanswered(broker_id, number)
            case Answered(_, incarnation):
                effects = self._liveness.dial_answered(broker_id, number, incarnation)
        self._carry_out(effects)

    # -- small things

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a task of the reign: it ends with it, and its failure is the node's."""
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and task.exception() is not None:
            log.error("leases_failed", task=task.get_name(), exc_info=task.exception())
            self._fail(f"the controller's task {task.get_name()} broke: {task.exception()!r}")

    def _now_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)


def _sorted(image: MetadataImage, *, fenced: bool) -> list[BrokerImage]:
    return [broker for broker in image.sorted_brokers() if broker.fenced == fenced]
