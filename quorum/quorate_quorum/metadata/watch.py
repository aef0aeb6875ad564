"""The Metadata service: brokers follow the committed events of the metadata log by Watch.

Any voter serves Watch, from its own log and below its own high watermark, so the voter need not ask
the leader. The voter sends a frame in the turn of the event loop in which its high watermark moves,
and otherwise every 250 ms. So a watcher that gets no frame knows that it is cut off.

In three cases a watcher gets the newest snapshot in parts, then the log after it:

* the voter's log no longer has the watcher's next batch;
* the watcher's log diverges from the voter's;
* the watcher follows an older quorum_generation, and may have records that the new one lacks.

If there is no snapshot, the watcher gets the log from offset 0. A voter that knows no leader for a
fetch timeout ends its watches, because its image may be out of date.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

from quorate.aio.bell import Bell
from quorate.aio.clock import loop_ms
from quorate.errors import (
    AuthorizationError,
    InvalidRequestError,
    OverloadedError,
    QuorateError,
    QuorumUnavailableError,
    StoppingError,
    WrongClusterError,
    to_wire,
)
from quorate.net.frame import Frame
from quorate.net.network import Handler, Method, Peer
from quorate.record import batch as record_batch
from quorate_quorum.methods import WATCH
from quorate_quorum.node.authorizer import ALLOW_ALL, CLUSTER_ACTION, Authorizer, Caller, Required
from quorate_quorum.node.config import QuorumConfig
from quorate_quorum.v1.controller_pb2 import WatchHeader, WatchRequest

log = structlog.get_logger(__name__)


REQUIRED: Final[Mapping[Method[Any, Any], Required]] = {WATCH: CLUSTER_ACTION}


class WatchSource(Protocol):
    """The part of RaftNode that Watch needs."""

    @property
    def epoch(self) -> int: ...
    @property
    def leader_id(self) -> int:
        """The leader's node id; -1 if it is not known."""

    @property
    def leader_endpoint(self) -> str: ...
    @property
    def high_watermark(self) -> int: ...

    async def read_committed(self, from_offset: int, bytes_max: int) -> bytes:
        """Return whole committed batches from `from_offset` on.

        At least one batch, even if it is larger than `bytes_max`; empty if there is none.
        """


class SnapshotSource(Protocol):
    """The snapshots of a voter, as Watch needs them."""

    @property
    def log_start_offset(self) -> int:
        """The first offset of the log. If it is above 0, a snapshot ends at it or above it."""

    @property
    def newest(self) -> tuple[int, int] | None:
        """The offset and epoch of the newest snapshot; None if there is none."""

    def parts(self, snapshot: tuple[int, int]) -> AsyncGenerator[bytes, None]:
        """Yield the batches of a snapshot's events. Raises QuorateError if it can't be read."""


@dataclass(eq=False)
class Watch:
    """Streams committed batches to watchers.

    The voter calls `wake` when its high watermark or its leader changes. `epoch_at` returns the
    leader_epoch of the record at an offset; None if the log does not have the record.
    """

    required = REQUIRED

    _cluster_id: str
    _generation: int
    _source: WatchSource
    _epoch_at: Callable[[int], int | None]
    _config: QuorumConfig
    snapshots: SnapshotSource | None = None
    authorizer: Authorizer = ALLOW_ALL
    _waiting: dict[Bell, None] = field(default_factory=dict)
    _open: int = 0
    _leaderless_since_ms: int | None = None
    _stopping: bool = False

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {WATCH: self.watch}

    def wake(self) -> None:
        """Make every watch send its news now."""
        for bell in self._waiting:
            bell.ring()

    def stop(self) -> None:
        """End every watch now."""
        self._stopping = True
        self.wake()

    async def watch(self, request: WatchRequest, peer: Peer) -> AsyncIterator[Frame[WatchHeader]]:
        """Serve one watcher until it leaves, its right is withdrawn, or this voter ends the watch.

        This voter ends a watch when the voter stops, or knows no leader for too long.
        """
        caller = Caller(peer.principal, self.authorizer)
        try:
            caller.check(REQUIRED[WATCH])
            self._admit(request)
        except QuorateError as error:
            yield self._refusal(error)
            return
        self._open += 1
        bell = Bell()
        self._waiting[bell] = None
        try:
            cursor = _Cursor(request.from_offset, request.last_applied_epoch)
            if 0 < request.quorum_generation < self._generation:
                cursor = _Cursor(0, -1, is_checked=True)  # the watcher's image is of an old history
                if self._snapshot_for(cursor) is None:
                    yield self._beginning()
            while (refusal := self._why_end(caller)) is None:
                bell.reset()
                snapshot = self._snapshot_for(cursor)
                if snapshot is not None:
                    async with aclosing(self._snapshot_frames(snapshot, caller)) as frames:
                        async for frame in frames:
                            yield frame
                    cursor = _Cursor(*snapshot, is_checked=True)
                    continue
                frame = await self._next_frame(cursor)
                yield frame
                at_end = not frame.pieces or cursor.offset >= self._source.high_watermark
                if at_end and not frame.header.reload:
                    await bell.wait(self._config.watch_wait_max_ms)
            yield self._refusal(refusal)
        except QuorateError as error:
            log.warning("watch_ended", peer=peer.address, error=str(error), repeats=True)
            yield self._refusal(error)
        finally:
            del self._waiting[bell]
            self._open -= 1

    def _admit(self, request: WatchRequest) -> None:
        if request.cluster_id != self._cluster_id:
            raise WrongClusterError(
                f"this voter belongs to cluster {self._cluster_id!r}, not {request.cluster_id!r}"
            )
        if not 0 <= request.quorum_generation <= self._generation:
            raise WrongClusterError(
                f"this voter's quorum_generation is {self._generation}, "
                f"not {request.quorum_generation}"
            )
        if request.from_offset < 0 or request.last_applied_epoch < -1:
            raise InvalidRequestError(
                f"from_offset must be 0 or more, and last_applied_epoch -1 or more, "
                f"not {request.from_offset} and {request.last_applied_epoch}"
            )
        if self._open >= self._config.watches_max:
            raise OverloadedError(
                f"this voter serves {self._open} watches, and no more: ask another"
            )

    def _why_end(self, caller: Caller) -> QuorateError | None:
        if self._stopping:
            return StoppingError("this voter is stopping: watch another")
        if (refusal := caller.refusal(REQUIRED[WATCH])) is not None:
            return refusal
        if self._source.leader_id >= 0:
            self._leaderless_since_ms = None
            return None
        if self._leaderless_since_ms is None:
            self._leaderless_since_ms = loop_ms()
        waited_ms = loop_ms() - self._leaderless_since_ms
        # End the watch only after the time after which this voter itself looks for another leader.
        if waited_ms < self._config.quorum_fetch_timeout_ms:
            return None
        return QuorumUnavailableError("this voter knows of no leader: watch another")

    async def _next_frame(self, cursor: _Cursor) -> Frame[WatchHeader]:
        """Return the next frame. It has no batches if there is nothing new."""
        high_watermark = self._source.high_watermark
        header = self._header()
        if cursor.offset > high_watermark:  # the watcher is ahead of this voter, so it must wait
            return Frame(header)
        if not cursor.is_checked:
            header.reload = self._diverges(cursor)
            cursor.is_checked = True
            if header.reload:
                cursor.offset = 0
                return Frame(header)
        header.base_offset = cursor.offset
        if cursor.offset == high_watermark:
            return Frame(header)
        batches = await self._source.read_committed(
            cursor.offset, self._config.watch_frame_max_bytes
        )
        if not batches:
            return Frame(header)
        base_offset, end_offset = span(batches)
        # The offset is inside a batch: the watcher has another log.
        if base_offset != cursor.offset:
            header.reload = True
            cursor.offset = 0
            return Frame(header)
        cursor.offset = end_offset
        return Frame(header, (batches,))

    def _beginning(self) -> Frame[WatchHeader]:
        header = self._header()
        header.reload = True
        return Frame(header)

    def _snapshot_for(self, cursor: _Cursor) -> tuple[int, int] | None:
        """Return the snapshot that a watcher needs; None if the watcher needs only the log."""
        snapshots = self.snapshots
        if snapshots is None or snapshots.newest is None:
            return None
        is_gone = cursor.offset < snapshots.log_start_offset
        is_comparable = not cursor.is_checked and cursor.offset <= self._source.high_watermark
        return snapshots.newest if is_gone or (is_comparable and self._diverges(cursor)) else None

    async def _snapshot_frames(
        self, snapshot: tuple[int, int], caller: Caller
    ) -> AsyncGenerator[Frame[WatchHeader], None]:
        """Yield a whole snapshot in bounded frames. Raises the reason if the watch must end."""
        assert self.snapshots is not None, "it names the snapshot"
        pieces: list[bytes] = []
        is_first = True
        async with aclosing(self.snapshots.parts(snapshot)) as parts:
            async for part in parts:
                if (
                    pieces
                    and sum(map(len, pieces)) + len(part) > self._config.watch_frame_max_bytes
                ):
                    yield self._snapshot_frame(snapshot, pieces, caller, is_first=is_first)
                    pieces, is_first = [], False
                pieces.append(part)
        yield self._snapshot_frame(snapshot, pieces, caller, is_first=is_first, is_last=True)

    def _snapshot_frame(
        self,
        snapshot: tuple[int, int],
        pieces: list[bytes],
        caller: Caller,
        *,
        is_first: bool,
        is_last: bool = False,
    ) -> Frame[WatchHeader]:
        if (refusal := self._why_end(caller)) is not None:
            raise refusal
        header = self._header()
        header.reload, header.snapshot, header.snapshot_end = is_first, True, is_last
        header.snapshot_offset, header.snapshot_epoch = snapshot
        return Frame(header, (b"".join(pieces),))

    def _diverges(self, cursor: _Cursor) -> bool:
        if cursor.offset == 0:
            return False
        if self.snapshots is not None and self.snapshots.newest is not None:
            offset, epoch = self.snapshots.newest
            # The log may begin at this offset, so only the snapshot knows the epoch before it.
            if cursor.offset == offset:
                return cursor.last_epoch != epoch
        return self._epoch_at(cursor.offset - 1) != cursor.last_epoch

    def _header(self) -> WatchHeader:
        source = self._source
        return WatchHeader(
            high_watermark=source.high_watermark,
            leader_id=source.leader_id,
            leader_endpoint=source.leader_endpoint,
            epoch=source.epoch,
            quorum_generation=self._generation,
        )

    def _refusal(self, error: QuorateError) -> Frame[WatchHeader]:
        """Return the frame that ends a watch. A caller without the right learns nothing else."""
        is_refused = isinstance(error, AuthorizationError)
        header = WatchHeader(leader_id=-1) if is_refused else self._header()
        header.error.CopyFrom(to_wire(error))
        return Frame(header)


@dataclass(slots=True)
class _Cursor:
    """The position of a watcher."""

    offset: int
    #: The leader_epoch of the record before `offset`, in the watcher's log.
    last_epoch: int
    #: Whether the watcher's log was compared with this voter's. Before the comparison, the voter's
    #: high watermark must have reached `offset`.
    is_checked: bool = False


def span(batches: bytes) -> tuple[int, int]:
    """Return the base offset of the first batch, and the exclusive end offset of the last one."""
    headers = [header for header, _ in record_batch.split(batches)]
    return headers[0].base_offset, headers[-1].end_offset
