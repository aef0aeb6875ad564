"""The small calls of the Records service, and their errors as the wire has them."""

from __future__ import annotations

import pytest

from quorate.errors import InvalidRequestError
from quorate.v1.common_pb2 import ErrorCode
from quorate.v1.records_pb2 import (
    FetchedPartition,
    InitProducerIdRequest,
    ListOffsetsPartition,
    ListOffsetsRequest,
)
from tests.unit.quorate_broker.listeners.builders import PEER, service
from tests.unit.quorate_broker.operations.builders import (
    TOPIC,
    FakePartition,
    FakeReplicas,
)


async def test_each_partition_is_answered_for_itself() -> None:
    partition = FakePartition(b"abcd", 3, log_start_offset=1)
    asked = [
        ListOffsetsPartition(topic_id=TOPIC, partition=index, timestamp_ms=-2) for index in (0, 1)
    ]
    found = await service(FakeReplicas(p0=partition)).list_offsets(
        ListOffsetsRequest(partitions=asked), PEER
    )
    assert [(one.partition, one.offset, one.error.code) for one in found.partitions] == [
        (0, 1, ErrorCode.ERROR_CODE_NONE),
        (1, -1, ErrorCode.ERROR_CODE_UNKNOWN_TOPIC),
    ]
    assert found.partitions[0].high_watermark == 3


async def test_a_request_that_names_too_many_partitions_is_refused_whole() -> None:
    asked = [ListOffsetsPartition(topic_id=TOPIC, partition=i, timestamp_ms=-2) for i in range(3)]
    records = service(FakeReplicas(p0=FakePartition()), {"request_partitions_max": 2})
    with pytest.raises(InvalidRequestError, match="3 partitions are named at once; 2 are"):
        await records.list_offsets(ListOffsetsRequest(partitions=asked), PEER)


async def test_an_error_of_a_producers_id_is_in_the_answer() -> None:
    records = service(FakeReplicas())
    answer = await records.init_producer_id(InitProducerIdRequest(producer_id=-1), PEER)
    assert answer.error.code == ErrorCode.ERROR_CODE_QUORUM_UNAVAILABLE
    answer = await records.init_producer_id(
        InitProducerIdRequest(producer_id=3, producer_epoch=0), PEER
    )
    assert (answer.producer_id, answer.producer_epoch) == (3, 1)


def test_the_answers_fields_are_what_the_tests_read() -> None:
    assert FetchedPartition(fetch_offset=3).fetch_offset == 3
