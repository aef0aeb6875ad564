"""Parts of the answers of all gRPC services: errors, hints, and the caller's listener."""

from __future__ import annotations

from dataclasses import dataclass

from quorate.errors import (
    ListenerNotFoundError,
    NetworkError,
    QuorateError,
    QuorumUnavailableError,
    to_wire,
)
from quorate.net.network import Peer
from quorate.v1.common_pb2 import Error, LeaderHint, Listener
from quorate_broker.replica.hints import hint_of
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.metadata.brokers import BrokerImage
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node import listeners


def listener_for(peer: Peer, broker: BrokerImage) -> Listener | None:
    """Return the listener of a broker that has the same name as the one that the caller used.

    Return None if the broker has no such listener. If the caller's network gives listeners no
    names, return the listener that other nodes use.
    """
    found = broker.listener(peer.listener or broker.inter_broker_listener)
    return None if found is None else listeners.to_wire(found)


def hindrances_of(peer: Peer, image: MetadataImage) -> dict[int, Error]:
    """Return, for each broker that the caller cannot reach, the error that says why.

    Without this error, a client that waits for such a leader would not learn the reason.
    """
    return {
        broker.id: to_wire(
            ListenerNotFoundError(
                f"broker {broker.id} leads and has no listener named {peer.listener!r}, by which"
                " this client came in: give the broker one, in its `listeners`, or let the client"
                " come in by a listener that every broker has"
            )
        )
        for broker in image.sorted_brokers()
        if listener_for(peer, broker) is None
    }


@dataclass(frozen=True, slots=True)
class Hints:
    """Makes the leader hints in error answers: which broker leads, at which address (KIP-951)."""

    peer: Peer
    replicas: Replicas

    def of(self, error: QuorateError) -> LeaderHint | None:
        """Return the hint of an error, with the leader's listener for this caller, or None."""
        known = hint_of(error)
        return None if known is None else self.with_listener(known)

    def with_listener(self, known: LeaderHint) -> LeaderHint:
        """Return a hint with the leader's listener for this caller, if there is one."""
        hint = LeaderHint(leader=known.leader, leader_epoch=known.leader_epoch)
        leader = self.replicas.image.brokers.get(known.leader)
        listener = None if leader is None else listener_for(self.peer, leader)
        if listener is not None:
            hint.listener.CopyFrom(listener)
        return hint


def error_of(error: QuorateError) -> Error:
    """Return an error as a message.

    If the controller could not be reached, the client gets QuorumUnavailableError.
    """
    if isinstance(error, NetworkError):
        return to_wire(QuorumUnavailableError(f"the controller could not be asked: {error}"))
    return to_wire(error)
