"""The calls between brokers, as values for the network seam."""

from __future__ import annotations

from quorate.net.network import framed_responses
from quorate_broker.v1 import replica_pb2 as replica

REPLICA_FETCH = framed_responses(
    "/quorate_broker.v1.Replica/Fetch",
    replica.ReplicaFetchRequest,
    replica.ReplicaFetchHeader,
)
