"""One replica of a partition on this broker: its log, joined with the role of now.

The machines decide (leader, follower, producers); this drives them. All that writes to the log
happens under one lock: the drain of the produce queue, what comes from a leader, changes of
role. A fault inside takes this replica offline and nothing else (law 11); whoever owns it is
told by PartitionHost.failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeVar

import structlog

from quorate.errors import (
    CorruptRecordError,
    FencedLeaderEpochError,
    InvalidRequestError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    NotLeaderError,
    OffsetNotAvailableError,
    OffsetOutOfRangeError,
    OutcomeUnknownError,
    OverloadedError,
    QuorateError,
    RequestTimedOutError,
    StorageError,
    UnknownLeaderEpochError,
    from_wire,
)
from quorate.record import batch as record_batch
from quorate.v1.common_pb2 import ErrorCode, LeaderHint
from quorate_broker.partition import checks
from quorate_broker.partition.follower import Append, Follower, Ignore, Refuse, StartAt, Truncate
from quorate_broker.partition.leader import Leader, Proposal, ReplicaStream
from quorate_broker.partition.producers import Producers, Staging
from quorate_broker.partition.waiters import Waiters, Watches, hinted
from quorate_broker.v1.replica_pb2 import ReplicaDiverging, ReplicaFetched, ReplicaFetchPartition
from quorate_quorum.log.log import DiskFullError, LogCorruptError

if TYPE_CHECKING:
    from quorate.record.batch import BatchHeader
    from quorate_quorum.log.log import Log
    from quorate_quorum.metadata.configs import TopicConfig
    from quorate_quorum.metadata.image import PartitionImage

log_line = structlog.get_logger(__name__)

Buffer = bytes | bytearray | memoryview
T = TypeVar("T")

ACKS_ALL = -1
EARLIEST = -2
LATEST = -1
NO_TIMESTAMP = -1

#: storage: the disk failed (its directory is lost); corrupt: bytes below what was synced are not
#: what was written; broken: an invariant, or a defect of ours.
Failure = Literal["storage", "corrupt", "broken"]


class Produced(NamedTuple):
    """Where an appended batch lies. log_append_time_ms is -1 with CreateTime."""

    base_offset: int
    log_append_time_ms: int
    log_start_offset: int


class Fetched(NamedTuple):
    """Whole batches below the high watermark, and the bounds as they were when read."""

    batches: bytes
    high_watermark: int
    log_start_offset: int


class FetchPosition(NamedTuple):
    """From where a follower fetches: all below `offset` is written (flush.on.ack: synced)."""

    leader: int
    leader_epoch: int
    offset: int
    last_fetched_epoch: int
    log_start_offset: int
    high_watermark: int


class PartitionHost(Protocol):
    """What a partition needs of its broker; Replicas is it."""

    @property
    def broker_id(self) -> int: ...
    @property
    def lag_ms(self) -> int:
        """replica.lag.time.max.ms."""

    def wall_clock_ms(self) -> int: ...
    def endpoint_of(self, broker_id: int) -> str:
        """Return a broker's endpoint; "" if unknown."""

    async def prepare(self, partition: Partition) -> None:
        """Make the replica's directory and say whose it is, before the first append."""

    def isr_wanted(self, partition: Partition) -> None:
        """A replica may enter the ISR: propose soon."""

    def failed(self, partition: Partition, failure: Failure, reason: str) -> None:
        """The replica is offline now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLimits:
    """Bounds of one partition."""

    queue_max: int = 10_000
    waiters_max: int = 50_000
    #: Bytes of one append to the log; the rest of the queue makes the next one.
    append_bytes_max: int = 8 << 20


@dataclass(slots=True)
class _Queued:
    """A batch on its way: into the log, then perhaps waiting for its commit."""

    batch: Buffer
    leader_epoch: int
    acks: int
    deadline_ms: int
    appended: Callable[[], None]
    future: asyncio.Future[Produced]
    base_offset: int = -1
    end_offset: int = -1
    append_time_ms: int = NO_TIMESTAMP

    def refuse(self, error: QuorateError) -> None:
        self.written()
        if not self.future.done():
            self.future.set_exception(error)

    def written(self) -> None:
        """Let go of the bytes."""
        appended, self.appended, self.batch = self.appended, _nothing, b""
        appended()

    def done(self, log_start_offset: int) -> None:
        if not self.future.done():
            self.future.set_result(
                Produced(self.base_offset, self.append_time_ms, log_start_offset)
            )


def _nothing() -> None:
    pass


class _Guard:
    """A broken invariant inside takes the partition offline, and is a StorageError outside."""

    __slots__ = ("_partition",)

    def __init__(self, partition: Partition) -> None:
        self._partition = partition

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None and issubclass(kind, AssertionError):
            self._partition.take_offline("broken", f"a broken invariant: {error}")
            raise self._partition.offline_error()


class Partition:
    """See the module. Made by Replicas with an open log; without a role until follow_image."""

    def __init__(
        self,
        topic_id: bytes,
        topic: str,
        partition: int,
        log: Log,
        producers: Producers,
        host: PartitionHost,
        *,
        directory_id: bytes = b"",
        limits: PartitionLimits | None = None,
    ) -> None:
        self.topic_id = topic_id
        self.topic = topic
        self.partition = partition
        self.name = f"{topic}-{partition}"
        self.log = log
        self.directory_id = directory_id
        #: Why it serves nothing; None: it serves.
        self.offline: str | None = None
        self.failure: Failure | None = None
        self._host = host
        self._limits = limits or PartitionLimits()
        self._producers = producers
        self._role: Leader | Follower | None = None
        self._state: PartitionImage | None = None
        self._config: TopicConfig | None = None
        self._lock = asyncio.Lock()
        self._guard = _Guard(self)
        self._queue: list[_Queued] = []
        self._drain_task: asyncio.Task[None] | None = None
        self._sync_task: asyncio.Task[None] | None = None
        self._waiters: Waiters[_Queued] = Waiters(self._limits.waiters_max)
        self._timer: asyncio.TimerHandle | None = None
        self._watches = Watches()
        self._replica_watches = Watches()
        self._is_prepared = False
        self._is_full = False
        self._leader_log_start = -1
        self._checkpointed = (log.high_watermark, log.hw_epoch)
        self._is_closed = False

    # what it is

    @property
    def key(self) -> tuple[bytes, int]:
        return (self.topic_id, self.partition)

    @property
    def is_leader(self) -> bool:
        return isinstance(self._role, Leader)

    @property
    def is_follower(self) -> bool:
        return isinstance(self._role, Follower)

    @property
    def leader_epoch(self) -> int:
        return -1 if self._state is None else self._state.leader_epoch

    @property
    def leader(self) -> int:
        """The broker that leads, -1 if none does."""
        return -1 if self._state is None else self._state.leader

    @property
    def isr(self) -> tuple[int, ...]:
        """The ISR as last committed, as far as this broker knows."""
        if isinstance(self._role, Leader):
            return self._role.isr
        return () if self._state is None else self._state.isr

    @property
    def log_start_offset(self) -> int:
        return self.log.log_start_offset

    @property
    def log_end_offset(self) -> int:
        return self.log.log_end_offset

    @property
    def high_watermark(self) -> int:
        return self._role.high_watermark if self._role is not None else self.log.high_watermark

    @property
    def role(self) -> Leader | Follower | None:
        """The machine of now, to look at."""
        return self._role

    @property
    def config(self) -> TopicConfig:
        """The topic's configuration; only once an image was followed."""
        assert self._config is not None
        return self._config

    @property
    def hint(self) -> LeaderHint:
        """Who leads, for a caller who asked the wrong broker."""
        leader = self.leader
        endpoint = self._host.endpoint_of(leader) if leader >= 0 else ""
        return LeaderHint(leader=leader, leader_epoch=self.leader_epoch, endpoint=endpoint)

    # for producers

    def produce(
        self,
        batch: memoryview,
        *,
        leader_epoch: int,
        acks: int,
        timeout_ms: int,
        appended: Callable[[], None],
    ) -> asyncio.Future[Produced]:
        """Queue a batch; batches are appended in the order of the calls. Never blocks or raises.

        `leader_epoch` is the client's view, -1: do not check; `acks` is -1 (all), 0 or 1;
        `timeout_ms` bounds the wait for the commit. `appended` is called once, when the bytes
        are in the log or refused. The future ends with Produced or a QuorateError; hint_of(error)
        says who leads where that is the reason.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Produced] = loop.create_future()
        deadline_ms = int(loop.time() * 1000) + timeout_ms
        entry = _Queued(batch, leader_epoch, acks, deadline_ms, appended, future)
        if len(self._queue) >= self._limits.queue_max:
            entry.refuse(OverloadedError(f"{self.name}: {len(self._queue)} batches are queued"))
            return future
        self._queue.append(entry)
        if self._drain_task is None:
            self._drain_task = loop.create_task(self._drain(), name=f"append {self.name}")
        return future

    # for consumers

    async def fetch(
        self,
        offset: int,
        *,
        bytes_max: int,
        leader_epoch: int,
        at_least_one: bool = True,
        from_follower: bool = False,
    ) -> Fetched:
        """Return whole batches from `offset` on, below the high watermark.

        Empty in [high_watermark, log_end_offset]. Raises OffsetOutOfRangeError below the log's
        start or above its end, NotLeaderError (unless `from_follower`), FencedLeaderEpochError,
        UnknownLeaderEpochError, StorageError.
        """
        self._check_reader(leader_epoch, from_follower)
        high_watermark, start = self.high_watermark, self.log_start_offset
        if not start <= offset <= self.log_end_offset:
            if self.is_follower and offset > self.log_end_offset:
                raise OffsetNotAvailableError(f"{self.name}: this replica has not {offset} yet")
            raise OffsetOutOfRangeError(
                f"{self.name}: offset {offset} is not in [{start}, {self.log_end_offset}]"
            )
        if offset >= high_watermark or (bytes_max <= 0 and not at_least_one):
            return Fetched(b"", high_watermark, start)
        batches = await self._read(offset, high_watermark, bytes_max, at_least_one)
        return Fetched(batches, high_watermark, self.log_start_offset)

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` when the high watermark, the log's start or the role changes.

        Returns the function that ends that.
        """
        return self._watches.add(wake)

    async def list_offset(self, timestamp_ms: int, leader_epoch: int) -> tuple[int, int, int]:
        """Return (offset, its timestamp, its leader_epoch) for a time; offset -1: none that late.

        -2 is the log's start, -1 the high watermark. Raises OffsetNotAvailableError while a new
        leader does not know its high watermark, and what `fetch` raises.
        """
        leader = self._leading(leader_epoch)
        if timestamp_ms == EARLIEST:
            return (self.log_start_offset, NO_TIMESTAMP, self._epoch_at(self.log_start_offset))
        if not leader.knows_high_watermark:
            raise OffsetNotAvailableError(
                f"{self.name}: the high watermark {leader.high_watermark} is not yet known to be "
                f"that of leader_epoch {leader.leader_epoch}; retry"
            )
        high_watermark = leader.high_watermark
        if timestamp_ms == LATEST:
            return (high_watermark, NO_TIMESTAMP, leader.leader_epoch)
        if timestamp_ms < 0:
            raise InvalidRequestError(f"timestamp {timestamp_ms}: only -2, -1 and 0 or more are")
        with self._guard:
            found = await self._reading(self.log.offset_for_time(timestamp_ms, end=high_watermark))
        self._leading(leader.leader_epoch)  # else what was found may have been cut since
        if found is None:
            return (-1, NO_TIMESTAMP, -1)
        return (found[0], found[1], self._epoch_at(found[0]))

    # replication, the leader's side

    def follower_fetch(
        self, stream: ReplicaStream, request: ReplicaFetchPartition, now_ms: int
    ) -> ReplicaDiverging | None:
        """Take a follower's position; return where its past leaves ours, None if it does not.

        A fetch that diverges, is out of range, or comes from a replaced stream or another
        leader_epoch, moves no state (K8). Raises NotLeaderError and its kinds,
        OffsetOutOfRangeError, StorageError.
        """
        leader = self._leading(request.leader_epoch, must_say=True)
        if stream.replica_id not in leader.replicas:
            raise UnknownLeaderEpochError(
                f"{self.name}: broker {stream.replica_id} is no replica that we know of; retry"
            )
        diverging = self._diverging(request.fetch_offset, request.last_fetched_epoch)
        if diverging is not None:
            return diverging
        with self._guard:
            offset, start = request.fetch_offset, request.log_start_offset
            if leader.record_fetch(stream, offset, start, now_ms):
                self._advance(leader)
                if leader.wants_to_expand:
                    self._host.isr_wanted(self)
        return None

    async def read_for_follower(self, offset: int, *, leader_epoch: int, bytes_max: int) -> bytes:
        """Return whole batches from `offset` up to the log's end, at least one if there is one."""
        self._leading(leader_epoch, must_say=True)
        batches = await self._read(offset, self.log_end_offset, bytes_max, at_least_one=True)
        self._leading(leader_epoch, must_say=True)
        return batches

    def watch_end(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` on every append too; for followers' streams. Returns what ends it."""
        return self._replica_watches.add(wake)

    async def delete_below(self, offset: int) -> int:
        """Remove whole segments below `offset`, never above the high watermark; return how many."""
        bound = min(offset, self.high_watermark)
        count = 0
        if self.offline is None and not self._is_closed:
            count = await self._reading(self.log.delete_segments_below(bound))
        if count:
            self._wake_all()
        return count

    # the ISR

    @property
    def wants_to_expand(self) -> bool:
        """Whether a replica outside the ISR has caught up (a cheap hint)."""
        return isinstance(self._role, Leader) and self._role.wants_to_expand

    def propose_isr(
        self, now_ms: int, broker_epoch: int, eligible_epoch: Callable[[int], int]
    ) -> Proposal | None:
        """Return the ISR to ask the controller for now, if any. See Leader.propose."""
        if self.must_resign:
            return self._resignation(eligible_epoch)
        if not isinstance(self._role, Leader):
            return None
        with self._guard:
            return self._role.propose(now_ms, broker_epoch, eligible_epoch)

    @property
    def must_resign(self) -> bool:
        """Whether it is to lead and can't, for an invariant broke: another must be elected."""
        return self.failure == "broken" and self.leader == self._host.broker_id

    def _resignation(self, eligible_epoch: Callable[[int], int]) -> Proposal | None:
        """Return the ISR without ourselves; None for the last member, which nobody can replace."""
        state = self._state
        assert state is not None
        others = [(b, eligible_epoch(b)) for b in sorted(state.isr) if b != self._host.broker_id]
        members = tuple(member for member in others if member[1] >= 0)
        if not members:
            return None
        return Proposal(state.leader_epoch, state.partition_epoch, members)

    def isr_committed(
        self, proposal: Proposal, leader_epoch: int, partition_epoch: int, isr: Sequence[int]
    ) -> None:
        """The controller answered a proposal with the state of now."""
        role = self._role
        if not isinstance(role, Leader) or role.leader_epoch != proposal.leader_epoch:
            return
        now_ms = _now_ms()
        is_ours = leader_epoch == role.leader_epoch and self._host.broker_id in isr
        with self._guard:
            if is_ours and role.committed(partition_epoch, isr, now_ms):
                self._isr_changed(role)
            else:
                role.lost(proposal, now_ms)

    def isr_refused(self, proposal: Proposal) -> None:
        """The controller will not have that ISR."""
        role = self._role
        if isinstance(role, Leader):
            with self._guard:
                role.refused(proposal)
                self._advance(role)

    def isr_lost(self, proposal: Proposal) -> None:
        """No answer that decides: it will be asked again."""
        if isinstance(self._role, Leader):
            self._role.lost(proposal, _now_ms())

    # replication, the follower's side

    async def fetch_position(self) -> FetchPosition | None:
        """Return from where to fetch, None if this replica does not follow now.

        With flush.on.ack, only when all that it has is synced, for the fetch acknowledges it.
        """
        async with self._lock:
            role = self._role
            if not isinstance(role, Follower):
                return None
            with self._guard:
                if not await self._writing(self._sync_if_asked()) or self._role is not role:
                    return None
            return FetchPosition(
                role.leader,
                role.leader_epoch,
                self.log.log_end_offset,
                self.log.last_epoch,
                self.log.log_start_offset,
                role.high_watermark,
            )

    async def take_from_leader(self, fetched: ReplicaFetched, batches: Buffer) -> str | None:
        """Do what a leader's answer asks for: append, cut, start again.

        Returns None, or why nothing was done; the caller then waits a little before it asks
        again. With flush.on.ack the batches are synced when this returns.
        """
        async with self._lock:
            role = self._role
            if not isinstance(role, Follower):
                return "this replica does not follow now"
            try:
                with self._guard:
                    return await self._take(role, fetched, batches)
            except StorageError as error:
                return str(error)

    # roles

    async def follow_image(
        self, state: PartitionImage, config: TopicConfig, min_isr: int, *, may_lead: bool
    ) -> bool:
        """Take the role that the image gives this broker; return whether the role changed.

        `may_lead`: this broker is unfenced, as it sees itself. Waits for the append under way.
        """
        self._config = config
        is_same_reign = (
            self._role is not None
            and self._state is not None
            and state.leader_epoch == self._state.leader_epoch
            and (may_lead or not self.is_leader)
        )
        self._state = state
        if self.offline is not None:
            return False
        if is_same_reign:
            if isinstance(self._role, Leader):
                with self._guard:
                    self._same_reign(self._role, state, min_isr)
            return False
        had_role = self._role is not None
        self._end_role()
        async with self._lock:
            if self.offline is not None or self._is_closed:
                return True
            with self._guard:
                self._begin_role(state, min_isr, may_lead=may_lead)
        self._wake_all()
        return had_role or self._role is not None

    async def checkpoint(self) -> None:
        """Write the high watermark down, if it moved since the last time."""
        known = (self.high_watermark, self.log.hw_epoch)
        if known == self._checkpointed or self.offline is not None or self._is_closed:
            return
        try:
            await self.log.checkpoint_high_watermark(*known)
            self._checkpointed = known
        except StorageError as error:
            if not self._is_closed:
                self.take_offline("storage", str(error))

    async def close(self, *, clean: bool) -> None:
        """Fail what waits, wait for the append under way, close the log. Safe to call twice."""
        if self._is_closed:
            return
        self._end_role()
        async with self._lock:
            if self._is_closed:
                return
            if clean:
                await self.checkpoint()
            self._is_closed = True
            if self._sync_task is not None:
                await asyncio.wait([self._sync_task])
            try:
                await self.log.close(clean=clean and self.offline is None)
            except StorageError as error:
                self.take_offline("storage", str(error))
        self._refuse_queue()
        self._wake_all()

    def take_offline(self, failure: Failure, reason: str) -> None:
        """Serve nothing from now on. What waits is told that its outcome is unknown."""
        if self.offline is not None:
            return
        self.offline, self.failure = reason, failure
        log_line.error("replica offline", partition=self.name, failure=failure, reason=reason)
        self._end_role()
        self._refuse_queue()
        self._wake_all()
        self._host.failed(self, failure, reason)

    def offline_error(self) -> StorageError:
        """Return what to tell who asks an offline replica."""
        return hinted(StorageError(f"{self.name} is offline here: {self.offline}"), self.hint)

    # inside: who may ask

    def _leading(self, leader_epoch: int, *, must_say: bool = False) -> Leader:
        """Return the role if we lead, in the caller's view too (KIP-320, K4)."""
        role = self._role
        if not isinstance(role, Leader):
            raise self._not_leader()
        self._check_epoch(leader_epoch, role.leader_epoch, must_say=must_say)
        return role

    def _check_reader(self, leader_epoch: int, from_follower: bool) -> None:
        if from_follower and isinstance(self._role, Follower):
            self._check_epoch(leader_epoch, self._role.leader_epoch, must_say=False)
        else:
            self._leading(leader_epoch)

    def _check_epoch(self, theirs: int, ours: int, *, must_say: bool) -> None:
        if theirs == ours or (theirs == -1 and not must_say):
            return
        text = f"{self.name}: leader_epoch {theirs} was given, and {ours} is known here"
        if theirs < ours:
            raise hinted(FencedLeaderEpochError(text), self.hint)
        raise hinted(UnknownLeaderEpochError(text + "; retry"), self.hint)

    def _not_leader(self) -> QuorateError:
        if self.offline is not None:
            return self.offline_error()
        return hinted(
            NotLeaderError(
                f"broker {self._host.broker_id} does not lead {self.name}; "
                f"broker {self.leader} does, in leader_epoch {self.leader_epoch}"
            ),
            self.hint,
        )

    def _diverging(self, fetch_offset: int, last_epoch: int) -> ReplicaDiverging | None:
        """Compare a follower's past with ours; OffsetOutOfRangeError where that cannot be."""
        start, end = self.log_start_offset, self.log_end_offset
        if fetch_offset < start:
            raise OffsetOutOfRangeError(f"{self.name}: {fetch_offset} is below the start {start}")
        if last_epoch >= 0 and fetch_offset > start:
            epochs = self.log.epochs
            asked = min(last_epoch, epochs.last)
            epoch, epoch_end = epochs.end_offset_for(asked, end) or (-1, start)
            if epoch < last_epoch or epoch_end < fetch_offset:
                return ReplicaDiverging(epoch=epoch, end_offset=epoch_end)
        if fetch_offset > end:
            raise OffsetOutOfRangeError(f"{self.name}: {fetch_offset} is above the end {end}")
        return None

    # inside: reading and writing

    async def _read(self, offset: int, end: int, bytes_max: int, at_least_one: bool) -> bytes:
        return await self._reading(
            self.log.read(offset, end=end, bytes_max=bytes_max, at_least_one=at_least_one)
        )

    async def _reading(self, reading: Awaitable[T]) -> T:
        """Await a read of the log; what it finds wrong takes the replica offline (law 7)."""
        try:
            return await reading
        except StorageError as error:
            if self._is_closed:  # it was closed under the read: that is no fault of the disk
                raise self._not_leader() from error
            is_corrupt = isinstance(error, LogCorruptError)
            self.take_offline("corrupt" if is_corrupt else "storage", str(error))
        raise self.offline_error()

    async def _drain(self) -> None:
        """Append what is queued until nothing is; alive only that long."""
        try:
            while self._queue:
                async with self._lock:
                    await self._append_queued()
        except StorageError as error:
            self.take_offline("storage", str(error))
        except Exception as error:  # a defect or broken invariant: this replica only (law 11)
            log_line.exception("append failed", partition=self.name)
            self.take_offline("broken", f"{type(error).__name__}: {error}")
        finally:
            self._drain_task = None

    async def _append_queued(self) -> None:
        leader = self._role
        taken = self._take_queued()
        if not isinstance(leader, Leader):
            for entry in taken:
                entry.refuse(self._not_leader())
            return
        accepted: list[_Queued] = []
        try:
            writes = self._accept(leader, taken, accepted)
            if writes:
                await self._prepare()
                await self.log.append(writes)
        except DiskFullError as error:
            self._note_room(error)
            for entry in taken:
                entry.refuse(hinted(StorageError(f"nothing was written: {error}"), self.hint))
            return
        except BaseException as error:
            for entry in taken:
                entry.refuse(self._unknown(f"the append failed: {error}"))
            raise
        if self._role is not leader:
            for entry in accepted:
                entry.refuse(self._unknown("leadership was lost during the append"))
            return
        self._note_room(None)
        self._appended(leader, accepted, grew=bool(writes))

    def _note_room(self, error: DiskFullError | None) -> None:
        """Say once that there is no room, and once that there is again."""
        if self._is_full == (error is not None):
            return
        self._is_full = error is not None
        if error is not None:
            log_line.error("no room: nothing is taken", partition=self.name, reason=str(error))
        else:
            log_line.info("there is room again", partition=self.name)

    def _take_queued(self) -> list[_Queued]:
        size = count = 0
        for entry in self._queue:
            if count and size + len(entry.batch) > self._limits.append_bytes_max:
                break
            size += len(entry.batch)
            count += 1
        taken, self._queue = self._queue[:count], self._queue[count:]
        return taken

    def _accept(
        self, leader: Leader, taken: list[_Queued], accepted: list[_Queued]
    ) -> list[tuple[BatchHeader, Sequence[Buffer]]]:
        """Check the batches one by one; return what to append, and who has a place in it."""
        staging = self._producers.staging()
        writes: list[tuple[BatchHeader, Sequence[Buffer]]] = []
        offset = self.log.log_end_offset
        waiting = len(self._waiters)
        for entry in taken:
            try:
                if entry.acks == ACKS_ALL and waiting >= self._limits.waiters_max:
                    raise OverloadedError(f"{self.name}: {waiting} batches wait for their commit")
                write = self._accept_one(leader, entry, staging, offset)
            except QuorateError as error:
                entry.refuse(error)
                continue
            if write is not None:
                writes.append(write)
                offset = write[0].end_offset
            waiting += entry.acks == ACKS_ALL
            accepted.append(entry)
        return writes

    def _accept_one(
        self, leader: Leader, entry: _Queued, staging: Staging, offset: int
    ) -> tuple[BatchHeader, Sequence[Buffer]] | None:
        """Check one batch and stamp it; None for a duplicate, placed where its original is."""
        self._check_epoch(entry.leader_epoch, leader.leader_epoch, must_say=False)
        if entry.acks == ACKS_ALL and not leader.has_enough_replicas:
            raise NotEnoughReplicasError(
                f"{self.name}: the ISR {leader.isr} is below min.insync.replicas "
                f"{leader.min_isr}; nothing was written"
            )
        checked = checks.from_producer(entry.batch, self.config, self._host.wall_clock_ms())
        header, entry.batch, entry.append_time_ms = checked
        header = replace(header, base_offset=offset, leader_epoch=leader.leader_epoch)
        original = staging.check(header)
        if original is not None:
            entry.base_offset, entry.end_offset = original.base_offset, original.end_offset
            return None
        entry.base_offset, entry.end_offset = offset, header.end_offset
        batch = entry.batch
        prefix = record_batch.stamped_prefix(
            batch, base_offset=offset, leader_epoch=leader.leader_epoch
        )
        return header, (prefix, memoryview(batch)[len(prefix) :])

    def _appended(self, leader: Leader, accepted: list[_Queued], *, grew: bool) -> None:
        """Our log has them: answer, count ourselves, wake the followers."""
        if grew:
            leader.appended(self.log.log_end_offset)
        for entry in accepted:
            entry.written()
            if entry.acks != ACKS_ALL:
                entry.done(self.log_start_offset)
            elif entry.end_offset <= leader.high_watermark:
                entry.done(self.log_start_offset)  # a duplicate of what is committed
            else:
                self._waiters.add(entry.end_offset, entry.deadline_ms, entry)
        self._count_ourselves(leader)
        self._advance(leader)
        self._arm_timer()
        if grew:
            self._replica_watches.wake()

    def _count_ourselves(self, leader: Leader) -> None:
        """Our own end moves when the write is done or, with flush.on.ack, synced (law 2)."""
        if not self.config.flush_on_ack:
            leader.saved(self.log.log_end_offset)
            return
        leader.saved(min(self.log.synced_end, leader.log_end_offset))
        if self.log.synced_end < self.log.log_end_offset and self._sync_task is None:
            self._sync_task = asyncio.get_running_loop().create_task(
                self._sync_behind(), name=f"sync {self.name}"
            )

    async def _sync_behind(self) -> None:
        """Sync until all that was appended is; appends during a sync share the next one."""
        try:
            while isinstance(self._role, Leader) and self.log.synced_end < self.log.log_end_offset:
                await self.log.sync()
                leader = self._role  # perhaps of a later reign: what is synced is a fact for it too
                if isinstance(leader, Leader):
                    leader.saved(min(self.log.synced_end, leader.log_end_offset))
                    self._advance(leader)
        except StorageError as error:
            self.take_offline("storage", str(error))
        except AssertionError as error:
            self.take_offline("broken", f"a broken invariant: {error}")
        finally:
            self._sync_task = None

    async def _sync_if_asked(self) -> None:
        if self.config.flush_on_ack and self.log.synced_end < self.log.log_end_offset:
            await self.log.sync()

    async def _prepare(self) -> None:
        if not self._is_prepared:
            await self._host.prepare(self)
            self._is_prepared = True

    async def _writing(self, writing: Awaitable[object]) -> bool:
        """Await a write; tell whether it went well. A failure takes the replica offline."""
        try:
            await writing
        except DiskFullError:
            raise  # the replica stays, and tries again
        except (LogCorruptError, CorruptRecordError) as error:
            self.take_offline("corrupt", str(error))
            return False
        except StorageError as error:
            self.take_offline("storage", str(error))
            return False
        return True

    # inside: following

    async def _take(self, role: Follower, fetched: ReplicaFetched, batches: Buffer) -> str | None:
        log = self.log
        if fetched.HasField("diverging"):
            step = role.diverged(
                leader_epoch=fetched.leader_epoch,
                epoch=fetched.diverging.epoch,
                end_offset=fetched.diverging.end_offset,
                log_start_offset=log.log_start_offset,
                log_end_offset=log.log_end_offset,
                end_offset_for=lambda epoch: log.epochs.end_offset_for(epoch, log.log_end_offset),
            )
        elif fetched.error.code == ErrorCode.ERROR_CODE_OFFSET_OUT_OF_RANGE:
            step = role.out_of_range(
                leader_epoch=fetched.leader_epoch,
                leader_log_start_offset=fetched.log_start_offset,
                log_start_offset=log.log_start_offset,
                log_end_offset=log.log_end_offset,
            )
        elif fetched.error.code != ErrorCode.ERROR_CODE_NONE:
            return str(from_wire(fetched.error))
        else:
            step = role.answered(
                leader_epoch=fetched.leader_epoch,
                base_offset=fetched.base_offset,
                log_end_offset=log.log_end_offset,
                has_batches=len(batches) > 0,
            )
        match step:
            case Append():
                return await self._append_fetched(role, fetched, batches)
            case Truncate():
                await self._truncate(role, step)
                return None
            case StartAt():
                await self._start_at(role, step)
                return None
            case Ignore():
                return step.reason
            case Refuse():
                self.take_offline("broken", step.reason)
                return step.reason

    async def _append_fetched(
        self, role: Follower, fetched: ReplicaFetched, batches: Buffer
    ) -> str | None:
        try:
            writes = checks.from_leader(
                batches,
                log_end_offset=self.log.log_end_offset,
                last_epoch=self.log.last_epoch,
                leader_epoch=role.leader_epoch,
            )
        except CorruptRecordError as error:
            return f"the leader sent what is no good: {error}"
        if writes:
            await self._prepare()
            if not await self._writing(self.log.append(writes)):
                return self.offline
            if not await self._writing(self._sync_if_asked()):
                return self.offline
        if self._role is not role:
            return "the leader changed during the append"
        if role.learn(fetched.high_watermark, self.log.log_end_offset):
            self._set_high_watermark(role.high_watermark, role.high_watermark_epoch)
            self._watches.wake()
        self.log.hw_epoch = role.high_watermark_epoch
        await self._follow_log_start(role, fetched.log_start_offset)
        return None

    async def _truncate(self, role: Follower, step: Truncate) -> None:
        before = self.log.log_end_offset
        log_line.info(
            "truncating",
            partition=self.name,
            end_offset=step.end_offset,
            log_end_offset=before,
            leader_epoch=role.leader_epoch,
        )
        if step.drops_committed:
            await self._lower_high_watermark(role, step.end_offset)
        if await self._writing(self.log.truncate(step.end_offset)):
            role.truncated(self.log.log_end_offset)

    async def _start_at(self, role: Follower, step: StartAt) -> None:
        log_line.warning(
            "starting again where the leader's log starts",
            partition=self.name,
            offset=step.offset,
            log_end_offset=self.log.log_end_offset,
        )
        if step.drops_committed:
            await self._lower_high_watermark(role, step.offset)
        await self._prepare()
        if await self._writing(self.log.truncate_fully_and_start_at(step.offset)):
            role.started_at(step.offset)
            self._set_high_watermark(step.offset, role.high_watermark_epoch)
            self._wake_all()

    async def _lower_high_watermark(self, role: Follower, offset: int) -> None:
        """Across a recovered_epoch only (law 4). Written down before the cut, not after."""
        log_line.warning(
            "dropping records that were committed before an election that could lose some",
            partition=self.name,
            from_offset=offset,
            to_offset=role.high_watermark,
            recovered_epoch=role.recovered_epoch,
        )
        role.truncated(offset)
        self._set_high_watermark(offset, role.high_watermark_epoch)
        await self._writing(self.log.checkpoint_high_watermark(offset, role.high_watermark_epoch))
        self._checkpointed = (offset, role.high_watermark_epoch)

    async def _follow_log_start(self, role: Follower, log_start_offset: int) -> None:
        """Drop whole segments that the leader has dropped, once per start that it tells."""
        if log_start_offset <= self._leader_log_start:
            return
        self._leader_log_start = log_start_offset
        if self.log.log_start_offset < log_start_offset <= role.high_watermark:
            await self._writing(self.log.delete_segments_below(log_start_offset))

    # inside: leading

    def _advance(self, leader: Leader) -> None:
        moved = leader.advance()
        if leader.is_confirmed:
            self.log.hw_epoch = leader.leader_epoch
        if not moved:
            return
        self._set_high_watermark(leader.high_watermark, leader.leader_epoch)
        for entry in self._waiters.reached(leader.high_watermark):
            entry.done(self.log_start_offset)
        self._watches.wake()
        self._replica_watches.wake()

    def _set_high_watermark(self, offset: int, epoch: int) -> None:
        self.log.high_watermark = offset
        self.log.hw_epoch = epoch

    def _same_reign(self, leader: Leader, state: PartitionImage, min_isr: int) -> None:
        leader.min_isr = min_isr
        leader.update(state.partition_epoch, state.isr, state.broker_ids, _now_ms())
        self._isr_changed(leader)

    def _isr_changed(self, leader: Leader) -> None:
        if not leader.has_enough_replicas:
            for entry in self._waiters.take_all():
                entry.refuse(
                    NotEnoughReplicasAfterAppendError(
                        f"{self.name}: written, then the ISR shrank to {leader.isr}, below "
                        f"min.insync.replicas {leader.min_isr}; it may yet commit"
                    )
                )
        self._advance(leader)

    def _begin_role(self, state: PartitionImage, min_isr: int, *, may_lead: bool) -> None:
        log = self.log
        host = self._host
        if state.leader == host.broker_id:
            if not may_lead:
                return
            leader = self._role = Leader.begin(
                broker_id=host.broker_id,
                leader_epoch=state.leader_epoch,
                log_end_offset=log.log_end_offset,
                own_end=log.synced_end if self.config.flush_on_ack else log.log_end_offset,
                high_watermark=log.high_watermark,
                partition_epoch=state.partition_epoch,
                isr=state.isr,
                replicas=state.broker_ids,
                min_isr=min_isr,
                lag_ms=host.lag_ms,
                now_ms=_now_ms(),
            )
            self._count_ourselves(leader)
            self._advance(leader)
            self._log_role("leader")
        elif state.leader >= 0:
            self._leader_log_start = -1
            self._role = Follower(
                leader=state.leader,
                leader_epoch=state.leader_epoch,
                recovered_epoch=state.recovered_epoch,
                high_watermark=min(log.high_watermark, log.log_end_offset),
                high_watermark_epoch=log.hw_epoch,
            )
            self._log_role("follower")

    def _log_role(self, role: str) -> None:
        log_line.info(
            "role",
            partition=self.name,
            role=role,
            leader=self.leader,
            leader_epoch=self.leader_epoch,
            log_end_offset=self.log.log_end_offset,
            high_watermark=self.high_watermark,
        )

    def _end_role(self) -> None:
        """Stop at once what the role promised; who waits is told that the outcome is unknown."""
        if self._role is None:
            return
        self._role = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for entry in self._waiters.take_all():
            entry.refuse(self._unknown("leadership was lost before the commit"))

    def _unknown(self, why: str) -> OutcomeUnknownError:
        return hinted(OutcomeUnknownError(f"{self.name}: {why}"), self.hint)

    def _refuse_queue(self) -> None:
        queue, self._queue = self._queue, []
        for entry in queue:
            entry.refuse(self._not_leader())

    def _wake_all(self) -> None:
        self._watches.wake()
        self._replica_watches.wake()

    def _epoch_at(self, offset: int) -> int:
        return self.log.epochs.epoch_at(offset)

    # inside: deadlines

    def _arm_timer(self) -> None:
        deadline_ms = self._waiters.next_deadline_ms
        if deadline_ms is None:
            return
        when = (deadline_ms + 1) / 1000  # not a rounding error too early
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._expire)

    def _expire(self) -> None:
        self._timer = None
        role = self._role
        is_short = isinstance(role, Leader) and not role.has_enough_replicas
        for entry in self._waiters.expired(_now_ms()):
            text = f"{self.name}: written at {entry.base_offset}, not committed in time"
            entry.refuse(
                NotEnoughReplicasAfterAppendError(text) if is_short else RequestTimedOutError(text)
            )
        self._arm_timer()


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)
