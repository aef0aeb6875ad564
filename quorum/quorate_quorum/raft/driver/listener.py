"""The protocol through which the controller follows the metadata log in a voter's process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class RaftListener(Protocol):
    """Is told of committed batches and of the leader. Called in the loop; must not wait."""

    def snapshot_part(self, batches: bytes) -> None:
        """Take the next batches of a snapshot: at the start, or after one was installed."""

    def snapshot_end(self, offset: int, epoch: int) -> None:
        """Take note that the snapshot is whole: it replaces all records below `offset`.

        committed() goes on at `offset`.
        """

    def committed(self, batches: Sequence[bytes], high_watermark: int) -> None:
        """Take committed batches: each once, in order, from a snapshot's end or the log's start."""

    def became_leader(self, epoch: int, handed_over_for_silence: bool) -> None:
        """Take note that this node leads: its EpochStart is committed and went to committed()."""

    def lost_leadership(self, epoch: int) -> None:
        """Take note that the reign of became_leader is over. Uncommitted proposals may be lost."""

    def leader_known(self, leader_id: int, epoch: int, endpoint: str) -> None:
        """Take note of a change of leader or epoch. leader_id is -1 while no leader is known."""
