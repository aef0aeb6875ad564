"""The brokers that were fenced a moment ago. Metadata still names them to Kafka clients.

librdkafka drops a broker that an answer does not name. If the same answer moves the leader of a
partition away from that broker, librdkafka may forget the new leader, too: it looks for it again
after a whole second. So a broker is named for some seconds more, but as the leader of no partition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from quorate_broker.listeners.kafka.call import Client
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.listeners import ListenerAddress

#: Long enough for clients to ask twice. A client may try such a broker, so it must not be longer.
NAMED_S: Final = 5.0


class RecentlyFenced:
    """An ImageListener. `now` returns the time in seconds, by any clock that only goes forward."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        #: When each fenced broker was fenced; brokers that were fenced at the start are not here.
        self._fenced_at: dict[int, float] = {}

    def image_changed(self, delta: MetadataDelta, image: MetadataImage) -> None:
        for broker_id in delta.brokers.changed:
            old, new = delta.image.brokers.get(broker_id), image.brokers.get(broker_id)
            if new is None or not new.fenced:
                self._fenced_at.pop(broker_id, None)
            elif old is not None and not old.fenced:
                self._fenced_at[broker_id] = self._now()

    def reachable(self, client: Client, image: MetadataImage) -> dict[int, ListenerAddress]:
        """Return where this client could reach the brokers that were fenced a moment ago, by id."""
        since = self._now() - NAMED_S
        found: dict[int, ListenerAddress] = {}
        for broker_id, at in list(self._fenced_at.items()):
            if at < since:
                del self._fenced_at[broker_id]
                continue
            broker = image.brokers.get(broker_id)
            address = broker.listener(client.listener) if broker and broker.fenced else None
            if address is not None:
                found[broker_id] = address
        return found
