"""The Node service: every node returns its identity, so that a probe learns which node answers.

Only by this service can a caller distinguish a killed process from a slow one: if another
incarnation answers at the same address, the earlier run has ended.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from quorate.net.methods import IDENTIFY
from quorate.net.network import Handler, Method, Peer
from quorate.v1 import node_pb2
from quorate_quorum.node.authorizer import ANYONE


class NodeService:
    """Answers Identify.

    `role`: "broker" or "voter", so that a caller learns that it has dialled the wrong kind of node.
    `tell_pid`: whether callers on the same machine get the process id (local clusters only).
    """

    required: Mapping[Method[Any, Any], Literal["anyone"]] = {IDENTIFY: ANYONE}

    def __init__(
        self, role: str, cluster_id: str, node_id: int, incarnation: bytes, tell_pid: bool
    ) -> None:
        self._identity = node_pb2.IdentifyResponse(
            cluster_id=cluster_id, node_id=node_id, incarnation=incarnation, role=role
        )
        self._tell_pid = tell_pid

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {IDENTIFY: self.identify}

    async def identify(
        self, request: node_pb2.IdentifyRequest, peer: Peer
    ) -> node_pb2.IdentifyResponse:
        answer = node_pb2.IdentifyResponse()
        answer.CopyFrom(self._identity)
        if self._tell_pid and is_loopback(peer.address):
            answer.pid = os.getpid()
        return answer


def is_loopback(address: str) -> bool:
    """Return whether a caller's address, as a Network gives it, is certainly on this machine.

    >>> is_loopback("ipv4:127.0.0.1:50312"), is_loopback("ipv6:%5B::1%5D:50312")
    (True, True)
    >>> is_loopback("10.1.2.3:9092")
    False
    """
    host = address.removeprefix("ipv4:").removeprefix("ipv6:").replace("%5B", "[")
    return host.startswith(("127.", "[::1", "::1", "localhost", "unix:"))
