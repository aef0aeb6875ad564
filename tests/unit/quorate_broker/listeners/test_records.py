"""The Records service over partitions that a test moves by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import pytest
from rpds import HashTrieMap

from quorate.errors import (
    InvalidRequestError,
    NotEnoughReplicasError,
    NotLeaderError,
    OffsetOutOfRangeError,
    QuorumUnavailableError,
    StoppingError,
    StreamBrokenError,
    UnknownTopicError,
)
from quorate.net.frame import Frame
from quorate.net.network import Peer
from quorate.v1.common_pb2 import ErrorCode, LeaderHint
from quorate.v1.records_pb2 import (
    FetchedPartition,
    FetchHeader,
    FetchPartition,
    FetchRequest,
    InitProducerIdRequest,
    ListOffsetsPartition,
    ListOffsetsRequest,
    ProduceHeader,
    ProducePartition,
    ProduceResponse,
    ProduceResult,
)
from quorate_broker.listeners.grpc.records import RecordsService
from quorate_broker.operations.producer_ids import ProducerIds
from quorate_broker.replica.divergence import Divergence
from quorate_broker.replica.leader_replica import DivergedError
from quorate_quorum.metadata.brokers import BrokerImage
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.authorizer import ALLOW_ALL
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.listeners import parse_all

TOPIC = b"t" * 16
PEER = Peer("test")


class Produced(NamedTuple):
    base_offset: int
    log_append_time_ms: int = -1
    log_start_offset: int = 0


class Fetched(NamedTuple):
    batches: bytes
    high_watermark: int
    log_start_offset: int


@dataclass
class Produce:
    """One call of produce that the test finishes."""

    batch: bytes
    acks: int
    timeout_ms: int
    appended: Callable[[], None]
    outcome: asyncio.Future[Produced]


@dataclass
class FakePartition:
    """Records are single bytes, one an offset."""

    topic = "zoo"
    records: bytes = b""
    high_watermark: int = 0
    log_start_offset: int = 0
    calls: list[Produce] = field(default_factory=list)
    wakes: list[Callable[[], None]] = field(default_factory=list)
    fetches: list[int] = field(default_factory=list)
    last_epochs: list[int] = field(default_factory=list)
    error: Exception | None = None
    record_bytes: int = 1

    def produce(
        self,
        batch: memoryview,
        *,
        acks: int,
        timeout_ms: int,
        in_doubt_ms: int,
        appended: Callable[[], None],
    ) -> asyncio.Future[Produced]:
        outcome: asyncio.Future[Produced] = asyncio.get_running_loop().create_future()
        self.calls.append(Produce(bytes(batch), acks, timeout_ms, appended, outcome))
        return outcome

    async def fetch(
        self,
        offset: int,
        *,
        bytes_max: int,
        last_epoch: int,
        at_least_one: bool,
    ) -> Fetched:
        self.fetches.append(offset)
        self.last_epochs.append(last_epoch)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        if not self.log_start_offset <= offset <= len(self.records):
            raise OffsetOutOfRangeError(f"offset {offset}")
        found = self.records[offset : self.high_watermark]
        found = found[: max(bytes_max, 1 if at_least_one else 0)]
        return Fetched(found, self.high_watermark, self.log_start_offset)

    def as_leader(self, leader_epoch: int) -> FakePartition:
        return self

    @property
    def queue(self) -> FakePartition:
        return self

    @property
    def watches(self) -> FakePartition:
        return self

    def add(self, wake: Callable[[], None]) -> Callable[[], None]:
        self.wakes.append(wake)
        return lambda: self.wakes.remove(wake)

    def move(self, records: bytes, *, commit: bool = True) -> None:
        self.records += records
        if commit:
            self.high_watermark = len(self.records)
        self.wake()

    def wake(self) -> None:
        for wake in list(self.wakes):
            wake()

    async def list_offset(self, timestamp_ms: int) -> tuple[int, int, int]:
        if self.error is not None:
            raise self.error
        if timestamp_ms == -2:
            return self.log_start_offset, -1, 3
        return self.high_watermark, timestamp_ms, 3


class FakeReplicas:
    def __init__(self, **partitions: FakePartition) -> None:
        self.partitions = {int(name[1:]): partition for name, partition in partitions.items()}
        leader = BrokerImage(
            2,
            9,
            b"i" * 16,
            parse_all(("in=grpc://b:1", "out=grpc://b:2")),
            "in",
            "",
            "b",
            (),
            False,
            False,
        )
        self.image = MetadataImage(brokers=HashTrieMap({2: leader}))

    @property
    def held(self) -> int:
        return len(self.partitions)

    def get(self, topic_id: bytes, partition: int) -> FakePartition:
        if topic_id != TOPIC or partition not in self.partitions:
            raise UnknownTopicError(f"no partition {partition}")
        return self.partitions[partition]


class Requests:
    """The client's side of a stream."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self.taken = 0

    def send(self, request: Any) -> None:
        self._queue.put_nowait(request)

    def end(self) -> None:
        self._queue.put_nowait(None)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        request = await self._queue.get()
        if request is None:
            raise StopAsyncIteration
        if isinstance(request, Exception):
            raise request
        self.taken += 1
        return request


def service(
    replicas: FakeReplicas,
    bounds: dict[str, int] | None = None,
    *,
    allocate: Callable[[], Any] | None = None,
) -> RecordsService:
    """`bounds` are settings of the broker."""

    async def none() -> range:
        raise QuorumUnavailableError("no controller")

    settings: dict[str, Any] = {"node_id": 0, "listeners": ("b0:7092",), "log_dirs": ("/data",)}
    config = BrokerConfig(**(settings | (bounds or {})))
    producer_ids = ProducerIds(allocate or none, ALLOW_ALL)
    return RecordsService(cast(Any, replicas), producer_ids, config, ALLOW_ALL)


def frame(request_id: int, *batches: tuple[int, bytes], acks: int = -1) -> Frame[ProduceHeader]:
    header = ProduceHeader(request_id=request_id, acks=acks, timeout_ms=1000)
    for partition, batch in batches:
        header.partitions.append(
            ProducePartition(topic_id=TOPIC, partition=partition, leader_epoch=-1, size=len(batch))
        )
    return Frame(header, (b"".join(batch for _, batch in batches),))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


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
        call.outcome.set_exception(NotEnoughReplicasError("late"))  # nobody hears, nobody minds
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


def fetch_request(
    request_id: int,
    *positions: tuple[int, int],
    wait_ms: int = 0,
    min_bytes: int = 1,
    max_bytes: int = 1000,
    each: int = 1000,
    forgotten: tuple[int, ...] = (),
) -> FetchRequest:
    request = FetchRequest(
        request_id=request_id, max_wait_ms=wait_ms, min_bytes=min_bytes, max_bytes=max_bytes
    )
    for partition, offset in positions:
        request.partitions.append(
            FetchPartition(
                topic_id=TOPIC,
                partition=partition,
                fetch_offset=offset,
                leader_epoch=-1,
                max_bytes=each,
            )
        )
    for partition in forgotten:
        request.forgotten.append(FetchPartition(topic_id=TOPIC, partition=partition))
    return request


def payloads(answer: Frame[FetchHeader]) -> dict[int, bytes]:
    position = 0
    found: dict[int, bytes] = {}
    for one in answer.header.partitions:
        found[one.partition] = bytes(answer.payload[position : position + one.size])
        position += one.size
    assert position == len(answer.payload)
    return found


FOREVER = 60_000


class TestFetch:
    async def test_records_below_the_high_watermark_are_answered_at_once(self) -> None:
        replicas = FakeReplicas(p0=FakePartition(b"abcdef", 4))
        requests = Requests()
        stream = service(replicas).fetch(requests, PEER)
        requests.send(fetch_request(1, (0, 1), wait_ms=FOREVER))
        answer = await anext(stream)
        assert answer.header.request_id == 1
        assert payloads(answer) == {0: b"bcd"}
        assert answer.header.partitions[0].high_watermark == 4
        assert answer.header.partitions[0].fetch_offset == 1
        await stream.aclose()
        assert not replicas.partitions[0].wakes

    async def test_a_fetch_at_the_end_parks_until_the_high_watermark_moves(self) -> None:
        replicas = FakeReplicas(p0=FakePartition(b"ab", 2))
        requests = Requests()
        stream = service(replicas).fetch(requests, PEER)
        requests.send(fetch_request(1, (0, 2), wait_ms=FOREVER))
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        replicas.partitions[0].move(b"c", commit=False)  # not committed: not seen
        await settle()
        assert not waiting.done()
        replicas.partitions[0].move(b"d")
        assert payloads(await waiting) == {0: b"cd"}
        await stream.aclose()

    async def test_a_past_that_is_not_ours_is_told_with_where_it_leaves_the_log(self) -> None:
        partition = FakePartition(b"ab", 2)
        partition.error = DivergedError("cut", Divergence(3, 1))
        requests = Requests()
        stream = service(FakeReplicas(p0=partition)).fetch(requests, PEER)
        request = fetch_request(1, (0, 2), wait_ms=FOREVER)
        request.partitions[0].last_fetched_epoch = 5
        requests.send(request)
        [told] = (await anext(stream)).header.partitions
        assert partition.last_epochs == [5]
        assert told.error.code == ErrorCode.ERROR_CODE_LOG_TRUNCATED
        assert (told.divergence.epoch, told.divergence.end_offset) == (3, 1)
        partition.error = None
        requests.send(fetch_request(2, (0, 1), wait_ms=FOREVER))
        assert payloads(await anext(stream)) == {0: b"b"}
        assert partition.last_epochs == [5, -1]  # not given: not compared
        await stream.aclose()

    async def test_of_a_large_session_only_what_moved_is_looked_at_and_told(self) -> None:
        many = {f"p{number}": FakePartition(b"a", 1) for number in range(300)}
        requests = Requests()
        stream = service(FakeReplicas(**many)).fetch(requests, PEER)
        requests.send(fetch_request(1, *((number, 1) for number in range(300)), wait_ms=FOREVER))
        waiting = asyncio.ensure_future(anext(stream))
        for _ in range(40):
            await settle()
        assert not waiting.done()
        many["p7"].move(b"b")
        assert {7: b"b"}.items() <= payloads(await waiting).items()
        requests.send(fetch_request(2, (7, 2), wait_ms=FOREVER))
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        many["p9"].move(b"c")
        assert payloads(await waiting) == {9: b"c"}
        assert [len(one.fetches) for one in many.values() if len(one.fetches) > 1] == [3, 2]
        await stream.aclose()

    async def test_a_large_request_and_its_answers_leave_turns_to_others(self) -> None:
        many = {f"p{number}": FakePartition(b"a", 1) for number in range(2500)}
        requests = Requests()
        stream = service(FakeReplicas(**many)).fetch(requests, PEER)
        requests.send(fetch_request(1, *((number, 1) for number in range(2500)), wait_ms=FOREVER))
        waiting = asyncio.ensure_future(anext(stream))
        turns = 0
        while not waiting.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 2500 / 250  # to name them alone
        told = [one.partition for one in (await waiting).header.partitions]
        assert told == list(range(1000))
        requests.send(fetch_request(2, wait_ms=FOREVER))
        told += [one.partition for one in (await anext(stream)).header.partitions]
        requests.send(fetch_request(3, wait_ms=FOREVER))
        many["p7"].move(b"b")  # the rest is told with the next news
        told += [one.partition for one in (await anext(stream)).header.partitions]
        assert sorted(told) == sorted([*range(2500), 7])
        await stream.aclose()

    async def test_an_empty_answer_comes_after_max_wait(self) -> None:
        replicas = FakeReplicas(p0=FakePartition(b"ab", 2))
        requests = Requests()
        stream = service(replicas).fetch(requests, PEER)
        requests.send(fetch_request(1, (0, 2), wait_ms=1))
        answer = await anext(stream)
        [bounds] = answer.header.partitions  # the first answer tells the bounds
        assert (bounds.size, bounds.high_watermark) == (0, 2)
        requests.send(fetch_request(2, wait_ms=1))
        answer = await anext(stream)
        assert answer.header.request_id == 2
        assert not answer.header.partitions
        await stream.aclose()

    async def test_a_partition_is_out_of_turn_until_its_next_position_is_named(self) -> None:
        replicas = FakeReplicas(p0=FakePartition(b"abcd", 4), p1=FakePartition())
        requests = Requests()
        stream = service(replicas).fetch(requests, PEER)
        requests.send(fetch_request(1, (0, 0), (1, 0), wait_ms=FOREVER))
        requests.send(fetch_request(2, wait_ms=FOREVER))  # in flight with the first
        assert payloads(await anext(stream)) == {0: b"abcd", 1: b""}
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        replicas.partitions[0].move(b"e")
        await settle()
        assert not waiting.done()
        requests.send(fetch_request(3, (0, 4), wait_ms=FOREVER))
        answer = await waiting  # its wait is over, and what is named later is left to the later
        assert answer.header.request_id == 2
        assert not answer.header.partitions
        answer = await anext(stream)
        assert (answer.header.request_id, payloads(answer)[0]) == (3, b"e")
        await stream.aclose()

    async def test_an_answer_that_the_client_dropped_is_given_again(self) -> None:
        """By the second request after it the client has it, and stands where it stood."""
        requests = Requests()
        stream = service(FakeReplicas(p0=FakePartition(b"abcd", 4))).fetch(requests, PEER)
        requests.send(fetch_request(1, (0, 0), wait_ms=FOREVER))
        assert payloads(await anext(stream)) == {0: b"abcd"}
        requests.send(fetch_request(2, wait_ms=1))
        assert payloads(await anext(stream)) == {}
        requests.send(fetch_request(3, wait_ms=FOREVER))
        assert payloads(await anext(stream)) == {0: b"abcd"}
        requests.send(fetch_request(4, forgotten=(0,)))
        requests.send(fetch_request(5))
        requests.send(fetch_request(6))
        for _ in range(3):
            assert payloads(await anext(stream)) == {}
        await stream.aclose()

    async def test_only_two_requests_are_taken_from_a_stream(self) -> None:
        requests = Requests()
        stream = service(FakeReplicas(p0=FakePartition())).fetch(requests, PEER)
        requests.send(fetch_request(0, (0, 0), wait_ms=FOREVER))
        for number in range(1, 6):
            requests.send(fetch_request(number, wait_ms=FOREVER))
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        assert requests.taken == 2
        waiting.cancel()
        await settle()

    async def test_min_bytes_are_waited_for_and_no_longer_than_max_wait(self) -> None:
        replicas = FakeReplicas(p0=FakePartition(b"a", 1), p1=FakePartition())
        requests = Requests()
        stream = service(replicas).fetch(requests, PEER)
        requests.send(fetch_request(1, (0, 0), (1, 0), wait_ms=FOREVER, min_bytes=4))
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        replicas.partitions[0].move(b"b")
        await settle()
        assert not waiting.done()
        replicas.partitions[1].move(b"cd")
        answer = await waiting
        assert payloads(answer) == {0: b"ab", 1: b"cd"}
        requests.send(fetch_request(2, (0, 1), wait_ms=1, min_bytes=4))
        assert payloads(await anext(stream)) == {0: b"b"}
        await stream.aclose()

    async def test_the_first_batch_is_sent_even_above_the_limit_and_partitions_take_turns(
        self,
    ) -> None:
        replicas = FakeReplicas(
            p0=FakePartition(b"aaaa", 4), p1=FakePartition(b"bbbb", 4), p2=FakePartition(b"cc", 2)
        )
        requests = Requests()
        stream = service(replicas).fetch(requests, PEER)
        requests.send(fetch_request(1, (0, 0), (1, 0), (2, 0), max_bytes=0))
        assert payloads(await anext(stream)) == {0: b"a"}
        requests.send(fetch_request(2, (0, 1), max_bytes=3))
        assert payloads(await anext(stream)) == {1: b"bbb"}
        requests.send(fetch_request(3, (1, 3), max_bytes=3))
        assert payloads(await anext(stream)) == {2: b"cc", 0: b"a"}
        requests.send(fetch_request(4, (2, 2), (0, 2), max_bytes=100, wait_ms=1))
        answer = payloads(await anext(stream))
        assert {key: size for key, size in answer.items() if size} == {1: b"b", 0: b"aa"}
        await stream.aclose()

    async def test_an_error_is_told_at_once_and_once(self) -> None:
        replicas = FakeReplicas(p0=FakePartition())
        requests = Requests()
        stream = service(replicas).fetch(requests, PEER)
        requests.send(fetch_request(1, (5, 0), (0, 0), wait_ms=FOREVER))
        answer = await anext(stream)
        failed = {one.partition: one for one in answer.header.partitions}[5]
        assert failed.error.code == ErrorCode.ERROR_CODE_UNKNOWN_TOPIC
        requests.send(fetch_request(2, wait_ms=1))
        assert 5 not in payloads(await anext(stream))
        replicas.partitions[5] = FakePartition(b"z", 1)  # known by now: found by itself
        requests.send(fetch_request(3, wait_ms=FOREVER))
        assert payloads(await anext(stream)) == {5: b"z"}
        await stream.aclose()

    async def test_an_error_is_told_again_when_the_partition_is_named_again(self) -> None:
        requests = Requests()
        stream = service(FakeReplicas()).fetch(requests, PEER)
        for number in range(2):
            requests.send(fetch_request(number, (5, 0), wait_ms=FOREVER))
            [failed] = (await anext(stream)).header.partitions
            assert failed.error.code == ErrorCode.ERROR_CODE_UNKNOWN_TOPIC
        await stream.aclose()

    @pytest.mark.parametrize("offset", [-3, 0, 9])
    async def test_an_offset_out_of_range(self, offset: int) -> None:
        replicas = FakeReplicas(p0=FakePartition(b"abcd", 4, log_start_offset=1))
        requests = Requests()
        stream = service(replicas).fetch(requests, PEER)
        requests.send(fetch_request(1, (0, offset), wait_ms=FOREVER))
        [failed] = (await anext(stream)).header.partitions
        assert failed.error.code == ErrorCode.ERROR_CODE_OFFSET_OUT_OF_RANGE
        assert failed.fetch_offset == offset
        await stream.aclose()

    async def test_a_new_log_start_is_told_at_once(self) -> None:
        replicas = FakeReplicas(p0=FakePartition(b"abcd", 4))
        requests = Requests()
        stream = service(replicas).fetch(requests, PEER)
        requests.send(fetch_request(1, (0, 4), wait_ms=1))
        await anext(stream)
        requests.send(fetch_request(2, wait_ms=FOREVER))
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        replicas.partitions[0].log_start_offset = 3
        replicas.partitions[0].wake()
        [told] = (await waiting).header.partitions
        assert (told.log_start_offset, told.size) == (3, 0)
        await stream.aclose()

    async def test_a_lost_leadership_wakes_the_fetch_and_names_the_leader(self) -> None:
        partition = FakePartition(b"ab", 2)
        requests = Requests()
        stream = service(FakeReplicas(p0=partition)).fetch(requests, PEER)
        requests.send(fetch_request(1, (0, 2), wait_ms=FOREVER))
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        partition.error = NotLeaderError("moved")
        partition.error.hint = LeaderHint(leader=3)  # type: ignore[attr-defined]
        partition.wake()
        [told] = (await waiting).header.partitions
        assert (told.error.code, told.leader.leader) == (ErrorCode.ERROR_CODE_NOT_LEADER, 3)
        await stream.aclose()

    async def test_what_the_client_left_while_it_was_read_is_not_sent(self) -> None:
        partition = FakePartition(b"abcd", 4)
        other = FakePartition()
        requests = Requests()
        stream = service(FakeReplicas(p0=partition, p1=other)).fetch(requests, PEER)
        requests.send(fetch_request(1, (0, 0), (1, 0), wait_ms=FOREVER))
        waiting = asyncio.ensure_future(anext(stream))
        while not partition.fetches:  # noqa: ASYNC110
            await asyncio.sleep(0)
        requests.send(fetch_request(2, forgotten=(0,), wait_ms=FOREVER))
        await settle()
        assert not waiting.done()
        assert not partition.wakes
        other.move(b"x")
        assert payloads(await waiting) == {1: b"x"}
        await stream.aclose()

    async def test_a_session_is_bounded_and_serves_those_that_it_has_room_for(self) -> None:
        requests = Requests()
        limits = {"fetch_session_partitions_max": 2}
        many = {f"p{number}": FakePartition(b"a", 1) for number in range(4)}
        stream = service(FakeReplicas(**many), limits).fetch(requests, PEER)
        requests.send(fetch_request(1, (0, 0), (1, 1)))
        requests.send(fetch_request(2, (2, 0), (3, 0), wait_ms=FOREVER))
        first, second = (await anext(stream)).header, (await anext(stream)).header
        assert [one.partition for one in first.partitions] == [0, 1]
        assert [(one.partition, one.error.code) for one in second.partitions] == [
            (number, ErrorCode.ERROR_CODE_OVERLOADED) for number in (2, 3)
        ]
        requests.send(fetch_request(3, (2, 0), forgotten=(0,), wait_ms=FOREVER))
        assert payloads(await anext(stream)) == {2: b"a"}
        await stream.aclose()

    async def test_request_ids_grow(self) -> None:
        requests = Requests()
        stream = service(FakeReplicas()).fetch(requests, PEER)
        requests.send(fetch_request(3))
        requests.send(fetch_request(3))
        assert (await anext(stream)).header.request_id == 3
        with pytest.raises(InvalidRequestError, match="grow"):
            await anext(stream)

    async def test_stop_ends_a_parked_fetch(self) -> None:
        records = service(FakeReplicas(p0=FakePartition()))
        requests = Requests()
        stream = records.fetch(requests, PEER)
        requests.send(fetch_request(1, (0, 0), wait_ms=FOREVER))
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        records.stop()
        assert (await waiting).header.request_id == 1
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    async def test_another_object_for_the_same_partition_is_watched_instead(self) -> None:
        replicas = FakeReplicas(p0=FakePartition())
        old, new = replicas.partitions[0], FakePartition()
        requests = Requests()
        stream = service(replicas).fetch(requests, PEER)
        requests.send(fetch_request(1, (0, 0), wait_ms=FOREVER))
        waiting = asyncio.ensure_future(anext(stream))
        await settle()
        replicas.partitions[0] = new
        old.wake()
        await settle()
        assert not old.wakes
        new.move(b"n")
        assert payloads(await waiting) == {0: b"n"}
        await stream.aclose()


class TestListOffsets:
    async def test_a_partition_that_is_named_twice_is_refused(self) -> None:
        """Ten thousand times one lookup by time held a broker's loop for 45 s."""
        asked = [
            ListOffsetsPartition(topic_id=TOPIC, partition=0, timestamp_ms=time) for time in (1, 2)
        ]
        replicas = FakeReplicas(p0=FakePartition(b"abcd", 3))
        with pytest.raises(InvalidRequestError, match="-0 twice; name each"):
            await service(replicas).list_offsets(ListOffsetsRequest(partitions=asked), PEER)

    async def test_as_many_partitions_as_are_held_may_always_be_named(self) -> None:
        replicas = FakeReplicas(**{f"p{i}": FakePartition(b"", 0) for i in range(4)})
        asked = [
            ListOffsetsPartition(topic_id=TOPIC, partition=i, timestamp_ms=-2) for i in range(5)
        ]
        bounded = service(replicas, {"request_partitions_max": 2})
        found = await bounded.list_offsets(ListOffsetsRequest(partitions=asked[:4]), PEER)
        assert [one.error.code for one in found.partitions] == [0] * 4
        with pytest.raises(InvalidRequestError, match="5 partitions are named at once; 4 are"):
            await bounded.list_offsets(ListOffsetsRequest(partitions=asked), PEER)

    async def test_each_partition_is_answered_for_itself(self) -> None:
        logs = [FakePartition(b"abcd", 3, log_start_offset=1) for _ in range(3)]
        replicas = FakeReplicas(p0=logs[0], p2=logs[1], p3=logs[2])
        request = ListOffsetsRequest(
            partitions=[
                ListOffsetsPartition(topic_id=TOPIC, partition=0, timestamp_ms=-2),
                ListOffsetsPartition(topic_id=TOPIC, partition=2, timestamp_ms=-1),
                ListOffsetsPartition(topic_id=TOPIC, partition=1, timestamp_ms=-1),
                ListOffsetsPartition(topic_id=TOPIC, partition=-1, timestamp_ms=-1),
                ListOffsetsPartition(topic_id=TOPIC, partition=3, timestamp_ms=-3),
            ]
        )
        response = await service(replicas).list_offsets(request, PEER)
        assert [one.offset for one in response.partitions] == [1, 3, -1, -1, -1]
        assert [one.error.code for one in response.partitions] == [
            ErrorCode.ERROR_CODE_NONE,
            ErrorCode.ERROR_CODE_NONE,
            ErrorCode.ERROR_CODE_UNKNOWN_TOPIC,
            ErrorCode.ERROR_CODE_INVALID_REQUEST,
            ErrorCode.ERROR_CODE_INVALID_REQUEST,
        ]


class TestProducerIds:
    async def test_ids_come_from_blocks_and_are_given_once(self) -> None:
        blocks = [range(10, 12), range(50, 52)]

        async def allocate() -> range:
            await asyncio.sleep(0)
            return blocks.pop(0)

        records = service(FakeReplicas(), allocate=allocate)
        new = InitProducerIdRequest(producer_id=-1, producer_epoch=-1)
        answers = await asyncio.gather(*(records.init_producer_id(new, PEER) for _ in range(4)))
        assert [one.producer_id for one in answers] == [10, 11, 50, 51]
        assert {one.producer_epoch for one in answers} == {0}

    async def test_a_known_producer_raises_its_epoch_until_there_is_none_left(self) -> None:
        async def allocate() -> range:
            return range(7, 8)

        records = service(FakeReplicas(), allocate=allocate)
        for epoch, expected in ((0, (3, 1)), (32_766, (3, 32_767)), (32_767, (7, 0))):
            answer = await records.init_producer_id(
                InitProducerIdRequest(producer_id=3, producer_epoch=epoch), PEER
            )
            assert (answer.producer_id, answer.producer_epoch) == expected

    @pytest.mark.parametrize(("known", "epoch"), [(-2, 0), (1, -2), (1, 32_768)])
    async def test_impossible_ids(self, known: int, epoch: int) -> None:
        answer = await service(FakeReplicas()).init_producer_id(
            InitProducerIdRequest(producer_id=known, producer_epoch=epoch), PEER
        )
        assert answer.error.code == ErrorCode.ERROR_CODE_INVALID_REQUEST

    async def test_without_a_controller_the_error_says_so(self) -> None:
        answer = await service(FakeReplicas()).init_producer_id(
            InitProducerIdRequest(producer_id=-1), PEER
        )
        assert answer.error.code == ErrorCode.ERROR_CODE_QUORUM_UNAVAILABLE


def test_the_answers_fields_are_what_the_tests_read() -> None:
    assert FetchedPartition(fetch_offset=3).fetch_offset == 3
