"""What follows the metadata log in a voter's process: the controller, through this protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class RaftListener(Protocol):
    """Told of committed batches and of the leader. Called in the loop; must not wait."""

    def snapshot_part(self, batches: bytes) -> None:
        """Some batches of a snapshot, in order: at the start, or when one was installed."""

    def snapshot_end(self, offset: int, epoch: int) -> None:
        """The snapshot is whole: it stands for all below `offset`, where committed() goes on."""

    def committed(self, batches: Sequence[bytes], high_watermark: int) -> None:
        """Every committed batch once, in order, from a snapshot's end or the log's start."""

    def became_leader(self, epoch: int, handed_over_for_silence: bool) -> None:
        """Our EpochStart is committed and was passed to committed()."""

    def lost_leadership(self, epoch: int) -> None:
        """The reign that became_leader told of is over; uncommitted proposals may be lost."""

    def leader_known(self, leader_id: int, epoch: int, endpoint: str) -> None:
        """The leader or the epoch has changed; leader_id is -1 while no leader is known."""
