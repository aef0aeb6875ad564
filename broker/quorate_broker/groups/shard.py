"""The coordinator of the groups of one partition, while this broker leads the partition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from quorate.aio.alarm import Alarm
from quorate.aio.backoff import Backoff
from quorate.aio.bell import Bell
from quorate.aio.clock import loop_ms
from quorate.aio.tasks import Tasks
from quorate.aio.turns import Turns
from quorate.errors import (
    CoordinatorLoadingError,
    NotCoordinatorError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    OverloadedError,
    QuorateError,
    RecordTooLargeError,
    RequestTimedOutError,
    StorageError,
    UnknownServerError,
)
from quorate_broker.groups.callers import Callers
from quorate_broker.groups.machine.config import GroupsConfig
from quorate_broker.groups.machine.shard import ShardMachine
from quorate_broker.groups.machine.topics import TopicChanges, Topics
from quorate_broker.groups.machine.values import PARKED, Heartbeat, MemberState, Parked, Step
from quorate_broker.groups.member_stream import MemberStream, MemberStreams
from quorate_broker.groups.replay import replay
from quorate_broker.groups.step_log import StepLog
from quorate_broker.replica.hints import hinted
from quorate_broker.replica.leader_replica import LeaderReplica
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.too_few_replicas import too_few_replicas

log = structlog.get_logger(__name__)

T = TypeVar("T")
#: One call of a machine, at a time of the loop's clock and a time since 1970.
Decide = Callable[[ShardMachine, int, int], Step[T]]
#: The same, with the ticket by which a later step answers.
DecideLater = Callable[[ShardMachine, int, int, int], Step[T | Parked]]

#: The waits between two loads of a shard whose appends fail.
RELOAD_MS = 50
RELOAD_MAX_MS = 2_000
#: The wait before a tick that cannot be carried out now is tried again.
TICK_AGAIN_MS = 100

#: Errors of an append that its caller gets as they are. All others become NotCoordinatorError.
TOLD = (
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    OverloadedError,
    RecordTooLargeError,
    StorageError,
)


@dataclass(frozen=True, slots=True)
class ShardHost:
    """What the shards of a broker share."""

    config: GroupsConfig
    #: How long a caller waits for the commit of its step.
    commit_timeout_ms: int
    wall_clock_ms: Callable[[], int]
    #: The topics of the image that the broker has carried out.
    topics: Callable[[], Topics]
    tasks: Tasks
    #: Limits what all loads together replay in one turn of the loop.
    turns: Turns
    make_machine: Callable[[GroupsConfig, Topics], ShardMachine] = ShardMachine


@dataclass(slots=True, eq=False)
class _Life:
    """One machine, from its load until it is dropped, and the log of its steps."""

    machine: ShardMachine
    steps: StepLog


class Shard:
    """The driver of one partition's machine, in one reign of this broker. The rules:

    * The machine is loaded by replay before it answers. Meanwhile callers get
      CoordinatorLoadingError.
    * The machine decides on its pending state; what it decided leaves after the commit (StepLog).
    * After a failed append the machine is dropped with all that waits, and loaded again: its state
      has what the log does not have.
    * Steps are made in turns of the event loop, so they never overlap.
    """

    def __init__(self, partition: Partition, leader: LeaderReplica, host: ShardHost) -> None:
        self.partition = partition
        self.leader = leader
        self._host = host
        self._life: _Life | None = None
        self._old_steps: StepLog | None = None
        self._callers = Callers()
        self._streams = MemberStreams()
        self._alarm = Alarm(self._tick)
        self._topics_changed: set[str] = set()
        self._backoff = Backoff(RELOAD_MS, RELOAD_MAX_MS)
        self._moved = Bell()
        self._unwatch = partition.watches.add(self._moved.ring)
        self.is_over = False
        self._loading = host.tasks.spawn(self._load(), f"load {partition.name}")

    @property
    def is_loaded(self) -> bool:
        return self._life is not None

    # -- calls

    async def call(self, decide: Decide[T], *, writes: bool = False) -> T:
        """Let the machine decide, and return its answer once it is committed.

        `writes`: the call is refused while the ISR is too small for a commit. Raises the error that
        the machine answers with, and
        CoordinatorLoadingError, NotCoordinatorError: ask again; for a call that changes something,
        it may have been carried out already;
        NotEnoughReplicasError: nothing was done; OverloadedError; RequestTimedOutError.
        """
        self._machine()
        if writes:
            self._check_replicas()
        ticket = self._callers.add()
        try:
            self._run(decide, partial(self._callers.answer, ticket))
            if self._callers.is_answered(ticket):  # a timeout costs more than such a step
                return await self._callers.wait(ticket)  # type: ignore[return-value]
            async with asyncio.timeout(self._host.commit_timeout_ms / 1000):
                return await self._callers.wait(ticket)  # type: ignore[return-value]
        except TimeoutError:
            raise RequestTimedOutError(
                f"{self.partition.name}: not committed within {self._host.commit_timeout_ms} ms; "
                "it may be later"
            ) from None
        finally:
            self._callers.remove(ticket)

    async def call_later(self, decide: DecideLater[T]) -> T:
        """Let the machine decide, and return the answer, which a later step may give.

        A round of a classic group takes as long as its members allow; whoever cannot wait so long
        cancels this. Raises as `call` with `writes`, but for RequestTimedOutError.
        """
        self._machine()
        self._check_replicas()
        ticket = self._callers.add()

        def answered(answer: object) -> None:
            if answer is not PARKED:
                self._callers.answer(ticket, answer)

        try:
            self._run(lambda m, now_ms, wall_ms: decide(m, ticket, now_ms, wall_ms), answered)
            return await self._callers.wait(ticket)  # type: ignore[return-value]
        finally:
            self._callers.remove(ticket)

    def _check_replicas(self) -> None:
        """Raise NotEnoughReplicasError while nothing could be committed."""
        if not self.leader.machine.has_enough_replicas:
            machine = self.leader.machine
            why = too_few_replicas(self.partition, machine.isr, machine.min_isr)
            raise NotEnoughReplicasError(f"nothing was done: {why}")

    # -- members' streams

    def open(self, stream: MemberStream) -> None:
        """Take a member's new stream. It takes the place of an older one. Raises as `call`."""
        machine = self._machine()
        self._streams.open(stream)
        machine.stream_opened(stream.group_id, stream.member_id, loop_ms())
        self._arm()

    async def heartbeat(self, stream: MemberStream, heartbeat: Heartbeat) -> None:
        """Pass on a member's message. Return when the stream has the answer, or is over.

        Raises as `call`; an answer of the machine is told on the stream, an error as well.
        """
        self._machine()
        ticket = self._callers.add()

        def answered(answer: MemberState | QuorateError) -> None:
            stream.tell(answer)
            self._callers.answer(ticket, None)

        try:
            self._run(lambda m, now_ms, wall_ms: m.heartbeat(heartbeat, now_ms, wall_ms), answered)
            # an error that drops the machine is told on the stream
            await self._callers.answered(ticket)
        finally:
            self._callers.remove(ticket)

    def close(self, stream: MemberStream) -> None:
        """Note that a stream is closed. The machine learns it unless the member has another one."""
        if self._streams.close(stream) and self._life is not None:
            self._life.machine.stream_broken(stream.group_id, stream.member_id, loop_ms())
            self._arm()

    # -- news

    def topics_changed(self, names: set[str]) -> None:
        """Let the machine see a newer image, in which these topics are others."""
        self._topics_changed |= names
        self._pass_topics_on()

    def end(self) -> None:
        """End the reign: every caller and stream is told to look for the new coordinator."""
        if self.is_over:
            return
        self.is_over = True
        self._unwatch()
        self._moved.ring()
        self._host.tasks.cancel(self._loading)
        self._drop(self._not_coordinator())

    # -- loading

    async def _load(self) -> None:
        """Load until it succeeds or the reign is over."""
        while not self.is_over:
            try:
                await self._load_once()
                return
            except QuorateError as error:
                if self.leader.is_over:
                    return  # the new role comes with a call of `end`
                log.warning("groups_not_loaded", partition=self.partition.name, reason=str(error))
            except Exception:
                # a record that the machine does not understand costs this partition, not the node
                log.exception("groups_not_loaded", partition=self.partition.name)
            await self._backoff.wait()

    async def _load_once(self) -> None:
        if self._old_steps is not None:
            await self._old_steps.settled()
        end = self.partition.log_end_offset
        while self.leader.machine.high_watermark < end and not self.leader.is_over:
            self._moved.reset()
            if self.leader.machine.high_watermark < end:
                await self._moved.wait(1000)
        self._topics_changed.clear()
        machine = self._host.make_machine(self._host.config, self._host.topics())
        started_ms = loop_ms()
        count = await replay(self.leader, end, machine, self._host.turns)
        if self.is_over or self.leader.is_over:
            return
        steps = StepLog(self.leader, self._host.wall_clock_ms, self._append_failed)
        self._life, self._old_steps = _Life(machine, steps), steps
        log.info(
            "groups_loaded",
            partition=self.partition.name,
            leader_epoch=self.leader.leader_epoch,
            records=count,
            ms=loop_ms() - started_ms,
        )
        self._try(lambda m, now_ms, wall_ms: m.loaded(now_ms, wall_ms))
        self._pass_topics_on()

    def _machine(self) -> ShardMachine:
        """Return the machine. Raise the error for a caller if it cannot answer now."""
        if self.is_over or self.leader.is_over:
            raise self._not_coordinator()
        if self._life is None:
            raise self._loading_error()
        self._life.steps.check_room()
        return self._life.machine

    def _not_coordinator(self) -> NotCoordinatorError:
        return hinted(
            NotCoordinatorError(
                f"broker {self.partition.broker_id} does not coordinate the groups of "
                f"{self.partition.name}; broker {self.partition.leader} does: ask again there"
            ),
            self.partition.hint,
        )

    def _loading_error(self) -> CoordinatorLoadingError:
        return CoordinatorLoadingError(
            f"broker {self.partition.broker_id} reads the groups of {self.partition.name}: "
            "ask again"
        )

    # -- steps

    def _run(self, decide: Decide[T], answered: Callable[[T | QuorateError], None]) -> None:
        """Make one step. `answered` gets the answer when it may leave."""
        life = self._life
        assert life is not None, "a step is made by a loaded machine"
        try:
            step = decide(life.machine, loop_ms(), self._host.wall_clock_ms())
        except Exception as error:
            log.exception("group_step_failed", partition=self.partition.name)
            failure = UnknownServerError(f"the coordinator failed: {error!r}")
            self._append_failed(failure)
            raise failure from error

        def leave() -> None:
            answered(step.answer)
            for push in step.pushes:
                self._streams.tell(push)
            for ticket, reply in step.replies:
                self._callers.answer(ticket, reply)

        life.steps.add(step.records, leave)
        self._arm()

    def _append_failed(self, error: QuorateError) -> None:
        """Drop the machine, whose state the log does not have, and load again."""
        life = self._life
        if life is None or self.is_over:
            return
        log.warning("groups_dropped", partition=self.partition.name, reason=str(error))
        if life.steps.has_committed:
            self._backoff.reset()
        if self.leader.is_over:
            error = self._not_coordinator()
        self._drop(error if isinstance(error, TOLD) else self._not_coordinator())
        self._loading = self._host.tasks.spawn(self._load_later(), f"load {self.partition.name}")

    async def _load_later(self) -> None:
        await self._backoff.wait()
        await self._load()

    def _drop(self, error: QuorateError) -> None:
        """Drop the machine. Every caller and every stream that waits gets the error."""
        life, self._life = self._life, None
        self._alarm.set(None)
        if life is not None:
            life.steps.end()
        self._callers.fail(error)
        self._streams.end(error)

    def _pass_topics_on(self) -> None:
        life = self._life
        if not self._topics_changed or life is None or life.steps.is_full:
            return
        changes = TopicChanges(frozenset(self._topics_changed))
        self._topics_changed.clear()
        topics = self._host.topics()
        self._try(lambda m, now_ms, wall_ms: m.topics_changed(topics, changes, now_ms, wall_ms))

    # -- time

    def _arm(self) -> None:
        """Set the alarm to the machine's next deadline."""
        if self._life is not None:
            deadline_ms = self._life.machine.deadline()
            # plus 1: rounding must not make the alarm too early
            self._alarm.set(None if deadline_ms is None else (deadline_ms + 1) / 1000)

    def _tick(self) -> None:
        life = self._life
        if life is None or self.is_over:
            return
        if life.steps.is_full or not self.leader.machine.has_enough_replicas:
            self._alarm.set((loop_ms() + TICK_AGAIN_MS) / 1000)
            return
        self._pass_topics_on()
        if self._life is life:
            self._try(lambda m, now_ms, wall_ms: m.tick(now_ms, wall_ms))

    def _try(self, decide: Decide[None]) -> None:
        """Make a step that no caller waits for. A failure was logged, and drops the machine."""
        try:
            self._run(decide, _nothing)
        except UnknownServerError:
            return


def _nothing(_: object) -> None:
    """Take no note of the answer of a step that no caller waits for."""
