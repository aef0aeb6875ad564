"""A pool of workers on the jobs of a topic, in as many processes as there are partitions, or fewer.

The rules:

* A process works on many jobs at a time, on those of one key one after another.
* A job that fails is tried again after a pause, which doubles each time. A job that fails too
  often, or that its handler rejects, goes to the dead-letter topic, with the reason in its headers.
* An offset is committed when all jobs before it are done. So a crash loses no job. It repeats those
  that were done after the last commit: the handler's effect must be the same when it is repeated.
* A process that stops, or hands partitions over, finishes the jobs that it has of them first.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from quorate import Consumer, Producer, QuorateError, Record, TopicPartition

log = logging.getLogger(__name__)

Job = Record[bytes, bytes]
Handler = Callable[[Job], Awaitable[None]]

REASON_CHARS_MAX = 1000


class Reject(Exception):
    """A handler raises it for a job that no further attempt can do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The bounds of a pool.

    A job takes at most attempts_max x (attempt_max_s + pause_max_s). That must be shorter than the
    consumer's max_poll_interval_ms, or the group takes the partitions away while a job runs.
    """

    #: Jobs that run at a time.
    lanes: int = 16
    #: Jobs that the pool has taken and not done. Above it, the pool takes no more.
    jobs_max: int = 200
    attempts_max: int = 5
    #: An attempt that takes longer has failed.
    attempt_max_s: float = 30.0
    #: The pause after the first failed attempt. Each further one is twice as long.
    pause_s: float = 0.2
    pause_max_s: float = 10.0
    #: Time between two commits.
    commit_interval_s: float = 1.0
    #: How long a hand-over of partitions waits for the jobs that have begun.
    hand_over_max_s: float = 60.0

    def pause_after(self, attempt: int) -> float:
        """Return the pause after the failed attempt of this number, without its random part.

        >>> [Settings(pause_s=1, pause_max_s=5).pause_after(attempt) for attempt in (1, 2, 3, 4)]
        [1, 2, 4, 5]
        """
        return min(self.pause_max_s, self.pause_s * (1 << (attempt - 1)))


class Progress:
    """The jobs of one partition that the pool has taken, in the order of their offsets.

    >>> progress = Progress()
    >>> for offset in (5, 6, 9):
    ...     progress.take(offset)
    >>> progress.done(6)
    >>> progress.next_offset  # job 5 is not done
    >>> progress.done(5)
    >>> progress.next_offset
    7
    """

    def __init__(self) -> None:
        #: Offset -> whether it is done. A dict keeps the order in which the jobs were taken.
        self._jobs: dict[int, bool] = {}
        #: The offset to commit, None if there is none yet: all jobs before it are done.
        self.next_offset: int | None = None
        #: Another member of the group has the partition now.
        self.is_lost = False

    def __len__(self) -> int:
        return len(self._jobs)

    def take(self, offset: int) -> None:
        """Note that a job is to be done."""
        self._jobs[offset] = False

    def done(self, offset: int) -> None:
        """Note that a job is done."""
        self._jobs[offset] = True
        for first, is_done in list(self._jobs.items()):
            if not is_done:
                return
            del self._jobs[first]
            self.next_offset = first + 1


@dataclass(slots=True)
class Lane:
    """Jobs that are done one after another: all jobs of a key have the same lane."""

    jobs: asyncio.Queue[tuple[Job, Progress]] = field(default_factory=asyncio.Queue)


class WorkerPool:
    """Does the jobs of a topic. It is the listener of its consumer.

    The consumer needs a group_id, enable_auto_commit=False and no topics; the pool starts it. The
    producer is started already, and must not be stopped before the pool.
    """

    def __init__(
        self,
        consumer: Consumer[bytes, bytes],
        producer: Producer[bytes, bytes],
        handle: Handler,
        *,
        dead_letter_topic: str,
        settings: Settings | None = None,
    ) -> None:
        self._consumer = consumer
        self._producer = producer
        self._handle = handle
        self._dead_letter_topic = dead_letter_topic
        self._settings = settings or Settings()
        self._lanes = [Lane() for _ in range(self._settings.lanes)]
        self._progress: dict[TopicPartition, Progress] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._committing = asyncio.Lock()
        self._finished = asyncio.Condition()
        self._is_stopping = False
        #: A lane has failed, and with it all others: no job ends any more.
        self.has_failed = False

    async def run(self, topic: str) -> None:
        """Do jobs until stop() is called.

        Raises UnknownTopicError if there is no dead-letter topic, and an ExceptionGroup with the
        QuorateError if a dead letter could not be written or jobs could not be read. The jobs that
        are not done then are not committed: the next start does them.
        """
        await self._producer.partitions_for(self._dead_letter_topic)
        self._consumer.subscribe([topic], listener=self)
        async with asyncio.TaskGroup() as group:
            lanes = [group.create_task(self._work(lane)) for lane in self._lanes]
            # The lanes go on while the consumer stops: it gives its partitions back, and
            # on_partitions_revoked waits for their jobs.
            async with self._consumer:
                await self._take_jobs()
            for lane in lanes:
                lane.cancel()

    def stop(self) -> None:
        """Take no more jobs, finish those that were taken, and let run() return."""
        self._is_stopping = True

    # -- the group's callbacks

    async def on_partitions_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish the jobs of these partitions, and commit them, before others get the rest."""
        ours = {key: self._progress[key] for key in partitions if key in self._progress}
        try:
            async with asyncio.timeout(self._settings.hand_over_max_s), self._finished:
                await self._finished.wait_for(
                    lambda: self.has_failed or not any(map(len, ours.values()))
                )
        except TimeoutError:
            log.warning("jobs of %s did not end in time, and will be done again", partitions)
        await self._commit()
        self._forget(partitions)

    def on_partitions_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Drop what is not begun: another member does these jobs already."""
        self._forget(partitions)

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        for key in partitions:
            self._committed.pop(key, None)
            progress = self._progress.pop(key, None)
            if progress is not None:
                progress.is_lost = True

    # -- taking jobs

    async def _take_jobs(self) -> None:
        next_commit = time.monotonic() + self._settings.commit_interval_s
        while not self._is_stopping:
            room = self._settings.jobs_max - sum(map(len, self._progress.values()))
            if room > 0:
                found = await self._consumer.getmany(timeout_ms=200, max_records=room)
                for partition, jobs in found.items():
                    self._distribute(partition, jobs)
            else:
                await self._wait_for_room()
            if time.monotonic() >= next_commit:
                await self._commit()
                next_commit = time.monotonic() + self._settings.commit_interval_s

    def _distribute(self, partition: TopicPartition, jobs: Sequence[Job]) -> None:
        progress = self._progress.setdefault(partition, Progress())
        for job in jobs:
            progress.take(job.offset)
            number = job.offset if job.key is None else zlib.crc32(job.key)
            self._lanes[number % len(self._lanes)].jobs.put_nowait((job, progress))

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(self._settings.commit_interval_s), self._finished:
                await self._finished.wait()
        except TimeoutError:
            return

    async def _commit(self) -> None:
        """Commit what is done. One commit at a time, so that no older one comes last."""
        async with self._committing:
            ours = self._consumer.assignment()
            offsets = {
                key: progress.next_offset
                for key, progress in self._progress.items()
                if progress.next_offset is not None
                and progress.next_offset != self._committed.get(key)
                and key in ours
            }
            if not offsets:
                return
            try:
                await self._consumer.commit(offsets)
            except QuorateError as error:
                log.warning("not committed, the next commit tries again: %s", error)
            else:
                self._committed.update(offsets)

    # -- doing jobs

    async def _work(self, lane: Lane) -> None:
        while True:
            job, progress = await lane.jobs.get()
            try:
                if not progress.is_lost:
                    await self._do(job)
                progress.done(job.offset)
            except QuorateError:
                self.has_failed = True
                raise
            finally:
                async with self._finished:
                    self._finished.notify_all()

    async def _do(self, job: Job) -> None:
        """Do a job, or write it to the dead-letter topic."""
        reason: Exception | None = None
        attempt = 0
        while attempt < self._settings.attempts_max and not isinstance(reason, Reject):
            if attempt > 0:
                # a random part: jobs that failed together do not come back together
                pause_s = self._settings.pause_after(attempt) * random.uniform(0.5, 1)
                await asyncio.sleep(pause_s)
            attempt += 1
            try:
                async with asyncio.timeout(self._settings.attempt_max_s):
                    await self._handle(job)
                return
            except Exception as error:
                reason = error
                log.info("attempt %s of %s failed: %r", attempt, _place(job), error)
        await self._bury(job, f"{type(reason).__name__}: {reason}", attempt)

    async def _bury(self, job: Job, reason: str, attempts: int) -> None:
        """Write a job to the dead-letter topic. Raises QuorateError: the job is not done then."""
        log.warning("%s goes to %s: %s", _place(job), self._dead_letter_topic, reason)
        await self._producer.send_and_wait(
            self._dead_letter_topic,
            job.value,
            key=job.key,
            headers=[
                *job.headers,
                ("dead-letter-reason", reason[:REASON_CHARS_MAX].encode()),
                ("dead-letter-attempts", str(attempts).encode()),
                # A crash before the next commit may bring the same job again: this tells it.
                ("dead-letter-source", _place(job).encode()),
            ],
        )


def _place(job: Job) -> str:
    return f"{job.topic}/{job.partition}@{job.offset}"
