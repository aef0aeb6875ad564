"""Carries out a Ready: the part for the disk first, then for peers, callers and RaftListener."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from quorate_quorum.raft.driver.applier import Applier
from quorate_quorum.raft.driver.callers import Callers
from quorate_quorum.raft.driver.downloads import Downloads
from quorate_quorum.raft.driver.finder import Finder
from quorate_quorum.raft.driver.listener import RaftListener
from quorate_quorum.raft.driver.storage import Storage
from quorate_quorum.raft.driver.transport import Transport
from quorate_quorum.raft.driver.waiters import Waiters
from quorate_quorum.raft.machine.ready import (
    Call,
    Fetch,
    FetchReply,
    FindLeader,
    Message,
    Ready,
    RoleChange,
)

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Effects:
    """Hands each part of a Ready to the object that carries it out. No method waits."""

    node_id: int
    storage: Storage
    transport: Transport
    finder: Finder
    downloads: Downloads
    callers: Callers
    waiters: Waiters
    applier: Applier
    listener: RaftListener
    _told_leader: tuple[int, int, str] | None = None

    def carry_out(self, ready: Ready) -> None:
        """Begin all work that the Ready asks for. The end of each work comes back as an event."""
        self.storage.submit(ready.hard_state, ready.hard_state_version, ready.save)
        if ready.lost_epoch is not None:
            self._end_reign()
        for change in ready.role_changes:
            self._tell_role(change)
        self.transport.keep_session(ready.session)
        self.downloads.want(ready.install)
        for message in ready.messages:
            self._send(message)
        for voter_id, reason in ready.transfers_given_up:
            log.info("raft transfer given up", node=self.node_id, to=voter_id, reason=reason)
            self.waiters.transfer_given_up(voter_id, reason)
        for read, high_watermark in ready.confirmed_reads:
            self.waiters.confirmed(read, high_watermark)
        self.applier.proceed(ready)

    def end(self, error: Exception) -> None:
        """End everything that waits for the machine, because it gives no more answers."""
        self._end_reign()
        self.callers.fail(error)
        self.waiters.fail(error)

    def _end_reign(self) -> None:
        self.waiters.end_reign()
        self.applier.end_reign()

    def _send(self, message: Message) -> None:
        match message:
            case Call():
                self.transport.call(message)
            case Fetch():
                self.transport.fetch(message)
            case FindLeader():
                self.finder.ask(message.endpoint)
            case FetchReply():
                self.callers.tell(message.caller, message)
            case reply:
                self.callers.tell(reply.caller, reply.response)

    def _tell_role(self, change: RoleChange) -> None:
        log.info(
            "raft role",
            node=self.node_id,
            role=change.role,
            epoch=change.epoch,
            leader=change.leader_id,
            reason=change.reason,
            # Without a majority, each try would print this line: `repeats` prints it only now and
            # then.
            repeats=change.role == "prospective",
        )
        told = (change.leader_id, change.epoch, change.endpoint)
        if told != self._told_leader:
            self._told_leader = told
            self.listener.leader_known(*told)
        if change.leader_id >= 0:
            self.waiters.leader_known(change.leader_id)
