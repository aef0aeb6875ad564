"""A consumer's part in its group: membership, commits, and the tasks that carry them out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quorate.aio.clock import Deadline, loop_ms
from quorate.cluster.cluster import Cluster
from quorate.cluster.coordinators import Coordinators
from quorate.cluster.group_offsets import NO_MEMBER, Committer, GroupOffsets
from quorate.cluster.parts import Part
from quorate.consumer.fetcher import Fetcher
from quorate.consumer.group.assignor import Assignor, AssignorFailures, proposal
from quorate.consumer.group.commits import Commits, Offsets
from quorate.consumer.group.hands import Asker
from quorate.consumer.group.membership import MemberSettings, Membership
from quorate.consumer.group.membership_stream import LEAVE_S, MembershipStream
from quorate.consumer.group.placement import Placement
from quorate.consumer.group.poll_watch import PollWatch
from quorate.consumer.group.reconciler import Reconciler
from quorate.consumer.group.watched_listener import WatchedListener
from quorate.consumer.partition_state import PartitionState
from quorate.consumer.subscription import Subscription
from quorate.errors import QuorateError, UnknownMemberIdError
from quorate.model import AnyRecord, OffsetAndMetadata, TopicPartition

log = logging.getLogger(__name__)

TICK_S = 0.1
#: Longest wait of start() and subscribe() until the coordinator has answered.
JOIN_TIMEOUT_MS = 30_000
#: Longest wait for committed offsets that the application asks for.
COMMITTED_TIMEOUT_MS = 30_000
#: Without a member the group may be empty, and an offset is forgotten that nobody commits for
#: offsets.retention.minutes, which is at least 1.
RENEW_MS = 30_000


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """What the application says of its part in the group."""

    member: MemberSettings
    assignor: Assignor | None
    max_poll_interval_ms: int
    #: None: no automatic commits.
    auto_commit_interval_ms: int | None


class ConsumerGroup:
    """One consumer's part in its group, from the consumer's start to its stop.

    The reader calls `ask` and `gave`. Everything else happens in tasks of the cluster's owner.
    `told` gets errors that the application must know of: the next read raises them.
    """

    def __init__(
        self,
        config: GroupConfig,
        cluster: Cluster,
        fetcher: Fetcher,
        subscription: Subscription,
        *,
        listener: Callable[[], object | None],
        told: Callable[[Exception], None],
    ) -> None:
        self._config = config
        self._cluster = cluster
        self._fetcher = fetcher
        self._subscription = subscription
        self._assignor_failures = AssignorFailures(config.member.group_id, told)
        coordinators = Coordinators(cluster)
        self.offsets = GroupOffsets(coordinators, config.member.group_id)
        self._committer = Committer()
        self.commits = Commits(
            subscription,
            self.offsets,
            self._committer,
            is_automatic=config.auto_commit_interval_ms is not None,
        )
        self._membership = Membership(config.member)
        self.placement = Placement(cluster, fetcher, subscription, self.offsets, self.commits)
        self._watch = PollWatch(config.max_poll_interval_ms)
        self._reconciler = Reconciler(
            cluster,
            fetcher,
            subscription,
            self._membership,
            self.placement,
            self.commits,
            call=WatchedListener(listener, told, self._watch).call,
            changed=self.changed,
        )
        self._stream = MembershipStream(
            cluster,
            coordinators,
            self._membership,
            changed=self.changed,
            lost=self._lost,
            refused=self._assignor_failures.note,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._reconciling: asyncio.Task[None] | None = None
        self._is_closed = False

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin the work in the background."""
        owner = self._cluster.owner
        self._reconciling = owner.spawn(self._reconciler.run(), "group-steps")
        self._tasks = [
            self._reconciling,
            owner.spawn(self._stream.run(), "group-stream"),
            owner.spawn(self._tick(), "group-tick"),
        ]
        if self._config.auto_commit_interval_ms is not None:
            self._tasks.append(owner.spawn(self._commit_at_intervals(), "group-commits"))
        self._cluster.on_change(self._reconciler.bell.ring)

    async def close(self, *, is_done: bool) -> None:
        """Commit, give all partitions back, and leave. `is_done`: so are the records in hand."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if is_done:
                asker = asyncio.current_task()
                assert asker is not None
                self.commits.came_back(asker)
            if self._cluster.owner.failure is None:
                with contextlib.suppress(QuorateError):
                    await self._give_back()
        finally:
            self._reconciler.hold_all()
            await self._cluster.owner.end(*self._tasks)

    async def _give_back(self) -> None:
        membership = self._membership
        self._reconciler.hold_all()
        if membership.phase == "out":
            if self.commits.is_automatic:
                await self.commits.commit_finished()
            return
        membership.leave()
        self.changed()
        if asyncio.current_task() is self._reconciling:
            # stop() in a callback: the steps that remain would wait for the end of this one
            if self.commits.is_automatic:
                await self.commits.commit_finished()
            membership.released(membership.owned)
        else:
            await self._until(lambda: not membership.owned and not membership.lost, None)
        self.changed()
        await self._until(lambda: membership.phase == "out", Deadline(2 * LEAVE_S * 1000))

    # -- what to read ------------------------------------------------------------------------------

    def subscribe(self, topics: Sequence[str], pattern: str | None) -> None:
        """Be a member that reads these topics."""
        self._membership.subscribe(topics, pattern or "")
        self._committer.member_id = self._config.member.member_id
        self.changed()

    def unsubscribe(self) -> None:
        """Be no member any more."""
        self._membership.leave()
        self._reconciler.hold_all()
        self.changed()

    @property
    def is_out(self) -> bool:
        """Whether the consumer is no member, and has nothing of the group any more."""
        membership = self._membership
        return membership.phase == "out" and not membership.owned and not membership.lost

    def assigned(self, states: Collection[PartitionState]) -> None:
        """Look up the committed offsets of partitions that the application has assigned."""
        self._committer.member_id = ""
        self.changed()
        self.placement.place(states)

    async def settled(self) -> None:
        """Wait until the group has given what it gives at once, or until the member has left."""

        def is_settled() -> bool:
            membership = self._membership
            if membership.failure is not None or membership.is_silent:
                return True
            has_joined = membership.phase == "member" and membership.has_joined
            return (has_joined or membership.phase == "out") and membership.step() is None

        await self._until(is_settled, Deadline(JOIN_TIMEOUT_MS))
        self.check()
        await self.placement.placed(list(self._subscription.states.values()))

    async def _until(self, is_so: Callable[[], bool], deadline: Deadline | None) -> None:
        while not is_so():
            await self._cluster.owner.wait(
                self._reconciler.idle.next_ring(),
                timeout_s=None if deadline is None else deadline.left_s,
                late=self._stream.no_answer,
            )

    # -- the reader --------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise the error that ended the membership, if there is one."""
        failure = self._membership.failure
        if failure is not None:
            raise failure.with_traceback(None)

    def ask(self) -> asyncio.Task[Any]:
        """Note that the application asks for records. Return the task that asks."""
        asker = asyncio.current_task()
        assert asker is not None
        self._watch.asks += 1
        self.commits.came_back(asker)
        if self._membership.is_silent:
            self._membership.resume()
            self.changed()
        return asker

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count an ask that waits for records."""
        self._watch.waiting += 1
        try:
            yield
        finally:
            self._watch.waiting -= 1
            self._watch.asks += 1

    def may_read(
        self, asker: asyncio.Task[Any], only: frozenset[TopicPartition]
    ) -> frozenset[TopicPartition] | None:
        """Return of which partitions a task may get records; empty: of all; None: of none."""
        taken = self.commits.hands.taken_by_others(asker)
        if not taken:
            return only
        return (only or frozenset(self._subscription.states)) - taken or None

    # -- offsets -----------------------------------------------------------------------------------

    async def commit(self, offsets: Offsets | None, only: Asker | None = None) -> None:
        """Commit as Commits.commit does. Raises NotMemberError after a removal."""
        self.check()
        if self._committer.member_id and self._membership.epoch <= 0:
            is_gone = self._membership.phase in ("out", "leaving")
            then = "subscribe first" if is_gone else "it joins anew as soon as it can"
            raise UnknownMemberIdError(
                f"nothing is committed: this consumer is no member of group "
                f"{self._config.member.group_id!r} now; {then}"
            )
        await self.commits.commit(offsets, only)

    async def committed(self, part: Part) -> OffsetAndMetadata | None:
        """Return what is committed for a partition; None: nothing."""
        found = (await self.offsets.fetch([part], Deadline(COMMITTED_TIMEOUT_MS))).get(part)
        if found is None:
            return None
        return OffsetAndMetadata(found.offset, found.metadata, found.leader_epoch)

    # -- in the background -------------------------------------------------------------------------

    def changed(self) -> None:
        """Wake all that may have something to do after a change of the membership."""
        membership = self._membership
        self.commits.hands.end_solo()
        if self._committer.member_id:
            self._committer.epoch = membership.epoch or NO_MEMBER
        else:
            self._committer.epoch = NO_MEMBER
        if membership.task is not None:
            self._propose()
        self._reconciler.bell.ring()
        self._stream.bell.ring()
        self._reconciler.idle.ring()

    def _propose(self) -> None:
        task, self._membership.task = self._membership.task, None
        assert task is not None
        try:
            self._membership.propose(proposal(self._config.assignor, task))
        except Exception as error:
            self._assignor_failures.note(error)

    def _lost(self) -> None:
        self._reconciler.hold_all()
        self._fetcher.arrived.ring()

    async def _tick(self) -> None:
        membership, hands, seen = self._membership, self.commits.hands, None
        while True:
            await asyncio.sleep(TICK_S)
            now_ms = loop_ms()
            if hands.record is not seen:
                seen, self._watch.asks = hands.record, self._watch.asks + 1
            if membership.session_has_ended(now_ms):
                log.warning(
                    "group %r: no news of the coordinator within the session timeout: "
                    "this member has lost its partitions, and joins anew",
                    self._config.member.group_id,
                )
                membership.fenced()
                self._stream.cut()
                self._lost()
                self.changed()
            is_leaving = membership.phase == "leaving" and not self._watch.in_callback
            if self._watch.has_stopped(now_ms) and membership.may_fall_silent and not is_leaving:
                log.warning(
                    "group %r: the program has not asked for records, or a callback of its listener"
                    " has not ended, for longer than max_poll_interval_ms (%d): this member leaves,"
                    " and joins at the next ask",
                    self._config.member.group_id,
                    self._watch.interval_ms,
                )
                membership.fell_silent()
                self._lost()
                self.changed()
            if membership.is_silent and self._watch.waiting and not self._watch.in_callback:
                # the program asked before the callback, and has waited since
                membership.resume()
                self.changed()

    async def _commit_at_intervals(self) -> None:
        interval_ms = self._config.auto_commit_interval_ms
        assert interval_ms is not None
        renew = Deadline(RENEW_MS)
        while True:
            await asyncio.sleep(interval_ms / 1000)
            if renew.has_passed:
                renew = Deadline(RENEW_MS)
                if not self._committer.member_id:
                    self.commits.renew()
            is_lost_member = self._committer.member_id and self._membership.epoch <= 0
            if not is_lost_member:
                await self.commits.commit_finished()

    # -- of the reader, for records that are given -------------------------------------------------

    def gave(
        self, asker: asyncio.Task[Any], records: Mapping[TopicPartition, Sequence[AnyRecord]]
    ) -> None:
        """Note that a task gets these records."""
        self.commits.hands.gave(asker, records)
