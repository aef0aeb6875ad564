"""Which partition of __consumer_offsets a group belongs to: the same one as with Kafka."""

from __future__ import annotations

import array
import sys


def partition_of(group_id: str, partitions: int) -> int:
    """Return the partition of a group, for a topic of so many partitions.

    >>> partition_of("orders", 16)
    5
    """
    return (string_hash(group_id) & 0x7FFF_FFFF) % partitions


def string_hash(text: str) -> int:
    """Return Java's String.hashCode as an unsigned number of 32 bits.

    Java counts UTF-16 units: a character beyond the first 65,536 is two of them.

    >>> string_hash("hello"), string_hash("")
    (99162322, 0)
    """
    units = array.array("H", text.encode("utf-16-be", "surrogatepass"))
    if sys.byteorder == "little":
        units.byteswap()
    found = 0
    for unit in units:
        found = (31 * found + unit) & 0xFFFF_FFFF
    return found
