"""Whatever waits in a producer ends: with the answer, its own deadline, or the producer's end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quorate import Delivery, Producer, RecordMetadata
from quorate.errors import (
    ClosedError,
    DeliveryTimeoutError,
    InvalidPartitionsError,
    ListenerNotFoundError,
    OutcomeUnknownError,
    OverloadedError,
    UnknownServerError,
)
from tests.harness.fake_leaders import FakeCluster, with_cluster


def producer(cluster: FakeCluster, **settings: Any) -> Producer:
    return Producer(bootstrap_servers=cluster.bootstrap, **settings)


def test_an_error_after_the_wait_for_room_passes_the_turn_on() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        settings = {"partitioner": lambda key, _partitions, _available: 99 if key else 0}
        async with producer(cluster, buffer_memory=2000, **settings) as p:
            cluster.delay_s = 0.1
            first = await p.send("t", bytes(1900))
            bad = asyncio.ensure_future(p.send("t", bytes(1000), key=b"bad"))
            good = [asyncio.ensure_future(p.send("t", bytes(500))) for _ in range(3)]
            await first
            done = await asyncio.wait_for(asyncio.gather(*good), 5)
            assert all(isinstance(one, Delivery) for one in done)
            assert isinstance(bad.exception(), InvalidPartitionsError)
            await asyncio.wait_for(p.send_and_wait("t", b"tiny"), 5)

    with_cluster(program)


def test_a_wait_for_room_has_a_deadline_of_its_own_and_leaves_the_turn_to_others() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster, buffer_memory=2000, delivery_timeout_ms=1000) as p:
            await p.send_and_wait("t", b"x")
            for broker in cluster.brokers:
                broker.running.clear()
            p._accumulator.bytes_used += 1900  # memory that is never released
            late = [asyncio.ensure_future(p.send("t", bytes(500))) for _ in range(3)]
            _, pending = await asyncio.wait(late, timeout=5)
            assert not pending
            for one in late:
                with pytest.raises(OverloadedError, match=r"buffer_memory\) was full for 1000 ms"):
                    one.result()
            p._accumulator.bytes_used -= 1900
            for broker in cluster.brokers:
                broker.running.set()
            await p.send_and_wait("t", b"x")

    with_cluster(program)


def test_small_records_do_not_overtake_a_large_one_that_waits_for_room() -> None:
    """There is room for a small one all the time, so a large one could wait for ever."""

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 2)
        async with producer(cluster, buffer_memory=3000) as p:
            await p.partitions_for("t")
            for broker in cluster.brokers:
                broker.running.clear()
            for partition in range(2):
                await p.send("t", bytes(1300), partition=partition)
            taken: list[int] = []

            async def send(size: int) -> None:
                await p.send("t", bytes(size))
                taken.append(size)

            async with asyncio.TaskGroup() as group:
                for size in (2000, 1, 2, 3):
                    group.create_task(send(size))
                await asyncio.sleep(0.1)
                assert taken == []
                cluster.brokers[0].running.set()  # room for the small ones, not for the large one
                await asyncio.sleep(0.1)
                assert taken == []
                cluster.brokers[1].running.set()
            assert taken == [2000, 1, 2, 3]

    with_cluster(program)


def test_a_record_that_waits_for_room_is_refused_at_once_by_stop() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        p = producer(cluster, buffer_memory=2000, delivery_timeout_ms=1000)
        await p.start()
        cluster.fault = lambda *_: "lose"
        await p.send("t", bytes(1900))
        waiting = asyncio.ensure_future(p.send("t", bytes(1000)))
        await asyncio.sleep(0.1)
        stopping = asyncio.ensure_future(p.stop())
        with pytest.raises(ClosedError, match="was stopped"):
            await waiting
        assert not stopping.done()
        await stopping

    with_cluster(program)


@pytest.mark.parametrize("known", [True, False])
def test_a_record_that_is_sent_while_the_producer_stops_is_refused_or_delivered(
    known: bool,
) -> None:
    """A record that is taken after the flush is never sent: its Delivery would not resolve."""

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        for pause in range(40):
            cluster.add_topic(f"t{pause}")
            p = producer(cluster, delivery_timeout_ms=2000)
            await p.start()
            await p.send_and_wait("t", b"x")
            name = "t" if known else f"t{pause}"

            async def send(p: Producer = p, name: str = name) -> object:
                try:
                    return await (await p.send(name, b"v"))
                except ClosedError as error:
                    return error

            sending = asyncio.ensure_future(send())
            await asyncio.sleep(pause * 0.0005)
            await p.stop()
            result = await asyncio.wait_for(sending, 1)
            assert isinstance(result, ClosedError | RecordMetadata)

    with_cluster(program)


def test_no_record_is_taken_while_stop_waits_for_those_before() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        p = producer(cluster)
        await p.start()
        await p.send_and_wait("t", b"0")
        cluster.brokers[0].running.clear()
        await p.send("t", b"1")
        stopping = asyncio.ensure_future(p.stop())
        await asyncio.sleep(0.01)
        with pytest.raises(ClosedError, match="was stopped"):
            await p.send("t", b"2")
        cluster.brokers[0].running.set()
        await stopping
        assert topic.partitions[0].values() == [b"0", b"1"]

    with_cluster(program)


def test_stop_that_is_called_twice_at_once_ends_once_for_both() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        cluster.delay_s = 0.1
        p = producer(cluster)
        await p.start()
        await p.send("t", b"x")
        await asyncio.gather(p.stop(), p.stop())
        assert topic.partitions[0].values() == [b"x"]

    with_cluster(program)


def test_a_background_task_that_dies_fails_whatever_waits() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster, buffer_memory=2000) as p:
            cluster.fault = lambda *_: "lose"
            sent = await p.send("t", bytes(1900))
            await asyncio.sleep(0.1)
            waits = [
                asyncio.ensure_future(p.send("t", bytes(1000))),
                asyncio.ensure_future(p.flush()),
                asyncio.ensure_future(_result(sent)),
            ]
            await asyncio.sleep(0)
            for task in asyncio.all_tasks():
                if task.get_name() == "quorate-producer-tick":
                    task.cancel()
            _, pending = await asyncio.wait(waits, timeout=1)
            assert not pending
            assert isinstance(waits[0].exception(), ClosedError)
            with pytest.raises(OutcomeUnknownError, match="quorate-producer-tick was cancelled"):
                await sent
            with pytest.raises(ClosedError):
                await p.send("t", b"x")

    with_cluster(program)


async def _result(delivery: Delivery) -> object:
    try:
        return await delivery
    except OutcomeUnknownError as error:
        return error


def test_a_fault_of_ours_in_the_background_is_told_with_its_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"x")
            monkeypatch.setattr(p._accumulator, "expire", lambda _: 1 / 0)
            await asyncio.sleep(1)
            with pytest.raises(UnknownServerError, match="ZeroDivisionError"):
                await p.send("t", b"x")

    with_cluster(program)


def test_an_await_ends_even_if_nobody_looks_after_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        p = producer(cluster, delivery_timeout_ms=1000)
        await p.start()
        cluster.fault = lambda *_: "lose"
        monkeypatch.setattr(p._accumulator, "expire", lambda _: [])
        delivery = await p.send("t", b"x")
        with pytest.raises(DeliveryTimeoutError, match="may have been written"):
            await delivery
        with pytest.raises(DeliveryTimeoutError):
            await p.flush()
        cluster.fault = lambda *_: None
        with pytest.raises(DeliveryTimeoutError):
            await p.stop()

    with_cluster(program)


def test_deliveries_can_be_waited_for_as_futures_are() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster) as p:
            cluster.delay_s = 0.05
            deliveries = [await p.send("t", b"x") for _ in range(3)]
            done, pending = await asyncio.wait(deliveries, timeout=0.01)  # type: ignore[type-var]
            assert (len(done), len(pending)) == (0, 3)
            assert not deliveries[0]._batch.callbacks  # nothing is left behind
            done, pending = await asyncio.wait(
                deliveries,
                return_when=asyncio.FIRST_EXCEPTION,  # type: ignore[type-var]
            )
            assert (len(done), len(pending)) == (3, 0)
            results = await asyncio.gather(*deliveries)
            assert [one.offset for one in results] == [0, 1, 2]
            assert [one.exception() for one in deliveries] == [None] * 3
            assert not any(one.cancelled() for one in deliveries)

    with_cluster(program)


def test_a_callback_that_was_removed_is_not_called() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster) as p:
            called: list[str] = []

            def first(_: Delivery) -> None:
                called.append("first")

            def second(_: Delivery) -> None:
                called.append("second")

            delivery = await p.send("t", b"x")
            delivery.add_done_callback(first)
            delivery.add_done_callback(second)
            delivery.add_done_callback(first)
            assert delivery.remove_done_callback(first) == 2
            await delivery
            await asyncio.sleep(0)
            assert called == ["second"]

    with_cluster(program)


def test_a_wait_that_was_cancelled_leaves_nothing_in_its_batch() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster) as p:
            cluster.delay_s = 0.1
            delivery = await p.send("t", b"x")
            for _ in range(10):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.001):
                        await delivery
            assert not delivery._batch.callbacks
            await delivery

    with_cluster(program)


def test_a_delivery_that_is_kept_keeps_no_bytes() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster, buffer_memory=1 << 20) as p:
            kept = [await p.send("t", bytes(10_000)) for _ in range(300)]
            await p.flush()
            assert not any(d._batch.builder.values for d in kept)
            assert kept[-1].result().offset == 299

    with_cluster(program)


def test_two_starts_at_once_make_one_client_and_a_stop_meanwhile_ends_it() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        before = asyncio.all_tasks()
        p = producer(cluster)
        await asyncio.gather(p.start(), p.start())
        names = [task.get_name() for task in asyncio.all_tasks() - before]
        assert names.count("quorate-producer-tick") == 1
        await p.stop()
        for broker in cluster.brokers:
            broker.running.clear()
        q = producer(cluster)
        starting = asyncio.ensure_future(q.start())
        await asyncio.sleep(0.1)
        await q.stop()
        for broker in cluster.brokers:
            broker.running.set()
        with pytest.raises(ClosedError, match="was stopped"):
            await starting
        await asyncio.sleep(1)
        left = {task.get_name() for task in asyncio.all_tasks() - before}
        assert not [name for name in left if name.startswith("quorate-")]

    with_cluster(program)


def test_a_leader_without_the_clients_listener_is_waited_for_and_the_error_says_so() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", partitions=2)
        cluster.hindrances = {1: ListenerNotFoundError("broker 1 has no listener 'external'")}
        async with producer(cluster, delivery_timeout_ms=1000) as p:
            with pytest.raises(DeliveryTimeoutError, match="has no listener 'external'") as caught:
                await p.send_and_wait("t", b"x", partition=1)
            assert not caught.value.may_be_written
            assert {(await p.send_and_wait("t", b"x")).partition for _ in range(20)} == {0}
            waiting = await p.send("t", b"y", partition=1)
            cluster.hindrances = {}
            cluster.image_offset += 1
            assert (await waiting).partition == 1

    with_cluster(program)
