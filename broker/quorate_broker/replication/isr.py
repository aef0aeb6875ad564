"""The ISR keeper: proposes to the controller how the ISRs of led partitions should change.

The keeper checks led partitions at an interval, and a single partition at once when a follower has
caught up. The Leader machine decides what to propose. The keeper groups the proposals, sends them,
and gives the answers to the leaders. If no answer comes, or an answer that decides nothing, the
keeper sends the proposal again.

A partition whose ISR is complete and has all records is settled, and is not checked at the
interval: a broker may lead thousands of idle partitions. It is checked again after an append or an
image, and when one of the streams that kept it settled becomes silent. There is one stream for each
follower's broker, so to check the streams costs little.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import structlog

from quorate.aio.clock import loop_ms
from quorate.aio.tasks import Tasks
from quorate.errors import QuorateError
from quorate.v1.common_pb2 import ErrorCode
from quorate_broker.replica.in_sync_replicas import Proposal
from quorate_broker.replica.leader import ReplicaStream
from quorate_broker.replica.leader_replica import LeaderReplica
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.replica import Key
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.metadata.history import CAUSE
from quorate_quorum.v1.controller_pb2 import (
    AlteredPartition,
    AlterPartition,
    AlterPartitionsRequest,
    IsrMember,
)

log_line = structlog.get_logger(__name__)

#: Time between two checks of the led partitions; half the lag time if that is shorter.
LOOK_INTERVAL_MS = 1000
#: The most partitions that are checked in one turn of the loop.
LOOKS_A_TURN = 500
#: Pause before a proposal without an answer is sent again.
RETRY_MS = 200
#: The most proposals in one request.
PROPOSALS_MAX = 1000
#: The most requests in flight.
REQUESTS_MAX = 16

#: Errors by which the controller refuses a proposal. Any other error decides nothing.
REFUSALS = (
    ErrorCode.ERROR_CODE_INELIGIBLE_REPLICA,
    ErrorCode.ERROR_CODE_INVALID_REQUEST,
)

Proposed = tuple[Partition, Proposal]
EMPTY: Mapping[Key, Partition] = {}


class IsrKeeper:
    """Keeps the ISRs up to date: see the module.

    It is a RoleListener of Replicas. Subscribe it before start().
    """

    def __init__(
        self, replicas: Replicas, client: QuorumClient, fail: Callable[[str], None]
    ) -> None:
        self._replicas = replicas
        self._client = client
        self._fail = fail
        self._led: dict[Key, Partition] = {}
        #: The led partitions that are checked at each interval.
        self._unsettled: dict[Key, Partition] = {}
        self._soon: dict[Key, Partition] = {}
        #: The streams that keep partitions settled, by broker and number.
        self._streams: dict[tuple[int, int, int], ReplicaStream] = {}
        self._wake = asyncio.Event()
        self._requests = 0
        self._looking = Tasks(self._failed)
        self._asking = Tasks(self._failed)

    # RoleListener

    def role_changed(self, partition: Partition) -> None:
        if partition.must_resign:
            self._led[partition.key] = partition
            self.isr_unsettled(partition)
            self.isr_wanted(partition)
        elif partition.is_leader:
            self._led[partition.key] = partition
            self.isr_unsettled(partition)
        else:
            self.removed(partition)

    def removed(self, partition: Partition) -> None:
        self._led.pop(partition.key, None)
        self._unsettled.pop(partition.key, None)
        self._soon.pop(partition.key, None)

    def isr_wanted(self, partition: Partition) -> None:
        self._soon[partition.key] = partition
        self._wake.set()

    def isr_unsettled(self, partition: Partition) -> None:
        if partition.key in self._led:
            self._unsettled[partition.key] = partition
            if isinstance(partition.role, LeaderReplica):
                partition.role.machine.is_settled = False

    # start and stop

    def start(self) -> None:
        """Begin to check the led partitions, until stop()."""
        self._looking.spawn(self._run(), "isr keeper")

    async def stop(self) -> None:
        """Send no more proposals. It is safe to call this twice."""
        await self._looking.end_all()
        await self._asking.end_all()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        interval = min(LOOK_INTERVAL_MS, max(self._replicas.lag_ms // 2, 1)) / 1000
        look_at = loop.time() + interval
        while True:
            timer = loop.call_at(look_at, self._wake.set)
            await self._wake.wait()
            timer.cancel()
            self._wake.clear()
            wanted, self._soon = self._soon, {}
            if loop.time() >= look_at:
                look_at = loop.time() + interval
                await self.look(wanted)
            else:
                await self._look_at(wanted)

    async def look(self, wanted: Mapping[Key, Partition] = EMPTY) -> None:
        """Check these partitions, and all that are not settled."""
        self._look_at_streams()
        await self._look_at({**wanted, **self._unsettled})

    async def _look_at(self, wanted: Mapping[Key, Partition]) -> None:
        partitions = list(wanted.values())
        for start in range(0, len(partitions), LOOKS_A_TURN):
            if start:
                await asyncio.sleep(0)
            self._propose(partitions[start : start + LOOKS_A_TURN])

    def _look_at_streams(self) -> None:
        """If a stream is silent, check all led partitions from now on: it kept some settled."""
        now_ms, lag_ms = loop_ms(), self._replicas.lag_ms
        if not any(stream.is_silent(now_ms, lag_ms) for stream in self._streams.values()):
            return
        self._streams.clear()
        for partition in self._led.values():
            self.isr_unsettled(partition)

    def _settle(self, partition: Partition, now_ms: int) -> None:
        """Check a partition no more at each interval, if its ISR can't change for now."""
        role = partition.role
        if partition.must_resign or not isinstance(role, LeaderReplica):
            return
        streams = role.machine.settled_by(now_ms)
        if streams is None:
            return
        for stream in streams:
            name = (stream.replica_id, stream.broker_epoch, stream.stream_number)
            self._streams[name] = stream
        role.machine.is_settled = True
        self._unsettled.pop(partition.key, None)

    def _propose(self, partitions: Sequence[Partition]) -> None:
        if not self._replicas.registration.is_known or len(self._asking) >= REQUESTS_MAX:
            # do nothing: the next check proposes the same
            return
        proposed = list(self._proposals(partitions))
        for start in range(0, len(proposed), PROPOSALS_MAX):
            asked = proposed[start : start + PROPOSALS_MAX]
            self._asking.spawn(self._ask(asked), "alter partitions")

    def _proposals(self, partitions: Sequence[Partition]) -> list[Proposed]:
        now_ms = loop_ms()
        found: list[Proposed] = []
        for partition in partitions:
            try:
                proposal = partition.propose_isr(
                    now_ms,
                    self._replicas.registration.broker_epoch,
                    partial(self._replicas.eligible_epoch, partition),
                )
            except QuorateError:
                # an invariant is broken: the replica was taken offline, and that was logged
                continue
            if proposal is not None:
                found.append((partition, proposal))
                # The high watermark waits for the proposed members now: no throttle may hold them.
                partition.replica_watches.wake()
            else:
                self._settle(partition, now_ms)
        return found

    async def _ask(self, proposed: Sequence[Proposed]) -> None:
        self._requests += 1
        request = AlterPartitionsRequest(
            broker_id=self._replicas.broker_id,
            broker_epoch=self._replicas.registration.broker_epoch,
            request_id=self._requests,
            partitions=[_alter(partition, proposal) for partition, proposal in proposed],
        )
        for partition, proposal in proposed:
            log_line.info("isr proposed", partition=partition.name, isr=proposal.isr)
        try:
            response = await self._client.alter_partitions(request)
        except QuorateError as error:
            log_line.info("isr proposals without an answer", reason=str(error), repeats=True)
            answers: dict[Key, AlteredPartition] = {}
        else:
            answers = {(a.topic_id, a.partition): a for a in response.partitions}
        lost = [
            partition
            for partition, proposal in proposed
            if not _answered(partition, proposal, answers.get(partition.key))
        ]
        if lost:
            await asyncio.sleep(RETRY_MS / 1000)
            self._soon.update((partition.key, partition) for partition in lost)
            self._wake.set()

    def _failed(self, _: str, error: BaseException) -> None:
        log_line.error("isr keeper failed", exc_info=error)
        self._fail(f"the ISRs can't be kept: {error!r}")


def _alter(partition: Partition, proposal: Proposal) -> AlterPartition:
    return AlterPartition(
        topic_id=partition.topic_id,
        partition=partition.partition,
        leader_epoch=proposal.leader_epoch,
        partition_epoch=proposal.partition_epoch,
        isr=[
            IsrMember(broker_id=broker_id, broker_epoch=broker_epoch)
            for broker_id, broker_epoch in proposal.members
        ],
        lossy=proposal.is_lossy,
        causes=CAUSE.codec.to_wire(proposal.causes),
    )


def _answered(partition: Partition, proposal: Proposal, answer: AlteredPartition | None) -> bool:
    """Give the controller's answer to the partition. Return False if it decides nothing."""
    try:
        return _decided(partition, proposal, answer)
    except QuorateError:
        # an invariant is broken: the replica was taken offline, and that was logged
        return True


def _decided(partition: Partition, proposal: Proposal, answer: AlteredPartition | None) -> bool:
    role = partition.role
    leader = role if isinstance(role, LeaderReplica) else None
    if leader is not None and leader.leader_epoch != proposal.leader_epoch:
        # the leader_epoch of the proposal is over, so no leader here knows the proposal
        leader = None
    code = None if answer is None else answer.error.code
    if answer is None or code not in (ErrorCode.ERROR_CODE_NONE, *REFUSALS):
        if leader is not None:
            leader.isr_lost(proposal)
        return False
    if code in REFUSALS:
        log_line.info(
            "isr refused", partition=partition.name, reason=answer.error.message, repeats=True
        )
        if leader is not None:
            leader.isr_refused(proposal)
    elif leader is not None:
        leader.isr_accepted(proposal, answer.leader_epoch, answer.partition_epoch)
    return True
