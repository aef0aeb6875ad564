"""Drives the accumulator: one produce stream per broker. Reacts to answers and breaks.

The accumulator decides what is sent, in which order, and what is sent again. The sender waits. A
stream takes batches out of the accumulator only when the wire can take a request. So for a slow
broker the batches become fuller, and requests do not queue up.
"""

from __future__ import annotations

import asyncio
import logging

from quorate import errors
from quorate.aio.backoff import Backoff, backoff_ms
from quorate.cluster.cluster import Cluster
from quorate.cluster.leader_stream import BACKOFF_MAX_MS, BACKOFF_MS, LeaderStreams
from quorate.net.methods import INIT_PRODUCER_ID
from quorate.producer.accumulator import Accumulator
from quorate.producer.partition_queue import Batch, PartitionQueue, ProducerIdentity
from quorate.producer.produce_stream import ProduceStream, endpoint_of
from quorate.producer.routes import Routes
from quorate.v1.records_pb2 import InitProducerIdRequest, ProduceResult

log = logging.getLogger(__name__)

TICK_S = 0.1
#: Pause between two requests for new partitions of the topics in use.
LOOK_INTERVAL_S = 2.0
#: Longest wait for one broker. A broker answers sooner if it finds no controller.
IDENTITY_TIMEOUT_MS = 2000
#: How long a topic may be missing before its waiting records fail. A topic that was just created
#: again is not known to every broker at once.
GONE_WAIT_S = 3.0
#: gRPC statuses after which a retry would fail in the same way.
FINAL_STATUSES = (
    "UNIMPLEMENTED",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "INVALID_ARGUMENT",
    "RESOURCE_EXHAUSTED",
)
#: Errors that prove that this attempt wrote nothing. After any other error, the batch may be
#: written. An error that a broker raises before its append belongs here.
NOT_WRITTEN = (
    errors.AuthorizationError,
    errors.NotLeaderError,
    errors.NotEnoughReplicasError,
    errors.OverloadedError,
    errors.StoppingError,
    # The log is offline, or the disk is full. After a failed append a broker answers with
    # OutcomeUnknownError instead.
    errors.StorageError,
    errors.UnknownTopicError,
    errors.InvalidRequestError,
    errors.CorruptRecordError,
    errors.UnsupportedError,
    errors.OutOfOrderSequenceError,
    errors.UnknownProducerIdError,
    errors.PeerRefusedError,
    errors.WrongClusterError,
)


class Sender:
    """All produce streams of one producer."""

    def __init__(
        self,
        cluster: Cluster,
        accumulator: Accumulator,
        routes: Routes,
        *,
        acks: int,
        request_timeout_ms: int,
    ) -> None:
        self.cluster = cluster
        self.accumulator = accumulator
        self.routes = routes
        self.acks = acks
        self.request_timeout_ms = request_timeout_ms
        self._streams: LeaderStreams[ProduceStream] = LeaderStreams(cluster)
        self._ticker: asyncio.Task[None] | None = None
        self._identity: asyncio.Task[None] | None = None
        #: Whether a batch was opened since the last request for new partitions.
        self._was_used = False
        cluster.on_change(self.wake)
        cluster.owner.on_failure(self.fail)

    def start(self) -> None:
        """Start the tick, which expires late batches."""
        self._ticker = self.cluster.owner.spawn(self._tick(), "producer-tick")

    async def stop(self) -> None:
        """End every stream."""
        await self.cluster.owner.end(self._ticker, self._identity)
        await self._streams.stop()

    def fail(self, error: errors.QuorateError) -> None:
        """Fail all records, also later ones, because the producer does not work any more."""
        log.error("the producer failed: %s", error, exc_info=error.__cause__)
        self.accumulator.close(error)

    def opened(self, queue: PartitionQueue, *, is_urgent: bool) -> None:
        """Tell the stream of a queue that a batch was opened.

        `is_urgent`: a batch of the queue must not linger any longer.
        """
        if self.cluster.owner.failure is not None:
            return
        self._was_used = True
        if self.accumulator.config.idempotent and self.accumulator.identity is None:
            self._ask_identity()
        stream = self._stream_of(queue)
        if stream is None:
            self.refresh()
        elif is_urgent:
            stream.wake()
        else:
            stream.wake_for_linger()

    def _stream_of(self, queue: PartitionQueue) -> ProduceStream | None:
        endpoint = endpoint_of(self.cluster, queue)
        if not endpoint:
            view = self.cluster.partition(queue.topic, queue.partition)
            queue.hindrance = None if view is None else view.hindrance
            return None
        queue.hindrance = None
        for stream in self._streams.to(endpoint):
            return stream
        return self._streams.add(ProduceStream(self, endpoint))

    def wake(self) -> None:
        """Check all queues and streams. Leaders may have changed, or batches may be ready."""
        if self.cluster.owner.failure is not None:
            return
        if self.accumulator.config.idempotent and self.accumulator.identity is None:
            self._ask_identity()
        homeless = False
        for queue in self.accumulator.waiting():
            if self._is_gone(queue):
                homeless |= self._rehome(queue)
            elif self._stream_of(queue) is None:
                homeless = True
        self._streams.wake()
        if homeless:
            self.refresh()

    def refresh(self) -> None:
        """Ask for metadata, to learn new leaders. Cluster limits how often."""
        self.cluster.request_refresh()

    def _is_gone(self, queue: PartitionQueue) -> bool:
        """Return whether the topic was deleted: the newest metadata does not have its id."""
        topic = self.cluster.topics.get(queue.topic)
        if topic is None or topic.topic_id != queue.topic_id:
            return True
        queue.gone_at = None
        return False

    def _rehome(self, queue: PartitionQueue) -> bool:
        """Move the waiting batches of a deleted topic to the new topic of the same name.

        A record goes to the topic that had the name when the record was sent. The waiting batches
        fail if no new topic exists within GONE_WAIT_S, or if it has another number of partitions.
        Batches in flight are left alone, because their broker answers. Returns whether to ask for
        metadata again.
        """
        topic = self.cluster.topics.get(queue.topic)
        if topic is None:
            now = asyncio.get_running_loop().time()
            queue.gone_at = now if queue.gone_at is None else queue.gone_at
            if now < queue.gone_at + GONE_WAIT_S:
                self.cluster.want((queue.topic,))
                return True
            self._fail_unsent(queue, f"topic {queue.topic!r} was deleted")
            return False
        if queue.partition_count not in (-1, len(topic.numbers)):
            self._fail_unsent(
                queue,
                f"topic {queue.topic!r} was deleted, and made again with {len(topic.numbers)} "
                f"partitions instead of {queue.partition_count}; send the records again",
            )
            return False
        successor = self.routes.queue(topic, queue.partition)
        self.accumulator.move(queue, successor, topic.created_at)
        self._fail_unsent(
            queue, f"topic {queue.topic!r} was deleted after the record was sent, and made again"
        )
        return False

    def _fail_unsent(self, queue: PartitionQueue, why: str) -> None:
        for batch in list(queue.batches()):
            if batch not in queue.in_flight:
                self.accumulator.failed(batch, errors.UnknownTopicError(why))

    def settle(
        self, batch: Batch, error: errors.QuorateError | None, result: ProduceResult, endpoint: str
    ) -> None:
        """React to a broker's answer for a batch."""
        if error is None:
            self.accumulator.succeeded(batch, result.base_offset, result.log_append_time_ms)
            return
        queue = batch.queue
        asked = endpoint_of(self.cluster, queue)
        if result.HasField("leader") and asked:
            self.cluster.learn(queue.topic, queue.partition, result.leader)
        leader = endpoint_of(self.cluster, queue)
        knows_leader = leader not in ("", endpoint)
        self.lost(batch, error, wait_ms=0.0 if knows_leader else None)
        if not batch.done and not knows_leader:
            self.refresh()
        self.wake()

    def lost(
        self, batch: Batch, error: errors.QuorateError, *, wait_ms: float | None = None
    ) -> None:
        """React to the error of an attempt: send the batch again, whole or in parts, or fail it."""
        if batch.done:
            return
        if not isinstance(error, NOT_WRITTEN):
            batch.is_uncertain = True
        if isinstance(error, errors.RecordTooLargeError):
            self.accumulator.split(batch, error)
            return
        if not self._is_worth_a_retry(batch, error):
            self.accumulator.failed(batch, error)
            return
        if wait_ms is None:
            wait_ms = backoff_ms(batch.attempts, BACKOFF_MS, BACKOFF_MAX_MS)
        now = asyncio.get_running_loop().time()
        self.accumulator.retry(batch, error, now, wait_ms / 1000)

    def _is_worth_a_retry(self, batch: Batch, error: errors.QuorateError) -> bool:
        if isinstance(error, errors.NotLeaderError | errors.UnknownTopicError):
            # if the topic is gone for good, `wake` fails the batch
            return True
        if self.acks == 0:
            # acks=0 promises to send a record at most once
            return False
        if isinstance(error, errors.OutOfOrderSequenceError | errors.UnknownProducerIdError):
            return self.accumulator.config.idempotent and batch.base_sequence >= 0
        if isinstance(error, errors.PeerError):
            return error.status not in FINAL_STATUSES
        # OutcomeUnknownError, StorageError: another broker may lead now, and can take the retry.
        # WrongClusterError: the other cluster did nothing. The next metadata request shows the
        # right address, or fails the client.
        return error.retriable or isinstance(
            error, errors.OutcomeUnknownError | errors.StorageError | errors.WrongClusterError
        )

    def _ask_identity(self) -> None:
        if self._identity is None or self._identity.done():
            self._identity = self.cluster.owner.spawn(self._get_identity(), "producer-id")

    async def _get_identity(self) -> None:
        backoff = Backoff(BACKOFF_MS, BACKOFF_MAX_MS)
        while True:
            try:
                response = await self.cluster.ask_any(
                    INIT_PRODUCER_ID,
                    InitProducerIdRequest(producer_id=-1, producer_epoch=-1),
                    timeout_ms=self.request_timeout_ms,
                    one_broker_ms=IDENTITY_TIMEOUT_MS,
                )
                errors.raise_if_error(response.error)
            except errors.AuthorizationError as error:
                # fail the producer: a retry does not help, and no batch may be sent without an id
                self.fail(error)
                return
            except errors.QuorateError as error:
                log.debug("no producer id yet: %s", error)
                self.accumulator.hindrance = error
                await backoff.wait()
            else:
                self.accumulator.hindrance = None
                self.accumulator.identity = ProducerIdentity(
                    response.producer_id, response.producer_epoch
                )
                self.wake()
                return

    async def _tick(self) -> None:
        """Expire late batches. Ask for metadata again in use, and while a broker is silent.

        While the producer is used, the request finds new partitions. It is cheap if there are none.
        """
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            if self._was_used and now - looked_at >= LOOK_INTERVAL_S:
                looked_at, self._was_used = now, False
                self.refresh()
            self.accumulator.expire(now)
            self.routes.forget_unused(now)
            if self._streams.tick(now):
                self.refresh()
            self.wake()
