"""One replica of a partition on this broker: its log, joined with the role of now.

The machines decide (leader.py, follower.py, producers.py); this drives them. Here are the door,
the state, and changes of role; the rest is functions over it: appending.py (producers),
reading.py (consumers), leading.py and following.py (replication). All that writes to the log
happens under one lock: the drain of the produce queue, what comes from a leader, changes of
role. A fault inside takes this replica offline and nothing else (law 11); whoever owns it is
told by PartitionHost.failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from quorate.errors import StorageError
from quorate.v1.common_pb2 import LeaderHint
from quorate_broker.replica import appending, following, guarded, leading, reading
from quorate_broker.replica.appending import Produced
from quorate_broker.replica.follower import Follower
from quorate_broker.replica.following import FetchPosition
from quorate_broker.replica.host import Failure, PartitionHost, PartitionLimits
from quorate_broker.replica.leader import Leader
from quorate_broker.replica.reading import Fetched
from quorate_broker.replica.waiters import Waiters, Watches, hinted

if TYPE_CHECKING:
    from quorate_broker.replica.checks import Buffer
    from quorate_broker.replica.leader import Proposal, ReplicaStream
    from quorate_broker.replica.producers import Producers
    from quorate_broker.v1.replica_pb2 import (
        ReplicaDiverging,
        ReplicaFetched,
        ReplicaFetchPartition,
    )
    from quorate_quorum.configs import TopicConfig
    from quorate_quorum.log.log import Log
    from quorate_quorum.metadata.image import PartitionImage

__all__ = [
    "Failure",
    "FetchPosition",
    "Fetched",
    "Partition",
    "PartitionHost",
    "PartitionLimits",
    "Produced",
]

log_line = structlog.get_logger(__name__)


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
        #: The machine of now.
        self.role: Leader | Follower | None = None
        self._config: TopicConfig | None = None

        # for the modules beside
        self.host = host
        self.limits = limits or PartitionLimits()
        self.producers = producers
        self.state: PartitionImage | None = None
        self.lock = asyncio.Lock()
        self.guard = guarded.Guard(self)
        self.watches = Watches()
        self.replica_watches = Watches()
        self.is_prepared = False
        #: A follower: what the leader sent for the position of now did not pass its CRC.
        self.was_corrupt = False
        #: The first append is remembered outside the replica's directory.
        self.is_noted = False
        #: A follower that lost what it had acknowledged in this leader_epoch: its leader may have
        #: proposed it for the ISR before it heard of that. (leader_epoch, end that it had)
        self.owed: tuple[int, int] | None = None
        # damage.py
        #: The bad batch that was found in a leader's log.
        self.damage: str | None = None
        #: It is remembered on the disk: the leader may resign.
        self.is_damage_noted = False
        self.note_task: asyncio.Task[None] | None = None
        self.look_task: asyncio.Task[None] | None = None
        self.look_again_ms = 0
        self.checkpointed = (log.high_watermark, log.hw_epoch)
        self.is_closed = False
        # appending.py
        self.queue: list[appending.Queued] = []
        self.drain_task: asyncio.Task[None] | None = None
        self.waiters: Waiters[appending.Queued] = Waiters(self.limits.waiters_max)
        self.timer: asyncio.TimerHandle | None = None
        self.is_full = False
        # leading.py
        self.sync_task: asyncio.Task[None] | None = None
        # following.py
        self.leader_log_start = -1

    # what it is

    @property
    def key(self) -> tuple[bytes, int]:
        return (self.topic_id, self.partition)

    @property
    def is_leader(self) -> bool:
        return isinstance(self.role, Leader)

    @property
    def is_follower(self) -> bool:
        return isinstance(self.role, Follower)

    @property
    def leader_epoch(self) -> int:
        return -1 if self.state is None else self.state.leader_epoch

    @property
    def leader(self) -> int:
        """The broker that leads, -1 if none does."""
        return -1 if self.state is None else self.state.leader

    @property
    def isr(self) -> tuple[int, ...]:
        """The ISR as last committed, as far as this broker knows."""
        if isinstance(self.role, Leader):
            return self.role.isr
        return () if self.state is None else self.state.isr

    @property
    def log_start_offset(self) -> int:
        return self.log.log_start_offset

    @property
    def log_end_offset(self) -> int:
        return self.log.log_end_offset

    @property
    def high_watermark(self) -> int:
        return self.role.high_watermark if self.role is not None else self.log.high_watermark

    @property
    def config(self) -> TopicConfig:
        """The topic's configuration; only once an image was followed."""
        assert self._config is not None
        return self._config

    @property
    def hint(self) -> LeaderHint:
        """Who leads, for a caller who asked the wrong broker."""
        return LeaderHint(leader=self.leader, leader_epoch=self.leader_epoch)

    # for producers: appending.py

    def produce(
        self,
        batch: memoryview,
        *,
        leader_epoch: int,
        acks: int,
        timeout_ms: int,
        in_doubt_ms: int = 0,
        appended: Callable[[], None],
    ) -> asyncio.Future[Produced]:
        """Queue a batch; batches are appended in the order of the calls. Never blocks or raises.

        `leader_epoch` is the client's view, -1: do not check; `acks` is -1 (all), 0 or 1;
        `timeout_ms` bounds the wait for the commit; `in_doubt_ms`: see Staging.check. `appended`
        is called once, when the bytes are in the log or refused. The future ends with Produced or
        a QuorateError; hint_of(error) says who leads where that is the reason.
        """
        return appending.enqueue(
            self,
            batch,
            leader_epoch=leader_epoch,
            acks=acks,
            timeout_ms=timeout_ms,
            in_doubt_ms=in_doubt_ms,
            appended=appended,
        )

    # for consumers: reading.py

    async def fetch(
        self,
        offset: int,
        *,
        bytes_max: int,
        leader_epoch: int,
        last_epoch: int = -1,
        at_least_one: bool = True,
        from_follower: bool = False,
    ) -> Fetched:
        """Return whole batches from `offset` on, below the high watermark.

        `last_epoch` is that of the last record that the reader knows below `offset`, -1: not known.
        Empty in [high_watermark, log_end_offset]. Raises OffsetOutOfRangeError below the log's
        start or above its end, DivergedError if the log holds other records below `offset`,
        NotLeaderError (unless `from_follower`), FencedLeaderEpochError, UnknownLeaderEpochError,
        StorageError.
        """
        return await reading.fetch(
            self,
            offset,
            bytes_max=bytes_max,
            leader_epoch=leader_epoch,
            last_epoch=last_epoch,
            at_least_one=at_least_one,
            from_follower=from_follower,
        )

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` when the high watermark, the log's start or the role changes.

        Returns the function that ends that.
        """
        return self.watches.add(wake)

    async def list_offset(self, timestamp_ms: int, leader_epoch: int) -> tuple[int, int, int]:
        """Return (offset, its timestamp, its leader_epoch) for a time; offset -1: none that late.

        -2 is the log's start, -1 the high watermark. Raises OffsetNotAvailableError while a new
        leader does not know its high watermark, and what `fetch` raises.
        """
        return await reading.list_offset(self, timestamp_ms, leader_epoch)

    # replication, the leader's side: leading.py

    def follower_fetch(
        self, stream: ReplicaStream, request: ReplicaFetchPartition, now_ms: int
    ) -> ReplicaDiverging | None:
        """Take a follower's position; return where its past leaves ours, None if it does not.

        A fetch that diverges, is out of range, or comes from a replaced stream or another
        leader_epoch, moves no state (K8). Raises NotLeaderError and its kinds,
        OffsetOutOfRangeError, StorageError.
        """
        return leading.follower_fetch(self, stream, request, now_ms)

    def follower_left(self, stream: ReplicaStream) -> None:
        """A follower's stream goes on without this partition: it leaves the ISR."""
        leading.follower_left(self, stream)

    async def read_for_follower(self, offset: int, *, leader_epoch: int, bytes_max: int) -> bytes:
        """Return whole batches from `offset` up to the log's end, at least one if there is one."""
        return await leading.read_for_follower(
            self, offset, leader_epoch=leader_epoch, bytes_max=bytes_max
        )

    def watch_end(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` on every append too; for followers' streams. Returns what ends it."""
        return self.replica_watches.add(wake)

    # the ISR: leading.py

    @property
    def wants_to_expand(self) -> bool:
        """Whether a replica outside the ISR has caught up (a cheap hint)."""
        return isinstance(self.role, Leader) and self.role.wants_to_expand

    def propose_isr(
        self, now_ms: int, broker_epoch: int, eligible_epoch: Callable[[int], int]
    ) -> Proposal | None:
        """Return the ISR to ask the controller for now, if any. See Leader.propose."""
        return leading.propose_isr(self, now_ms, broker_epoch, eligible_epoch)

    @property
    def must_resign(self) -> bool:
        """Whether it is to lead and can't, or not all of it: another should be elected."""
        cannot = self.failure in ("broken", "replica") or self.damage is not None
        return cannot and self.leader == self.host.broker_id

    def isr_committed(
        self, proposal: Proposal, leader_epoch: int, partition_epoch: int, isr: Sequence[int]
    ) -> None:
        """The controller answered a proposal with the state of now."""
        leading.isr_committed(self, proposal, leader_epoch, partition_epoch, isr)

    def isr_refused(self, proposal: Proposal) -> None:
        """The controller will not have that ISR."""
        leading.isr_refused(self, proposal)

    def isr_lost(self, proposal: Proposal) -> None:
        """No answer that decides: it will be asked again."""
        leading.isr_lost(self, proposal)

    # replication, the follower's side: following.py

    async def fetch_position(self) -> FetchPosition | None:
        """Return from where to fetch, None if this replica does not follow now.

        With flush.on.ack, only when all that it has is synced, for the fetch acknowledges it.
        """
        return await following.fetch_position(self)

    async def take_from_leader(self, fetched: ReplicaFetched, batches: Buffer) -> str | None:
        """Do what a leader's answer asks for: append, cut, start again.

        Returns None, or why nothing was done; the caller then waits a little before it asks
        again. With flush.on.ack the batches are synced when this returns.
        """
        return await following.take_from_leader(self, fetched, batches)

    # roles

    async def follow_image(
        self,
        state: PartitionImage,
        config: TopicConfig,
        min_isr: int,
        *,
        may_lead: bool,
        may_follow: bool = True,
    ) -> bool:
        """Take the role that the image gives this broker; return whether the role changed.

        `may_lead`: this broker is unfenced, as it sees itself. `may_follow`: the controller knows
        what this replica has lost. Waits for the append under way.
        """
        self._config = config
        self.log.configure(segment_bytes=config.segment_bytes)
        is_same_reign = (
            self.role is not None
            and self.state is not None
            and state.leader_epoch == self.state.leader_epoch
            and (may_lead or not self.is_leader)
            and (may_follow or not self.is_follower)
        )
        self.state = state
        if self.offline is not None:
            return False
        if is_same_reign:
            if isinstance(self.role, Leader):
                with self.guard:
                    leading.same_reign(self, self.role, state, min_isr)
            return False
        had_role = self.role is not None
        self._end_role()
        async with self.lock:
            if self.offline is not None or self.is_closed:
                return True
            with self.guard:
                self._begin_role(state, min_isr, may_lead=may_lead, may_follow=may_follow)
        self.wake_all()
        return had_role or self.role is not None

    def _begin_role(
        self, state: PartitionImage, min_isr: int, *, may_lead: bool, may_follow: bool
    ) -> None:
        if state.leader == self.host.broker_id:
            if not may_lead:
                return
            leading.begin(self, state, min_isr)
            self._log_role("leader")
        elif state.leader >= 0 and may_follow:
            following.begin(self, state)
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
        if self.role is None:
            return
        self.role = None
        appending.end_waits(self)

    # upkeep and the end

    async def delete_below(self, offset: int) -> int:
        """Remove whole segments below `offset`, never above the high watermark; return how many."""
        bound = min(offset, self.high_watermark)
        count = 0
        if self.offline is None and not self.is_closed:
            count = await guarded.read(self, self.log.delete_segments_below(bound))
        if count:
            self.wake_all()
        return count

    async def checkpoint(self) -> None:
        """Write the high watermark down, if it moved since the last time."""
        known = (self.high_watermark, self.log.hw_epoch)
        if known == self.checkpointed or self.offline is not None or self.is_closed:
            return
        try:
            await self.log.checkpoint_high_watermark(*known)
            self.checkpointed = known
        except StorageError as error:
            if not self.is_closed:
                guarded.failed(self, error)

    async def close(self, *, clean: bool) -> None:
        """Fail what waits, wait for the append under way, close the log. Safe to call twice."""
        if self.is_closed:
            return
        self._end_role()
        async with self.lock:
            if self.is_closed:
                return
            if clean:
                await self.checkpoint()
            self.is_closed = True
            under_way = (self.sync_task, self.look_task, self.note_task)
            tasks = [task for task in under_way if task is not None]
            if tasks:
                await asyncio.wait(tasks)
            try:
                await self.log.close(clean=clean and self.offline is None)
            except StorageError as error:
                guarded.failed(self, error)
        appending.refuse_queue(self)
        self.wake_all()

    def take_offline(self, failure: Failure, reason: str) -> None:
        """Serve nothing from now on. What waits is told that its outcome is unknown."""
        if self.offline is not None:
            return
        self.offline, self.failure = reason, failure
        log_line.error("replica offline", partition=self.name, failure=failure, reason=reason)
        if isinstance(self.role, Follower) and self.role.has_matched:
            self.owed = (self.role.leader_epoch, self.log.log_end_offset)
        self._end_role()
        appending.refuse_queue(self)
        self.wake_all()
        self.host.failed(self, failure, reason)

    def offline_error(self) -> StorageError:
        """Return what to tell who asks an offline replica."""
        return hinted(StorageError(f"{self.name} is offline here: {self.offline}"), self.hint)

    # for the modules beside

    def set_high_watermark(self, offset: int, epoch: int) -> None:
        """Tell the log, which writes it down at the next checkpoint."""
        self.log.high_watermark = offset
        self.log.hw_epoch = epoch

    def wake_all(self) -> None:
        """Wake consumers' and followers' streams."""
        self.watches.wake()
        self.replica_watches.wake()
