"""Decides, for the leader of a partition, which replicas are in sync and what is committed.

A machine. Its events are appends, syncs, fetches, answers and image changes. It moves the high
watermark. A Leader exists as long as one reign (one leader_epoch): LeaderReplica makes it and drops
it. The caller gives the time, in milliseconds of any clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from quorate_broker.replica.awaited import AwaitedReplicas, Wait
from quorate_broker.replica.in_sync_replicas import InSyncReplicas, Proposal
from quorate_quorum.metadata.history import Cause
from quorate_quorum.v1 import events_pb2 as ev

#: The log end offset of a replica that has not fetched in this reign.
UNKNOWN = -1


@dataclass(slots=True)
class ReplicaStream:
    """The stream of one follower to this broker. It serves all partitions that the two share."""

    replica_id: int
    broker_epoch: int
    incarnation: bytes
    stream_number: int
    #: The time of the stream's last request. A request counts for every partition of the stream.
    last_request_ms: int

    def is_older_than(self, other: ReplicaStream) -> bool:
        """Return whether `other` has replaced this stream.

        Then this stream's requests are out of date.
        """
        return (self.broker_epoch, self.stream_number) < (other.broker_epoch, other.stream_number)

    def is_silent(self, now_ms: int, lag_ms: int) -> bool:
        """Return whether the stream is silent for so long that its replica may soon be too late."""
        return now_ms - self.last_request_ms > lag_ms // 2


@dataclass(slots=True)
class ReplicaProgress:
    """What the leader knows of one other replica."""

    #: The last time at which the replica had all records of the leader. At the start of the reign
    #: this is the present time: a healthy follower must not leave the ISR because the new leader
    #: has not heard from it yet.
    caught_up_ms: int
    #: The stream of the replica's last fetch. AlterPartition sends the stream's broker_epoch
    #: (KIP-903).
    stream: ReplicaStream | None = None
    log_end_offset: int = UNKNOWN
    #: The start of the replica's log, as its last fetch says.
    log_start_offset: int = UNKNOWN
    #: The time of the last fetch with a position in this partition, and the leader's log end at
    #: that time.
    fetched_ms: int = 0
    leader_end_then: int = 1 << 62
    #: The time from the fetch before to the last one, if the replica then had all records that the
    #: leader had at the fetch before; None if it did not.
    round_ms: int | None = None
    #: The replica's stream continues without this partition: the replica is offline, or gone.
    has_left: bool = False

    def fetched(self, stream: ReplicaStream, offset: int, leader_end: int, now_ms: int) -> None:
        """Take over the position of a fetch."""
        self.round_ms = None
        if offset >= self.leader_end_then:
            # The replica has all records that the leader had at the replica's last fetch, so it
            # counts as caught up at that time. Without this rule a follower of a busy leader, which
            # never quite reaches the end, would leave the ISR.
            self.caught_up_ms = max(self.caught_up_ms, self.fetched_ms)
            self.round_ms = now_ms - self.fetched_ms
        if offset >= leader_end:
            self.caught_up_ms = max(self.caught_up_ms, now_ms)
        self.stream = stream
        self.has_left = False
        self.log_end_offset = offset
        self.fetched_ms = now_ms
        self.leader_end_then = leader_end

    def last_caught_up_ms(self, leader_end: int) -> int:
        """Return the last time at which the replica had all records of the leader, as in Kafka."""
        if self.stream is not None and not self.has_left and self.log_end_offset >= leader_end:
            return max(self.caught_up_ms, self.stream.last_request_ms)
        return self.caught_up_ms

    def stream_that_keeps(self, end: int, now_ms: int, lag_ms: int) -> ReplicaStream | None:
        """Return the stream, if the replica has all up to `end` and the stream is not silent."""
        stream = self.stream
        if stream is None or self.has_left or self.log_end_offset < end:
            return None
        return None if stream.is_silent(now_ms, lag_ms) else stream

    def why_out_of_sync(self, broker_id: int, leader: Leader, now_ms: int) -> Cause | None:
        """Return why the replica may not be in the leader's ISR; None if it may."""
        if self.has_left:
            return Cause(ev.CAUSE_KIND_REPLICA_LEFT, broker_id)
        if UNKNOWN < self.log_end_offset < leader.high_watermark:
            # the member lacks committed records, so it has lost the end of its log
            lost = leader.high_watermark - self.log_end_offset
            return Cause(ev.CAUSE_KIND_LOST_RECORDS, broker_id, records=lost)
        since_ms = self.last_caught_up_ms(leader.log_end_offset)
        if now_ms - since_ms <= leader.lag_ms:
            return None
        kind = ev.CAUSE_KIND_FELL_BEHIND
        if self.stream is None or now_ms - self.stream.last_request_ms > leader.lag_ms:
            kind = ev.CAUSE_KIND_NOT_FETCHING
            since_ms = since_ms if self.stream is None else self.stream.last_request_ms
        records = leader.log_end_offset - max(self.log_end_offset, 0)
        return Cause(kind, broker_id, ms=now_ms - since_ms, records=records)


@dataclass(slots=True, kw_only=True)
class Leader:
    """The reign of this broker over one partition, in one leader_epoch.

    Invariants:

    * high_watermark never goes back.
    * When high_watermark moves, it is at most the end of every member of the maximal ISR.
    * high_watermark moves only while the committed ISR has at least min_isr members.
    """

    broker_id: int
    leader_epoch: int
    #: The log's end when the reign began. A new leader does not know what is committed until its
    #: high watermark has reached this offset.
    epoch_start_offset: int
    log_end_offset: int
    #: This broker's own end for the high watermark: the log's end, or with flush.on.ack its synced
    #: end.
    own_end: int
    high_watermark: int
    in_sync: InSyncReplicas
    min_isr: int
    lag_ms: int
    awaited: AwaitedReplicas
    #: The other replicas, by broker id.
    replicas: dict[int, ReplicaProgress] = field(default_factory=dict)
    #: Whether this reign has confirmed the high watermark. Until then the log stores the high
    #: watermark with the epoch in which the watermark was learnt, not with this epoch.
    is_confirmed: bool = False
    #: Whether the ISR can't change before the next append or event: see settled_by. The ISR keeper
    #: sets this.
    is_settled: bool = False

    @classmethod
    def begin(  # noqa: PLR0913  (a reign starts from all of this)
        cls,
        *,
        broker_id: int,
        leader_epoch: int,
        log_end_offset: int,
        own_end: int,
        high_watermark: int,
        partition_epoch: int,
        isr: Sequence[int],
        replicas: Iterable[int],
        min_isr: int,
        lag_ms: int,
        now_ms: int,
    ) -> Leader:
        """Begin a reign. Every replica counts as caught up now, and its end is unknown."""
        leader = cls(
            broker_id=broker_id,
            leader_epoch=leader_epoch,
            epoch_start_offset=log_end_offset,
            log_end_offset=log_end_offset,
            own_end=own_end,
            high_watermark=min(high_watermark, log_end_offset),
            in_sync=InSyncReplicas(
                broker_id=broker_id,
                partition_epoch=partition_epoch,
                committed=tuple(sorted(isr)),
                doubt_ms=2 * lag_ms,
            ),
            min_isr=min_isr,
            lag_ms=lag_ms,
            awaited=AwaitedReplicas(lag_ms),
        )
        leader._assign(replicas, now_ms)
        return leader

    # events

    def appended(self, log_end_offset: int) -> None:
        """Take over the log's new end.

        A replica that had the whole log before this append counts as caught up at its last request.
        """
        assert log_end_offset >= self.log_end_offset
        for progress in self.replicas.values():
            progress.caught_up_ms = progress.last_caught_up_ms(self.log_end_offset)
        self.log_end_offset = log_end_offset

    def saved(self, own_end: int) -> None:
        """Take over the offset below which the log is written (with flush.on.ack: synced)."""
        assert own_end <= self.log_end_offset
        self.own_end = max(self.own_end, own_end)

    def record_fetch(self, stream: ReplicaStream, fetch_offset: int, now_ms: int) -> bool:
        """Take over the position of a follower whose records agree with this log.

        Returns False, and changes nothing, if the broker is not a replica, the stream was replaced,
        or the offset is not within the log.
        """
        progress = self.replicas.get(stream.replica_id)
        if progress is None or not 0 <= fetch_offset <= self.log_end_offset:
            return False
        if progress.stream is not None and progress.stream is not stream:
            if stream.is_older_than(progress.stream):
                return False
            if stream.broker_epoch > progress.stream.broker_epoch:
                # Forget the old position: the broker has restarted, and may have lost the end of
                # its log (KAFKA-15221).
                progress = ReplicaProgress(caught_up_ms=progress.caught_up_ms)
                self.replicas[stream.replica_id] = progress
                self.awaited.leave(stream.replica_id)
        progress.fetched(stream, fetch_offset, self.log_end_offset, now_ms)
        return True

    def follower_left(self, stream: ReplicaStream) -> bool:
        """Note that a follower fetches this partition no longer, while its stream continues.

        Returns whether this is new. From then on the stream's requests do not count for this
        partition.
        """
        progress = self.replicas.get(stream.replica_id)
        if progress is None or progress.stream is not stream or progress.has_left:
            return False
        progress.caught_up_ms = progress.last_caught_up_ms(self.log_end_offset)
        progress.has_left = True
        self.awaited.leave(stream.replica_id)
        return True

    def await_entry(self, broker_id: int, now_ms: int) -> Wait | None:
        """Begin to wait for an eligible replica that is about to enter the ISR; None: it is none.

        Call this after its `record_fetch`; after the wait, call `awaited.over` and `advance`.
        """
        round_ms = self.replicas[broker_id].round_ms
        if round_ms is None or self.in_sync.proposal is not None or self.waits_for(broker_id):
            return None
        return self.awaited.begin(broker_id, round_ms, now_ms)

    def advance(self) -> bool:
        """Move the high watermark to the lowest end of the maximal ISR. Return whether it moved.

        The high watermark does not move while the committed ISR is below min_isr, because a
        committed record is promised to be on at least min_isr replicas (KIP-966). It does not pass
        the end of a member that the controller may have added meanwhile: if elected, this member
        would lack committed records. For a moment it does not pass the end of an awaited replica,
        either: see AwaitedReplicas.
        """
        if not self.has_enough_replicas:
            return False
        awaited = (*self.in_sync.maximal, *self.awaited.broker_ids)
        least = min(self._end_of(broker_id) for broker_id in awaited)
        if least < self.high_watermark:
            return False
        self.is_confirmed = True
        moved = least > self.high_watermark
        self.high_watermark = least
        self._assert_invariants(least)
        return moved

    # the ISR

    def settled_by(self, now_ms: int) -> list[ReplicaStream] | None:
        """Return the streams that keep the ISR as it is; None if the ISR may have to change.

        The ISR is complete and decided, and each member has all records. So nothing changes before
        an append, an event that asks for a check (a follower leaves, an image comes), or the
        silence of one of these streams.
        """
        end, lag_ms = self.log_end_offset, self.lag_ms
        streams = [one.stream_that_keeps(end, now_ms, lag_ms) for one in self.replicas.values()]
        found = [stream for stream in streams if stream is not None]
        is_complete = len(self.isr) == len(found) + 1 == len(self.replicas) + 1
        return found if is_complete and self.in_sync.is_decided else None

    def propose(
        self, now_ms: int, broker_epoch: int, eligible_epoch: Callable[[int], int]
    ) -> Proposal | None:
        """Return the ISR to propose now; None if there is nothing to propose.

        `broker_epoch` is this broker's. `eligible_epoch(broker_id)` returns the broker_epoch of an
        unfenced broker that is not shutting down, and -1 for any other broker. A proposal without
        an answer is returned again, unchanged, until an answer or an image decides it.
        """
        wanted = partial(self._wanted, now_ms, broker_epoch, eligible_epoch)
        proposal = self.in_sync.ask(now_ms, wanted)
        if proposal is not None:
            self.awaited.proposed(proposal.isr)
        return proposal

    def update(
        self, partition_epoch: int, isr: Sequence[int], replicas: Iterable[int], now_ms: int
    ) -> bool:
        """Take over the state in an image of this same reign. Return False if it is not newer.

        Set the min ISR of the same image before this call: see LeaderReplica.isr_accepted.
        """
        if partition_epoch < self.in_sync.partition_epoch:
            return False
        self._assign(replicas, now_ms)
        if partition_epoch == self.in_sync.partition_epoch:
            return False
        self.in_sync.decided(partition_epoch, isr)
        return True

    # questions

    @property
    def isr(self) -> tuple[int, ...]:
        """The ISR that the controller committed last, as far as this leader knows."""
        return self.in_sync.committed

    @property
    def has_enough_replicas(self) -> bool:
        """Whether the ISR is large enough to accept batches with acks=all."""
        return len(self.in_sync.committed) >= self.min_isr

    @property
    def knows_high_watermark(self) -> bool:
        """Whether this reign knows the offset up to which consumers may read."""
        return self.high_watermark >= self.epoch_start_offset

    def waits_for(self, broker_id: int) -> bool:
        """Return whether the high watermark waits for a broker: is it in the ISR, or soon?"""
        return broker_id in self.in_sync.maximal or broker_id in self.awaited.broker_ids

    @property
    def wants_to_expand(self) -> bool:
        """Whether a replica outside of the ISR has reached the high watermark.

        This is only a cheap hint: `propose` decides.
        """
        if self.in_sync.proposal is not None or len(self.isr) > len(self.replicas):
            return False
        return any(
            broker_id not in self.isr and self._has_reached(progress)
            for broker_id, progress in self.replicas.items()
        )

    # internals

    def _wanted(
        self, now_ms: int, broker_epoch: int, eligible_epoch: Callable[[int], int]
    ) -> Proposal | None:
        """Return the ISR as it should be; None if the committed ISR is already so."""
        members = [(self.broker_id, broker_epoch)]
        causes: list[Cause] = []
        for broker_id, progress in self.replicas.items():
            if broker_id in self.isr:
                why = progress.why_out_of_sync(broker_id, self, now_ms)
                if why is None:
                    stream = progress.stream
                    epoch = eligible_epoch(broker_id) if stream is None else stream.broker_epoch
                    members.append((broker_id, epoch))
                else:
                    causes.append(why)
            elif self._may_enter(broker_id, progress, now_ms, eligible_epoch):
                members.append((broker_id, eligible_epoch(broker_id)))
                causes.append(Cause(ev.CAUSE_KIND_CAUGHT_UP, broker_id))
        members.sort()
        partition_epoch = self.in_sync.partition_epoch
        proposal = Proposal(
            self.leader_epoch, partition_epoch, tuple(members), causes=tuple(causes)
        )
        return None if proposal.isr == self.isr else proposal

    def _may_enter(
        self,
        broker_id: int,
        progress: ReplicaProgress,
        now_ms: int,
        eligible_epoch: Callable[[int], int],
    ) -> bool:
        return (
            self._has_reached(progress)
            and progress.why_out_of_sync(broker_id, self, now_ms) is None
            and progress.stream is not None
            and progress.stream.broker_epoch == eligible_epoch(broker_id)
        )

    def _has_reached(self, progress: ReplicaProgress) -> bool:
        """Return whether the replica has every record that may be committed.

        A record may be committed if it is below the high watermark, or if it was in the log when
        the reign began: a new leader does not know how many of those are committed.
        """
        return progress.log_end_offset >= max(self.high_watermark, self.epoch_start_offset)

    def _end_of(self, broker_id: int) -> int:
        if broker_id == self.broker_id:
            return self.own_end
        progress = self.replicas.get(broker_id)
        return UNKNOWN if progress is None else progress.log_end_offset

    def _assign(self, replicas: Iterable[int], now_ms: int) -> None:
        known = self.replicas
        self.replicas = {
            broker_id: known.get(broker_id) or ReplicaProgress(caught_up_ms=now_ms)
            for broker_id in replicas
            if broker_id != self.broker_id
        }
        self.awaited.keep(self.replicas)

    def _assert_invariants(self, least: int) -> None:
        assert self.high_watermark <= self.own_end <= self.log_end_offset
        for broker_id in self.in_sync.committed:
            assert self._end_of(broker_id) >= least, f"{broker_id} lacks what counts as committed"
