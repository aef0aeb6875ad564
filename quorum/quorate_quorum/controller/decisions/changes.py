"""The controller's log lines for operators: one for each committed change of the image."""

from __future__ import annotations

from itertools import islice
from typing import Final

from quorate_quorum.metadata.aspect import Line
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage

#: The most lines for one batch of the metadata log. One more line counts the changes left out.
LINES_MAX: Final = 100


def lines(delta: MetadataDelta, image: MetadataImage) -> list[Line]:
    """Return the log lines for a delta, at most LINES_MAX and one that counts the others.

    A partition has no line: the brokers log every change of a role and of an ISR. The work grows
    with the size of the delta, not with the size of the image.
    """
    found = delta.lines(image)
    shown = list(islice(found, LINES_MAX))
    more = sum(1 for _ in found)
    return [*shown, ("changes_not_shown", {"count": more})] if more else shown
