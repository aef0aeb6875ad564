"""A time-out is a time-out, over all brokers and retries, and its error names the cause."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from quorate import Admin, Producer
from quorate.errors import DeliveryTimeoutError, QuorumUnavailableError
from quorate.net.methods import (
    ALTER_CONFIGS,
    CREATE_TOPICS,
    DELETE_TOPICS,
    DESCRIBE_QUORUM,
    INIT_PRODUCER_ID,
)
from quorate.net.network import Handler, Method, Peer
from quorate.v1 import admin_pb2, common_pb2, records_pb2
from tests.harness.fake_leaders import FakeBroker, FakeCluster, with_cluster

CAUSE = "no controller was found; voters that were asked: v1:9093: no server listens there"
NO_CONTROLLER = common_pb2.Error(
    code=common_pb2.ErrorCode.ERROR_CODE_QUORUM_UNAVAILABLE, message=CAUSE
)


class WithoutController(FakeBroker):
    """A broker that looks for a controller as long as its caller waits, in vain."""

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {
            **super().handlers(),
            INIT_PRODUCER_ID: self.init_producer_id,
            **{
                method: self._refusing(answer)
                for method, answer in (
                    (CREATE_TOPICS, _no_topic_created),
                    (DELETE_TOPICS, _no_topic_deleted),
                    (ALTER_CONFIGS, lambda _: admin_pb2.AlterConfigsResponse(error=NO_CONTROLLER)),
                    (
                        DESCRIBE_QUORUM,
                        lambda _: admin_pb2.DescribeQuorumResponse(error=NO_CONTROLLER),
                    ),
                )
            },
        }

    def _refusing(self, answer: Callable[[Any], Any]) -> Callable[[Any, Peer], Awaitable[Any]]:
        async def handle(request: Any, peer: Peer) -> Any:
            await self.running.wait()
            await asyncio.sleep(peer.timeout_ms * 0.8 / 1000)
            return answer(request)

        return handle

    async def init_producer_id(
        self, request: records_pb2.InitProducerIdRequest, peer: Peer
    ) -> records_pb2.InitProducerIdResponse:
        await self.running.wait()
        await asyncio.sleep(min(1.5, peer.timeout_ms / 1000))
        return records_pb2.InitProducerIdResponse(error=NO_CONTROLLER)


def _no_topic_created(request: admin_pb2.CreateTopicsRequest) -> admin_pb2.CreateTopicsResponse:
    failed = [admin_pb2.CreatedTopic(name=one.name, error=NO_CONTROLLER) for one in request.topics]
    return admin_pb2.CreateTopicsResponse(topics=failed)


def _no_topic_deleted(request: admin_pb2.DeleteTopicsRequest) -> admin_pb2.DeleteTopicsResponse:
    failed = [admin_pb2.DeletedTopic(name=name, error=NO_CONTROLLER) for name in request.topics]
    return admin_pb2.DeleteTopicsResponse(topics=failed)


def without_controller(program: Callable[[FakeCluster], Awaitable[None]]) -> None:
    """Run a program beside three brokers that find no controller."""

    async def run(cluster: FakeCluster) -> None:
        for broker in list(cluster.brokers):
            await broker.kill()
        cluster.brokers = [WithoutController(cluster, number) for number in range(3)]
        await cluster.start()
        await program(cluster)

    with_cluster(run)


CALLS: list[Callable[[Admin], Awaitable[object]]] = [
    lambda admin: admin.create_topic("t"),
    lambda admin: admin.delete_topics(["t"]),
    lambda admin: admin.alter_configs("t", set={"retention.ms": 1}),
    lambda admin: admin.describe_quorum(),
]


@pytest.mark.parametrize("timeout_ms", [300, 5000, 30000])
@pytest.mark.parametrize("call", CALLS)
def test_a_call_without_a_controller_ends_in_time_and_names_the_cause(
    call: Callable[[Admin], Awaitable[object]], timeout_ms: int
) -> None:
    async def program(cluster: FakeCluster) -> None:
        loop = asyncio.get_running_loop()
        settings: dict[str, Any] = {"bootstrap_servers": cluster.bootstrap}
        async with Admin(request_timeout_ms=timeout_ms, **settings) as admin:
            began = loop.time()
            with pytest.raises(QuorumUnavailableError, match=CAUSE):
                await call(admin)
            took_ms = (loop.time() - began) * 1000
            assert timeout_ms * 0.6 <= took_ms <= timeout_ms + 10

    without_controller(program)


@pytest.mark.parametrize("call", CALLS)
def test_brokers_that_are_silent_use_up_no_more_than_the_timeout(
    call: Callable[[Admin], Awaitable[object]],
) -> None:
    async def program(cluster: FakeCluster) -> None:
        loop = asyncio.get_running_loop()
        async with Admin(bootstrap_servers=cluster.bootstrap, request_timeout_ms=5000) as admin:
            for broker in cluster.brokers:
                broker.running.clear()
            began = loop.time()
            with pytest.raises(Exception, match=r"none in 5000 ms|no broker answered"):
                await call(admin)
            assert loop.time() - began <= 5.01

    without_controller(program)


def test_the_start_ends_in_time_and_says_what_each_broker_said() -> None:
    async def program(cluster: FakeCluster) -> None:
        loop = asyncio.get_running_loop()
        cluster.brokers[0].running.clear()
        cluster.brokers[1].running.clear()
        await cluster.brokers[2].kill()
        admin = Admin(bootstrap_servers=cluster.bootstrap, request_timeout_ms=2500)
        began = loop.time()
        with pytest.raises(QuorumUnavailableError) as raised:
            await admin.start()
        assert loop.time() - began <= 2.51
        assert "b0:9092: " in str(raised.value)
        assert "no server listens at b2:9092" in str(raised.value)

    without_controller(program)


def test_a_record_that_was_never_sent_for_want_of_a_controller_says_so() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        loop = asyncio.get_running_loop()
        async with Producer(
            bootstrap_servers=cluster.bootstrap, delivery_timeout_ms=5000
        ) as producer:
            began = loop.time()
            with pytest.raises(DeliveryTimeoutError, match=f"was never sent.*{CAUSE}"):
                await producer.send_and_wait("t", b"v")
            assert loop.time() - began <= 5.2

    without_controller(program)
