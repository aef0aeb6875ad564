#!/opt/quorate/bin/python
"""Is the node of this container well? Usage: quorate-healthcheck broker|voter

It asks the node itself, at the first grpc listener of QUORATE_LISTENERS. A voter is well if it
answers. A broker is well if it answers and is not fenced. Exit status 0: well; 1: it says why not.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from quorate import Admin
from quorate.errors import QuorateError
from quorate.net.grpc_network import GrpcNetwork
from quorate_quorum.methods import DESCRIBE_NODE
from quorate_quorum.node.listeners import parse_all
from quorate_quorum.v1.raft_pb2 import DescribeNodeRequest

TIMEOUT_MS = 5000
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def own_address(listeners: str) -> str:
    """Return where the node answers inside its container.

    >>> own_address("A=kafka://0.0.0.0:9092,B=grpc://0.0.0.0:7090,C=grpc://0.0.0.0:7092")
    '127.0.0.1:7090'
    """
    addresses = parse_all([one.strip() for one in listeners.split(",")])
    first = next(one for one in addresses if one.protocol == "grpc")
    host = WILDCARDS.get(first.host, first.host)
    return f"[{host}]:{first.port}" if ":" in host else f"{host}:{first.port}"


async def ask_voter(address: str) -> None:
    """Return if the voter answers; it raises QuorateError if not."""
    network = GrpcNetwork()
    connection = network.connect(address, purpose="control")
    try:
        await connection.unary(DESCRIBE_NODE, DescribeNodeRequest(), timeout_ms=TIMEOUT_MS)
    finally:
        await connection.close()
        await network.close()


async def ask_broker(address: str, node_id: int) -> None:
    """Return if the broker answers, and names itself among the brokers that are not fenced."""
    async with Admin(bootstrap_servers=address, request_timeout_ms=TIMEOUT_MS) as admin:
        described = await admin.describe_cluster()
    if node_id not in [broker.id for broker in described.brokers if not broker.fenced]:
        sys.exit(f"broker {node_id} is fenced, or not registered")


def main(arguments: Sequence[str]) -> None:
    """Ask the node; exit with 1 if it is not well."""
    if list(arguments) not in (["broker"], ["voter"]):
        sys.exit("usage: quorate-healthcheck broker|voter")
    address = own_address(os.environ["QUORATE_LISTENERS"])
    try:
        if arguments[0] == "voter":
            asyncio.run(ask_voter(address))
        else:
            asyncio.run(ask_broker(address, int(os.environ["QUORATE_NODE_ID"])))
    except QuorateError as error:
        sys.exit(f"{address}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
