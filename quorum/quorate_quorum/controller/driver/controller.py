"""The controller of one voter: it follows the committed log, and decides while this voter leads.

It is the RaftListener of this voter's Raft. Every voter holds the committed image. When the
EpochStart of this voter's own epoch is committed and applied, the controller makes an
ActiveController. When the voter loses leadership, the controller drops the ActiveController.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import structlog

from quorate.aio.tasks import Tasks
from quorate.errors import NotControllerError
from quorate.v1.admin_pb2 import DescribeQuorumResponse
from quorate_quorum.controller.decisions.free_space import FreeSpace
from quorate_quorum.controller.decisions.health import PartitionHealth
from quorate_quorum.controller.decisions.outcome import Context
from quorate_quorum.controller.driver.active import ActiveController, ControllerRaft
from quorate_quorum.controller.driver.leases import Leases
from quorate_quorum.controller.driver.reign import Reign
from quorate_quorum.controller.driver.snapshot_schedule import SnapshotSchedule
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.loader import Loaded, Loader
from quorate_quorum.node.config import QuorumConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.features import UnknownLevelError

log = structlog.get_logger(__name__)


class Controller:
    """Implements RaftListener; `attach` gives it the Raft that it follows.

    `fail` stops the node. It is called when the image or a decision breaks an invariant.
    """

    def __init__(
        self,
        config: QuorumConfig,
        environment: Environment,
        fail: Callable[[str], None],
    ) -> None:
        self._node_id = config.node_id
        self._environment = environment
        self._config = config
        self._fail = fail
        self._loader = Loader(known=environment.features)
        self._wakers: list[Callable[[], None]] = []
        self._snapshot_schedule: SnapshotSchedule | None = None
        self._health = PartitionHealth()
        self._active: ActiveController | None = None
        #: Tasks that wait until the background tasks of earlier reigns have ended.
        self._ending = Tasks(
            lambda _, error: fail(f"the leases did not end: {error!r}"),
        )
        self._is_broken = False
        self._raft: ControllerRaft
        self._describe_quorum: Callable[[], DescribeQuorumResponse]

    def attach(
        self, raft: ControllerRaft, describe_quorum: Callable[[], DescribeQuorumResponse]
    ) -> None:
        """Set the Raft, and the function that answers DescribeQuorum.

        Call this before the Raft starts.
        """
        self._raft = raft
        self._describe_quorum = describe_quorum

    def when_news(self, wake: Callable[[], None]) -> None:
        """Call `wake` in the turn of the event loop in which the image or the leader changes."""
        self._wakers.append(wake)

    def when_applied(self, schedule: SnapshotSchedule) -> None:
        """Tell the schedule of each batch after it is applied."""
        self._snapshot_schedule = schedule

    @property
    def image(self) -> MetadataImage:
        """The committed image."""
        return self._loader.image

    @property
    def is_active(self) -> bool:
        """Whether this voter decides: it leads, and its reign as the controller has begun."""
        return self._active is not None

    def active(self) -> ActiveController:
        """Return the active controller. Raises NotControllerError if this voter does not decide."""
        if self._active is not None:
            return self._active
        leader = self._raft.leader_id
        known = f"voter {leader} leads as far as it knows" if leader >= 0 else "none is known"
        if leader == self._node_id:
            known = "it leads the quorum, and its reign as controller has not begun"
        raise NotControllerError(f"voter {self._node_id} is not the controller; {known}")

    @property
    def leader_hint(self) -> tuple[int, str]:
        """The id and endpoint of the controller; -1 and empty if this voter does not know it."""
        return self._raft.leader_id, self._raft.leader_endpoint

    @property
    def has_brokers_shutting_down(self) -> bool:
        """Whether unfenced brokers are shutting down, and wait for the permission to stop."""
        return any(b.shutting_down and not b.fenced for b in self.image.sorted_brokers())

    @property
    def has_brokers(self) -> bool:
        """Whether any broker is unfenced."""
        return any(not b.fenced for b in self.image.sorted_brokers())

    async def stop(self) -> None:
        """End the reign, if there is one, and all its tasks."""
        if self._active is not None:
            self.lost_leadership(self._active.reign.epoch)
        await self._ending.ended()

    # -- RaftListener

    def snapshot_part(self, batches: bytes) -> None:
        """Load a part of a snapshot into a second image. `image` stays until the snapshot ends."""
        self._load(lambda: self._loader.load_snapshot_part(batches))

    def snapshot_end(self, offset: int, epoch: int) -> None:
        """Replace `image` by the snapshot's image."""
        self._load(lambda: self._show(self._loader.finish_snapshot(offset, epoch)))
        if self._snapshot_schedule is not None:
            self._snapshot_schedule.loaded(self.image)
        self._wake()

    def committed(self, batches: Sequence[bytes], high_watermark: int) -> None:
        """Apply committed batches, then answer the requests that waited for them."""
        self._load(lambda: self._load_all(batches))
        self._wake()

    def became_leader(self, epoch: int, handed_over_for_silence: bool) -> None:
        """Begin to decide. The image has applied the log up to this voter's own EpochStart."""
        if self._is_broken:
            return
        assert self._active is None, "one reign at a time"
        free_space = FreeSpace()
        context = partial(self._context, free_space)
        reign = Reign(epoch, self.image, self._raft, context, self._fail)
        leases = Leases(
            reign,
            self._raft,
            self._environment,
            self._config,
            self._fail,
            free_space=free_space,
            handed_over_for_silence=handed_over_for_silence,
        )
        self._active = ActiveController(
            self._node_id,
            reign,
            leases,
            self._raft,
            self._environment.features,
            self._describe_quorum,
            self._health,
        )
        log.info("controller_reigns", node=self._node_id, epoch=epoch, offset=self.image.offset)
        leases.begin()

    def lost_leadership(self, epoch: int) -> None:
        """Stop deciding: drop the pending image, and fail the requests that wait."""
        if self._active is None:
            return
        log.info("controller_reign_ends", node=self._node_id, epoch=epoch)
        active, self._active = self._active, None
        active.end()
        self._ending.spawn(active.ended(), "leases-end")

    def leader_known(self, leader_id: int, epoch: int, endpoint: str) -> None:
        """Wake the watches, because another leader is known, or none is known any more."""
        self._wake()

    def _context(self, free_space: FreeSpace, next_offset: int) -> Context:
        return Context(
            now_ms=self._environment.wall_clock_ms(),
            next_offset=next_offset,
            new_id=self._environment.new_id,
            free_space=free_space,
        )

    # -- the image

    def _load_all(self, batches: Sequence[bytes]) -> None:
        for batch in batches:
            self._show(self._loader.load(batch))
            if self._snapshot_schedule is not None:
                self._snapshot_schedule.applied(self.image, len(batch))

    def _load(self, work: Callable[[], None]) -> None:
        """Change the image. If that fails, stop the node and ignore all later changes."""
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
            self._health.applied(delta, image)
            if self._active is not None:
                self._active.committed(delta, image)

    def _wake(self) -> None:
        for wake in self._wakers:
            wake()
