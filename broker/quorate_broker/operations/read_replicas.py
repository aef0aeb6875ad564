"""Which replica a consumer should read: one in its own rack, if there is one (KIP-392).

The leader sends a consumer that names its rack to a follower in that rack. The follower is in the
committed ISR, and has all records below the consumer's position, as far as the leader knows. It
serves records below its own high watermark only, and refuses as soon as it knows that it has left
the ISR (FollowerReads.fetch). Then the consumer asks the leader again.
"""

from __future__ import annotations

from typing import NamedTuple

from quorate_broker.replica.fetched import HERE
from quorate_broker.replica.leader import Leader
from quorate_quorum.metadata.image import MetadataImage


class Reader(NamedTuple):
    """The consumer's rack, and the name of the listener by which it came in.

    Without a rack it reads from leaders only. An empty name: the one that brokers use.
    """

    rack: str = ""
    listener: str = ""


def read_replica(
    image: MetadataImage, leader: Leader, reader: Reader, offset: int, now_ms: int
) -> int:
    """Return the broker from which a consumer should read on from `offset`; HERE: this leader.

    Of several followers in the rack, the one with the furthest log is taken.
    """
    own = image.brokers.get(leader.broker_id)
    if not reader.rack or (own is not None and own.rack == reader.rack):
        return HERE
    best, furthest = HERE, offset - 1
    for broker_id in leader.isr:
        broker, progress = image.brokers.get(broker_id), leader.replicas.get(broker_id)
        if broker is None or progress is None or broker.rack != reader.rack:
            continue
        if broker.fenced or broker.shutting_down:
            continue
        if broker.listener(reader.listener or broker.inter_broker_listener) is None:
            continue
        if progress.stream_that_keeps(offset, now_ms, leader.lag_ms) is None:
            continue
        if progress.log_end_offset > furthest:
            best, furthest = broker_id, progress.log_end_offset
    return best
