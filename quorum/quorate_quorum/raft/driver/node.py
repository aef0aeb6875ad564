"""A voter: the machine, its disk and its peers, joined. It carries Readies out and decides nothing.

Everything happens in the turns of one event loop. Whatever fails here that is not a peer's fault
(the disk, an invariant, the listener) ends in fail(reason): the node stops, the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import structlog

from quorate.errors import (
    FencedLeaderEpochError,
    InvalidRequestError,
    NotControllerError,
    OverloadedError,
    StoppingError,
    StorageError,
)
from quorate.net.network import Service
from quorate_quorum.log.disk_errors import is_passing
from quorate_quorum.log.events import encode_events
from quorate_quorum.log.identity import Identity
from quorate_quorum.log.log import Log
from quorate_quorum.node.config import QuorumConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.features import Known
from quorate_quorum.node.history import History
from quorate_quorum.raft.driver.applier import Applier
from quorate_quorum.raft.driver.bootstrap import (
    make_durably,
    metadata_directory,
    read_bootstrap_hash,
)
from quorate_quorum.raft.driver.callers import Asked, Callers
from quorate_quorum.raft.driver.download import Downloads
from quorate_quorum.raft.driver.finder import Finder
from quorate_quorum.raft.driver.service import RaftService
from quorate_quorum.raft.driver.snapshots import Snapshots
from quorate_quorum.raft.driver.storage import (
    Storage,
    check_state,
    parse_batches,
    read_below,
    read_ledger,
    read_state,
)
from quorate_quorum.raft.driver.taking import Taking
from quorate_quorum.raft.driver.transport import Transport
from quorate_quorum.raft.machine.events import Event
from quorate_quorum.raft.machine.ledger import Batch, Below, Ledger
from quorate_quorum.raft.machine.raft import Raft
from quorate_quorum.raft.machine.ready import (
    Call,
    Fetch,
    FetchReply,
    FindLeader,
    Message,
    Ready,
    RoleChange,
)
from quorate_quorum.raft.machine.status import QuorumStatus
from quorate_quorum.raft.machine.timing import Timing
from quorate_quorum.raft.machine.voters import ReplicaKey
from quorate_quorum.snapshots.snapshot_file import SnapshotId
from quorate_quorum.v1 import raft_pb2
from quorate_quorum.v1.events_pb2 import EpochStart, MetadataEvent

log = structlog.get_logger(__name__)

TRANSFERS_MAX = 4096
#: Of how many replicas it is remembered which features they know; the oldest go first.
REPLICAS_KNOWN_MAX = 256
STOP_FLUSH_S = 1.0


class RaftListener(Protocol):
    """Who follows the metadata log in this process. Called in the loop; must not wait."""

    def snapshot_part(self, batches: bytes) -> None:
        """Some batches of a snapshot, in order: at the start, or when one was installed."""

    def snapshot_end(self, offset: int, epoch: int) -> None:
        """The snapshot is whole: it stands for all below `offset`, where committed() goes on."""

    def committed(self, batches: Sequence[bytes], high_watermark: int) -> None:
        """Every committed batch once, in order, from a snapshot's end or the log's start."""

    def became_leader(self, epoch: int, handed_over_for_silence: bool) -> None:
        """Our EpochStart is committed and was passed to committed()."""

    def lost_leadership(self, epoch: int) -> None:
        """The reign that became_leader told of is over; uncommitted proposals may be lost."""

    def leader_known(self, leader_id: int, epoch: int, endpoint: str) -> None:
        """Told at each change; leader_id -1: nobody known."""


class RaftNode:
    """One voter of the metadata quorum. `start` reads the disk, `stop` leaves in good order.

    The log is the owner's: opened before, closed after.
    """

    def __init__(
        self,
        config: QuorumConfig,
        environment: Environment,
        log: Log,
        identity: Identity,
        listener: RaftListener,
        fail: Callable[[str], None],
        *,
        incarnation: bytes | None = None,
    ) -> None:
        self.config = config
        self.incarnation = incarnation or environment.new_id()
        self._environment = environment
        self._log = log
        self._identity = identity
        self._listener = listener
        self._on_failure = fail
        self._me = ReplicaKey(identity.node_id, identity.directory_id)
        self._history = History(identity.cluster_id, identity.quorum_generation, b"")
        self._snapshots = Snapshots(environment.disk, metadata_directory(config.log_dirs[0]))
        self._taking = Taking(self, self._snapshots, log)
        self._applier = Applier(self, log, self._snapshots, listener)
        self._known_features: dict[tuple[int, bytes], Known] = {self._me: environment.features}
        self._raft: Raft
        self._storage: Storage
        self._transport: Transport
        self._finder: Finder
        self._downloads: Downloads
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # the handles of some loops do not say when
        self._loop: asyncio.AbstractEventLoop
        self._is_started = False
        self._is_running = False
        self._is_carrying_out = False
        self._callers = Callers()
        self._reads: dict[int, asyncio.Future[int]] = {}
        #: Who waits for a transfer -> the voter that was named.
        self._transfers: dict[asyncio.Future[int], int] = {}
        self._told_leader: tuple[int, int, str] | None = None
        self.services: Sequence[Service] = (RaftService(self, environment.authorizer),)

    # --- what others see ------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self._raft.epoch

    @property
    def leader_id(self) -> int:
        """The leader of this epoch; -1: not known."""
        return self._raft.leader_id

    @property
    def leader_endpoint(self) -> str:
        """Where it listens; empty if not known."""
        return self._raft.leader_endpoint

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, its epoch begun and applied here."""
        return self._applier.told_epoch is not None

    @property
    def high_watermark(self) -> int:
        """One past the last committed record that this node can read."""
        return self._applier.readable_end

    @property
    def log_end_offset(self) -> int:
        """One past the last record, proposed ones included."""
        return self._raft.ledger.log_end_offset

    @property
    def log_start_offset(self) -> int:
        """The first offset of the log; what lies below is in the snapshot."""
        return self._raft.ledger.log_start_offset

    @property
    def snapshot(self) -> SnapshotId | None:
        """The newest whole snapshot on this disk, from which the log goes on."""
        below = self._raft.ledger.snapshot
        return None if below is None else below.id

    @property
    def history(self) -> History:
        return self._history

    def learn_bootstrap_hash(self, bootstrap_hash: bytes) -> None:
        """A disk that joined later begins without it."""
        if not self._history.bootstrap_hash:
            self._history = replace(self._history, bootstrap_hash=bootstrap_hash)

    @property
    def known_features(self) -> Mapping[tuple[int, bytes], Known]:
        """Which feature levels this node knows, and those that have fetched from this run of it."""
        return self._known_features

    def learn_features(self, replica: ReplicaKey, known: Known) -> None:
        """A replica said with which program it fetches from now on."""
        if replica != self._me:
            self._known_features.pop(replica, None)
            self._known_features[replica] = known
            while len(self._known_features) > REPLICAS_KNOWN_MAX:
                oldest = next(one for one in self._known_features if one != self._me)
                del self._known_features[oldest]

    def epoch_at(self, offset: int) -> int | None:
        """Return the epoch of the record at an offset; None if it is not held, or not known."""
        ledger = self._raft.ledger
        if not 0 <= offset < ledger.log_end_offset or ledger.epoch_before(offset + 1) < 0:
            return None
        return ledger.epoch_before(offset + 1)

    def describe(self) -> QuorumStatus:
        """Return the quorum as this node sees it; progress only if it leads.

        `last_caught_up_ms` is in this loop's milliseconds, as `now_ms()` is.
        """
        return self._raft.status()

    def now_ms(self) -> int:
        """Return the loop's time, which the machine's times are in."""
        return int(asyncio.get_running_loop().time() * 1000)

    def describe_node(self) -> raft_pb2.DescribeNodeResponse:
        """Return what probes and `format` ask for; StoppingError before start()."""
        if not self._is_started:
            raise StoppingError(f"node {self._me.id} has not started")
        ledger, heard = self._raft.ledger, self._raft.leader_heard()
        return raft_pb2.DescribeNodeResponse(
            cluster_id=self._identity.cluster_id,
            node_id=self._me.id,
            incarnation=self.incarnation,
            directory_id=self._me.directory_id,
            quorum_generation=self._identity.quorum_generation,
            epoch=self.epoch,
            leader_id=self.leader_id,
            log_end_offset=ledger.log_end_offset,
            high_watermark=self.high_watermark,
            past_bootstrap=ledger.log_end_offset > ledger.bootstrap_end,
            leader_directory_id=heard.leader.directory_id if heard else b"",
            leader_endpoint=heard.endpoint if heard else "",
            last_epoch=ledger.last_epoch,
            bootstrap_hash=self._history.bootstrap_hash,
        )

    # --- from start to stop ---------------------------------------------------------------------

    async def start(self) -> None:
        """Read epoch, vote and log, then take part. Raises StorageError, OSError."""
        self._loop = asyncio.get_running_loop()
        directory = metadata_directory(self.config.log_dirs[0])
        disk = self._environment.disk
        await make_durably(disk, directory)  # of a new voter there is nothing yet
        # A process that was killed between a rename and the sync of the name leaves a vote, or a
        # snapshot, that reads well and is on no disk (law 6).
        await disk.sync_directory(directory)
        hard_state = await read_state(disk, directory)
        identity = self._identity
        start = await self._snapshots.open(
            cluster_id=identity.cluster_id, quorum_generation=identity.quorum_generation
        )
        below = await self._read_below()
        ledger = await read_ledger(self._log, below, known=self._environment.features)
        check_state(hard_state, ledger, below)
        told_hash = b"" if start is None else start.bootstrap_hash
        self._history = History(
            identity.cluster_id,
            identity.quorum_generation,
            await read_bootstrap_hash(self._log) or told_hash,
        )
        endpoint = self._endpoint(ledger)
        self._storage = Storage(disk, self._log, directory, self.step)
        self._downloads = Downloads(
            self,
            self._snapshots,
            self._environment.network,
            self._environment.features,
            chunk_bytes=self.config.quorum_fetch_snapshot_max_bytes,
            timeout_ms=self.config.request_timeout_ms,
        )
        self._transport = Transport(
            self._environment.network,
            self._me,
            self.incarnation,
            endpoint,
            self._history,
            self._environment.features,
            self.config.quorum_election_timeout_ms,
            self.step,
            self._spawn,
        )
        self._finder = Finder(
            self._transport,
            self._history,
            self.config.quorum_election_timeout_ms,
            self.step,
            self._spawn,
            lambda: self.epoch,
        )
        self._raft = Raft(
            self._me,
            ledger,
            hard_state,
            timing=Timing(
                fetch_timeout_ms=self.config.quorum_fetch_timeout_ms,
                election_timeout_ms=self.config.quorum_election_timeout_ms,
                fetch_wait_ms=self.config.quorum_fetch_wait_max_ms,
                uncommitted_max=self.config.quorum_uncommitted_batches_max,
                uncommitted_bytes_max=self.config.quorum_uncommitted_max_bytes,
            ),
            chance=self._environment.chance.randint,
            epoch_start=self._encode_epoch_start,
            endpoint=endpoint,
            now_ms=self.now_ms(),
            bootstrap_servers=self.config.quorum_bootstrap_servers,
        )
        self._is_started = self._is_running = True
        self._spawn(self._storage.run(), "raft storage")
        self._spawn(self._applier.run(), "raft applier")
        self._spawn(self._downloads.run(), "raft download")
        self._advance(lambda: None)

    async def _read_below(self) -> Below | None:
        newest = self._snapshots.newest
        if newest is None:
            return None
        return await read_below(newest, self._snapshots.parts(newest), self._environment.features)

    async def stop(self) -> None:
        """Hand over if leading, finish what was written, break what is open; safe to call twice."""
        if self._is_running:
            await self._leave()
        if self._is_started:
            self._is_started = False
            await self._transport.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _leave(self) -> None:
        self._advance(lambda: self._raft.resign(self.now_ms(), reason="stopping"))
        self._is_running = False
        self._cancel_timer()
        self._end_reign()
        self._fail_callers(StoppingError(f"node {self._me.id} is stopping"))
        await self._transport.flush(STOP_FLUSH_S)
        self._storage.end()
        for task in [one for one in self._tasks if one.get_name() == "raft storage"]:
            await asyncio.wait([task])
        await self._taking.end()

    def _endpoint(self, ledger: Ledger) -> str:
        voter = ledger.voters.of_key(self._me)
        return voter.endpoint if voter is not None else self.config.advertised

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Own a task: its failure is the node's."""
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(f"{task.get_name()}: {type(error).__name__}: {error}", error)

    def _fail(self, reason: str, error: BaseException | None = None) -> None:
        """Do nothing more, and tell the owner why; once."""
        if not self._is_running:
            return
        self._is_running = False
        self._cancel_timer()
        log.error("raft node failed", node=self._me.id, reason=reason, exc_info=error)
        self._end_reign()
        self._fail_callers(StoppingError(f"node {self._me.id} has failed: {reason}"))
        for task in list(self._tasks):
            task.cancel()
        self._on_failure(reason)

    # --- the machine ----------------------------------------------------------------------------

    def step(self, event: Event) -> None:
        """Take in what happened, and carry out what follows."""
        self._advance(lambda: self._raft.step(event, self.now_ms()))

    def _advance(self, change: Callable[[], object]) -> None:
        """Change the machine's state; a broken invariant stops the node (law 11)."""
        if not self._is_running:
            return
        if asyncio.get_running_loop() is not self._loop:  # which raises where there is none (R45)
            raise RuntimeError(f"node {self._me.id} belongs to another event loop")
        try:
            change()
            self._carry_out_all()
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error}", error)

    def _carry_out_all(self) -> None:
        """Carry Readies out in order, also when carrying one out has led to another."""
        if self._is_carrying_out:
            return
        self._is_carrying_out = True
        try:
            while self._is_running and (ready := self._raft.ready()) is not None:
                self._carry_out(ready)
        finally:
            self._is_carrying_out = False
        self._set_timer()

    def _carry_out(self, ready: Ready) -> None:
        if ready.fatal is not None:
            self._fail(ready.fatal)
            return
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
            self._transfer_given_up(voter_id, reason)
        for read, high_watermark in ready.confirmed_reads:
            _resolve(self._reads.pop(read, None), high_watermark)
        self._applier.proceed(ready)

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

    def _set_timer(self) -> None:
        """Be woken when the next tick is due. A timer that comes sooner may stay: it looks again,
        which costs less than to move it at every event, for most of them put the deadline off.
        """
        if not self._is_running:
            self._cancel_timer()
            return
        # One millisecond up: time is whole milliseconds, and a timer may come a hair early.
        when = self._raft.deadline_ms() / 1000 + 0.001
        if self._timer is not None and self._timer_at <= when:
            return
        self._cancel_timer()
        self._timer_at = when
        self._timer = asyncio.get_running_loop().call_at(when, self._tick)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        self._advance(lambda: self._raft.tick(self.now_ms()))

    def _tell_role(self, change: RoleChange) -> None:
        log.info(
            "raft role",
            node=self._me.id,
            role=change.role,
            epoch=change.epoch,
            leader=change.leader_id,
            reason=change.reason,
            # Without a majority a voter asks for pre-votes again and again.
            repeats=change.role == "prospective",
        )
        told = (change.leader_id, change.epoch, change.endpoint)
        if told != self._told_leader:
            self._told_leader = told
            self._listener.leader_known(*told)
        if change.leader_id >= 0:
            for future in self._transfers:
                _resolve(future, change.leader_id)

    def _transfer_given_up(self, voter_id: int, reason: str) -> None:
        log.info("raft transfer given up", node=self._me.id, to=voter_id, reason=reason)
        error = f"leadership did not go to voter {voter_id}: {reason}; ask again"
        for future, named in self._transfers.items():
            if named == voter_id and not future.done():
                future.set_exception(OverloadedError(error))

    def _end_reign(self) -> None:
        reads, self._reads = self._reads, {}
        for read in reads.values():
            if not read.done():
                read.set_exception(NotControllerError(f"node {self._me.id} lost its reign"))
        self._applier.end_reign()

    # --- the door for the controller ------------------------------------------------------------

    def propose(self, epoch: int, events: Sequence[MetadataEvent]) -> int:
        """Append one batch of events; return its base offset at once.

        It is committed when committed() has passed it, and may be lost when lost_leadership()
        comes first. Raises NotControllerError if this node does not lead in that epoch (nothing
        was appended), OverloadedError, InvalidRequestError if the batch is too large (R31).
        """
        self._check_running()
        self._raft.check_may_propose(epoch)
        base_offset = self._raft.ledger.log_end_offset
        batch = self._encode(events, base_offset, epoch)
        if len(batch.data) > self.config.quorum_batch_max_bytes:
            raise InvalidRequestError(
                f"a batch of {len(events)} events has {len(batch.data)} bytes;"
                f" at most {self.config.quorum_batch_max_bytes} are allowed"
            )
        now_ms = self.now_ms()
        if batch.voters is not None:
            self._raft.check_may_change_voters(batch.voters, now_ms)
        self._advance(lambda: self._raft.propose(batch, now_ms))
        self._check_running()
        return base_offset

    async def read_round(self) -> int:
        """Begin a linearizable read; return the high watermark to have applied before answering.

        Returns when a majority has heard this node lead, after now. NotControllerError if it does
        not lead, or lost its reign meanwhile.
        """
        self._check_running()
        self._raft.check_may_read()
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        read = -1

        def begin() -> None:
            nonlocal read
            read = self._raft.read(self.now_ms())
            self._reads[read] = future

        self._advance(begin)
        self._check_running()
        try:
            return await future
        finally:
            self._reads.pop(read, None)

    async def read_committed(self, from_offset: int, bytes_max: int) -> bytes:
        """Return whole batches from an offset, below the high watermark; at least one if any."""
        if from_offset >= self._applier.readable_end:
            return b""
        return await self._applier.read(from_offset, self._applier.readable_end, bytes_max)

    async def take_snapshot(
        self, offset: int, epoch: int, events: Iterable[MetadataEvent]
    ) -> SnapshotId:
        """Write the image at a committed offset as a snapshot; return the newest there is then.

        `events` are those of the image, `epoch` is that of its last record. Nothing is written
        if a snapshot as new is there. Raises InvalidRequestError if that is not committed and
        applied here, OverloadedError if the disk is full, StoppingError.
        """
        if not self._is_running:
            raise StoppingError(f"node {self._me.id} is not running")
        if (newest := self.snapshot) is not None and newest.offset >= offset:
            return newest
        held = self._raft.ledger.epoch_before(offset)
        if not 0 < offset <= self._applier.applied_end or held != epoch:
            raise InvalidRequestError(
                f"a snapshot of offset {offset} and epoch {epoch}: applied here is all below"
                f" {self._applier.applied_end}, and the record before it is of epoch {held}"
            )
        work = self._taking.take(SnapshotId(offset, epoch), events)
        await asyncio.wait([self._spawn(work, "raft snapshot")])
        if (newest := self.snapshot) is not None and newest.offset >= offset:
            return newest
        if not self._is_running:
            raise StoppingError(f"node {self._me.id} is not running")
        raise OverloadedError(f"node {self._me.id} has no room on its disk for a snapshot")

    async def read_snapshot(
        self, snapshot: SnapshotId, position: int, bytes_max: int
    ) -> tuple[int, bytes]:
        """Return the size of a snapshot and some of its bytes from `position`, one at least.

        SnapshotNotFoundError if it is not there (any more), InvalidRequestError if the position
        or bytes_max is none, OverloadedError if this process can't open it now, StoppingError if
        the disk fails.
        """
        try:
            return await self._snapshots.read(snapshot, position, bytes_max)
        except OSError as error:
            if is_passing(error):
                raise OverloadedError(
                    f"node {self._me.id} can't read its snapshot now: {error}"
                ) from error
            self._fail(f"can't read a snapshot: {error}", error)
            raise StoppingError(f"node {self._me.id} can't read its snapshot: {error}") from error

    def snapshot_parts(self, snapshot: SnapshotId) -> AsyncGenerator[bytes, None]:
        """Yield the batches of a snapshot's events, as Loader.load_snapshot_part takes them.

        Close it with aclosing. SnapshotNotFoundError if it is not there (any more), StorageError.
        """
        return self._snapshots.parts(snapshot)

    def hand_over(self, *, for_silence: bool) -> None:
        """Give leadership to the most caught-up voter; nothing happens without another voter."""
        reason = "handed over for silence" if for_silence else "handed over"
        self._advance(
            lambda: self._raft.resign(self.now_ms(), reason=reason, for_silence=for_silence)
        )

    async def transfer(self, voter_id: int | None) -> int:
        """Give leadership to that voter (None: the most caught-up one); return who leads then.

        That may be another one, if an election came between. Our own id while we lead: nothing
        to do. NotControllerError if this node does not lead, InvalidRequestError for an id that
        is no voter's, OverloadedError if it did not catch up within an election timeout.
        """
        self._check_running()
        named = self._raft.check_may_transfer(voter_id)
        if len(self._transfers) >= TRANSFERS_MAX:
            raise OverloadedError(f"{TRANSFERS_MAX} callers wait for a transfer already")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._transfers[future] = named
        try:
            self._advance(lambda: self._raft.transfer(named, self.now_ms()))
            return self._me.id if named == self._me.id else await future
        finally:
            del self._transfers[future]

    def _check_running(self) -> None:
        if not self._is_running:
            raise NotControllerError(f"node {self._me.id} is not running")

    def _encode(self, events: Sequence[MetadataEvent], base_offset: int, epoch: int) -> Batch:
        data = encode_events(
            events,
            base_offset=base_offset,
            epoch=epoch,
            timestamp_ms=self._environment.wall_clock_ms(),
        )
        (batch,) = parse_batches(data)
        return batch

    def _encode_epoch_start(self, epoch: int, for_silence: bool, base_offset: int) -> Batch:
        start = EpochStart(epoch=epoch, leader_id=self._me.id, handed_over_for_silence=for_silence)
        return self._encode([MetadataEvent(epoch_start=start)], base_offset, epoch)

    # --- for the service ------------------------------------------------------------------------

    async def ask(self, event: Callable[[int], Event]) -> Any:
        """Step the event made for a new caller's number; return the machine's answer to it."""
        with self.asking(event) as asked:
            return await asked.answer()

    def asking(self, event: Callable[[int], Event]) -> Asked:
        """Step the event made for a new caller's number; its answers, as a context."""
        if not self._is_running:
            raise StoppingError(f"node {self._me.id} is not running")
        asked = self._callers.asked()
        self.step(event(asked.number))
        return asked

    def check_leads(self, epoch: int) -> None:
        """Raise FencedLeaderEpochError or NotControllerError unless leading in that epoch."""
        self._check_running()
        if epoch < self.epoch:
            raise FencedLeaderEpochError(f"epoch {epoch} is over; this is epoch {self.epoch}")
        if epoch > self.epoch or self.leader_id != self._me.id:
            raise NotControllerError(
                f"node {self._me.id} does not lead in epoch {epoch}; epoch {self.epoch}, leader"
                f" {self.leader_id}"
            )

    async def payload(self, reply: FetchReply) -> bytes | None:
        """Return the batches of a fetch answer; None if the reign is over that meant them.

        Empty if the log was cut above them meanwhile: the next fetch is told of the snapshot.
        """
        base_offset = reply.response.base_offset
        if reply.end <= base_offset or base_offset < self._log.log_start_offset:
            return b""
        try:
            data = await self._log.read(
                base_offset, end=reply.end, bytes_max=self.config.quorum_fetch_max_bytes
            )
        except StorageError as error:
            self._fail(str(error), error)
            return None
        return data if self._is_running and self._raft.still_holds(reply) else None

    def _fail_callers(self, error: Exception) -> None:
        self._callers.fail(error)
        for future in self._transfers:
            if not future.done():
                future.set_exception(error)


def _resolve(future: asyncio.Future[Any] | None, value: object) -> None:
    if future is not None and not future.done():
        future.set_result(value)
