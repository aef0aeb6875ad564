"""What a consumer gets from one partition: batches, or the broker from which it should read."""

from __future__ import annotations

from typing import Final, NamedTuple

#: The value of Fetched.read_replica if the consumer should go on reading here.
HERE: Final = -1


class Fetched(NamedTuple):
    """Whole batches below the high watermark, with the high watermark and the log's start.

    `read_replica`: the broker from which the consumer should read instead. Then there are no
    batches.
    """

    batches: bytes
    high_watermark: int
    log_start_offset: int
    has_gaps: bool = False
    read_replica: int = HERE
