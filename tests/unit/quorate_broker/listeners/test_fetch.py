"""The Fetch stream: requests in, answers out, over partitions that a test moves by hand."""

from __future__ import annotations

import asyncio

import pytest

from quorate.errors import (
    InvalidRequestError,
    NotLeaderError,
)
from quorate.net.frame import Frame
from quorate.v1.common_pb2 import ErrorCode, LeaderHint
from quorate.v1.records_pb2 import (
    FetchHeader,
    FetchPartition,
    FetchRequest,
)
from quorate_broker.replica.divergence import Divergence
from quorate_broker.replica.leader_replica import DivergedError
from tests.unit.quorate_broker.listeners.builders import PEER, Requests, service
from tests.unit.quorate_broker.operations.builders import (
    TOPIC,
    FakePartition,
    FakeReplicas,
    settle,
)


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
        answer = (
            await waiting
        )  # its wait is over; partitions named later belong to the later request
        assert answer.header.request_id == 2
        assert not answer.header.partitions
        answer = await anext(stream)
        assert (answer.header.request_id, payloads(answer)[0]) == (3, b"e")
        await stream.aclose()

    async def test_an_answer_that_the_client_dropped_is_given_again(self) -> None:
        """Two requests later the client has had the answer. It has named no new position, so it
        dropped the records, and gets them again.
        """
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
