"""The Produce stream: frames in, results out, over partitions that a test moves by hand."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from quorate.errors import (
    InvalidRequestError,
    NotEnoughReplicasError,
    NotLeaderError,
    StoppingError,
    StreamBrokenError,
)
from quorate.net.frame import Frame
from quorate.v1.common_pb2 import ErrorCode, LeaderHint
from quorate.v1.records_pb2 import (
    ProduceHeader,
    ProducePartition,
    ProduceResponse,
    ProduceResult,
)
from tests.unit.quorate_broker.listeners.builders import PEER, Requests, service
from tests.unit.quorate_broker.operations.builders import (
    TOPIC,
    FakePartition,
    FakeReplicas,
    Produced,
    settle,
)


def frame(request_id: int, *batches: tuple[int, bytes], acks: int = -1) -> Frame[ProduceHeader]:
    header = ProduceHeader(request_id=request_id, acks=acks, timeout_ms=1000)
    for partition, batch in batches:
        header.partitions.append(
            ProducePartition(topic_id=TOPIC, partition=partition, leader_epoch=-1, size=len(batch))
        )
    return Frame(header, (b"".join(batch for _, batch in batches),))


async def results(stream: Any) -> list[ProduceResult]:
    response: ProduceResponse = await anext(stream)
    return list(response.results)


class TestProduce:
    async def test_results_come_when_ready_and_name_their_batch(self) -> None:
        replicas = FakeReplicas(p0=FakePartition(), p1=FakePartition())
        requests = Requests()
        stream = service(replicas).produce(requests, PEER)
        requests.send(frame(7, (0, b"aaa"), (1, b"bb")))
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        assert replicas.partitions[0].calls[0].batch == b"aaa"
        assert replicas.partitions[1].calls[0].batch == b"bb"

        replicas.partitions[1].calls[0].outcome.set_result(Produced(40))
        [second] = (await waiting).results
        assert (second.request_id, second.index, second.base_offset) == (7, 1, 40)
        assert not second.HasField("error")

        replicas.partitions[0].calls[0].outcome.set_result(Produced(9))
        [first] = await results(stream)
        assert (first.index, first.base_offset) == (0, 9)
        requests.end()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    async def test_what_gets_ready_in_one_turn_is_one_response(self) -> None:
        replicas = FakeReplicas(p0=FakePartition())
        requests = Requests()
        stream = service(replicas).produce(requests, PEER)
        for number in range(3):
            requests.send(frame(number, (0, b"x")))
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        for call in replicas.partitions[0].calls:
            call.outcome.set_result(Produced(1))
        assert [one.request_id for one in (await waiting).results] == [0, 1, 2]
        await stream.aclose()

    async def test_a_partition_that_waits_does_not_stop_the_stream(self) -> None:
        """Bytes count until appended, not until acknowledged."""
        replicas = FakeReplicas(p0=FakePartition(), p1=FakePartition())
        requests = Requests()
        limits = {"stream_queued_max_bytes": 10}
        stream = service(replicas, limits).produce(requests, PEER)
        waiting = asyncio.ensure_future(anext(stream))
        for number in range(50):
            requests.send(frame(number, (0, b"x" * 10)))
            await settle()
            replicas.partitions[0].calls[-1].appended()
        requests.send(frame(50, (1, b"y")))
        await settle()
        assert len(replicas.partitions[0].calls) == 50
        replicas.partitions[1].calls[0].outcome.set_result(Produced(0))
        [result] = (await waiting).results
        assert result.request_id == 50
        await stream.aclose()

    @pytest.mark.parametrize("bound", ["stream_queued_max_bytes", "queued_max_bytes"])
    async def test_reading_stops_at_the_bound_of_bytes_not_appended(self, bound: str) -> None:
        replicas = FakeReplicas(p0=FakePartition())
        requests = Requests()
        limits = {bound: 10}
        stream = service(replicas, limits).produce(requests, PEER)
        waiting = asyncio.ensure_future(anext(stream))
        for number in range(5):
            requests.send(frame(number, (0, b"x" * 6)))
        await settle()
        assert requests.taken == 2
        replicas.partitions[0].calls[0].appended()
        replicas.partitions[0].calls[0].appended()  # said twice: counted once
        await settle()
        assert requests.taken == 3
        waiting.cancel()
        await settle()

    async def test_a_client_that_does_not_read_its_results_is_not_read_either(self) -> None:
        requests = Requests()
        limits = {"stream_results_max": 4}
        stream = service(FakeReplicas(), limits).produce(requests, PEER)
        for number in range(100):
            requests.send(frame(number, (0, b"x")))
        first = await results(stream)
        await settle()
        assert requests.taken <= len(first) + 5
        await stream.aclose()

    async def test_the_end_of_a_stream_cancels_no_batch(self) -> None:
        replicas = FakeReplicas(p0=FakePartition())
        requests = Requests()
        stream = service(replicas).produce(requests, PEER)
        requests.send(frame(0, (0, b"x")))
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        waiting.cancel()
        await settle()
        call = replicas.partitions[0].calls[0]
        assert not call.outcome.cancelled()
        call.outcome.set_exception(
            NotEnoughReplicasError("late")
        )  # no caller waits for it any more
        await settle()

    async def test_a_broken_client_still_has_its_batches_appended(self) -> None:
        replicas = FakeReplicas(p0=FakePartition())
        requests = Requests()
        requests.send(frame(0, (0, b"x")))
        requests.send(StreamBrokenError("gone"))
        stream = service(replicas).produce(requests, PEER)
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        replicas.partitions[0].calls[0].outcome.set_result(Produced(0))
        assert len((await waiting).results) == 1
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    @pytest.mark.parametrize(
        ("came_in_by", "told"), [("in", "b:1"), ("out", "b:2"), ("", "b:1"), ("other", "")]
    )
    async def test_an_error_carries_the_leader_where_the_caller_reaches_it(
        self, came_in_by: str, told: str
    ) -> None:
        replicas = FakeReplicas(p0=FakePartition())
        requests = Requests()
        stream = service(replicas).produce(requests, replace(PEER, listener=came_in_by))
        requests.send(frame(0, (0, b"x")))
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        error = NotLeaderError("moved")
        error.hint = LeaderHint(leader=2, leader_epoch=5)  # type: ignore[attr-defined]
        replicas.partitions[0].calls[0].outcome.set_exception(error)
        [result] = (await waiting).results
        assert result.error.code == ErrorCode.ERROR_CODE_NOT_LEADER
        assert (result.leader.leader, result.leader.listener.endpoint) == (2, told)
        assert result.base_offset == -1
        await stream.aclose()

    async def test_an_unforeseen_failure_is_told_as_unknown(self) -> None:
        replicas = FakeReplicas(p0=FakePartition())
        requests = Requests()
        stream = service(replicas).produce(requests, PEER)
        requests.send(frame(0, (0, b"x")))
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        replicas.partitions[0].calls[0].outcome.set_exception(ValueError("boom"))
        [result] = (await waiting).results
        assert result.error.code == ErrorCode.ERROR_CODE_UNKNOWN
        await stream.aclose()

    @pytest.mark.parametrize(
        ("named", "code"),
        [
            (
                ProducePartition(topic_id=b"u" * 16, size=1),
                ErrorCode.ERROR_CODE_UNKNOWN_TOPIC,
            ),
            (
                ProducePartition(topic_id=b"short", size=1),
                ErrorCode.ERROR_CODE_INVALID_REQUEST,
            ),
            (
                ProducePartition(topic_id=TOPIC, partition=-4, size=1),
                ErrorCode.ERROR_CODE_INVALID_REQUEST,
            ),
            (
                ProducePartition(topic_id=TOPIC, partition=99, size=1),
                ErrorCode.ERROR_CODE_UNKNOWN_TOPIC,
            ),
            (
                ProducePartition(topic_id=TOPIC, leader_epoch=-2, size=1),
                ErrorCode.ERROR_CODE_INVALID_REQUEST,
            ),
        ],
    )
    async def test_what_cannot_be_is_an_error_of_its_partition_only(
        self, named: ProducePartition, code: int
    ) -> None:
        replicas = FakeReplicas(p1=FakePartition())
        requests = Requests()
        stream = service(replicas).produce(requests, PEER)
        header = ProduceHeader(request_id=1, acks=1, partitions=[named])
        header.partitions.append(ProducePartition(topic_id=TOPIC, partition=1, size=1))
        requests.send(Frame(header, (b"ab",)))
        [result] = await results(stream)
        assert (result.index, result.error.code) == (0, code)
        assert replicas.partitions[1].calls[-1].batch == b"b"
        await stream.aclose()

    async def test_a_partition_named_twice_gets_its_first_batch_only(self) -> None:
        replicas = FakeReplicas(p0=FakePartition())
        requests = Requests()
        stream = service(replicas).produce(requests, PEER)
        requests.send(frame(1, (0, b"a"), (0, b"b")))
        [result] = await results(stream)
        assert result.index == 1
        assert [call.batch for call in replicas.partitions[0].calls] == [b"a"]
        await stream.aclose()

    async def test_impossible_acks_are_refused(self) -> None:
        requests = Requests()
        stream = service(FakeReplicas(p0=FakePartition())).produce(requests, PEER)
        requests.send(frame(1, (0, b"a"), acks=2))
        [result] = await results(stream)
        assert "acks" in result.error.message
        await stream.aclose()

    @pytest.mark.parametrize("case", ["too few", "too many", "id", "partitions"])
    async def test_lying_framing_ends_the_stream_and_nothing_else(self, case: str) -> None:
        replicas = FakeReplicas(p0=FakePartition())
        limits = {"request_partitions_max": 3}
        records = service(replicas, limits)
        requests = Requests()
        stream = records.produce(requests, PEER)
        good = frame(1, (0, b"abc"))
        if case == "too few":
            requests.send(Frame(good.header, (b"ab",)))
        elif case == "too many":
            requests.send(Frame(good.header, (b"abcd",)))
        elif case == "id":
            requests.send(frame(5))
            requests.send(frame(5))
        else:
            requests.send(frame(1, *[(number, b"x") for number in range(4)]))
        with pytest.raises(InvalidRequestError):
            await anext(stream)
        assert not replicas.partitions[0].calls

        requests = Requests()  # the node lives
        stream = records.produce(requests, PEER)
        requests.send(good)
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        replicas.partitions[0].calls[0].outcome.set_result(Produced(0))
        await waiting
        await stream.aclose()

    async def test_stop_answers_what_was_taken_and_ends(self) -> None:
        replicas = FakeReplicas(p0=FakePartition())
        records = service(replicas)
        requests = Requests()
        stream = records.produce(requests, PEER)
        requests.send(frame(1, (0, b"a")))
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        records.stop()
        requests.send(frame(2, (0, b"b")))
        [refused] = (await waiting).results
        assert (refused.request_id, refused.error.code) == (2, ErrorCode.ERROR_CODE_STOPPING)
        replicas.partitions[0].calls[0].outcome.set_result(Produced(0))
        assert len(await results(stream)) == 1
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        with pytest.raises(StoppingError):
            await anext(records.produce(Requests(), PEER))
