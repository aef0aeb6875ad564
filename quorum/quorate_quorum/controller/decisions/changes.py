"""What an operator reads in the controller's log: one line for each committed change."""

from __future__ import annotations

from itertools import islice
from typing import Final

from quorate_quorum.metadata.aspect import Line
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage

#: Lines for one batch of the metadata log; a last line then says how many changes are not shown.
LINES_MAX: Final = 100


def lines(delta: MetadataDelta, image: MetadataImage) -> list[Line]:
    """Return the lines that the aspects word, up to the bound.

    Partitions have none: the brokers log every change of a role and of an ISR. The cost grows with
    the length of the delta, not of the image.
    """
    found = delta.lines(image)
    shown = list(islice(found, LINES_MAX))
    more = sum(1 for _ in found)
    return [*shown, ("changes_not_shown", {"count": more})] if more else shown
