"""Record batches that no producer sends: of good ones, some fields and bytes are changed.

In most of them the CRC is right again, so that the changes reach the code behind the check.
"""

from __future__ import annotations

import gzip
import random
import struct
from collections.abc import Callable
from functools import cache
from typing import Final

from crc32c import crc32c

from quorate.record.batch import HEADER, HEADER_BYTES, BatchBuilder
from quorate.record.compression import NAMES
from quorate.record.record import varint

TIME_MS: Final = 1_700_000_000_000
_LENGTH_AT: Final = 8
_CRC_AT: Final = 17
_ATTRIBUTES_AT: Final = 21
#: The fields that are worth a change: place and format.
FIELDS: Final = (
    (0, ">q"),  # base_offset
    (_LENGTH_AT, ">i"),
    (12, ">i"),  # leader_epoch
    (16, ">b"),  # magic
    (_ATTRIBUTES_AT, ">h"),
    (23, ">i"),  # last_offset_delta
    (27, ">q"),  # base_timestamp
    (35, ">q"),  # max_timestamp
    (43, ">q"),  # producer_id
    (51, ">h"),  # producer_epoch
    (53, ">i"),  # base_sequence
    (57, ">i"),  # count
)
_BITS: Final = {"b": 8, "h": 16, "i": 32, "q": 64}
#: What a bomb of compression unpacks to.
BOMB_BYTES: Final = 4 << 20


def good(chance: random.Random) -> bytes:
    """Return a batch as a producer makes it."""
    fields = {"codec": chance.choice((0, 0, 0, *range(len(NAMES))))}
    if chance.random() < 0.3:
        fields |= {
            "producer_id": chance.randrange(3),
            "producer_epoch": 0,
            "base_sequence": chance.choice((0, 0, 1, 2**31 - 1)),
        }
    builder = BatchBuilder(**fields)
    for number in range(chance.choice((1, 1, 2, 10))):
        key = chance.choice((b"key", b"%d" % number, b"", None))
        value = chance.choice((b"value", b"", None, b"v" * 200))
        builder.append(TIME_MS + number, key, value, chance.choice(((), (("h", b"v"),))))
    return builder.build()


def hostile(chance: random.Random) -> bytes:
    """Return a batch in which something is wrong; sometimes more than one thing."""
    data = bytearray(good(chance))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        chance.choice(CHANGES)(chance, data)
    if chance.random() < 0.8:
        mend(data, length=chance.random() < 0.7)
    return bytes(data)


def mend(data: bytearray, *, length: bool) -> None:
    """Make the CRC right, and the length on request."""
    if len(data) < HEADER_BYTES:
        return
    if length:
        struct.pack_into(">i", data, _LENGTH_AT, len(data) - 12)
    struct.pack_into(">I", data, _CRC_AT, crc32c(bytes(data[_ATTRIBUTES_AT:])))


def _field(chance: random.Random, data: bytearray) -> None:
    place, form = chance.choice(FIELDS)
    bits = _BITS[form[1]]
    top = 1 << (bits - 1)
    value = chance.choice((0, -1, 1, top - 1, -top, chance.randrange(-top, top), 5))
    if len(data) >= HEADER_BYTES:
        struct.pack_into(form, data, place, value)


def _byte(chance: random.Random, data: bytearray) -> None:
    if len(data) > HEADER_BYTES:
        data[chance.randrange(HEADER_BYTES, len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))


def _cut(chance: random.Random, data: bytearray) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _longer(chance: random.Random, data: bytearray) -> None:
    data += chance.choice((chance.randbytes(chance.randrange(40)), bytes(data)))


def _records(chance: random.Random, data: bytearray) -> None:
    """Put records of chance behind the header: lengths and counts that lie."""
    worst = (b"\xff" * 9 + b"\x01", varint(2**31 - 1), varint(1 << 20), b"\x01", b"\x00", b"\x7f")
    pieces = [chance.choice((*worst, chance.randbytes(6))) for _ in range(chance.randrange(1, 8))]
    data[HEADER_BYTES:] = b"".join(pieces)


def _bomb(chance: random.Random, data: bytearray) -> None:
    """Put records there that unpack to megabytes, or to nothing that is a record."""
    codec, packed = chance.choice(_bombs())
    data[HEADER_BYTES:] = packed
    if len(data) >= HEADER_BYTES:
        struct.pack_into(">h", data, _ATTRIBUTES_AT, codec)


CHANGES: Final[tuple[Callable[[random.Random, bytearray], None], ...]] = (
    _field,
    _field,
    _field,
    _byte,
    _byte,
    _cut,
    _longer,
    _records,
    _bomb,
)


@cache
def _bombs() -> tuple[tuple[int, bytes], ...]:
    from quorate.record.compression import compress

    plain = bytes(BOMB_BYTES)
    found = [(codec, compress(codec, plain)) for codec in range(1, len(NAMES))]
    found.append((1, gzip.compress(b"no record")))
    found += [(codec, b"\xff\x00" * 20) for codec in range(1, len(NAMES))]
    return tuple(found)


assert HEADER.size == HEADER_BYTES
