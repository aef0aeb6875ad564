"""The controller of one voter: it follows the committed log, and decides while it reigns.

It listens to this voter's Raft. Every voter holds the committed image; the one that leads has a
Reign besides, from the moment when its own EpochStart is committed and applied until it loses it:
the pending image, on which each decision is taken, and the leases of the brokers. Decisions are
made by the machines beside this file; this one proposes, waits and tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import structlog

from quorate.errors import (
    InvalidRequestError,
    NotControllerError,
    OverloadedError,
    UnknownServerError,
)
from quorate.v1 import admin_pb2 as admin
from quorate.v1.admin_pb2 import DescribeQuorumRequest, DescribeQuorumResponse
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.decisions import (
    brokers,
    changes,
    features,
    partitions,
    topics,
    voters,
)
from quorate_quorum.controller.decisions.creation import Creation, abandon
from quorate_quorum.controller.decisions.health import PartitionHealth, describe_health
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.driver.leases import LeaseConfig, Leases
from quorate_quorum.controller.driver.reign import Decided, Decision, Proposer, Reign
from quorate_quorum.controller.driver.session import Session
from quorate_quorum.controller.driver.snapshotting import Snapshotting
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.loader import Loaded, Loader
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.features import Known, UnknownLevelError
from quorate_quorum.v1.controller_pb2 import (
    AlterPartitionsRequest,
    AlterPartitionsResponse,
    HeartbeatRequest,
    RegisterRequest,
    RegisterResponse,
)

log = structlog.get_logger(__name__)

R = TypeVar("R")

CREATIONS_MAX = 100
#: Topics or partitions that one request may name.
NAMED_MAX = 10_000
#: They go on when their callers have gone, and with them what bounded their bytes.
CREATION_BYTES_MAX = 64 << 20


class ControllerRaft(Proposer, Protocol):
    """The part of RaftNode that the controller needs."""

    @property
    def leader_id(self) -> int: ...
    @property
    def leader_endpoint(self) -> str: ...
    @property
    def known_features(self) -> Mapping[tuple[int, bytes], Known]: ...
    def hand_over(self, *, for_silence: bool) -> None: ...
    async def transfer(self, voter_id: int | None) -> int: ...


@dataclass(slots=True)
class _Active:
    """What exists only while this voter reigns."""

    reign: Reign
    leases: Leases
    #: Held by who makes topics in several turns: what is half made otherwise is nobody's.
    creating: asyncio.Lock = field(default_factory=asyncio.Lock)


class Controller:
    """See the module. Implements RaftListener; `attach` gives it the Raft that it listens to.

    `fail`: stop the node, for the image or an own decision broke an invariant.
    `describe_quorum`: what this voter knows of the quorum, for DescribeQuorum.
    """

    def __init__(
        self,
        node_id: int,
        environment: Environment,
        config: LeaseConfig,
        fail: Callable[[str], None],
    ) -> None:
        self._node_id = node_id
        self._environment = environment
        self._config = config
        self._fail = fail
        self._loader = Loader(known=environment.features)
        self._listeners: list[Callable[[MetadataDelta, MetadataImage], None]] = []
        self._wakers: list[Callable[[], None]] = []
        self._snapshotting: Snapshotting | None = None
        self._partition_health = PartitionHealth()
        self._active: _Active | None = None
        self._ending: dict[asyncio.Task[None], None] = {}
        #: With the bytes of the request.
        self._creating: dict[asyncio.Task[int], int] = {}
        self._is_broken = False
        self._raft: ControllerRaft
        self._describe: Callable[[], DescribeQuorumResponse]

    def attach(
        self, raft: ControllerRaft, describe_quorum: Callable[[], DescribeQuorumResponse]
    ) -> None:
        """Give the Raft; before it starts."""
        self._raft = raft
        self._describe = describe_quorum

    def when_news(self, wake: Callable[[], None]) -> None:
        """Call back in the turn in which the high watermark or the leader moves."""
        self._wakers.append(wake)

    def when_applied(self, snapshotting: Snapshotting) -> None:
        """Let it follow the image, batch by batch."""
        self._snapshotting = snapshotting

    @property
    def image(self) -> MetadataImage:
        """The committed image."""
        return self._loader.image

    @property
    def is_active(self) -> bool:
        """Whether this voter decides."""
        return self._active is not None

    @property
    def leader_hint(self) -> tuple[int, str]:
        """The controller's id and endpoint as far as this voter knows; -1 and empty if not."""
        return self._raft.leader_id, self._raft.leader_endpoint

    @property
    def has_brokers_shutting_down(self) -> bool:
        """Whether brokers that are unfenced still wait for the quorum to let them go."""
        return any(b.shutting_down and not b.fenced for b in self.image.sorted_brokers())

    @property
    def has_brokers(self) -> bool:
        """Whether a broker is unfenced."""
        return any(not b.fenced for b in self.image.sorted_brokers())

    # -- what is asked

    async def run(self, decision: Decision[R]) -> Decided[R]:
        """Decide, and return when the answer is committed.

        Raises NotControllerError if this voter does not decide, OutcomeUnknownError if it lost
        its reign before the commit, and what the decision raises.
        """
        try:
            return await self._reigning().reign.run(decision)
        except AssertionError as error:
            # Nothing of it was proposed, so the image is whole; and the next controller would
            # only stumble over the same request.
            raise _contradiction(error) from error

    async def create_topics(
        self, request: admin.CreateTopicsRequest
    ) -> Decided[admin.CreateTopicsResponse]:
        """Create topics; what is large in several turns of the loop, one request at a time.

        Such a one goes on when its caller has gone.
        """
        check_named(len(request.topics))
        active = self._reigning()
        creation = Creation(request)
        if creation.fits_in_a_turn(active.reign.pending):
            if not active.creating.locked():
                active.reign.decide(abandon)  # or what was left half made would hold its name
            decided = await self.run(creation.next)
            assert decided.response, "all of it fitted"
            return Decided(creation.response, decided.apply_offset)
        size, held = request.ByteSize(), sum(self._creating.values())
        if len(self._creating) >= CREATIONS_MAX or held + size > CREATION_BYTES_MAX:
            raise OverloadedError(
                f"{len(self._creating)} large requests for topics of {held} bytes wait already: at"
                f" most {CREATIONS_MAX} of {CREATION_BYTES_MAX} bytes may"
            )
        task = asyncio.create_task(self._create(active, creation), name="create topics")
        self._creating[task] = size
        task.add_done_callback(self._created)
        return Decided(creation.response, await asyncio.shield(task))

    async def _create(self, active: _Active, creation: Creation) -> int:
        async with active.creating:
            try:
                active.reign.decide(abandon)  # what one before us did not end
                return await active.reign.run_in_turns(creation.next)
            except AssertionError as error:
                raise _contradiction(error) from error

    def _created(self, task: asyncio.Task[int]) -> None:
        del self._creating[task]
        if not task.cancelled():
            task.exception()  # its caller is told, if it is still there

    async def alter_partitions(
        self, request: AlterPartitionsRequest
    ) -> Decided[AlterPartitionsResponse]:
        """Decide what a leader proposes, some partitions in each turn of the loop."""
        check_named(len(request.partitions))
        parts = partitions.parts_of(request)
        if len(parts) == 1:
            return await self.run(partial(_altered, request))
        decided = await self._run_parts([partial(_altered, part) for part in parts])
        return Decided(partitions.joined(decided.response), decided.apply_offset)

    async def delete_topics(
        self, request: admin.DeleteTopicsRequest
    ) -> Decided[admin.DeleteTopicsResponse]:
        """Delete topics, some in each turn of the loop."""
        check_named(len(request.topics) + len(request.topic_ids))
        parts = topics.parts_of(request)
        if len(parts) == 1:
            return await self.run(partial(_deleted, request))
        decided = await self._run_parts([partial(_deleted, part) for part in parts])
        response = admin.DeleteTopicsResponse()
        for one in decided.response:
            response.MergeFrom(one)
        return Decided(response, decided.apply_offset)

    async def _run_parts(self, decisions: Sequence[Decision[R]]) -> Decided[list[R]]:
        try:
            return await self._reigning().reign.run_parts(decisions)
        except AssertionError as error:
            raise _contradiction(error) from error

    async def register(self, request: RegisterRequest) -> Decided[RegisterResponse]:
        """Register a broker; its lease begins when it is committed."""
        active = self._reigning()
        decided = await self.run(
            lambda image, context: brokers.register(
                image,
                request,
                context,
                old_session_lives=active.leases.is_alive(request.broker_id),
            )
        )
        if decided.response.error.code == ErrorCode.ERROR_CODE_NONE:
            active.leases.registered(request)
        return decided

    async def describe_quorum(
        self, request: DescribeQuorumRequest
    ) -> Decided[DescribeQuorumResponse]:
        """Tell the state of the quorum as its leader sees it, once it is sure to be the leader."""
        await self._reigning().reign.confirm()
        return Decided(self._describe(), 0)

    async def describe_health(
        self, request: admin.DescribeHealthRequest
    ) -> Decided[admin.DescribeHealthResponse]:
        """Tell what is not well, once it is sure to be the leader."""
        active = self._reigning()
        await active.reign.confirm()
        response = describe_health(
            self.image, self._describe(), self._partition_health, active.leases.why_fenced
        )
        return Decided(response, 0)

    async def unregister_broker(
        self, request: admin.UnregisterBrokerRequest
    ) -> Decided[admin.UnregisterBrokerResponse]:
        """Forget a broker that is gone for good."""
        leases = self._reigning().leases
        return await self.run(
            lambda image, _: brokers.unregister(
                image, request, session_lives=leases.is_alive(request.broker_id)
            )
        )

    async def describe_features(
        self, request: admin.DescribeFeaturesRequest
    ) -> Decided[admin.DescribeFeaturesResponse]:
        """Tell which levels are in force, and which each node knows."""
        await self._reigning().reign.confirm()
        heard = self._raft.known_features
        return Decided(features.describe_features(self.image, heard, self._environment.features), 0)

    async def update_feature(
        self, request: admin.UpdateFeatureRequest
    ) -> Decided[admin.UpdateFeatureResponse]:
        """Raise a feature, if every node knows the level."""
        return await self.run(
            lambda image, _: features.update_feature(image, request, self._raft.known_features)
        )

    async def add_voter(self, request: admin.AddVoterRequest) -> Decided[admin.AddVoterResponse]:
        """Add a voter that has caught up."""
        return await self.run(
            lambda image, _: voters.add_voter(image, request, self._raft.known_features)
        )

    async def transfer_leadership(
        self, request: admin.TransferLeadershipRequest
    ) -> Decided[admin.TransferLeadershipResponse]:
        """Give the reign to another voter, and tell who leads: the last answer of this reign.

        What was decided before is committed first, so that nobody is left to wonder about it.
        Raises NotControllerError, InvalidRequestError, and OverloadedError (retriable) if the
        voter that was named does not lead in the end.
        """
        await self._reigning().reign.confirm()
        named = request.voter_id if request.HasField("voter_id") else None
        leader = await self._raft.transfer(named)
        if named not in (None, leader):
            raise OverloadedError(f"voter {leader} was elected, not {named}: ask again")
        response = admin.TransferLeadershipResponse(leader=leader, already=named == self._node_id)
        return Decided(response, 0)

    def open_session(self, first: HeartbeatRequest) -> Session:
        """Begin a broker's heartbeat stream. NotControllerError, FencedError, OverloadedError."""
        return self._reigning().leases.open(first, self.image)

    # -- RaftListener

    def snapshot_part(self, batches: bytes) -> None:
        """Build the snapshot's image beside the one that is shown."""
        self._load(lambda: self._loader.load_snapshot_part(batches))

    def snapshot_end(self, offset: int, epoch: int) -> None:
        """Show the snapshot's image."""
        self._load(lambda: self._show(self._loader.finish_snapshot(offset, epoch)))
        if self._snapshotting is not None:
            self._snapshotting.loaded(self.image)
        self._wake()

    def committed(self, batches: Sequence[bytes], high_watermark: int) -> None:
        """Apply committed batches; then tell those who waited for them."""
        if self._is_broken:
            return
        self._load(lambda: self._load_all(batches))
        self._wake()

    def _load_all(self, batches: Sequence[bytes]) -> None:
        for batch in batches:
            self._show(self._loader.load(batch))
            if self._snapshotting is not None:
                self._snapshotting.applied(self.image, len(batch))

    def _load(self, work: Callable[[], None]) -> None:
        """Change the image; one that can't go on ends this voter."""
        if self._is_broken:
            return
        try:
            work()
        except UnknownLevelError as error:
            self._is_broken = True
            self._fail(str(error))
        except Exception as error:
            self._is_broken = True
            log.exception("image_broken", offset=self.image.offset)
            self._fail(f"the metadata image cannot go on at {self.image.offset}: {error!r}")

    def _show(self, loaded: Sequence[Loaded]) -> None:
        for delta, image in loaded:
            self._applied(delta, image)

    def became_leader(self, epoch: int, handed_over_for_silence: bool) -> None:
        """Begin to decide: everything up to our own EpochStart is applied."""
        if self._is_broken:
            return
        assert self._active is None, "one reign at a time"
        reign = Reign(epoch, self.image, self._raft, self._context)
        leases = Leases(
            reign,
            self._raft,
            self._environment,
            self._config,
            self._fail,
            handed_over_for_silence=handed_over_for_silence,
        )
        self._active = _Active(reign, leases)
        log.info("controller_reigns", node=self._node_id, epoch=epoch, offset=self.image.offset)
        leases.begin()

    def lost_leadership(self, epoch: int) -> None:
        """Decide no more: the pending image goes, and who waits is told what is known."""
        if self._active is None:
            return
        log.info("controller_reign_ends", node=self._node_id, epoch=epoch)
        active, self._active = self._active, None
        active.reign.end()
        active.leases.end(
            NotControllerError(f"voter {self._node_id} is not the controller any more")
        )
        task = asyncio.create_task(active.leases.ended(), name="leases-end")
        self._ending[task] = None
        task.add_done_callback(self._ended)

    def leader_known(self, leader_id: int, epoch: int, endpoint: str) -> None:
        self._wake()

    async def stop(self) -> None:
        """End the reign, if there is one, and all its tasks."""
        if self._active is not None:
            self.lost_leadership(self._active.reign.epoch)
        while self._ending or self._creating:
            await asyncio.wait([*self._ending, *self._creating])

    # -- small things

    def _applied(self, delta: MetadataDelta, image: MetadataImage) -> None:
        self._partition_health.applied(delta, image)
        if self._active is not None:
            for event, fields in changes.lines(delta, image):
                log.info(event, **fields)
            self._active.reign.committed(image.offset)
            self._active.leases.committed(delta, image)

    def _wake(self) -> None:
        for wake in self._wakers:
            wake()

    def _reigning(self) -> _Active:
        if self._active is None:
            leader = self._raft.leader_id
            known = f"voter {leader} leads as far as it knows" if leader >= 0 else "none is known"
            if leader == self._node_id:
                known = "it leads the quorum, and its reign as controller has not begun"
            raise NotControllerError(f"voter {self._node_id} is not the controller; {known}")
        return self._active

    def _context(self, next_offset: int) -> Context:
        return Context(
            now_ms=self._environment.wall_clock_ms(),
            next_offset=next_offset,
            new_id=self._environment.new_id,
            unclean_recovery_wait_ms=self._config.unclean_recovery_wait_ms,
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._ending[task]
        if not task.cancelled() and task.exception() is not None:
            self._fail(f"the leases did not end: {task.exception()!r}")


def check_named(count: int) -> None:
    """Refuse a request as a whole: an error for each of what it names would take seconds."""
    if count > NAMED_MAX:
        raise InvalidRequestError(
            f"a request names {count} topics or partitions; {NAMED_MAX} are allowed: send several"
        )


def _contradiction(error: AssertionError) -> UnknownServerError:
    log.exception("decision_refused")
    return UnknownServerError(f"the controller's decision contradicts itself: {error}")


def _altered(
    request: AlterPartitionsRequest, image: MetadataImage, context: Context
) -> Outcome[AlterPartitionsResponse]:
    return partitions.alter_partitions(image, request, context)


def _deleted(
    request: admin.DeleteTopicsRequest, image: MetadataImage, context: Context
) -> Outcome[admin.DeleteTopicsResponse]:
    return topics.delete_topics(image, request, context)
