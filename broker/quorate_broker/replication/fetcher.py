"""The follower's side of replication: one stream to each broker that leads what we follow.

A stream carries all partitions that the two brokers share. What comes is handed to each
partition on its own, so one that is slow to write holds up no other; when it is done, its new
position is named in the next request, which acknowledges it and asks for more. A stream that
breaks or falls silent is built again after a short pause, with a higher stream_number, and all
partitions are named anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import structlog

from quorate.errors import InvalidRequestError, QuorateError, raise_if_error
from quorate_broker.methods import REPLICA_FETCH
from quorate_broker.v1.replica_pb2 import (
    ReplicaFetched,
    ReplicaFetchPartition,
    ReplicaFetchRequest,
    ReplicaOpen,
)
from quorate_quorum.log.disk_errors import TryAgainError

if TYPE_CHECKING:
    from quorate.net.frame import Frame
    from quorate_broker.replica.follower_replica import FetchPosition
    from quorate_broker.replica.partition import Partition
    from quorate_broker.replicas.replicas import Key, Replicas
    from quorate_broker.v1.replica_pb2 import ReplicaFetchHeader

log_line = structlog.get_logger(__name__)

#: Between two streams to one leader, and before a partition that was refused is named again.
BACKOFF_MS_MIN, BACKOFF_MS_MAX = 50, 200
#: How long a stream that carries nothing more waits until its last request is taken.
LEAVE_MAX_S = 0.5
#: Before a leader is asked again for a batch that did not pass its CRC.
CORRUPT_RETRY_S = 1.0
#: Frames come at least every replica.fetch.wait.max.ms; so many of those without one is silence.
SILENT_WAITS = 8
#: Answers for one partition that wait for the one before; an honest leader sends far fewer.
PENDING_MAX = 1000
#: Partitions that one request names, and that one turn of the loop begins to follow.
NAMED_MAX = 500


@dataclass(slots=True)
class _Following:
    """One partition on a stream; `task` does what its leader's answers ask for, in order."""

    partition: Partition
    pending: deque[tuple[ReplicaFetched, memoryview]] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    #: It is to be named again when what is pending is done.
    must_name: bool = True
    #: As last named on this stream, until that is answered.
    named: FetchPosition | None = None

    def is_answered_by(self, fetched: ReplicaFetched) -> bool:
        """Tell an answer to what was named last from one that comes too late to matter."""
        return self.named is not None and (fetched.leader_epoch, fetched.base_offset) == (
            self.named.leader_epoch,
            self.named.offset,
        )


class Fetchers:
    """All streams of this broker to leaders. A RoleListener of Replicas."""

    def __init__(self, replicas: Replicas, fail: Callable[[str], None]) -> None:
        self.replicas = replicas
        self.fail = fail
        self._streams: dict[int, LeaderStream] = {}
        self._leaders: dict[Key, int] = {}
        self._stream_number = 0
        self._ended: list[asyncio.Task[None]] = []
        self._stopping = False

    # RoleListener

    def role_changed(self, partition: Partition) -> None:
        """Follow it on the stream of its leader of now, from its position of now."""
        if not partition.is_follower or self._stopping:
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
                self._ended = [task for task in self._ended if not task.done()]
                self._ended.extend(stream.leave())

    def isr_wanted(self, partition: Partition) -> None:
        """Not ours."""

    # for the streams

    def next_stream_number(self) -> int:
        """Return a number above all before; leaders drop what comes from a lower one."""
        self._stream_number += 1
        return self._stream_number

    def backoff_s(self) -> float:
        chance = self.replicas.environment.chance
        return chance.uniform(BACKOFF_MS_MIN, BACKOFF_MS_MAX) / 1000

    async def stop(self) -> None:
        """End every stream; what is being written is finished. Safe to call twice."""
        self._stopping = True
        tasks = list(self._ended)
        for stream in self._streams.values():
            tasks.extend(stream.cancel())
        self._streams.clear()
        self._leaders.clear()
        if tasks:
            await asyncio.wait(tasks)


class LeaderStream:
    """The stream to one leader, built again for good until it carries nothing."""

    def __init__(self, fetchers: Fetchers, leader: int) -> None:
        self.leader = leader
        self._fetchers = fetchers
        self._replicas = fetchers.replicas
        self._config = fetchers.replicas.config
        self._following: dict[Key, _Following] = {}
        #: Positions for the next request, and partitions to leave out from now on.
        self._named: dict[Key, ReplicaFetchPartition] = {}
        self._forgotten: dict[Key, None] = {}
        self._changed = asyncio.Event()
        #: The leader has every request that says what is carried no more.
        self._all_told = asyncio.Event()
        #: Bytes that came and are not written yet.
        self._bytes_held = 0
        self._written = asyncio.Event()
        self._is_open = False
        self._broker_epoch = -1
        self._task: asyncio.Task[None] | None = None
        self._ending: list[asyncio.Task[None]] = []

    @property
    def is_empty(self) -> bool:
        return not self._following

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"replicate from {self.leader}")
        self._task.add_done_callback(self._ended)

    def leave(self) -> list[asyncio.Task[None]]:
        """End it once the leader was told what it carries no more; return what is still to end."""
        if not self._is_open:
            return self.cancel()
        leaving = asyncio.create_task(self._leave(), name=f"leave {self.leader}")
        tasks = [*self._ending, leaving, *([self._task] if self._task is not None else [])]
        return [task for task in tasks if not task.done()]

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_MAX_S):
                await self._all_told.wait()
        except TimeoutError:
            log_line.info("replica stream left untold", leader=self.leader)
        finally:
            self.cancel()

    def cancel(self) -> list[asyncio.Task[None]]:
        """End it; return the tasks that are still to end."""
        self._is_open = False  # the leader hears no more of what is carried
        for key in list(self._following):
            self.remove(key)
        tasks = [*self._ending, *([self._task] if self._task is not None else [])]
        if self._task is not None:
            self._task.cancel()
        return [task for task in tasks if not task.done()]

    def add(self, partition: Partition) -> None:
        """Carry a partition, or name it anew because its leader_epoch changed."""
        following = self._following.get(partition.key)
        if following is None or following.partition is not partition:
            following = self._following[partition.key] = _Following(partition)
        self._name(following)

    def remove(self, key: Key) -> None:
        """Carry it no more. What is being written of it is finished, what waits is dropped."""
        following = self._following.pop(key, None)
        self._named.pop(key, None)
        if following is None:
            return
        self._drop_pending(following)
        if following.task is not None:
            self._ending = [task for task in self._ending if not task.done()]
            self._ending.append(following.task)
        self._forgotten[key] = None
        self._all_told.clear()
        self._changed.set()

    # the stream

    async def _run(self) -> None:
        """Keep a stream open for good."""
        while True:
            endpoint = self._replicas.endpoint_of(self.leader)
            if endpoint and self._replicas.broker_epoch >= 0:
                try:
                    await self._session(endpoint)
                    reason = "the leader ended it"
                except TimeoutError:
                    reason = "silence"
                except QuorateError as error:
                    reason = f"{type(error).__name__}: {error}"
                self._is_open = False
                log_line.info(
                    "replica stream ended", leader=self.leader, reason=reason, repeats=True
                )
            await asyncio.sleep(self._fetchers.backoff_s())

    async def _session(self, endpoint: str) -> None:
        """One stream, from its opening to its end."""
        loop = asyncio.get_running_loop()
        silence = SILENT_WAITS * self._config.replica_fetch_wait_max_ms / 1000
        connection = self._replicas.environment.network.connect(endpoint, purpose="data")
        try:
            await self._begin()
            stream = connection.stream(REPLICA_FETCH, self._requests())
            async with aclosing(stream), asyncio.timeout(silence) as timeout:
                async for frame in stream:
                    self._take(frame)
                    timeout.reschedule(None)
                    await self._room()
                    timeout.reschedule(loop.time() + silence)
        finally:
            self._is_open = False
            await connection.close()

    async def _begin(self) -> None:
        """A new stream knows nothing: every partition is named when it can be."""
        self._is_open = True
        self._broker_epoch = self._replicas.broker_epoch
        self._named.clear()
        self._forgotten.clear()
        for count, following in enumerate(list(self._following.values()), 1):
            following.named = None
            self._name(following)
            if count % NAMED_MAX == 0:
                await asyncio.sleep(0)

    async def _requests(self) -> AsyncIterator[ReplicaFetchRequest]:
        """Yield what changed as soon as something has, and at least every max_wait_ms."""
        loop = asyncio.get_running_loop()
        wait_ms = self._config.replica_fetch_wait_max_ms
        number = 0
        opened: ReplicaOpen | None = self._open_message()
        while self._is_open and self._broker_epoch == self._replicas.broker_epoch:
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
                max_bytes=self._config.replica_fetch_max_bytes,
                max_wait_ms=wait_ms,
                request_number=number,
            )
            opened = None
            if not self._forgotten:
                self._all_told.set()  # the request before was taken
            if self._named or self._forgotten:
                continue
            timer = loop.call_later(wait_ms / 1000, self._changed.set)
            try:
                await self._changed.wait()
            finally:
                timer.cancel()

    def _open_message(self) -> ReplicaOpen:
        return ReplicaOpen(
            cluster_id=self._replicas.cluster_id,
            quorum_generation=self._replicas.client.quorum_generation,
            replica_id=self._replicas.broker_id,
            broker_epoch=self._broker_epoch,
            incarnation=self._replicas.incarnation,
            stream_number=self._fetchers.next_stream_number(),
        )

    def _take(self, frame: Frame[ReplicaFetchHeader]) -> None:
        """Hand each partition its part of a frame."""
        header, payload = frame.header, frame.payload
        raise_if_error(header.error)
        size = sum(fetched.size for fetched in header.partitions)
        if size != len(payload):
            raise InvalidRequestError(f"a frame names {size} bytes, its payload has {len(payload)}")
        position = 0
        for fetched in header.partitions:
            batches = payload[position : position + fetched.size]
            position += fetched.size
            following = self._following.get((fetched.topic_id, fetched.partition))
            if following is not None:
                self._hand_over(following, fetched, batches)

    def _hand_over(
        self, following: _Following, fetched: ReplicaFetched, batches: memoryview
    ) -> None:
        if len(following.pending) >= PENDING_MAX:
            raise InvalidRequestError(f"{following.partition.name}: answers pile up")
        following.pending.append((fetched, batches))
        self._bytes_held += len(batches)
        self._start(following)

    async def _room(self) -> None:
        """Read no further while too much waits to be written."""
        while self._bytes_held > self._config.replica_queued_max_bytes:
            self._written.clear()
            await self._written.wait()

    # one partition

    def _name(self, following: _Following) -> None:
        following.must_name = True
        self._start(following)

    def _start(self, following: _Following) -> None:
        if following.task is None:
            following.task = asyncio.create_task(
                self._follow(following), name=f"follow {following.partition.name}"
            )
            following.task.add_done_callback(self._ended)

    async def _follow(self, following: _Following) -> None:
        """Carry out what came for one partition, then name where it stands."""
        try:
            while following.pending or following.must_name:
                if following.pending:
                    await self._carry_out(following)
                else:
                    following.must_name = False
                    await self._note_position(following)
        finally:
            following.task = None

    async def _carry_out(self, following: _Following) -> None:
        fetched, batches = following.pending.popleft()
        refused: str | None = None
        follower = following.partition.follower
        is_bare = not batches and not fetched.HasField("diverging") and not fetched.error.code
        try:
            if not following.is_answered_by(fetched):
                return
            if not is_bare:
                following.named = None
            if follower is None:
                return
            refused = await follower.take(fetched, batches)
        finally:
            self._bytes_held -= len(batches)
            self._written.set()
        if refused is not None and self._is_carried(following):
            log_line.info(
                "not replicated",
                partition=following.partition.name,
                reason=refused,
                repeats=True,
            )
            # A bad batch is the same again, until another leads or repairs it.
            is_corrupt = follower is not None and follower.was_corrupt
            await asyncio.sleep(CORRUPT_RETRY_S if is_corrupt else self._fetchers.backoff_s())
        if refused is not None or not is_bare:
            following.must_name = True

    async def _note_position(self, following: _Following) -> None:
        """Name the position of now in the next request, if this stream's leader still leads."""
        partition = following.partition
        if (follower := partition.follower) is None:
            return
        try:
            position = await follower.fetch_position()
        except TryAgainError as error:
            log_line.info("not named", partition=partition.name, reason=str(error))
            await asyncio.sleep(self._fetchers.backoff_s())
            following.must_name = self._is_carried(following)
            return
        if position is not None and position.leader == self.leader and self._is_carried(following):
            following.named = position
            self._forgotten.pop(partition.key, None)
            self._named[partition.key] = _wire(partition, position)
            self._changed.set()

    def _is_carried(self, following: _Following) -> bool:
        return self._following.get(following.partition.key) is following

    def _drop_pending(self, following: _Following) -> None:
        self._bytes_held -= sum(len(batches) for _, batches in following.pending)
        following.pending.clear()
        following.must_name = False
        self._written.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log_line.error("replication failed", leader=self.leader, exc_info=task.exception())
            self._fetchers.fail(f"replication from {self.leader}: {task.exception()!r}")


def _wire(partition: Partition, position: FetchPosition) -> ReplicaFetchPartition:
    return ReplicaFetchPartition(
        topic_id=partition.topic_id,
        partition=partition.partition,
        leader_epoch=position.leader_epoch,
        fetch_offset=position.offset,
        last_fetched_epoch=position.last_fetched_epoch,
        log_start_offset=position.log_start_offset,
        high_watermark=position.high_watermark,
        was_corrupt=position.was_corrupt,
    )
