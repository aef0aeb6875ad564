"""Finds out what listens at an address that should belong to a broker or a voter."""

from __future__ import annotations

from quorate.errors import NetworkError, PeerError, WrongClusterError
from quorate.net.kafka_probe import SPEAKS_KAFKA
from quorate.net.methods import identify
from quorate.net.network import Network

ASK_TIMEOUT_MS = 1000
#: Advice to the user: where to find the addresses of each kind of node.
LISTED = {
    "broker": "give the address of a broker, one of those that `quorate cluster info` lists",
    "voter": "give the addresses of the voters, as `quorate quorum describe` lists them",
}


def knows_no_such_call(error: NetworkError) -> bool:
    """Return whether the peer does not serve this call at all."""
    return isinstance(error, PeerError) and error.status in ("UNIMPLEMENTED", SPEAKS_KAFKA)


async def what_listens(network: Network, endpoint: str, wanted: str) -> str:
    """Return a sentence for the user.

    The sentence says what listens there instead of a `wanted` node, and which address to give.
    """
    try:
        found = await identify(network, endpoint, timeout_ms=ASK_TIMEOUT_MS)
    except (NetworkError, WrongClusterError) as error:
        if isinstance(error, PeerError) and error.status == SPEAKS_KAFKA:
            return (
                f"{endpoint} speaks the Kafka protocol, and Quorate's clients use another: "
                f"{LISTED[wanted]}"
            )
        return f"what listens at {endpoint} is no node of Quorate: {LISTED[wanted]}"
    if found.role in ("", wanted):
        return (
            f"node {found.node_id} at {endpoint} is a {wanted} of another version of Quorate: it "
            "does not know this call"
        )
    return (
        f"{endpoint} is the address of {found.role} {found.node_id} of cluster "
        f"{found.cluster_id}, and not of a {wanted}: {LISTED[wanted]}"
    )
