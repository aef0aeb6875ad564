"""From committed bytes to images: the one way in, for voters, brokers and a restart alike.

Bytes in, (delta, image) pairs out, one per batch, since a batch is applied whole. Two jumps leave
the old image in place until the new one is whole: a snapshot (`load_snapshot_part`, then
`finish_snapshot`) and a start from offset 0 (`start_over`); their delta is the difference, so that
what went inside the gap is seen to go.
"""

from __future__ import annotations

from quorate.errors import CorruptRecordError
from quorate.record import batch as record_batch
from quorate_quorum.log.events import Buffer, decode_events
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import EMPTY, MetadataImage

Loaded = tuple[MetadataDelta, MetadataImage]


class Loader:
    """Follows the metadata log. `shown` is the image that listeners know."""

    def __init__(self, image: MetadataImage = EMPTY) -> None:
        self.shown = image
        self._jump: _Jump | None = None

    @property
    def image(self) -> MetadataImage:
        """Where loading stands: its offset is that of the batch to load next, its epoch that of
        the record before. Listeners know it too, except in the middle of a jump.
        """
        return self.shown if self._jump is None else self._jump.image

    def load(self, batches: Buffer) -> list[Loaded]:
        """Apply whole committed batches; return what to show, in order.

        Batches that are applied already are passed over. CorruptRecordError: the bytes are not
        batches of events, or leave a gap; nothing of the batch at fault is applied.
        """
        loaded: list[Loaded] = []
        for header, batch in record_batch.split(batches):
            if header.end_offset <= self.image.offset:
                continue
            if header.base_offset != self.image.offset:
                raise CorruptRecordError(
                    f"metadata batch at {header.base_offset}, expected {self.image.offset}"
                )
            shown = self._load_batch(batch, header.end_offset, header.leader_epoch)
            if shown is not None:
                loaded.append(shown)
        return loaded

    def _load_batch(self, batch: memoryview, end: int, epoch: int) -> Loaded | None:
        events = decode_events(batch)
        image = self.image
        if image.offset + len(events) != end or epoch < image.epoch:
            raise CorruptRecordError(
                f"metadata batch of {len(events)} events and epoch {epoch} ends at {end},"
                f" after offset {image.offset} and epoch {image.epoch}"
            )
        delta = MetadataDelta(image)
        for index, event in enumerate(events):
            delta.replay(event, offset=image.offset + index)
        after = delta.finish(end, epoch)
        if self._jump is not None:
            self._jump.image = after
            return self._land() if after.offset >= self._jump.until else None
        self.shown = after
        return delta, after

    def start_over(self, until: int = 1) -> None:
        """Load again from offset 0; nothing is shown before the image has reached `until`.

        `until`: the high watermark of who said so, so that no older world is shown than there is.
        """
        self._jump = _Jump(EMPTY, until)

    def load_snapshot_part(self, batches: Buffer) -> None:
        """Take in a part of a snapshot: whole batches of events, in order. The first part after
        anything else begins anew from the empty image. CorruptRecordError as for load.
        """
        if self._jump is None or self._jump.snapshot is None:
            self._jump = _Jump(EMPTY, 0, snapshot=MetadataDelta(EMPTY))
        assert self._jump.snapshot is not None, "just made"
        for _, batch in record_batch.split(batches):
            for event in decode_events(batch):
                self._jump.snapshot.replay(event)

    def finish_snapshot(self, offset: int, epoch: int) -> Loaded:
        """Show the snapshot that was loaded; it stands for the log below `offset`."""
        if self._jump is None or self._jump.snapshot is None:
            raise CorruptRecordError("the end of a snapshot of which no part came")
        if offset < 0 or epoch < -1:
            raise CorruptRecordError(f"a snapshot at offset {offset}, epoch {epoch}")
        self._jump.image = self._jump.snapshot.finish(offset, epoch)
        return self._land()

    def _land(self) -> Loaded:
        assert self._jump is not None, "under way"
        delta = MetadataDelta.between(self.shown, self._jump.image)
        self.shown, self._jump = self._jump.image, None
        return delta, self.shown


class _Jump:
    """An image that is being built beside the one that listeners see."""

    def __init__(
        self, image: MetadataImage, until: int, *, snapshot: MetadataDelta | None = None
    ) -> None:
        self.image = image
        self.until = until
        self.snapshot = snapshot
