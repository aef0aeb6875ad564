"""Slot files: two numbers, never half written."""

from __future__ import annotations

import struct

import pytest
from crc32c import crc32c

from quorate.errors import StorageError
from quorate_quorum.log.slots import SLOT_BYTES, SlotFile
from tests.unit.quorate_quorum.log.builders import (
    new_disk,
)


async def test_a_slot_file_outlives_a_torn_write_and_refuses_a_newer_version() -> None:
    disk = await new_disk()
    slots = SlotFile(disk, "/data/slots")
    await slots.write(5, 1)
    await slots.write(7, 2)
    content = bytearray(disk.content("/data/slots"))
    content[20] ^= 1  # the slot of sequence 2
    disk.put("/data/slots", bytes(content))
    slots = SlotFile(disk, "/data/slots")
    await slots.load()
    assert slots.value == (5, 1)

    body = struct.pack(">4sIQqq", b"QSLT", 2, 9, 9, 9)
    newer = body + struct.pack(">I", crc32c(body))
    disk.put("/data/slots", newer + bytes(2 * SLOT_BYTES - len(newer)))
    with pytest.raises(StorageError, match="version 2"):
        await SlotFile(disk, "/data/slots").load()
