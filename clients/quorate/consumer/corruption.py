"""What a consumer does about a corrupt batch: it reads the good copy that another replica has.

The next fetch tells the leader of the bad batch. The leader checks its log, and if its copy is bad
it hands over to another replica, within seconds. So the consumer warns once in its log, and fetches
again until the batch is good. The user gets an error only if that does not help: the batch is still
bad after `CORRUPT_RETRY_S`, or two leaders sent a bad one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from quorate.cluster.cluster import Cluster
from quorate.consumer.partition_state import Corruption, PartitionState
from quorate.errors import CorruptRecordError

log = logging.getLogger(__name__)

#: If a batch is corrupt for this long, the user's next read raises CorruptRecordError.
CORRUPT_RETRY_S: Final = 30.0
#: The pause before a corrupt batch is fetched again. A leader looks at its log once a second.
CORRUPT_PAUSE_S: Final = 0.2


class Corruptions:
    """Retries the corrupt batches of one consumer. Calls `changed` when a pause is over."""

    def __init__(self, cluster: Cluster, changed: Callable[[PartitionState], None]) -> None:
        self._cluster = cluster
        self._changed = changed

    def found(
        self, state: PartitionState, offset: int, error: CorruptRecordError
    ) -> CorruptRecordError | None:
        """Note that the batch at `offset`, or the answer for it, is corrupt.

        Returns the error that the user must get; None if the batch is fetched again.
        """
        loop = asyncio.get_running_loop()
        topic, partition = state.topic_partition
        known = state.corruption
        if known is None or known.offset != offset:
            known = state.corruption = Corruption(offset, loop.time())
            log.warning(
                "the batch at offset %d of %s-%d is corrupt, from %s: it is fetched again, from "
                "another leader if this one hands over (%s)",
                offset,
                topic,
                partition,
                state.answered_by,
                error,
            )
        known.leaders[state.answered_by] = None
        waited = loop.time() - known.since
        if len(known.leaders) > 1 or waited >= CORRUPT_RETRY_S:
            return CorruptRecordError(
                f"the batch at offset {offset} of {topic}-{partition} is corrupt: {error}. It came "
                f"from {', '.join(known.leaders)}, for {waited:.0f} s. Bring a broker with a good "
                f"copy back; or lose the batch: seek to an offset behind it, as "
                f"seek(TopicPartition({topic!r}, {partition}), {offset + 1})"
            )
        self._cluster.request_refresh()
        state.is_backing_off = True
        loop.call_later(CORRUPT_PAUSE_S, self._again, state)
        return None

    def _again(self, state: PartitionState) -> None:
        state.is_backing_off = False
        self._changed(state)
