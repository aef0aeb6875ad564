"""The address of another kind of node, or of no node: the error says what listens there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from quorate import Admin, Consumer, Producer
from quorate.errors import InvalidRequestError
from quorate.net.network import Handler, Method
from quorate.net.unexpected_peer import what_listens
from quorate_quorum.node.identify import NodeService
from tests.harness.fake_leaders import FakeCluster, with_cluster
from tests.unit.quorate.net.services import EchoService

CLIENTS: list[Callable[[Any], Any]] = [
    lambda servers: Producer(bootstrap_servers=servers),
    lambda servers: Consumer("t", bootstrap_servers=servers),
    lambda servers: Admin(bootstrap_servers=servers),
]


class Nobody:
    """A listener that serves no service of Quorate."""

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {}


def voter(node_id: int = 100) -> NodeService:
    return NodeService("voter", "c1", node_id, b"run", False)


@pytest.mark.parametrize("make", CLIENTS)
def test_a_client_with_the_address_of_a_voter_says_so_at_once(make: Callable[[Any], Any]) -> None:
    async def program(cluster: FakeCluster) -> None:
        await cluster.network.serve("v100:9093", [voter()])
        began = asyncio.get_running_loop().time()
        client = make("v100:9093")
        with pytest.raises(InvalidRequestError) as raised:
            await client.start()
        assert asyncio.get_running_loop().time() - began < 1
        assert str(raised.value) == (
            "v100:9093 is the address of voter 100 of cluster c1, and not of a broker: "
            "give the address of a broker, one of those that `quorate cluster info` lists"
        )
        await client.stop()

    with_cluster(program)


def test_a_broker_beside_a_voters_address_is_found() -> None:
    async def program(cluster: FakeCluster) -> None:
        await cluster.network.serve("v100:9093", [voter()])
        cluster.add_topic("t")
        for _ in range(4):
            async with Producer(bootstrap_servers=f"v100:9093,{cluster.bootstrap}") as producer:
                await producer.send_and_wait("t", b"v")

    with_cluster(program)


def test_what_is_no_node_is_called_that() -> None:
    async def program(cluster: FakeCluster) -> None:
        await cluster.network.serve("h:80", [Nobody()])
        assert (await what_listens(cluster.network, "h:80", "voter")).startswith(
            "what listens at h:80 is no node of Quorate: give the addresses of the voters"
        )
        await cluster.network.serve("h:81", [EchoService()])
        found = await what_listens(cluster.network, "h:81", "broker")
        assert "another version of Quorate" in found

    with_cluster(program)
