"""Makes images from committed bytes: for voters, for brokers, and after a restart.

A Loader takes bytes and returns (delta, image) pairs, one for each batch. A batch is applied as a
whole.

A jump means that the images between two offsets are skipped. It builds a second image beside the
shown one: from a snapshot (`load_snapshot_part`, then `finish_snapshot`), from offset 0
(`start_over`), or from a snapshot and then the log. The second image is shown when it is complete
and no older than the shown one. Its delta is the difference between the two images, so that
everything that disappeared in between counts as removed. A jump that is interrupted is dropped as a
whole: parts of two images are never joined into one.
"""

from __future__ import annotations

from collections.abc import Iterator

from quorate.errors import CorruptRecordError
from quorate.record import batch as record_batch
from quorate.record.batch import BatchHeader
from quorate_quorum.log.events import Buffer, decode_events
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.node.features import SUPPORTED, Known

Loaded = tuple[MetadataDelta, MetadataImage]

#: The most bytes that one turn of the event loop loads: a few milliseconds of work. A larger batch
#: is loaded alone.
TURN_BYTES = 16 * 1024


def turns(batches: Buffer) -> Iterator[memoryview]:
    """Split whole batches into pieces, so that one turn of the event loop loads one piece.

    Raises CorruptRecordError if the last batch is incomplete.
    """
    view = memoryview(batches)
    start = end = 0
    for header, _ in record_batch.split(view):
        if end > start and end + header.size - start > TURN_BYTES:
            yield view[start:end]
            start = end
        end += header.size
    if end > start:
        yield view[start:end]


class Loader:
    """Follows the metadata log. `shown` is the newest image that was returned to be shown.

    Raises UnknownLevelError for an event that sets a feature to a level that is not in `known`.
    """

    def __init__(self, image: MetadataImage = EMPTY, known: Known | None = SUPPORTED) -> None:
        self._known = known
        self.shown = image
        self._jump: _Jump | None = None

    @property
    def image(self) -> MetadataImage:
        """The image as loaded so far. The next batch must begin at its offset.

        During a jump, this is the second image; otherwise, the shown one.
        """
        return self.shown if self._jump is None else self._jump.image

    def load(self, batches: Buffer) -> list[Loaded]:
        """Apply whole committed batches. Return the images to show, in order.

        Batches that are applied already are ignored. Raises CorruptRecordError if the bytes are not
        batches of events, leave a gap, or come in the middle of a snapshot. Nothing of such a batch
        is applied.
        """
        if self._jump is not None and self._jump.snapshot is not None:
            raise CorruptRecordError("a batch of the log in the middle of a snapshot")
        loaded: list[Loaded] = []
        for header, batch in record_batch.split(batches):
            if header.end_offset <= self.image.offset:
                continue
            if header.base_offset != self.image.offset:
                raise CorruptRecordError(
                    f"metadata batch at {header.base_offset}, expected {self.image.offset}"
                )
            loaded.extend(self._load_batch(batch, header))
        return loaded

    def _load_batch(self, batch: memoryview, header: BatchHeader) -> list[Loaded]:
        end, epoch = header.end_offset, header.leader_epoch
        events = decode_events(batch, self._known)
        image = self.image
        if image.offset + len(events) != end or epoch < image.epoch:
            raise CorruptRecordError(
                f"metadata batch of {len(events)} events and epoch {epoch} ends at {end},"
                f" after offset {image.offset} and epoch {image.epoch}"
            )
        delta = MetadataDelta(image)
        for index, event in enumerate(events):
            delta.replay(event, offset=image.offset + index, time_ms=header.base_timestamp)
        after = delta.finish(end, epoch)
        if self._jump is not None:
            self._jump.image = after
            return self._land()
        self.shown = after
        return [(delta, after)]

    def start_over(self, until: int = 1, *, generation: int = 0) -> None:
        """Begin a jump from the empty image. A snapshot, or the log from offset 0, must follow.

        The new image is shown only after it has reached the shown image's epoch, and `until`, the
        high watermark of the voter that asked for the jump. So no image is shown that is older than
        the last one. `generation`: the quorum_generation that the jump leads into, if it is a new
        one; else 0. The epochs of a new generation are not compared with those of the old one.
        """
        self._jump = _Jump(EMPTY, until, generation)

    @property
    def jumps_into(self) -> int:
        """The new quorum_generation that the jump leads into; 0 without a jump into a new one."""
        return 0 if self._jump is None else self._jump.generation

    def give_up(self) -> None:
        """Drop the current jump, if there is one. Later batches continue the shown image."""
        self._jump = None

    def load_snapshot_part(self, batches: Buffer) -> None:
        """Load a part of a snapshot: whole batches of events, in order.

        The first part begins a jump, unless start_over has just begun one. Raises
        CorruptRecordError if the bytes are not batches of events.
        """
        jump = self._jump
        if jump is None or (jump.snapshot is None and jump.image.offset > 0):
            jump = self._jump = _Jump(EMPTY, self.shown.offset, 0)
        if jump.snapshot is None:
            jump.snapshot = MetadataDelta(EMPTY)
        for _, batch in record_batch.split(batches):
            for event in decode_events(batch, self._known):
                jump.snapshot.replay(event)
        jump.snapshot.topics.finish_drafts()

    def finish_snapshot(self, offset: int, epoch: int) -> list[Loaded]:
        """End the snapshot, which replaces the log below `offset`. Return the images to show.

        The list is empty if the jump must reach a higher offset; then the log from `offset` must
        follow. Raises CorruptRecordError if no part came, or the offset or epoch is out of range.
        """
        if self._jump is None or self._jump.snapshot is None:
            raise CorruptRecordError("the end of a snapshot of which no part came")
        if offset < 0 or epoch < -1:
            raise CorruptRecordError(f"a snapshot at offset {offset}, epoch {epoch}")
        self._jump.image = self._jump.snapshot.finish(offset, epoch)
        self._jump.snapshot = None
        return self._land()

    def _land(self) -> list[Loaded]:
        """If the image of the jump is new enough, end the jump and return the image; else []."""
        assert self._jump is not None, "under way"
        image = self._jump.image
        is_older = image.epoch < self.shown.epoch and not self._jump.generation
        if image.offset < self._jump.until or is_older:
            return []
        delta = MetadataDelta.between(self.shown, image)
        delta.generation = self._jump.generation
        self.shown, self._jump = image, None
        return [(delta, image)]


class _Jump:
    """An image that is built beside the shown one.

    `snapshot` is not None between the first part of a snapshot and its end.
    """

    def __init__(self, image: MetadataImage, until: int, generation: int) -> None:
        self.image = image
        self.until = until
        self.generation = generation
        self.snapshot: MetadataDelta | None = None
