"""What the answers of all services share: finding a partition, and saying what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate.errors import (
    InvalidRequestError,
    NetworkError,
    QuorateError,
    QuorumUnavailableError,
    to_wire,
)

if TYPE_CHECKING:
    from quorate.v1.common_pb2 import Error
    from quorate_broker.partition.partition import Partition
    from quorate_broker.replicas import Replicas

TOPIC_ID_BYTES = 16


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


def error_of(error: QuorateError) -> Error:
    """Return the wire's form; a broken way to the quorum is the quorum's absence to a client."""
    if isinstance(error, NetworkError):
        return to_wire(QuorumUnavailableError(f"the controller could not be asked: {error}"))
    return to_wire(error)
