"""A voter's Raft without elections, disks and peers: it leads and commits as the test says.

It serves tests of what stands on Raft: watch, controller, client. It can not test Raft itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from quorate.errors import NotControllerError, OverloadedError
from quorate.record import batch as record_batch
from quorate_quorum.log.events import encode_events
from quorate_quorum.node.features import Known, Levels
from quorate_quorum.v1.events_pb2 import EpochStart, Feature, MetadataEvent


class AnyFeature(dict[str, Levels]):
    """The levels of a program that knows every feature: tests use feature names of their own."""

    def get(self, name: object, default: object = None) -> Levels:
        return Levels(0, 2**31 - 1)


class Listener(Protocol):
    def committed(self, batches: Sequence[bytes], high_watermark: int) -> None: ...
    def became_leader(self, epoch: int, handed_over_for_silence: bool) -> None: ...
    def lost_leadership(self, epoch: int) -> None: ...
    def leader_known(self, leader_id: int, epoch: int, endpoint: str) -> None: ...


class Silent:
    """A listener that does nothing."""

    def committed(self, batches: Sequence[bytes], high_watermark: int) -> None: ...
    def became_leader(self, epoch: int, handed_over_for_silence: bool) -> None: ...
    def lost_leadership(self, epoch: int) -> None: ...
    def leader_known(self, leader_id: int, epoch: int, endpoint: str) -> None: ...


class FakeRaft:
    """With `commits_soon` a proposal commits in the next turn of the loop, else by commit()."""

    def __init__(
        self,
        listener: Listener | None = None,
        *,
        node_id: int = 100,
        endpoint: str = "",
        commits_soon: bool = True,
    ) -> None:
        self.listener: Listener = listener or Silent()
        self.node_id = node_id
        self.endpoint = endpoint
        self.commits_soon = commits_soon
        self.batches: list[bytes] = []
        self.starts: list[int] = []
        self.log_end_offset = 0
        self.high_watermark = 0
        self.epoch = 0
        self.leader_id = -1
        self.leader_endpoint = ""
        self.handed_over_for_silence = 0
        self.rounds = 0
        #: (id, directory id) -> the feature levels that the voter says it knows.
        self.known_features: dict[tuple[int, bytes], Known] = {}
        #: Proposals that are taken until the log is full; None: no bound.
        self.room: int | None = None
        #: The voter that is elected at a transfer; 0: the named one.
        self.elects = 0

    # -- what the test commands

    def format(self) -> None:
        """Write and commit the bootstrap batch."""
        self._append(0, [MetadataEvent(feature=Feature(name="metadata.version", level=1))])
        self.commit()

    def lead(self, epoch: int, *, handed_over_for_silence: bool = False) -> None:
        self.epoch = epoch
        self.know_leader(self.node_id, self.endpoint, epoch)
        start = EpochStart(
            epoch=epoch, leader_id=self.node_id, handed_over_for_silence=handed_over_for_silence
        )
        self._append(epoch, [MetadataEvent(epoch_start=start)])
        self.commit()
        self.listener.became_leader(epoch, handed_over_for_silence)

    def lose(self, to: int, epoch: int, endpoint: str = "") -> None:
        """Let another voter lead in a later epoch; cut what is not committed."""
        lost, was_leader = self.epoch, self.is_leader
        self.epoch = epoch
        while self.starts and self.starts[-1] >= self.high_watermark:
            self.starts.pop()
            self.batches.pop()
        self.log_end_offset = self.high_watermark
        if was_leader:
            self.leader_id = to
            self.listener.lost_leadership(lost)
        self.know_leader(to, endpoint, epoch)

    def know_leader(self, leader_id: int, endpoint: str, epoch: int) -> None:
        self.leader_id, self.leader_endpoint, self.epoch = leader_id, endpoint, epoch
        self.listener.leader_known(leader_id, epoch, endpoint)

    def follow(self, other: FakeRaft) -> None:
        """Append and commit all that `other` has committed."""
        for start, batch in zip(other.starts, other.batches, strict=True):
            if self.log_end_offset <= start < other.high_watermark:
                self.starts.append(start)
                self.batches.append(batch)
                self.log_end_offset = record_batch.parse_header(batch).end_offset
        self.commit()

    def commit(self) -> None:
        """Commit all that is in the log."""
        fresh = [
            batch
            for start, batch in zip(self.starts, self.batches, strict=True)
            if start >= self.high_watermark
        ]
        if fresh:
            self.high_watermark = self.log_end_offset
            self.listener.committed(fresh, self.high_watermark)

    # -- what RaftNode offers

    @property
    def is_leader(self) -> bool:
        return self.leader_id == self.node_id

    def propose(self, epoch: int, events: Sequence[MetadataEvent]) -> int:
        if not self.is_leader or epoch != self.epoch:
            raise NotControllerError(f"voter {self.node_id} does not lead in epoch {epoch}")
        if self.room == 0:
            raise OverloadedError("too much is proposed and not committed")
        if self.room is not None:
            self.room -= 1
        base_offset = self._append(epoch, events)
        if self.commits_soon:
            asyncio.get_running_loop().call_soon(self.commit)
        return base_offset

    async def read_round(self) -> int:
        self.rounds += 1
        await asyncio.sleep(0)
        if not self.is_leader:
            raise NotControllerError(f"voter {self.node_id} does not lead")
        return self.high_watermark

    async def read_committed(self, from_offset: int, bytes_max: int) -> bytes:
        await asyncio.sleep(0)
        found: list[bytes] = []
        size = 0
        for start, batch in zip(self.starts, self.batches, strict=True):
            end = record_batch.parse_header(batch).end_offset
            if end <= from_offset or start >= self.high_watermark:
                continue
            if found and size + len(batch) > bytes_max:
                break
            found.append(batch)
            size += len(batch)
        return b"".join(found)

    def hand_over(self, *, for_silence: bool) -> None:
        self.handed_over_for_silence += for_silence

    async def transfer(self, voter_id: int | None) -> int:
        """Let another voter lead at once, in the next epoch; nothing changes if it is this node."""
        named = self.node_id + 1 if voter_id is None else voter_id
        if named != self.node_id:
            self.lose(self.elects or named, self.epoch + 1)
        return self.leader_id

    def epoch_at(self, offset: int) -> int | None:
        for start, batch in zip(self.starts, self.batches, strict=True):
            header = record_batch.parse_header(batch)
            if start <= offset < header.end_offset:
                return header.leader_epoch
        return None

    def _append(self, epoch: int, events: Sequence[MetadataEvent]) -> int:
        base_offset = self.log_end_offset
        self.batches.append(
            encode_events(events, base_offset=base_offset, epoch=epoch, timestamp_ms=0)
        )
        self.starts.append(base_offset)
        self.log_end_offset = base_offset + len(events)
        return base_offset
