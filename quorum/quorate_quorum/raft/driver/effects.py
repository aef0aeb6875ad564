"""Carries out a Ready: the part for the disk first, then for peers, callers and RaftListener."""

from __future__ import annotations

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


class Effects:
    """Hands each part of a Ready to the object that carries it out. No method waits."""

    def __init__(
        self,
        node_id: int,
        *,
        storage: Storage,
        transport: Transport,
        finder: Finder,
        downloads: Downloads,
        callers: Callers,
        waiters: Waiters,
        applier: Applier,
        listener: RaftListener,
    ) -> None:
        self._node_id = node_id
        self._storage = storage
        self._transport = transport
        self._finder = finder
        self._downloads = downloads
        self._callers = callers
        self._waiters = waiters
        self._applier = applier
        self._listener = listener
        self._told_leader: tuple[int, int, str] | None = None

    def carry_out(self, ready: Ready) -> None:
        """Begin everything that the Ready asks for. Each completion comes back as an event."""
        self._storage.submit(ready.hard_state, ready.hard_state_version, ready.save)
        if ready.lost_epoch is not None:
            self._end_reign()
        for change in ready.role_changes:
            self._tell_role(change)
        self._transport.keep_session(ready.session)
        self._downloads.want(ready.install)
        for message in ready.messages:
            self._send(message)
        for voter_id, reason in ready.transfers_given_up:
            log.info("raft transfer given up", node=self._node_id, to=voter_id, reason=reason)
            self._waiters.transfer_given_up(voter_id, reason)
        for read, high_watermark in ready.confirmed_reads:
            self._waiters.confirmed(read, high_watermark)
        self._applier.proceed(ready)

    def end(self, error: Exception) -> None:
        """End everything that waits for the machine, because it gives no more answers."""
        self._end_reign()
        self._callers.fail(error)
        self._waiters.fail(error)

    def _end_reign(self) -> None:
        self._waiters.end_reign()
        self._applier.end_reign()

    def _send(self, message: Message) -> None:
        match message:
            case Call():
                self._transport.call(message)
            case Fetch():
                self._transport.fetch(message)
            case FindLeader():
                self._finder.ask(message.endpoint)
            case FetchReply():
                self._callers.tell(message.caller, message)
            case reply:
                self._callers.tell(reply.caller, reply.response)

    def _tell_role(self, change: RoleChange) -> None:
        log.info(
            "raft role",
            node=self._node_id,
            role=change.role,
            epoch=change.epoch,
            leader=change.leader_id,
            reason=change.reason,
            # Without a majority this line would be printed at each try: `repeats` thins it out.
            repeats=change.role == "prospective",
        )
        told = (change.leader_id, change.epoch, change.endpoint)
        if told != self._told_leader:
            self._told_leader = told
            self._listener.leader_known(*told)
        if change.leader_id >= 0:
            self._waiters.leader_known(change.leader_id)
