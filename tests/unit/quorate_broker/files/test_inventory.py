"""Which replicas were ever written, remembered outside their directories."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

import pytest

from quorate.errors import StorageError
from quorate_broker.files.inventory import FILE_NAME, SLOT_BYTES, SLOTS_ADDED, Inventory
from quorate_broker.replica.replica import Key
from quorate_quorum.log.disk_errors import DiskFullError
from quorate_testing.simulated.disk import SimulatedDisk

PATH = f"/data/{FILE_NAME}"
KEYS: list[Key] = [(bytes([number]) * 16, number) for number in range(1, 40)]


async def new_disk() -> SimulatedDisk:
    disk = SimulatedDisk(random.Random(1))
    await disk.make_directory("/data")
    return disk


async def opened(
    disk: SimulatedDisk, placed: Iterable[Key] = KEYS, *, has_run: bool = True
) -> Inventory:
    return await Inventory.open(disk, "/data", placed, has_run=has_run)


async def noted(disk: SimulatedDisk, *keys: Key) -> Inventory:
    inventory = await opened(disk, has_run=False)
    for key in keys:
        await inventory.make_room()
        await inventory.note(key)
    return inventory


def known(inventory: Inventory) -> list[Key]:
    return [key for key in KEYS if inventory.has(key)]


async def test_what_was_noted_survives_a_power_loss_and_nothing_else_is_known() -> None:
    disk = await new_disk()
    await noted(disk, *KEYS[:3])
    disk.lose_power()
    again = await opened(disk)
    assert known(again) == KEYS[:3]
    await again.forget(KEYS[1])
    disk.lose_power()
    assert known(await opened(disk)) == [KEYS[0], KEYS[2]]


async def test_what_is_placed_here_no_longer_is_dropped() -> None:
    disk = await new_disk()
    await noted(disk, *KEYS[:3])
    await opened(disk, KEYS[:1])
    assert known(await opened(disk)) == KEYS[:1]


async def test_notes_at_the_same_time_share_a_sync() -> None:
    disk = await new_disk()
    inventory = await noted(disk)
    for _ in KEYS:
        await inventory.make_room()
    syncs: list[str] = []
    disk.hook = lambda name, path: syncs.append(path) if name == "sync" else None
    disk.latency_max = 0.01
    await asyncio.gather(*(inventory.note(key) for key in KEYS))
    assert len(syncs) <= 2
    disk.lose_power()
    assert known(await opened(disk)) == KEYS


@pytest.mark.parametrize("has_run", [True, False])
async def test_one_that_is_gone_means_that_all_was_written_if_there_was_a_run(
    has_run: bool,
) -> None:
    disk = await new_disk()
    inventory = await opened(disk, KEYS[:5], has_run=has_run)
    assert known(inventory) == (KEYS[:5] if has_run else [])
    assert known(await opened(disk)) == known(inventory), "and it stays so until it is told"


async def test_any_flipped_bit_of_a_slot_means_that_all_was_written() -> None:
    for byte in range(SLOT_BYTES):
        disk = await new_disk()
        await noted(disk, *KEYS[:3])
        disk.flip_bit(PATH, SLOT_BYTES + byte)
        assert known(await opened(disk)) == KEYS, byte


@pytest.mark.parametrize("count", [0, 3, SLOTS_ADDED - 1, SLOTS_ADDED, SLOTS_ADDED + 1])
async def test_one_that_is_cut_anywhere_means_that_all_was_written(count: int) -> None:
    keys = [(bytes([number]) * 16, number) for number in range(1, count + 1)]
    disk = await new_disk()
    await noted(disk, *keys)
    content = disk.content(PATH)
    for length in {0, 1, *range(SLOT_BYTES, (count + 1) * SLOT_BYTES, SLOT_BYTES // 2)}:
        disk.put(PATH, content[:length])
        assert known(await opened(disk)) == KEYS, length
    disk.put(PATH, content)
    assert known(await opened(disk)) == [key for key in KEYS if key in keys]


async def test_a_slot_stays_free_at_the_end_whatever_is_forgotten() -> None:
    disk = await new_disk()
    inventory = await noted(disk, *KEYS[:4])
    for _ in range(SLOTS_ADDED):
        await inventory.forget(KEYS[0])
        await inventory.make_room()
        await inventory.note(KEYS[0])
        assert disk.content(PATH).endswith(bytes(SLOT_BYTES))
    await inventory.forget(KEYS[0])
    assert known(await opened(disk)) == KEYS[1:4]


async def test_a_note_that_a_crash_interrupted_counts_for_nothing() -> None:
    for kept in range(SLOT_BYTES):
        disk = await new_disk()
        await noted(disk, *KEYS[:2])
        content = disk.content(PATH)
        torn = content[SLOT_BYTES : SLOT_BYTES + kept].ljust(SLOT_BYTES, b"\0")
        disk.put(PATH, content[:SLOT_BYTES] + torn + content[2 * SLOT_BYTES :])
        assert known(await opened(disk)) == KEYS[:1], kept


async def test_a_note_needs_no_room_once_its_slot_is_made() -> None:
    disk = await new_disk()
    inventory = await noted(disk)
    await inventory.make_room()
    disk.fill()
    await inventory.note(KEYS[0])
    for _ in range(SLOTS_ADDED - 1):
        await inventory.make_room()
    with pytest.raises(DiskFullError):
        await inventory.make_room()
    disk.fill(None)
    await inventory.make_room()
    await inventory.note(KEYS[1])
    assert known(await opened(disk)) == KEYS[:2]


async def test_a_note_that_failed_is_not_known() -> None:
    disk = await new_disk()
    inventory = await noted(disk, KEYS[0])
    await inventory.make_room()
    disk.fail_next_sync()
    with pytest.raises(StorageError):
        await inventory.note(KEYS[1])
    assert not inventory.has(KEYS[1])


async def test_the_file_does_not_grow_with_what_comes_and_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quorate_broker.files.inventory.STALE_MAX", 50)
    disk = await new_disk()
    inventory = await noted(disk, KEYS[0])
    for _ in range(300):
        await inventory.make_room()
        await inventory.note(KEYS[1])
        await inventory.forget(KEYS[1])
    assert await disk.size(PATH) < 400 * SLOT_BYTES
    assert known(await opened(disk)) == KEYS[:1]


async def test_a_start_on_a_full_disk_knows_what_was_written_and_goes_on() -> None:
    disk = await new_disk()
    await noted(disk, *KEYS[:3])
    disk.fill()
    full = await opened(disk, KEYS[:2])
    assert known(full) == KEYS[:2]
    disk.fill(None)
    await full.make_room()
    await full.note(KEYS[5])
    assert known(await opened(disk)) == [*KEYS[:3], KEYS[5]]
