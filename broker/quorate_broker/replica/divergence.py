"""Where a reader's past leaves a leader's log: KIP-101 for followers, KIP-320 for consumers.

Two logs that have a record of the same leader_epoch at an offset agree on all below it, because a
leader writes each offset of its epoch once. So it is enough to compare the epoch of the last
record that the reader has, and never the records themselves.
"""

from __future__ import annotations

from typing import NamedTuple

from quorate_quorum.log.epochs import EpochCache


class Divergence(NamedTuple):
    """The leader's largest epoch that is not above the reader's, and where that epoch ends."""

    epoch: int
    end_offset: int


def divergence(
    epochs: EpochCache, start: int, end: int, offset: int, last_epoch: int
) -> Divergence | None:
    """Compare a reader's past with the log [start, end); return None if they agree.

    The reader holds all below `offset`; its record just below is of `last_epoch`, -1: not known.

    >>> epochs = EpochCache([(1, 0), (4, 9)])
    >>> divergence(epochs, 0, 20, 12, 4), divergence(epochs, 0, 20, 12, -1)
    (None, None)
    >>> divergence(epochs, 0, 20, 12, 1)  # the leader has another record 9
    Divergence(epoch=1, end_offset=9)
    >>> divergence(epochs, 0, 20, 5, 3)  # the leader has no record of epoch 3
    Divergence(epoch=1, end_offset=9)
    """
    if last_epoch < 0 or offset <= start:
        return None
    asked = min(last_epoch, epochs.last)
    epoch, epoch_end = epochs.end_offset_for(asked, end) or (-1, start)
    if epoch < last_epoch or epoch_end < offset:
        return Divergence(epoch, epoch_end)
    return None
