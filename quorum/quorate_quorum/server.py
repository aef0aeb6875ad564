"""A voter: joins its parts, from the locked directory to the clean end.

    start   lock the directory -> check its identity (a new voter joins a quorum first)
            -> open the log -> begin Raft -> listen
    stop    let brokers leave -> hand leadership over -> end streams -> sync and close the log
            -> unlock

A part that can't go on calls fail() with the reason: the voter then stops without letting brokers
leave. Both kinds of stop end within STOP_MAX_S, even if no other node answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import structlog

from quorate.aio.clock import loop_ms
from quorate.errors import StorageError
from quorate.net.network import Service
from quorate.v1.admin_pb2 import DescribeQuorumResponse, QuorumReplica
from quorate_quorum.controller.driver.controller import Controller
from quorate_quorum.controller.driver.service import ControllerService
from quorate_quorum.controller.driver.snapshot_schedule import SnapshotSchedule
from quorate_quorum.disk import Disk, Lock
from quorate_quorum.log.identity import Identity, is_of_voter, read_identity
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.watch import Watch
from quorate_quorum.metadata_log import open_metadata_log
from quorate_quorum.node.config import ConfigError, QuorumConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.identify import NodeService
from quorate_quorum.node.server import NodeServer
from quorate_quorum.raft.driver.bootstrap import metadata_directory
from quorate_quorum.raft.driver.joining import check_one_recovery, join
from quorate_quorum.raft.driver.node import RaftNode
from quorate_quorum.raft.machine.status import QuorumStatus, ReplicaStatus
from quorate_quorum.snapshots.file import SnapshotId

log = structlog.get_logger(__name__)

#: The longest time of a stop. After it the process ends as if it was killed.
STOP_MAX_S = 4.5
#: The time that brokers have to announce their shutdown, if they are stopped together with this
#: voter.
SHUTDOWN_NEWS_MS = 100
#: The interval at which the voter checks whether brokers are still leaving.
HOLD_LOOK_MS = 20


class QuorumServer(NodeServer[QuorumConfig]):
    """A voter. start() returns when the voter takes part in the quorum, even without a leader."""

    role = "voter"

    def __init__(self, config: QuorumConfig, environment: Environment) -> None:
        super().__init__(config, environment, stop_max_s=STOP_MAX_S)
        self._rooms: _Rooms | None = None
        self._lock: Lock | None = None
        self._log: Log | None = None

    @property
    def raft(self) -> RaftNode:
        """The Raft of this voter. It exists only after start()."""
        assert self._rooms is not None, "the voter has not started"
        return self._rooms.raft

    @property
    def image(self) -> MetadataImage:
        """The committed image. It exists only after start()."""
        assert self._rooms is not None, "the voter has not started"
        return self._rooms.controller.image

    @property
    def is_controller(self) -> bool:
        """Whether this voter is the active controller."""
        return self._rooms is not None and self._rooms.controller.is_active

    async def take_snapshot(self) -> SnapshotId:
        """Take a snapshot of the committed image now. Return the newest one on this disk.

        Raises InvalidRequestError before any record is applied, OverloadedError if the disk is
        full, and StoppingError.
        """
        assert self._rooms is not None, "the voter has not started"
        return await self._rooms.take_snapshot(self.image)

    # -- start

    async def _open(self) -> None:
        config, environment = self.config, self.environment
        directory = config.log_dirs[0]
        identity = await read_identity(environment.disk, directory, node_id=config.node_id)
        self._lock = await _locked(environment.disk, directory)
        # Sync the names: `storage format` may have crashed before it synced the identity.
        await environment.disk.sync_directory(directory)
        if not identity.quorum_generation:
            await _check_is_of_voter(environment.disk, directory, config)
            identity = await join(environment.network, environment.disk, config, identity)
        self._log = await open_metadata_log(
            environment.disk,
            metadata_directory(directory),
            LogConfig(
                segment_bytes=config.metadata_log_segment_bytes, track_synced=True, verify_all=True
            ),
        )
        self._rooms = rooms = _Rooms(self, identity, self._log)
        await rooms.raft.start()
        await self._check_one_recovery(identity, rooms.raft)
        rooms.snapshot_schedule.begin()
        await self._listen(rooms.services)
        # Check again, now that this node listens. Another survivor may have started at the same
        # time, and the later of the two second checks finds the other node.
        await self._check_one_recovery(identity, rooms.raft)
        log.info(
            "voter_started",
            node=config.node_id,
            cluster_id=identity.cluster_id,
            endpoint=self.endpoint,
            log_end_offset=self._log.log_end_offset,
        )

    async def _check_one_recovery(self, identity: Identity, raft: RaftNode) -> None:
        if identity.quorum_generation > 1:
            mine = (self.config.advertised, self.config.listener_addresses[0].endpoint)
            others = [one for one in self.config.quorum_bootstrap_servers if one not in mine]
            bootstrap_hash = raft.peers.history.bootstrap_hash
            await check_one_recovery(self.environment.network, others, identity, bootstrap_hash)

    # -- stop

    async def _close(self) -> None:
        rooms = self._rooms
        if rooms is not None:
            await self._unless_failed(lambda: self._hold(rooms.controller))
            await rooms.snapshot_schedule.stop()
            await rooms.raft.stop()
            await rooms.controller.stop()
            rooms.watch.stop()
        await self._stop_listening()
        if self._log is not None:
            await self._close_log(self._log)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    async def _hold(self, controller: Controller) -> None:
        """Wait while brokers are leaving, because they need the quorum to leave."""
        waited_ms = 0
        while waited_ms < self.config.shutdown_hold_max_ms:
            awaits_news = waited_ms < SHUTDOWN_NEWS_MS and controller.has_brokers
            if not awaits_news and not controller.has_brokers_shutting_down:
                return
            await asyncio.sleep(HOLD_LOOK_MS / 1000)
            waited_ms += HOLD_LOOK_MS

    async def _close_log(self, metadata_log: Log) -> None:
        try:
            await metadata_log.close(clean=self._failure is None)
        except StorageError as error:
            self._failure = self._failure or str(error)


class _Rooms:
    """The parts of a voter, joined after its log is open."""

    def __init__(self, server: QuorumServer, identity: Identity, metadata_log: Log) -> None:
        config, environment = server.config, server.environment
        self.controller = Controller(config, environment, server.fail)
        self.raft = RaftNode(
            config,
            environment,
            metadata_log,
            identity,
            self.controller,
            server.fail,
            incarnation=server.incarnation,
        )
        self.watch = Watch(
            identity.cluster_id,
            identity.quorum_generation,
            self.raft,
            self.raft.epoch_at,
            config,
            snapshots=_Snapshots(self.raft),
            authorizer=environment.authorizer,
        )
        generation = identity.quorum_generation
        self.controller.attach(
            self.raft,
            lambda: described(self.raft.describe(), generation, loop_ms()),
        )
        self.controller.when_news(self.watch.wake)
        self.snapshot_schedule = SnapshotSchedule(self.take_snapshot, config, server.fail)
        self.controller.when_applied(self.snapshot_schedule)
        self.services: Sequence[Service] = (
            NodeService(
                "voter",
                identity.cluster_id,
                config.node_id,
                server.incarnation,
                config.local_cluster,
            ),
            *self.raft.services,
            ControllerService(
                identity.cluster_id,
                generation,
                self.controller,
                requests_max=config.controller_requests_max,
                authorizer=environment.authorizer,
            ),
            self.watch,
        )

    async def take_snapshot(self, image: MetadataImage) -> SnapshotId:
        return await self.raft.taker.take(image.offset, image.epoch, image.to_events())


class _Snapshots:
    """The voter's snapshots for Watch. The newest one is the one that the machine uses."""

    def __init__(self, raft: RaftNode) -> None:
        self._raft = raft

    @property
    def log_start_offset(self) -> int:
        return self._raft.log_start_offset

    @property
    def newest(self) -> SnapshotId | None:
        return self._raft.snapshot

    def parts(self, snapshot: tuple[int, int]) -> AsyncGenerator[bytes, None]:
        return self._raft.snapshots.parts(SnapshotId(*snapshot))


async def _check_is_of_voter(disk: Disk, directory: str, config: QuorumConfig) -> None:
    """Raise ConfigError for a broker's disk: with such a disk, this voter would wait for ever."""
    if not await is_of_voter(disk, directory):
        raise ConfigError(
            f"{directory} was formatted without --initial-voters, --standalone or --new-voter, as"
            " a broker's. Remove it, and format it as a voter's: --initial-voters or --standalone"
            " for a new cluster, --new-voter to follow one that runs. If this node is a broker,"
            " start it with quorate-broker"
        )


async def _locked(disk: Disk, directory: str) -> Lock:
    try:
        return await disk.lock(directory)
    except BlockingIOError:
        raise ConfigError(f"{directory} is in use by another process") from None
    except PermissionError:
        raise ConfigError(f"{directory} cannot be used: this process may not write there") from None


def described(status: QuorumStatus, generation: int, now_ms: int) -> DescribeQuorumResponse:
    """Return the quorum's state for Admin. `now_ms` has the same clock as `status`."""
    return DescribeQuorumResponse(
        leader=status.leader_id,
        epoch=status.epoch,
        quorum_generation=generation,
        high_watermark=status.high_watermark,
        voters=[_replica(replica, now_ms) for replica in status.voters],
        observers=[_replica(replica, now_ms) for replica in status.observers],
    )


def _replica(replica: ReplicaStatus, now_ms: int) -> QuorumReplica:
    caught_up = replica.last_caught_up_ms
    return QuorumReplica(
        id=replica.id,
        directory_id=replica.directory_id,
        endpoint=replica.endpoint,
        log_end_offset=replica.log_end_offset,
        lag=replica.lag,
        last_caught_up_ms=-1 if caught_up < 0 else max(now_ms - caught_up, 0),
        heard=replica.heard,
        caught_up=replica.caught_up,
    )
