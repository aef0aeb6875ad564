"""The follower's side of replication: one stream to each broker that leads followed partitions.

A stream serves all partitions that the two brokers share. The fetcher gives each answer to its
partition (followed.py), and the next request sends the partition's new position. If a stream breaks
or is silent for too long, the fetcher opens a new one after a short pause. The new stream has a
higher stream_number, and all positions are sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from itertools import islice

import structlog

from quorate.aio.clock import loop_ms
from quorate.aio.tasks import Tasks
from quorate.errors import InvalidRequestError, QuorateError, raise_if_error
from quorate.net.frame import Frame
from quorate_broker.methods import REPLICA_FETCH
from quorate_broker.replica.contact import Contact
from quorate_broker.replica.follower_replica import FetchPosition
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.replica import Key
from quorate_broker.replicas.replicas import Replicas
from quorate_broker.replication.followed import Followed
from quorate_broker.replication.held_bytes import HeldBytes, room_beside
from quorate_broker.replication.patience import Patience
from quorate_broker.replication.stream_credit import ROOMS, room_of_a_stream
from quorate_broker.replication.throttle import Throttle
from quorate_broker.v1.replica_pb2 import (
    ReplicaFetchHeader,
    ReplicaFetchPartition,
    ReplicaFetchRequest,
    ReplicaOpen,
)

log_line = structlog.get_logger(__name__)

#: Bounds of two pauses: between two streams to one leader, and before the position of a refused
#: partition is sent again.
BACKOFF_MS_MIN, BACKOFF_MS_MAX = 50, 200
#: Longest wait of a stream without partitions until its last request is sent.
LEAVE_MAX_S = 0.5
#: A frame comes at least every replica.fetch.wait.max.ms. After this many such intervals without a
#: frame, the stream counts as silent; over a congested link, after more: see Patience.
SILENT_WAITS = 8
#: The most partitions in one request. One turn of the loop begins to follow at most as many.
NAMED_MAX = 500


class Fetchers:
    """All streams of this broker to leaders. It is a RoleListener of Replicas."""

    def __init__(self, replicas: Replicas, fail: Callable[[str], None]) -> None:
        self.replicas = replicas
        self.fail = fail
        self.throttle: Throttle[Key] = Throttle("follower", replicas)
        self._streams: dict[int, LeaderStream] = {}
        self._leaders: dict[Key, int] = {}
        self._stream_number = 0
        #: Streams that have no partition any more, and have not ended yet.
        self._leaving: list[LeaderStream] = []
        self._stopping = False
        replicas.on_changed = self._changed

    # RoleListener

    def role_changed(self, partition: Partition) -> None:
        """Move a partition to the stream of its present leader. Remove one that does not follow."""
        if partition.follower is None or self._stopping:
            self.removed(partition)
            return
        if self._leaders.get(partition.key, partition.leader) != partition.leader:
            self.removed(partition)
        self._leaders[partition.key] = partition.leader
        stream = self._streams.get(partition.leader)
        if stream is None:
            stream = self._streams[partition.leader] = LeaderStream(self, partition.leader)
            stream.start()
        stream.add(partition)

    def removed(self, partition: Partition) -> None:
        leader = self._leaders.pop(partition.key, None)
        stream = None if leader is None else self._streams.get(leader)
        if stream is not None and leader is not None:
            stream.remove(partition.key)
            if stream.is_empty:
                del self._streams[leader]
                stream.leave()
                self._leaving = [one for one in (*self._leaving, stream) if not one.has_ended]

    def isr_wanted(self, partition: Partition) -> None:
        """Do nothing, because only a leader proposes an ISR."""

    def isr_unsettled(self, partition: Partition) -> None:
        """Do nothing, for the same reason."""

    # for the streams

    def next_stream_number(self) -> int:
        """Return a number above all earlier ones. A leader refuses a stream with a lower number."""
        self._stream_number += 1
        return self._stream_number

    @property
    def room(self) -> int:
        """The bytes to ask for: one room of a stream (see StreamCredit)."""
        config, streams = self.replicas.config, self._streams.values()
        bytes_max = config.replica_queued_max_bytes
        fair = room_of_a_stream(bytes_max, len(streams))
        left = room_beside(bytes_max, fair, [stream.held.late for stream in streams], ROOMS)
        return min(room_of_a_stream(left, len(streams)), config.replica_fetch_max_bytes)

    @property
    def bytes_held(self) -> int:
        """The bytes that were received from all leaders and are not yet written."""
        return sum(stream.held.size for stream in self._streams.values())

    def may_take_more(self, held: HeldBytes) -> bool:
        """Return whether a stream that holds these bytes may take another frame.

        A leader sends no more than it was asked for, unless streams were opened meanwhile. What
        slow partitions hold is bounded by the limit of all streams together.
        """
        most = ROOMS * self.room
        all_max = max(self.replicas.config.replica_queued_max_bytes, most * len(self._streams))
        return held.has_room(most, self.bytes_held, all_max)

    def backoff_s(self) -> float:
        chance = self.replicas.environment.chance
        return chance.uniform(BACKOFF_MS_MIN, BACKOFF_MS_MAX) / 1000

    def _changed(self) -> None:
        for stream in self._streams.values():
            stream.send()

    async def stop(self) -> None:
        """End every stream. A write under way is finished. It is safe to call this twice."""
        self._stopping = True
        streams = [*self._leaving, *self._streams.values()]
        for stream in self._streams.values():
            stream.cancel()
        self._streams.clear()
        self._leaders.clear()
        for stream in streams:
            await stream.ended()


class LeaderStream:
    """The stream to one leader. It is opened again after each break, until it has no partition."""

    def __init__(self, fetchers: Fetchers, leader: int) -> None:
        self.leader = leader
        self._fetchers = fetchers
        self._replicas = fetchers.replicas
        self._config = fetchers.replicas.config
        self._followed: dict[Key, Followed] = {}
        self._contact = Contact()
        self._patience = Patience(SILENT_WAITS * self._config.replica_fetch_wait_max_ms / 1000)
        #: The positions for the next requests. `_forgotten` has the partitions that the leader must
        #: stop sending.
        self._named: dict[Key, ReplicaFetchPartition] = {}
        self._forgotten: dict[Key, None] = {}
        self._changed = asyncio.Event()
        #: Set when all requests with `forgotten` partitions are sent.
        self._all_told = asyncio.Event()
        self.held = HeldBytes()
        self._written = asyncio.Event()
        self._is_open = False
        self._broker_epoch = -1
        self._tasks = Tasks(self._failed)
        self._running: asyncio.Task[None] | None = None

    @property
    def is_empty(self) -> bool:
        return not self._followed

    @property
    def has_ended(self) -> bool:
        return not self._tasks

    def start(self) -> None:
        self._running = self._tasks.spawn(self._run(), f"replicate from {self.leader}")

    def leave(self) -> None:
        """Tell the leader that no partition is left, and then end the stream."""
        if self._is_open:
            self._tasks.spawn(self._leave(), f"leave {self.leader}")
        else:
            self.cancel()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_MAX_S):
                await self._all_told.wait()
        except TimeoutError:
            log_line.info("replica stream left untold", leader=self.leader)
        finally:
            self.cancel()

    def cancel(self) -> None:
        """End the stream now. A write under way is finished."""
        # make `_requests` send no further request
        self._is_open = False
        for key in list(self._followed):
            self.remove(key)
        if self._running is not None:
            self._tasks.cancel(self._running)

    async def ended(self) -> None:
        """Wait until all tasks of the stream have ended."""
        await self._tasks.ended()

    def add(self, partition: Partition) -> None:
        """Fetch a partition over this stream from now on.

        If the stream has the partition already, send its position again, because its leader_epoch
        has changed.
        """
        if partition.follower is not None:
            partition.follower.reads.contact = self._contact
        followed = self._followed.get(partition.key)
        if followed is None or followed.partition is not partition:
            followed = self._followed[partition.key] = Followed(
                partition,
                self.leader,
                self._tasks,
                self._fetchers.throttle,
                named=self._name,
                written=self._let_go,
                backoff_s=self._fetchers.backoff_s,
            )
        followed.name()

    def remove(self, key: Key) -> None:
        """Stop fetching a partition. A write under way is finished; waiting answers are dropped."""
        followed = self._followed.pop(key, None)
        self._named.pop(key, None)
        if followed is None:
            return
        followed.drop()
        self._forgotten[key] = None
        self._all_told.clear()
        self._changed.set()

    # the stream

    async def _run(self) -> None:
        """Keep a stream open until this task is cancelled."""
        while True:
            endpoint = self._replicas.endpoint_of(self.leader)
            if endpoint and self._replicas.registration.is_known:
                try:
                    await self._session(endpoint)
                    reason = "the leader ended it"
                except TimeoutError:
                    reason = f"silence for {self._patience.silence_s:g} s"
                    self._patience.was_silent()
                except QuorateError as error:
                    reason = f"{type(error).__name__}: {error}"
                self._is_open = False
                log_line.info(
                    "replica stream ended", leader=self.leader, reason=reason, repeats=True
                )
            await asyncio.sleep(self._fetchers.backoff_s())

    async def _session(self, endpoint: str) -> None:
        """Run one stream from its opening to its end."""
        loop = asyncio.get_running_loop()
        patience = self._patience
        connection = self._replicas.environment.network.connect(endpoint, purpose="data")
        try:
            await self._begin()
            stream = connection.stream(REPLICA_FETCH, self._requests())
            patience.began(loop.time())
            async with aclosing(stream), asyncio.timeout(patience.silence_s) as timeout:
                async for frame in stream:
                    self._contact.heard_ms = loop_ms()
                    patience.heard(loop.time())
                    self._take(frame)
                    timeout.reschedule(None)
                    await self._room()
                    timeout.reschedule(loop.time() + patience.silence_s)
        finally:
            self._is_open = False
            await connection.close()

    async def _begin(self) -> None:
        """Send every position again, because the leader knows no partition of a new stream."""
        self._is_open = True
        self._broker_epoch = self._replicas.registration.broker_epoch
        self._named.clear()
        self._forgotten.clear()
        for count, followed in enumerate(list(self._followed.values()), 1):
            followed.begin_stream()
            if count % NAMED_MAX == 0:
                await asyncio.sleep(0)

    async def _requests(self) -> AsyncIterator[ReplicaFetchRequest]:
        """Yield a request as soon as something has changed, and at least every max_wait_ms."""
        loop = asyncio.get_running_loop()
        wait_ms = self._config.replica_fetch_wait_max_ms
        number = 0
        opened: ReplicaOpen | None = self._open_message()
        while self._is_open and self._broker_epoch == self._replicas.registration.broker_epoch:
            number += 1
            self._changed.clear()
            named = [self._named.pop(key) for key in list(islice(self._named, NAMED_MAX))]
            forgotten = list(islice(self._forgotten, NAMED_MAX))
            for key in forgotten:
                del self._forgotten[key]
            yield ReplicaFetchRequest(
                open=opened,
                partitions=named,
                forgotten=[
                    ReplicaFetchPartition(topic_id=topic_id, partition=partition)
                    for topic_id, partition in forgotten
                ],
                max_bytes=self._patience.room(self._fetchers.room),
                max_wait_ms=wait_ms,
                request_number=number,
            )
            opened = None
            if not self._forgotten:
                # the stream has taken the last request when this generator continues
                self._all_told.set()
            if NAMED_MAX in (len(named), len(forgotten)):
                continue
            timer = loop.call_later(wait_ms / 1000, self._changed.set)
            try:
                await self._changed.wait()
            finally:
                timer.cancel()

    def _open_message(self) -> ReplicaOpen:
        return ReplicaOpen(
            cluster_id=self._replicas.registration.cluster_id,
            quorum_generation=self._replicas.client.quorum_generation,
            replica_id=self._replicas.broker_id,
            broker_epoch=self._broker_epoch,
            incarnation=self._replicas.registration.incarnation,
            stream_number=self._fetchers.next_stream_number(),
        )

    def _take(self, frame: Frame[ReplicaFetchHeader]) -> None:
        """Give each partition its part of a frame."""
        header, payload = frame.header, frame.payload
        raise_if_error(header.error)
        size = sum(fetched.size for fetched in header.partitions)
        if size != len(payload):
            raise InvalidRequestError(f"a frame names {size} bytes, its payload has {len(payload)}")
        position = 0
        for fetched in header.partitions:
            batches = payload[position : position + fetched.size]
            position += fetched.size
            followed = self._followed.get((fetched.topic_id, fetched.partition))
            if followed is not None:
                followed.take(fetched, batches)
                # they live until they are written or dropped, so no others have their id
                self.held.received(id(batches), len(batches), loop_ms())

    async def _room(self) -> None:
        """Wait while too many received bytes are not yet written, without those that are late."""
        while True:
            now_ms = loop_ms()
            next_late_ms = self.held.next_late_ms(now_ms)
            if self._fetchers.may_take_more(self.held):
                return
            self._written.clear()
            wait_s = None if next_late_ms is None else (next_late_ms - now_ms) / 1000
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._written.wait()

    # for the partitions

    def _name(self, partition: Partition, position: FetchPosition, bytes_max: int | None) -> None:
        """Send a partition's position in the next request."""
        self._forgotten.pop(partition.key, None)
        self._named[partition.key] = _wire(partition, position, bytes_max)
        # One image gives hundreds of replicas their roles, a few in each turn of the loop. Their
        # first positions share requests.
        is_first = position.high_watermark < 0
        if not (is_first and self._replicas.is_changing) or len(self._named) >= NAMED_MAX:
            self._changed.set()

    def send(self) -> None:
        """Send the first positions that have waited for those of other replicas."""
        if self._named:
            self._changed.set()

    def _let_go(self, batches: memoryview) -> None:
        """Count received batches as written or dropped."""
        self.held.let_go(id(batches))
        self._written.set()

    def _failed(self, _: str, error: BaseException) -> None:
        log_line.error("replication failed", leader=self.leader, exc_info=error)
        self._fetchers.fail(f"replication from {self.leader}: {error!r}")


def _wire(
    partition: Partition, position: FetchPosition, bytes_max: int | None
) -> ReplicaFetchPartition:
    return ReplicaFetchPartition(
        topic_id=partition.topic_id,
        partition=partition.partition,
        leader_epoch=position.leader_epoch,
        fetch_offset=position.offset,
        last_fetched_epoch=position.last_fetched_epoch,
        log_start_offset=position.log_start_offset,
        high_watermark=position.high_watermark,
        was_corrupt=position.was_corrupt,
        bytes_max=bytes_max,
    )
