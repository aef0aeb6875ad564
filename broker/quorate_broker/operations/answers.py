"""What the answers of all services share: finding a partition, and saying what went wrong."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

from quorate.errors import (
    InvalidRequestError,
    NetworkError,
    QuorateError,
    QuorumUnavailableError,
    to_wire,
)
from quorate_quorum.node import listeners

if TYPE_CHECKING:
    from quorate.net.network import Peer
    from quorate.v1.common_pb2 import Error, LeaderHint, Listener
    from quorate_broker.replica.partition import Partition
    from quorate_broker.replicas import Replicas
    from quorate_quorum.metadata.image import BrokerImage, MetadataImage

TOPIC_ID_BYTES = 16
#: Of one request, in one turn of the loop: 1 to 3 ms.
PARTITIONS_A_TURN = 200


def locate(replicas: Replicas, topic_id: bytes, partition: int, leader_epoch: int) -> Partition:
    """Return the partition that a request names.

    Raises InvalidRequestError for what can't be, else what Replicas.get raises.
    """
    if len(topic_id) != TOPIC_ID_BYTES:
        raise InvalidRequestError(f"topic_id must be {TOPIC_ID_BYTES} bytes, not {len(topic_id)}")
    if partition < 0:
        raise InvalidRequestError(f"partition must be 0 or more, not {partition}")
    if leader_epoch < -1:
        raise InvalidRequestError(f"leader_epoch must be -1 or more, not {leader_epoch}")
    return replicas.get(topic_id, partition)


def check_count(named: int, allowed: int, replicas: Replicas) -> None:
    """Check how many partitions a request or a stream names.

    `allowed` are always taken, and as many as this broker holds if that is more: an honest peer
    needs no more, and a bound below it would stop the peer for good. InvalidRequestError else.
    """
    most = max(allowed, replicas.held)
    if named > most:
        raise InvalidRequestError(
            f"{named} partitions are named at once; {most} are allowed: name fewer in a request, "
            "or open another stream"
        )


def refuse_duplicates(named: Iterable[Hashable]) -> None:
    """Raise InvalidRequestError if a request names one thing twice.

    The work that a request asks for is then bounded by what there is, and not by its bytes.
    """
    seen: set[Hashable] = set()
    for one in named:
        if one in seen:
            raise InvalidRequestError(
                f"the request names {_shown(one)} twice; name each topic or partition once"
            )
        seen.add(one)


def _shown(one: Hashable) -> str:
    parts = one if isinstance(one, tuple) else (one,)
    texts = [part.hex() if isinstance(part, bytes) else str(part)[:249] for part in parts]
    return "-".join(texts)


def listener_for(peer: Peer, broker: BrokerImage) -> Listener | None:
    """Return the listener by which a caller reaches a broker: of the name that it came in by.

    None if that broker has no such listener. A caller whose network gives listeners no names is
    told the one by which other nodes reach the broker.
    """
    found = broker.listener(peer.listener or broker.inter_broker_listener)
    return None if found is None else listeners.to_wire(found)


def address_hint(hint: LeaderHint, peer: Peer, image: MetadataImage) -> None:
    """Say in a hint by which listener the caller reaches the leader."""
    leader = image.brokers.get(hint.leader)
    listener = None if leader is None else listener_for(peer, leader)
    if listener is not None:
        hint.listener.CopyFrom(listener)


def error_of(error: QuorateError) -> Error:
    """Return the wire's form; a broken way to the quorum is the quorum's absence to a client."""
    if isinstance(error, NetworkError):
        return to_wire(QuorumUnavailableError(f"the controller could not be asked: {error}"))
    return to_wire(error)
