"""Checks that a closed segment ends where the next one begins, and fits its checksum file.

Without this check, the log would not show that a closed segment is gone or has lost its end.
"""

from __future__ import annotations

from quorate_quorum.disk import Disk
from quorate_quorum.log.checksum import misfit
from quorate_quorum.log.segment import Segment


async def gap_after(disk: Disk, segment: Segment, next_base: int) -> str | None:
    """Return what is wrong at the end of a closed segment; None if nothing is wrong.

    The check reads only the batches from the index's last entry on.
    """
    position = await _near_the_end(segment)
    end = segment.base_offset
    while position < segment.size:
        chunk = await segment.scan(position, checked=False)
        if chunk.bad is not None:
            return f"{segment.file.path}: {chunk.bad}"
        end = chunk.found[-1][1].end_offset
        position = chunk.position
    if end == next_base:
        return await misfit(disk, segment, next_base)
    return f"{segment.file.path} ends at {end}, and the next segment begins at {next_base}"


async def _near_the_end(segment: Segment) -> int:
    """Return the position of a batch near the end: of the index's last entry on disk, or 0."""
    last_offset, position = await segment.last_entry_on_disk()
    if position < segment.size and await segment.names_a_batch(last_offset, position):
        return position
    return 0
