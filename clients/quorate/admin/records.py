"""Deletes records. Asks the leader of each partition, again and again until it has answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from quorate.aio.clock import Deadline
from quorate.cluster.cluster import Cluster
from quorate.cluster.leader_stream import BACKOFF_MS
from quorate.cluster.leaders import by_leader
from quorate.errors import QuorateError, RequestTimedOutError, from_wire
from quorate.model import TopicPartition
from quorate.net.methods import DELETE_RECORDS
from quorate.v1.common_pb2 import ErrorCode
from quorate.v1.records_pb2 import DeletedRecords, DeleteRecordsPartition, DeleteRecordsRequest

#: The most partitions in one request.
PARTITIONS_MAX = 1000


class Deletion:
    """One call of Admin.delete_records."""

    def __init__(
        self, cluster: Cluster, before: Mapping[TopicPartition, int], deadline: Deadline
    ) -> None:
        self._cluster = cluster
        self._deadline = deadline
        #: Partition without a final answer -> the offset below which all records must be deleted.
        self._wanted = dict(before)
        self._starts: dict[TopicPartition, int] = {}
        self._refused: dict[TopicPartition, QuorateError] = {}
        self._last: QuorateError | None = None

    async def carry_out(self) -> dict[TopicPartition, int]:
        """Return the start of each log. Raise the first error after all partitions were tried."""
        while self._wanted:
            if self._deadline.has_passed:
                raise self._last or RequestTimedOutError(
                    f"no leader of {sorted(self._wanted)[:10]} has answered within "
                    f"{self._deadline.timeout_ms:.0f} ms; ask again"
                )
            groups = await by_leader(self._cluster, self._wanted)
            await asyncio.gather(*(self._ask(one, group) for one, group in groups.items()))
            if self._wanted:
                self._cluster.request_refresh()
                await asyncio.sleep(BACKOFF_MS / 1000)
        for error in self._refused.values():
            raise error
        return self._starts

    async def _ask(self, endpoint: str, before: Mapping[TopicPartition, int]) -> None:
        keys = list(before)
        for first in range(0, len(keys), PARTITIONS_MAX):
            part = {key: before[key] for key in keys[first : first + PARTITIONS_MAX]}
            request, asked = self._request(part)
            left_ms = max(1, self._deadline.left_ms)
            request.timeout_ms = left_ms
            connection = self._cluster.connection(endpoint, "control")
            try:
                answer = await connection.unary(DELETE_RECORDS, request, timeout_ms=left_ms)
            except QuorateError as error:
                if not error.retriable:
                    raise
                self._last = error
                return
            for one in answer.partitions:
                key = asked.get((one.topic_id, one.partition))
                if key is not None:
                    self._take(key, one)

    def _request(
        self, before: Mapping[TopicPartition, int]
    ) -> tuple[DeleteRecordsRequest, dict[tuple[bytes, int], TopicPartition]]:
        request = DeleteRecordsRequest()
        asked: dict[tuple[bytes, int], TopicPartition] = {}
        for key, offset in before.items():
            topic = self._cluster.topics.get(key.topic)
            if topic is None or key.partition >= len(topic.partitions):
                # the topic was deleted just now: the next round raises the error
                continue
            asked[topic.topic_id, key.partition] = key
            request.partitions.append(
                DeleteRecordsPartition(
                    topic_id=topic.topic_id,
                    partition=key.partition,
                    before_offset=offset,
                    leader_epoch=topic.partitions[key.partition].leader_epoch,
                )
            )
        return request, asked

    def _take(self, key: TopicPartition, one: DeletedRecords) -> None:
        if one.error.code == ErrorCode.ERROR_CODE_NONE:
            self._starts[key] = one.log_start_offset
            del self._wanted[key]
            return
        self._cluster.learn(key.topic, key.partition, one.leader)
        error = from_wire(one.error)
        if error.retriable and not isinstance(error, RequestTimedOutError):
            self._last = error
        else:
            self._refused[key] = error
            del self._wanted[key]
