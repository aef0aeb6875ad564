"""Keeps the brokers' leases in one reign: takes their heartbeats, and returns the answers.

Liveness decides which brokers are alive. Sweep decides how partitions follow the state of a broker.
LossyElections decides which replica leads although records may be lost. This driver passes events
to these machines, and answers each broker in the turn of the event loop in which a decision for it
is committed.

Leases live exactly as long as the reign. Silence counts from zero in each reign: a new controller
fences no broker for a silence that it did not observe itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import structlog

from quorate.aio.clock import loop_ms
from quorate.aio.tasks import Tasks
from quorate.errors import FencedError, InvalidRequestError, QuorateError
from quorate_quorum.controller.decisions import brokers
from quorate_quorum.controller.decisions.brokers import DIRECTORIES_MAX
from quorate_quorum.controller.decisions.creation import abandon
from quorate_quorum.controller.decisions.free_space import FreeSpace
from quorate_quorum.controller.decisions.liveness import Liveness
from quorate_quorum.controller.decisions.lossy_elections import LossyElections
from quorate_quorum.controller.decisions.lossy_replicas import LOSSY_PER_MESSAGE_MAX, replicas_lossy
from quorate_quorum.controller.driver.balance import balance
from quorate_quorum.controller.driver.elections import Elections
from quorate_quorum.controller.driver.fencing import Fencing, Leadership
from quorate_quorum.controller.driver.raiser import Raiser
from quorate_quorum.controller.driver.reign import Reign
from quorate_quorum.controller.driver.sessions import Session, Sessions
from quorate_quorum.controller.driver.sweeper import Sweeper
from quorate_quorum.metadata.brokers import BrokerImage
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.history import Cause
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.config import QuorumConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.v1 import events_pb2 as ev
from quorate_quorum.v1.controller_pb2 import (
    HeartbeatRequest,
    HeartbeatResponse,
    LossyReplica,
    PartitionId,
)

log = structlog.get_logger(__name__)

#: The time between two ticks of the machines. One tick adds at most this time to a silence.
TICK_MS = 100
ENDS_PER_MESSAGE_MAX = 10_000


class LeaseRaft(Leadership, Protocol):
    """The part of RaftNode that Leases needs."""

    @property
    def leader_id(self) -> int: ...
    @property
    def leader_endpoint(self) -> str: ...


class Leases:
    """The leases of all brokers in one reign."""

    def __init__(
        self,
        reign: Reign,
        raft: LeaseRaft,
        environment: Environment,
        config: QuorumConfig,
        fail: Callable[[str], None],
        *,
        free_space: FreeSpace,
        handed_over_for_silence: bool,
    ) -> None:
        self.config = config
        self._free_space = free_space
        self._reign = reign
        self._raft = raft
        self._fail = fail
        self._tasks = Tasks(self._task_failed)
        self._ticking: asyncio.Task[None] | None = None
        self.liveness = _liveness(reign.pending, config, handed_over_for_silence)
        self.sessions = Sessions()
        self.fencing = Fencing(
            self.liveness,
            reign,
            raft,
            environment.network,
            self._spawn,
            dial_timeout_ms=max(config.broker_disconnect_grace_ms // 2, 1),
        )
        self._lossy_elections = LossyElections(config.unclean_recovery_wait_ms)
        self.elections = Elections(self._lossy_elections, reign, self.sessions)
        idle_ms = config.broker_heartbeat_interval_ms
        self.sweeper = Sweeper(reign, self.sessions, self._lossy_elections, TICK_MS, idle_ms)
        self.raiser = Raiser(reign, TICK_MS, 1000 * config.leader_imbalance_check_interval_seconds)

    # -- the reign

    def begin(self) -> None:
        """Complete the changes that an earlier controller left unfinished, and start the ticks."""
        self._reign.attempt("abandon", abandon)
        self.sweeper.sweep_all()
        self.sweeper.take_step()
        if self._reign.is_over:
            return  # a decision has broken an invariant, so the node stops
        self._tasks.spawn(self.sweeper.run(), "leases-sweep")
        self._tasks.spawn(self.raiser.run(), "leases-raise")
        self._tasks.spawn(balance(self._reign, self.config), "leases-balance")
        self._ticking = self._tasks.spawn(self._tick_for_good(), "leases-tick")

    def end(self, failure: QuorateError) -> None:
        """End every stream with `failure`. The last answer on it names the new leader."""
        self.sessions.end_all(failure)
        self._tasks.cancel(*self._tasks)

    async def ended(self) -> None:
        """Wait until all tasks have ended."""
        await self._tasks.ended()

    def committed(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Take in a committed image, and answer the brokers whose state changed."""
        self.liveness.hearing.has_other_voter = len(image.voters) > 1
        self._lossy_elections.changed(self._reign.pending, delta.topics.changed_partitions)
        for broker_id in delta.brokers.changed:
            broker = image.brokers.get(broker_id)
            if broker is None and broker_id not in self._reign.pending.brokers:
                self.liveness.unregistered(broker_id)
            session = self.sessions.get(broker_id)
            if session is None:
                continue
            if broker is None or broker.epoch != session.broker_epoch:
                session.end(FencedError(f"broker {broker_id} was registered again"))
            session.bell.ring()
        self._ring_those_who_may_go()

    # -- requests

    def is_alive(self, broker_id: int) -> bool:
        """Return whether a broker's registered incarnation is heard (Liveness.session_lives)."""
        return self.liveness.session_lives(broker_id)

    def why_fenced(self, broker: BrokerImage) -> str:
        """Return the reason why a fenced broker stays fenced."""
        session = self.sessions.get(broker.id)
        if session is None or session.broker_epoch != broker.epoch:
            return "it does not run, or cannot reach the controller"
        silence = self.liveness.silence(broker.id)
        if silence is not None:
            return f"{silence}, but its connection is open: it is paused, stuck or cut off"
        if session.wants_shutdown:
            return "it is shutting down"
        if session.wants_fence:
            return "it is starting, and has not opened its logs yet"
        return self._why_not_unfence(session) or "it comes back at this moment"

    def registered(self, broker_id: int, incarnation: bytes) -> None:
        """Begin the lease of a registration that is committed."""
        broker = self._reign.pending.brokers.get(broker_id)
        if not self._reign.is_over and broker is not None and broker.incarnation == incarnation:
            self.fencing.carry_out(self.liveness.registered(broker_id, incarnation))

    # -- sessions

    def open(self, first: HeartbeatRequest) -> Session:
        """Begin a broker's session.

        Raises FencedError if this run of the broker is not the registered one.
        Raises OverloadedError if too many sessions are open.
        """
        broker = self._reign.image.brokers.get(first.broker_id)
        if broker is None or broker.epoch != first.broker_epoch:
            raise FencedError(
                f"broker {first.broker_id} is not registered with broker_epoch "
                f"{first.broker_epoch}: register again"
            )
        if broker.incarnation != first.incarnation:
            raise FencedError(f"broker {first.broker_id} is registered by another process")
        session = self.sessions.open(first)
        self.fencing.carry_out(
            self.liveness.stream_opened(session.broker_id, session.incarnation, session.number)
        )
        self.take(session, first)
        return session

    def close(self, session: Session) -> None:
        """End a session whose stream is gone.

        If the broker was told that it may stop, fence the broker first: the end of a fenced
        broker's stream is no sign that this controller is cut off. Liveness is told of every end: a
        broker with an open stream counts as running, so its id and address stay taken.
        """
        is_newest = self.sessions.close(session)
        if self._reign.is_over:
            return
        if is_newest and session.was_told_to_go:
            self.fencing.fence(Cause(ev.CAUSE_KIND_BROKER_STOPPED, session.broker_id))
        self.fencing.carry_out(
            self.liveness.stream_broken(
                session.broker_id, session.incarnation, session.number, loop_ms()
            )
        )

    def take(self, session: Session, request: HeartbeatRequest) -> None:
        """Pass a heartbeat to the machines. A broken invariant stops the node."""
        if session.is_over:
            return
        try:
            self._heard(session, request)
        except InvalidRequestError as error:
            session.end(error)
        except Exception as error:
            log.exception("leases_broken")
            self._fail(
                "the controller's leases cannot go on:"
                f" what broker {session.broker_id} said broke it: {error!r}"
            )
            raise

    def answer(self, session: Session) -> HeartbeatResponse:
        """Return the answer to a broker, from the committed image."""
        broker = self._reign.image.brokers.get(session.broker_id)
        fenced = broker is None or broker.fenced or broker.epoch != session.broker_epoch
        ends, session.ends_wanted = (
            session.ends_wanted[:ENDS_PER_MESSAGE_MAX],
            session.ends_wanted[ENDS_PER_MESSAGE_MAX:],
        )
        if session.ends_wanted:
            session.bell.ring()
        if session.wants_shutdown and (fenced or self.may_go(session)):
            session.was_told_to_go = True
        return HeartbeatResponse(
            leader_id=self._raft.leader_id,
            leader_endpoint=self._raft.leader_endpoint,
            epoch=self._reign.epoch,
            fenced=fenced,
            should_shut_down=session.was_told_to_go,
            notify_offset=self._notify_offset(session, fenced=fenced),
            high_watermark=self._reign.image.offset,
            interval_ms=self.config.broker_heartbeat_interval_ms,
            ends_wanted=[PartitionId(topic_id=t, partition=p) for t, p in ends],
        )

    def may_go(self, session: Session) -> bool:
        """Return whether all unfenced brokers have applied what a broker's shutdown has changed."""
        end = self.sweeper.shutdown_ends.get(session.broker_id)
        if end is None or self._reign.image.offset < end:
            return False
        if not self.sweeper.is_swept(session.broker_id):
            return False
        return all(
            (other := self.sessions.get(broker.id)) is not None and other.applied_offset >= end
            for broker in self._reign.image.sorted_brokers()
            if not broker.fenced
        )

    def _notify_offset(self, session: Session, *, fenced: bool) -> int:
        """Return the offset that the broker must report as soon as it has applied it; 0: none."""
        wanted = list(self.sweeper.shutdown_ends.values())
        end = self.sweeper.fencing_end(session.broker_id)
        if fenced and end is not None:
            wanted.append(end)
        return min((end for end in wanted if end > session.applied_offset), default=0)

    def _ring_those_who_may_go(self) -> None:
        for broker_id in self.sweeper.shutdown_ends:
            session = self.sessions.get(broker_id)
            if session is not None and session.wants_shutdown and self.may_go(session):
                session.bell.ring()

    # -- heartbeats

    def _heard(self, session: Session, request: HeartbeatRequest) -> None:
        broker = self._reign.pending.brokers.get(session.broker_id)
        if broker is None or broker.epoch != session.broker_epoch:
            return  # ignore the older run, because a newer registration is proposed
        session.applied_offset = max(session.applied_offset, request.applied_offset)
        session.wants_fence = request.want_fence
        session.wants_shutdown = session.wants_shutdown or request.want_shutdown
        self.liveness.heard(broker.id, session.incarnation)
        self._look_at_directories(broker.id, request)
        if request.lossy_replicas:
            self._distrust(broker.id, request.lossy_replicas)
        if request.replica_ends:
            _check_count(request.replica_ends, ENDS_PER_MESSAGE_MAX, TOO_MANY_ENDS)
            self._lossy_elections.answered(broker.id, broker.epoch, request.replica_ends)
        if session.wants_shutdown:
            self.shut_down(session)
        elif not session.wants_fence:
            self.unfence(session)
        self._ring_those_who_may_go()

    def _look_at_directories(self, broker_id: int, request: HeartbeatRequest) -> None:
        failed = list(request.failed_directories)
        _check_count(failed, DIRECTORIES_MAX, TOO_MANY_DIRECTORIES)
        self._free_space.told(broker_id, request.directory_spaces[:DIRECTORIES_MAX])
        if failed:
            self._reign.attempt(
                "directories failed", lambda i, _: brokers.directories_failed(i, broker_id, failed)
            )

    def _distrust(self, broker_id: int, told: Sequence[LossyReplica]) -> None:
        _check_count(told, LOSSY_PER_MESSAGE_MAX, TOO_MANY_LOSSY)
        count = self._reign.attempt("distrust", lambda i, _: replicas_lossy(i, broker_id, told))
        if count:
            log.warning("replicas_lossy", broker=broker_id, trusted_until_now=count)

    def unfence(self, session: Session) -> None:
        """Unfence a broker, if it may be unfenced."""
        broker = self._reign.pending.brokers.get(session.broker_id)
        if broker is None or not broker.fenced or broker.epoch != session.broker_epoch:
            return
        if self._why_not_unfence(session) is None:
            log.info("broker_unfenced", broker=broker.id)
            if self._reign.attempt("unfence", lambda i, _: brokers.unfence(i, broker.id)):
                self.liveness.unfenced(broker.id)
                self.raiser.look()

    def _why_not_unfence(self, session: Session) -> str | None:
        return brokers.may_unfence(
            self._reign.pending,
            session.broker_id,
            session.applied_offset,
            outcome_end=self.sweeper.fencing_end(session.broker_id),
        )

    def shut_down(self, session: Session) -> None:
        """Begin a broker's shutdown: it loses leadership and its places in ISRs."""
        broker = self._reign.pending.brokers.get(session.broker_id)
        if broker is None or broker.epoch != session.broker_epoch or broker.fenced:
            return
        if self._reign.attempt("shut down", lambda i, _: brokers.shut_down(i, broker.id)):
            log.info("broker_shuts_down", broker=broker.id)
        elif broker.shutting_down and self.sweeper.is_swept(broker.id):
            # The broker stayed in an ISR as the last member. Another replica may have joined since.
            self.sweeper.sweep([broker.id])

    # -- time and tasks

    async def _tick_for_good(self) -> None:
        while True:
            await asyncio.sleep(TICK_MS / 1000)
            for _ in range(3):  # take in what has arrived, before time counts as silence
                await asyncio.sleep(0)
            self.sweeper.complete_torn()
            self.fencing.fence_put_off()
            self.fencing.carry_out(self.liveness.tick(loop_ms()))
            self.elections.tick(loop_ms())

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a task that ends with the reign. If the task fails, the node stops."""
        if self._ticking is not None and self._ticking.cancelling():
            work.close()  # the event loop is closing: begin no new task
        else:
            self._tasks.spawn(work, name)

    def _task_failed(self, name: str, error: BaseException) -> None:
        log.error("leases_failed", task=name, exc_info=error)
        self._fail(f"the controller's task {name} broke: {error!r}")


TOO_MANY_DIRECTORIES = "more log directories than a broker may have"
TOO_MANY_LOSSY = "more lossy replicas than one heartbeat may name"
TOO_MANY_ENDS = "more ends of replicas than one heartbeat may tell"


def _check_count(told: Sequence[object], count_max: int, message: str) -> None:
    if len(told) > count_max:
        raise InvalidRequestError(message)


def _liveness(
    image: MetadataImage, config: QuorumConfig, handed_over_for_silence: bool
) -> Liveness:
    registered = image.sorted_brokers()
    return Liveness(
        loop_ms(),
        session_timeout_ms=config.broker_session_timeout_ms,
        disconnect_grace_ms=config.broker_disconnect_grace_ms,
        unfenced=[(b.id, b.incarnation) for b in registered if not b.fenced],
        fenced=[(b.id, b.incarnation) for b in registered if b.fenced],
        handed_over_for_silence=handed_over_for_silence,
        has_other_voter=len(image.voters) > 1,
    )
