"""One replica of a partition on this broker: its log, and its role in the present leader_epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import structlog

from quorate_broker.replica.damage import Damage
from quorate_broker.replica.follower_reads import FollowerReads
from quorate_broker.replica.follower_replica import FollowerReplica
from quorate_broker.replica.in_sync_replicas import Proposal
from quorate_broker.replica.leader_replica import LeaderReplica
from quorate_broker.replica.producers import Producers
from quorate_broker.replica.replica import Failure, Replica, ReplicaHost
from quorate_broker.replica.replica_log import ReplicaLog
from quorate_quorum.configs import TopicConfig
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.metadata.history import Cause
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.v1 import events_pb2 as ev

log_line = structlog.get_logger(__name__)

#: The least time between two leader epochs in which a broker without room gives a partition away.
GIVES_WAY_INTERVAL_MS: Final = 60_000


class PartitionHost(ReplicaHost, Protocol):
    """The part of the broker that a partition uses. Replicas implements it."""

    def isr_wanted(self, partition: Partition) -> None:
        """Ask the ISR keeper to check the partition's ISR soon."""

    def isr_unsettled(self, partition: Partition) -> None:
        """Tell the ISR keeper that the partition's ISR may have to change from now on."""

    def retention_wanted(self, partition: Partition) -> None:
        """Ask the retention keeper to check the partition's log soon."""

    def failed(self, partition: Partition, failure: Failure, reason: str) -> None:
        """Take note that the replica went offline."""


def _leads_on(role: LeaderReplica | FollowerReplica | None, state: PartitionImage) -> bool:
    """Return whether this broker leads the next leader epoch, too, and no other led between.

    So it is if a replica was removed. Then its log is not cut, and the role goes on until the next
    one takes over what waits for its commit.
    """
    return (
        isinstance(role, LeaderReplica)
        and state.leader == role.machine.broker_id
        and state.leader_epoch == role.leader_epoch + 1
    )


class Partition(Replica):
    """One replica: its identity, its log and its role.

    The Opener makes it with an open log. It has no role before follow_image. The object of the role
    is made at each change of leader or leader_epoch, and dropped at the next one. State that
    outlives the role is here: the log, the memory of its producers, its damage, its failure.
    """

    host: PartitionHost

    def __init__(
        self,
        topic_id: bytes,
        topic: str,
        partition: int,
        log: Log,
        producers: Producers,
        host: PartitionHost,
        *,
        directory_id: bytes = b"",
    ) -> None:
        super().__init__(topic_id, topic, partition, host, directory_id)
        self.log = log
        self.replica_log = ReplicaLog(self, log)
        log.on_roll(self.retention_wanted)
        self.producers = producers
        #: The leader epoch in which this broker gave way for lack of room, and when.
        self._gave_way = (-1, -GIVES_WAY_INTERVAL_MS)
        self.damage = Damage(self, self.replica_log)
        self.role: LeaderReplica | FollowerReplica | None = None
        self._owed: tuple[int, int] | None = None
        #: Why the last pass of compaction failed; empty if it did not fail, or none is needed.
        self.compaction_failure = ""

    # identity and state

    @property
    def owed(self) -> tuple[int, int] | None:
        """(leader_epoch, log end) of a follower that has lost records that it had acknowledged.

        The leader of this epoch may have proposed it for the ISR before the leader learnt of the
        loss, so the replica must first reach this end again. None: it owes nothing.
        """
        return self._owed

    @owed.setter
    def owed(self, owed: tuple[int, int] | None) -> None:
        self._owed = owed
        if owed is not None:
            self.host.unsaved[self.key] = None

    @property
    def is_leader(self) -> bool:
        return isinstance(self.role, LeaderReplica)

    @property
    def follower(self) -> FollowerReplica | None:
        """The follower's role; None if this broker does not follow."""
        return self.role if isinstance(self.role, FollowerReplica) else None

    @property
    def isr(self) -> tuple[int, ...]:
        """The ISR that was committed last, as far as this broker knows."""
        if isinstance(self.role, LeaderReplica):
            return self.role.machine.isr
        return () if self.state is None else self.state.isr

    @property
    def log_start_offset(self) -> int:
        return self.log.log_start_offset

    @property
    def log_end_offset(self) -> int:
        return self.log.log_end_offset

    @property
    def high_watermark(self) -> int:
        return self.log.high_watermark

    # the role

    def as_leader(self, leader_epoch: int = -1) -> LeaderReplica:
        """Return the role if this broker leads, and the caller knows the same leader_epoch.

        `leader_epoch` -1: the caller's epoch is not checked. Raises NotLeaderError,
        FencedLeaderEpochError or UnknownLeaderEpochError, each with a hint that has the leader.
        Raises StorageError if the replica is offline and no other replica may lead.
        """
        if not isinstance(self.role, LeaderReplica):
            raise self.not_leader()
        if leader_epoch != -1:
            self.check_epoch(leader_epoch, self.role.leader_epoch)
        return self.role

    def as_source(self, leader_epoch: int = -1) -> LeaderReplica | FollowerReads:
        """Return what serves consumers that may read from followers.

        The errors are those of `as_leader`. A follower may refuse the read itself.
        """
        if not isinstance(self.role, FollowerReplica):
            return self.as_leader(leader_epoch)
        if leader_epoch != -1:
            self.check_epoch(leader_epoch, self.role.leader_epoch)
        return self.role.reads

    @property
    def must_resign(self) -> bool:
        """Whether the image makes this replica the leader, but it cannot serve its whole log.

        Then the controller should elect another leader.
        """
        cannot = self.failure in ("broken", "replica") or self.damage.reason is not None
        return cannot and self.leader == self.broker_id

    def propose_isr(
        self, now_ms: int, broker_epoch: int, eligible_epoch: Callable[[int], int]
    ) -> Proposal | None:
        """Return the ISR to propose to the controller now, or None: see Leader.propose.

        A replica that must resign proposes an ISR without itself, even if it has no role. So does
        the leader of an internal topic whose disk is full, while the others are enough for min ISR:
        consumer groups could not commit, though other disks have room. A leader of another topic
        stays: its producers are told to make room, and leave their records to no other disk that
        fills as well.
        """
        if self.must_resign:
            resignation = self._resignation(eligible_epoch)
            if self.damage.reason is None:
                return resignation
            assert self.state is not None
            # Write the note only if another replica has all that is committed: a member of the
            # ISR, or an eligible one of the ELR. The only copy gets no note: see damage.py.
            has_others = resignation is not None or self.state.isr != (self.broker_id,)
            self.damage.keep_note(is_wanted=has_others)
            if resignation is not None:
                return resignation if self.damage.is_noted else None
            # no other member may lead, so this replica leads on, although its log is damaged
        if not isinstance(self.role, LeaderReplica):
            return None
        if self.is_internal and self.role.queue.is_full and self._may_give_way(now_ms):
            resignation = self._resignation(eligible_epoch)
            if resignation is not None and len(resignation.members) >= self.role.machine.min_isr:
                self._gave_way = (resignation.leader_epoch, now_ms)
                return resignation
        return self.role.propose_isr(now_ms, broker_epoch, eligible_epoch)

    def _may_give_way(self, now_ms: int) -> bool:
        """Whether to give way for lack of room, which must not go round and round full disks."""
        assert self.state is not None
        leader_epoch, at_ms = self._gave_way
        return leader_epoch == self.state.leader_epoch or now_ms >= at_ms + GIVES_WAY_INTERVAL_MS

    def _resignation(self, eligible_epoch: Callable[[int], int]) -> Proposal | None:
        """Return the ISR without this broker; None if no eligible member would be left.

        If this broker is alone in the ISR, the eligible members of the ELR are the new ISR: they
        have all that is committed, because nothing is committed below min ISR (KIP-966).
        """
        state = self.state
        assert state is not None
        for others in (state.isr, state.elr):
            known = [(b, eligible_epoch(b)) for b in sorted(others) if b != self.broker_id]
            members = tuple(member for member in known if member[1] >= 0)
            if members:
                break
        else:
            return None
        kind = ev.CAUSE_KIND_LEADER_OFFLINE if self.must_resign else ev.CAUSE_KIND_LEADER_FULL
        if self.damage.reason is not None:
            kind = ev.CAUSE_KIND_LEADER_DAMAGED
        causes = (Cause(kind, self.broker_id),)
        return Proposal(state.leader_epoch, state.partition_epoch, members, causes)

    async def follow_image(
        self,
        state: PartitionImage,
        config: TopicConfig,
        min_isr: int,
        *,
        may_lead: bool,
        may_follow: bool = True,
    ) -> bool:
        """Take the role that the image gives this broker. Return whether the role changed.

        `may_lead`: this broker is unfenced, as far as it knows, and the replica is not lossy.
        `may_follow`: the replica is not lossy. The call waits for the append under way.
        """
        if config != self._config:
            self._config = config
            self.log.configure(LogConfig.of(config))
            self.replica_log.flush_timer.look()
            self.retention_wanted()
        is_same_reign = (
            self.role is not None
            and self.role.leader_epoch == state.leader_epoch
            and (may_lead or not self.is_leader)
            and (may_follow or self.follower is None)
        )
        was_in_sync = self.broker_id in self.isr
        self.state = state
        if self.offline is not None:
            return False
        if is_same_reign:
            if was_in_sync and self.broker_id not in self.isr:
                self.watches.wake()  # consumers that read from this follower go to the leader
            if isinstance(self.role, LeaderReplica):
                with self.replica_log.guard:
                    self.role.update(state, min_isr)
                self.host.isr_unsettled(self)
            # members of the ISR are sent their records first, and no throttle holds them
            self.replica_watches.wake()
            return False
        had_role = self.role is not None
        if not (may_lead and _leads_on(self.role, state)):
            self._end_role()
        async with self.replica_log.lock:
            if self.offline is not None or self.replica_log.is_closed:
                return True
            with self.replica_log.guard:
                self._begin_role(state, min_isr, may_lead=may_lead, may_follow=may_follow)
        self.wake_all()
        return had_role or self.role is not None

    def _begin_role(
        self, state: PartitionImage, min_isr: int, *, may_lead: bool, may_follow: bool
    ) -> None:
        leads = state.leader == self.broker_id
        if leads and may_lead:
            earlier = self.role if isinstance(self.role, LeaderReplica) else None
            self.role = LeaderReplica(
                self, self.replica_log, self.producers, self.damage, state, min_isr, earlier
            )
        elif not leads and state.leader >= 0 and may_follow:
            self.role = FollowerReplica(self, self.replica_log, state)
        else:
            return
        log_line.info(
            "role",
            partition=self.name,
            role="leader" if self.is_leader else "follower",
            leader=self.leader,
            leader_epoch=self.leader_epoch,
            log_end_offset=self.log.log_end_offset,
            high_watermark=self.high_watermark,
        )

    def _end_role(self) -> LeaderReplica | FollowerReplica | None:
        """End the present role, if there is one, and return it; else None."""
        role, self.role = self.role, None
        if role is not None:
            role.end()
        return role

    # upkeep and the end

    def found_damage(self, reason: str) -> None:
        """Have a damaged log repaired: a leader asks for another leader, a follower goes offline.

        A replica without a role does nothing: the damage is found again when it has one.
        """
        self.damage.found(reason)
        if self.follower is not None:
            self.take_offline("corrupt", reason)

    def isr_wanted(self) -> None:
        self.host.isr_wanted(self)

    def appended(self) -> None:
        self.host.appended[self.key] = None
        role = self.role
        if isinstance(role, LeaderReplica) and role.machine.is_settled and role.machine.replicas:
            self.host.isr_unsettled(self)

    def retention_wanted(self) -> None:
        self.host.retention_wanted(self)

    async def close(self, *, clean: bool) -> None:
        """End the role, wait for the append under way, close the log, and refuse queued batches.

        `clean`: close the log durably. It is safe to call this twice.
        """
        role = self._end_role()
        await self.replica_log.close(clean=clean)
        if isinstance(role, LeaderReplica):
            role.queue.refuse_queued()
        self.wake_all()

    def take_offline(self, failure: Failure, reason: str) -> None:
        """Stop serving. Batches that wait for their commit fail with OutcomeUnknownError."""
        if self.offline is not None:
            return
        self.offline, self.failure = reason, failure
        log_line.error("replica offline", partition=self.name, failure=failure, reason=reason)
        role = self._end_role()
        if isinstance(role, FollowerReplica) and role.machine.has_matched:
            self.owed = (role.leader_epoch, self.log.log_end_offset)
        if isinstance(role, LeaderReplica):
            role.queue.refuse_queued()
        self.wake_all()
        self.host.failed(self, failure, reason)
