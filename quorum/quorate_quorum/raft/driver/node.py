"""A voter's Raft: joins the machine with its disk and its peers. It decides nothing.

peers --> service --> Answers --+                +--> Storage, Transport, Downloads
controller ------> RaftNode ----+--> RaftLoop ---+--> Callers, Waiters (the answers)
disk, time, wire ---------------+    (machine)   +--> Applier --> RaftListener
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from quorate.aio.clock import loop_ms
from quorate.errors import (
    InvalidRequestError,
    NotControllerError,
    StoppingError,
)
from quorate.net.network import Service
from quorate_quorum.log.identity import Identity
from quorate_quorum.log.log import Log
from quorate_quorum.node.config import QuorumConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.features import Known
from quorate_quorum.node.history import History
from quorate_quorum.raft.driver.answers import Answers
from quorate_quorum.raft.driver.applier import Applier
from quorate_quorum.raft.driver.batches import encode_batch, encode_epoch_start, read_below
from quorate_quorum.raft.driver.bootstrap import (
    make_durably,
    metadata_directory,
    read_bootstrap_hash,
)
from quorate_quorum.raft.driver.callers import Callers
from quorate_quorum.raft.driver.downloads import Downloads
from quorate_quorum.raft.driver.effects import Effects
from quorate_quorum.raft.driver.finder import Finder
from quorate_quorum.raft.driver.listener import RaftListener
from quorate_quorum.raft.driver.loop import RaftLoop
from quorate_quorum.raft.driver.peers import Peers
from quorate_quorum.raft.driver.quorum_state import check_state, read_state
from quorate_quorum.raft.driver.service import RaftService
from quorate_quorum.raft.driver.storage import Storage, read_ledger
from quorate_quorum.raft.driver.taker import SnapshotTaker
from quorate_quorum.raft.driver.transport import Transport
from quorate_quorum.raft.driver.waiters import Waiters
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.ledger import Ledger
from quorate_quorum.raft.machine.raft import Raft
from quorate_quorum.raft.machine.status import QuorumStatus
from quorate_quorum.raft.machine.timing import Timing
from quorate_quorum.raft.machine.voters import ReplicaKey
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.snapshots.store import Snapshots
from quorate_quorum.v1.events_pb2 import MetadataEvent

STOP_FLUSH_S = 1.0


class RaftNode:
    """One voter of the metadata quorum. `start` reads the disk; `stop` hands over leadership.

    The owner opens the log before `start` and closes it after `stop`. The controller and the server
    call this class; requests of peers go to Answers.
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
        self._me = ReplicaKey(identity.node_id, identity.directory_id)
        self._directory = metadata_directory(config.log_dirs[0])
        history = History(identity.cluster_id, identity.quorum_generation, b"")
        self.peers = Peers(self._me, history, environment.features)
        self.snapshots = Snapshots(environment.disk, self._directory)
        self.loop = RaftLoop(identity.node_id, loop_ms, fail)
        self._applier = Applier(self.loop, log, self.snapshots, listener)
        self.taker = SnapshotTaker(self.loop, self.peers, self._applier, self.snapshots, log)
        self._callers = Callers()
        self._waiters = Waiters(identity.node_id)
        self._storage: Storage
        self._transport: Transport
        self.answers = Answers(
            self.loop,
            self.peers,
            identity=identity,
            incarnation=self.incarnation,
            metadata_log=log,
            snapshots=self.snapshots,
            applier=self._applier,
            callers=self._callers,
            fetch_bytes_max=config.quorum_fetch_max_bytes,
        )
        self.services: Sequence[Service] = (RaftService(self.answers, environment.authorizer),)

    # --- what others see ------------------------------------------------------------------------

    @property
    def machine(self) -> Raft:
        """The machine. It exists only after `start`."""
        return self.loop.raft

    @property
    def epoch(self) -> int:
        return self.loop.raft.epoch

    @property
    def leader_id(self) -> int:
        """The id of this epoch's leader; -1 if it is not known."""
        return self.loop.raft.leader_id

    @property
    def leader_endpoint(self) -> str:
        """The leader's endpoint; empty if it is not known."""
        return self.loop.raft.leader_endpoint

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, and has committed and applied the first record of its epoch."""
        return self._applier.told_epoch is not None

    @property
    def high_watermark(self) -> int:
        """One past the last committed record that this node can read."""
        return self._applier.readable_end

    @property
    def log_end_offset(self) -> int:
        """One past the last record of the log, committed or not."""
        return self.loop.raft.ledger.log_end_offset

    @property
    def log_start_offset(self) -> int:
        """The first offset of the log. The records below it are in the snapshot."""
        return self.loop.log_start_offset

    @property
    def snapshot(self) -> SnapshotId | None:
        """The newest whole snapshot on this disk."""
        return self.loop.snapshot

    @property
    def known_features(self) -> Mapping[tuple[int, bytes], Known]:
        """The feature levels of this node's program, and of each replica that fetched here."""
        return self.peers.known_features

    def epoch_at(self, offset: int) -> int | None:
        """Return the epoch of the record at an offset; None if this node does not know it."""
        ledger = self.loop.raft.ledger
        if not 0 <= offset < ledger.log_end_offset or ledger.epoch_before(offset + 1) < 0:
            return None
        return ledger.epoch_before(offset + 1)

    def describe(self) -> QuorumStatus:
        """Return the quorum as this node sees it. Only a leader knows the replicas' progress.

        `last_caught_up_ms` is a time of this event loop's clock, as `loop_ms()` returns it.
        """
        return self.loop.raft.status()

    # --- from start to stop ---------------------------------------------------------------------

    async def start(self) -> None:
        """Read epoch, vote and log, and take part in the quorum. Raises StorageError, OSError."""
        hard_state, ledger = await self._read_disk()
        voter = ledger.voters.of_key(self._me)
        endpoint = voter.endpoint if voter is not None else self.config.advertised
        loop, spawn = self.loop, self.loop.tasks.spawn
        self._storage = Storage(self._environment.disk, self._log, self._directory, loop.step)
        downloads = self._make_downloads()
        loop.start(
            self._make_machine(ledger, hard_state, endpoint),
            self._make_effects(downloads, endpoint),
        )
        self.answers.is_open = True
        spawn(self._storage.run(), "raft storage")
        spawn(self._applier.run(), "raft applier")
        spawn(downloads.run(), "raft download")
        loop.advance(lambda: None)

    async def _read_disk(self) -> tuple[HardState, Ledger]:
        disk, directory = self._environment.disk, self._directory
        await make_durably(disk, directory)  # for a new voter, whose directory does not exist yet
        # An earlier process may have been killed between the rename of a vote or snapshot and the
        # sync of the directory. Then the file is readable, but a power loss after its use would
        # take it away.
        await disk.sync_directory(directory)
        hard_state = await read_state(disk, directory)
        identity, known = self._identity, self._environment.features
        start = await self.snapshots.open(
            cluster_id=identity.cluster_id, quorum_generation=identity.quorum_generation
        )
        below, newest = None, self.snapshots.newest
        if newest is not None:
            below = await read_below(newest, self.snapshots.parts(newest), known)
        ledger = await read_ledger(self._log, below, known=known)
        check_state(hard_state, ledger, below)
        told_hash = b"" if start is None else start.bootstrap_hash
        self.peers.learn_bootstrap_hash(await read_bootstrap_hash(self._log) or told_hash)
        return hard_state, ledger

    def _make_machine(self, ledger: Ledger, hard_state: HardState, endpoint: str) -> Raft:
        config, environment = self.config, self._environment
        return Raft(
            self._me,
            ledger,
            hard_state,
            timing=Timing(
                fetch_timeout_ms=config.quorum_fetch_timeout_ms,
                election_timeout_ms=config.quorum_election_timeout_ms,
                fetch_wait_ms=config.quorum_fetch_wait_max_ms,
                uncommitted_max=config.quorum_uncommitted_batches_max,
                uncommitted_bytes_max=config.quorum_uncommitted_max_bytes,
            ),
            chance=environment.chance.randint,
            epoch_start=partial(encode_epoch_start, self._me.id, environment.wall_clock_ms),
            endpoint=endpoint,
            now_ms=loop_ms(),
            bootstrap_servers=config.quorum_bootstrap_servers,
        )

    def _make_downloads(self) -> Downloads:
        return Downloads(
            self.loop,
            self.peers,
            self.snapshots,
            self._environment.network,
            self._environment.features,
            chunk_bytes=self.config.quorum_fetch_snapshot_max_bytes,
            timeout_ms=self.config.request_timeout_ms,
        )

    def _make_effects(self, downloads: Downloads, endpoint: str) -> Effects:
        timeout_ms, history = self.config.quorum_election_timeout_ms, self.peers.history
        step, spawn = self.loop.step, self.loop.tasks.spawn
        self._transport = Transport(
            self._environment.network,
            self._me,
            self.incarnation,
            endpoint,
            history,
            self._environment.features,
            timeout_ms,
            step,
            spawn,
        )
        return Effects(
            self._me.id,
            storage=self._storage,
            transport=self._transport,
            finder=Finder(self._transport, history, timeout_ms, step, spawn, lambda: self.epoch),
            downloads=downloads,
            callers=self._callers,
            waiters=self._waiters,
            applier=self._applier,
            listener=self._listener,
        )

    async def stop(self) -> None:
        """Hand over leadership, finish writes, close connections. A second call does nothing."""
        if self.loop.is_running:
            await self._leave()
        if self.answers.is_open:
            self.answers.is_open = False
            await self._transport.close()
        await self.loop.tasks.end_all()

    async def _leave(self) -> None:
        loop = self.loop
        loop.advance(lambda: loop.raft.resign(loop_ms(), reason="stopping"))
        loop.stop(StoppingError(f"node {self._me.id} is stopping"))
        await self._transport.flush(STOP_FLUSH_S)
        self._storage.end()
        for task in loop.tasks.named("raft storage"):
            await asyncio.wait([task])
        await self.taker.end()

    # --- the controller's calls -----------------------------------------------------------------

    def propose(self, epoch: int, events: Sequence[MetadataEvent]) -> int:
        """Append one batch of events, and return its base offset without waiting for the commit.

        The batch is committed when the RaftListener gets it in committed(). If lost_leadership()
        comes first, the batch may be lost. Raises OverloadedError, InvalidRequestError if the batch
        is too large, and NotControllerError if this node does not lead in `epoch`.
        """
        self._check_running()
        raft, now_ms = self.loop.raft, loop_ms()
        raft.check_may_propose(epoch)
        base_offset = raft.ledger.log_end_offset
        timestamp_ms = self._environment.wall_clock_ms()
        batch = encode_batch(events, base_offset, epoch, timestamp_ms)
        # Followers refuse a larger batch, so it could never be committed.
        if len(batch.data) > self.config.quorum_batch_max_bytes:
            raise InvalidRequestError(
                f"a batch of {len(events)} events has {len(batch.data)} bytes;"
                f" at most {self.config.quorum_batch_max_bytes} are allowed"
            )
        if batch.voters is not None:
            raft.check_may_change_voters(batch.voters, now_ms)
        self.loop.advance(lambda: raft.propose(batch, now_ms))
        self._check_running()
        return base_offset

    async def read_round(self) -> int:
        """Begin a linearizable read. Return the high watermark that must be applied before it.

        The call returns after a majority has heard this leader since the call began.
        NotControllerError if this node does not lead, or loses its leadership meanwhile.
        """
        self._check_running()
        raft, waiters = self.loop.raft, self._waiters
        raft.check_may_read()
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.loop.advance(lambda: waiters.add_read(raft.read(loop_ms()), future))
        self._check_running()
        return await future

    async def read_committed(self, from_offset: int, bytes_max: int) -> bytes:
        """Return committed batches from an offset on: at least one batch; b"" if none exists."""
        if from_offset >= self._applier.readable_end:
            return b""
        return await self._applier.read(from_offset, self._applier.readable_end, bytes_max)

    def hand_over(self, *, for_silence: bool) -> None:
        """Give leadership to the most caught-up other voter; without one, do nothing."""
        reason = "handed over for silence" if for_silence else "handed over"
        raft = self.loop.raft
        self.loop.advance(lambda: raft.resign(loop_ms(), reason=reason, for_silence=for_silence))

    async def transfer(self, voter_id: int | None) -> int:
        """Give leadership to that voter (None: the most caught-up one). Return the next leader.

        An election in between may choose another voter. With this node's own id, the call only
        cancels a transfer under way. Raises NotControllerError, InvalidRequestError if the id is
        not a voter's, OverloadedError if the voter did not catch up within an election timeout.
        """
        self._check_running()
        named = self.loop.raft.check_may_transfer(voter_id)
        with self._waiters.transfer(named) as leader:
            self.loop.advance(lambda: self.loop.raft.transfer(named, loop_ms()))
            return self._me.id if named == self._me.id else await leader

    def _check_running(self) -> None:
        if not self.loop.is_running:
            raise NotControllerError(f"node {self._me.id} is not running")
