"""The protocol through which the controller follows the metadata log in a voter's process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class RaftListener(Protocol):
    """Is told of committed batches and of the leader, in the event loop. No method may wait."""

    def snapshot_part(self, batches: bytes) -> None:
        """Take a snapshot's next batches: at the start, or after the snapshot was installed."""

    def snapshot_end(self, offset: int, epoch: int) -> None:
        """Take note that the snapshot is whole. It replaces all records below `offset`.

        The next call of committed() begins at `offset`.
        """

    def committed(self, batches: Sequence[bytes], high_watermark: int) -> None:
        """Take committed batches, each once and in order. They follow the snapshot, if any."""

    def became_leader(self, epoch: int, handed_over_for_silence: bool) -> None:
        """Take note that this node leads, after committed() got the EpochStart of its epoch."""

    def lost_leadership(self, epoch: int) -> None:
        """Take note that the reign of `epoch` is over. Uncommitted proposals may be lost."""

    def leader_known(self, leader_id: int, epoch: int, endpoint: str) -> None:
        """Take note that leader or epoch changed. leader_id is -1 while no leader is known."""
