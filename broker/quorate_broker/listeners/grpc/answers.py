"""What the answers of all gRPC services share: errors, and the listener a caller came in by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quorate.errors import NetworkError, QuorateError, QuorumUnavailableError, to_wire
from quorate.v1.common_pb2 import LeaderHint
from quorate_broker.replica.hints import hint_of
from quorate_quorum.node import listeners

if TYPE_CHECKING:
    from quorate.net.network import Peer
    from quorate.v1.common_pb2 import Error, Listener
    from quorate_broker.replicas.replicas import Replicas
    from quorate_quorum.metadata.brokers import BrokerImage


def listener_for(peer: Peer, broker: BrokerImage) -> Listener | None:
    """Return the listener by which a caller reaches a broker: of the name that it came in by.

    None if that broker has no such listener. A caller whose network gives listeners no names is
    told the one by which other nodes reach the broker.
    """
    found = broker.listener(peer.listener or broker.inter_broker_listener)
    return None if found is None else listeners.to_wire(found)


@dataclass(frozen=True, slots=True)
class Hints:
    """Names the leader, beside an error, to a caller that asked the wrong broker (KIP-951)."""

    peer: Peer
    replicas: Replicas

    def of(self, error: QuorateError) -> LeaderHint | None:
        """Return the error's hint, with the listener by which the caller reaches the leader."""
        known = hint_of(error)
        if known is None:
            return None
        hint = LeaderHint(leader=known.leader, leader_epoch=known.leader_epoch)
        leader = self.replicas.image.brokers.get(known.leader)
        listener = None if leader is None else listener_for(self.peer, leader)
        if listener is not None:
            hint.listener.CopyFrom(listener)
        return hint


def error_of(error: QuorateError) -> Error:
    """Return the wire's form; a broken way to the quorum is the quorum's absence to a client."""
    if isinstance(error, NetworkError):
        return to_wire(QuorumUnavailableError(f"the controller could not be asked: {error}"))
    return to_wire(error)
