"""A node's answers to its peers: the machine's replies, batches of the log, chunks of snapshots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quorate.errors import (
    FencedLeaderEpochError,
    NotControllerError,
    OverloadedError,
    StoppingError,
    StorageError,
)
from quorate_quorum.log.disk_errors import is_passing
from quorate_quorum.log.identity import Identity
from quorate_quorum.log.log import Log
from quorate_quorum.raft.driver.applier import Applier
from quorate_quorum.raft.driver.callers import Asked, Callers
from quorate_quorum.raft.driver.loop import RaftLoop
from quorate_quorum.raft.driver.peers import Peers
from quorate_quorum.raft.machine.events import Event
from quorate_quorum.raft.machine.ready import FetchReply
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.snapshots.store import Snapshots
from quorate_quorum.v1 import raft_pb2


@dataclass(eq=False)
class Answers:
    """Answers the requests of peers in one node; RaftService converts them from and to the wire.

    `incarnation` is the id of this run of the node.
    """

    _loop: RaftLoop
    peers: Peers
    identity: Identity
    incarnation: bytes
    metadata_log: Log
    snapshots: Snapshots
    applier: Applier
    callers: Callers
    fetch_bytes_max: int
    #: Whether this node describes itself. Before `start` it does not know its epoch and its log.
    is_open: bool = False

    def step(self, event: Event) -> None:
        """Pass an event that has no answer to the machine."""
        self._loop.step(event)

    async def ask(self, event: Callable[[int], Event]) -> Any:
        """Pass the machine an event with a new number, and return the answer for that number."""
        with self.asking(event) as asked:
            return await asked.answer()

    def asking(self, event: Callable[[int], Event]) -> Asked:
        """Pass the machine an event with a new number. Return the Asked that gets its answers.

        Use the Asked as a context manager: at the end of the block, the number of the Asked is
        forgotten.
        """
        if not self._loop.is_running:
            raise StoppingError(f"node {self.identity.node_id} is not running")
        asked = self.callers.asked()
        self._loop.step(event(asked.number))
        return asked

    def check_leads(self, epoch: int) -> None:
        """Raise FencedLeaderEpochError or NotControllerError unless this node leads in `epoch`."""
        node_id, raft = self.identity.node_id, self._loop.raft
        if not self._loop.is_running:
            raise NotControllerError(f"node {node_id} is not running")
        if epoch < raft.epoch:
            raise FencedLeaderEpochError(f"epoch {epoch} is over; this is epoch {raft.epoch}")
        if epoch > raft.epoch or raft.leader_id != node_id:
            raise NotControllerError(
                f"node {node_id} does not lead in epoch {epoch}; epoch {raft.epoch}, leader"
                f" {raft.leader_id}"
            )

    async def payload(self, reply: FetchReply) -> bytes | None:
        """Return the batches of a fetch answer; None if they are no longer valid.

        None: this node lost its leadership or cut these batches during the read, or its disk
        failed. Empty: the log now begins above the batches. In the second case, the answer to the
        next fetch names the snapshot.
        """
        base_offset = reply.response.base_offset
        if reply.end <= base_offset or base_offset < self.metadata_log.log_start_offset:
            return b""
        try:
            data = await self.metadata_log.read(
                base_offset, end=reply.end, bytes_max=self.fetch_bytes_max
            )
        except StorageError as error:
            self._loop.fail(str(error), error)
            return None
        still_holds = self._loop.is_running and self._loop.raft.still_holds(reply)
        return data if still_holds else None

    async def read_snapshot(
        self, snapshot: SnapshotId, position: int, bytes_max: int
    ) -> tuple[int, bytes]:
        """Return the size of a snapshot in bytes, and at least one byte from `position` on.

        SnapshotNotFoundError if this node has no such snapshot.
        InvalidRequestError if the position is not in the snapshot, or bytes_max is below 1.
        OverloadedError if this process is at a limit and can't open the file now.
        StoppingError if the disk fails.
        """
        try:
            return await self.snapshots.read(snapshot, position, bytes_max)
        except OSError as error:
            said = f"node {self.identity.node_id} can't read its snapshot"
            if is_passing(error):
                raise OverloadedError(f"{said} now: {error}") from error
            self._loop.fail(f"can't read a snapshot: {error}", error)
            raise StoppingError(f"{said}: {error}") from error

    def describe_node(self) -> raft_pb2.DescribeNodeResponse:
        """Return this node's answer to DescribeNode. StoppingError before `start`."""
        identity = self.identity
        if not self.is_open:
            raise StoppingError(f"node {identity.node_id} has not started")
        raft = self._loop.raft
        ledger, heard = raft.ledger, raft.leader_heard()
        return raft_pb2.DescribeNodeResponse(
            cluster_id=identity.cluster_id,
            node_id=identity.node_id,
            incarnation=self.incarnation,
            directory_id=identity.directory_id,
            quorum_generation=identity.quorum_generation,
            epoch=raft.epoch,
            leader_id=raft.leader_id,
            log_end_offset=ledger.log_end_offset,
            high_watermark=self.applier.readable_end,
            past_bootstrap=ledger.log_end_offset > ledger.bootstrap_end,
            leader_directory_id=heard.leader.directory_id if heard else b"",
            leader_endpoint=heard.endpoint if heard else "",
            last_epoch=ledger.last_epoch,
            bootstrap_hash=self.peers.history.bootstrap_hash,
        )
