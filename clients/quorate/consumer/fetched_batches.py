"""Cuts the bytes of a fetch answer into batches, and checks that they follow one another."""

from __future__ import annotations

from quorate.consumer.partition_state import Batch
from quorate.errors import CorruptRecordError
from quorate.record.batch import NONE, BatchHeader, parse_header


def whole_batches(
    data: memoryview, fetch_offset: int, *, leader_epoch: int, gaps: bool = False
) -> tuple[list[Batch], int]:
    """Return the batches of a fetch answer, and their size in bytes.

    The first batch must begin at fetch_offset, and each further batch at the end of the batch
    before it. No CRC covers an offset, and a flipped bit in an offset would hide records silently.
    With `gaps` (the log is compacted) a batch may begin above this offset.

    No CRC covers the leader_epoch either. So it must be at most `leader_epoch`, the epoch of the
    leader that answered, and it must never fall. Otherwise a consumer would believe a flipped epoch
    and send it in each later fetch, and no leader would know it.

    The first bad or incomplete batch ends the list. It is then the first batch of the next answer,
    and CorruptRecordError says what is wrong with it. The CRC is checked later, when the records
    are read.
    """
    found: list[Batch] = []
    position, expected, epoch = 0, fetch_offset, NONE
    while position < len(data):
        try:
            header = _following(data, position, expected, gaps=gaps)
            if not epoch <= header.leader_epoch <= leader_epoch:
                raise CorruptRecordError(
                    f"the batch at offset {header.base_offset} says leader_epoch "
                    f"{header.leader_epoch}; {epoch} to {leader_epoch} may be"
                )
        except CorruptRecordError:
            if found:
                break
            raise
        end = position + header.size
        found.append((header, data[position:end]))
        position, expected, epoch = end, header.end_offset, header.leader_epoch
    return found, position


def _following(data: memoryview, position: int, expected: int, *, gaps: bool) -> BatchHeader:
    """Return the header of the batch that has offset `expected`, or with `gaps` follows it."""
    header = parse_header(data, position)
    if expected >= header.end_offset or (expected < header.base_offset and not gaps):
        raise CorruptRecordError(
            f"where offset {expected} should be is a batch of offsets "
            f"{header.base_offset} to {header.last_offset}"
        )
    if header.size > len(data) - position:
        raise CorruptRecordError(
            f"the batch with offset {expected} says {header.size} bytes, and "
            f"{len(data) - position} came"
        )
    return header
