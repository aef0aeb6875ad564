"""Finds the offset at which the records of a reader differ from a leader's log.

The rule is that of KIP-101 for followers and KIP-320 for consumers. If two logs have a record of
the same leader_epoch at an offset, they have the same records below it, because a leader writes
each offset of its epoch once. So it is enough to compare the epoch of the reader's last record. The
records themselves are never compared.
"""

from __future__ import annotations

from typing import NamedTuple

from quorate_quorum.log.epochs import EpochCache


class Divergence(NamedTuple):
    """The leader's largest epoch that is not above the reader's, and its end offset."""

    epoch: int
    end_offset: int


def divergence(
    epochs: EpochCache, start: int, end: int, offset: int, last_epoch: int
) -> Divergence | None:
    """Compare a reader's records with the log [start, end). Return None if they agree.

    The reader has all records below `offset`. `last_epoch` is the epoch of its last record; -1: not
    known.

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
