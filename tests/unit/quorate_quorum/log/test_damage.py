"""At open a log reports damage: bytes of completed writes that are gone or changed."""

from __future__ import annotations

import errno
import random
from contextlib import suppress

import pytest

from quorate.errors import StorageError
from quorate_quorum.log import recovery_point
from quorate_quorum.log.directory import CORRUPT_FILE, DAMAGED_FILE
from quorate_quorum.log.disk_errors import (
    TryAgainError,
)
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_quorum.log.run_file import UNKNOWN, Run
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.builders import (
    FIRST,
    PATH,
    SALVAGE,
    SAME_BOOT,
    batch,
    reopened,
)

PLAIN = LogConfig()


async def written(
    *, end: int, committed: int = 0, config: LogConfig = PLAIN, clean: bool = False
) -> tuple[SimulatedDisk, list[int]]:
    """Return a disk with a log that was closed, and the positions of its batches and its end."""
    disk = SimulatedDisk(random.Random(1))
    await disk.make_directory("/data")
    log = await Log.open(disk, PATH, config)
    positions = [0]
    for offset in range(end):
        header, pieces = batch(offset)
        await log.append([(header, pieces)])
        positions.append(positions[-1] + header.size)
    if committed:
        await log.checkpoint_high_watermark(committed, 1)
    await log.close(clean=clean)
    return disk, positions


STOPPED = Run(marker_present=True, boot_id="boot-1", sync_failed=False, same_boot=False)


async def test_any_flipped_bit_of_a_completed_write_is_damage() -> None:
    """Also in the last batch: a torn write would leave it without its end.

    The epoch, which no CRC covers, is compared with that of the partition.
    """
    for at in (2, 4):
        for byte in range(109):
            for bit in (0, 3, 7):
                disk, positions = await written(end=5)
                assert positions[1] == 109
                disk.flip_bit(FIRST, positions[at] + byte, bit)
                log = await reopened(disk, SAME_BOOT)
                if 12 <= byte < 16:
                    assert log.last_epoch != 1 or log.recovered.damaged
                else:
                    assert log.recovered.damaged, (at, byte, bit)
                    assert log.log_end_offset == at


async def test_a_write_that_a_kill_interrupted_is_no_damage_wherever_it_ends() -> None:
    _, positions = await written(end=5)
    for size in range(positions[3], positions[5] + 1):
        disk, _ = await written(end=5)
        disk.put(FIRST, disk.content(FIRST)[:size])
        assert not (await reopened(disk, SAME_BOOT)).recovered.damaged, size


async def test_a_changed_length_is_damage_though_a_torn_write_follows() -> None:
    for torn in range(108):
        disk, positions = await written(end=5)
        disk.flip_bit(FIRST, positions[4] + 10, 4)
        disk.put(FIRST, disk.content(FIRST) + batch(5)[1][0][:torn])
        assert (await reopened(disk, SAME_BOOT)).recovered.damaged, torn


async def test_a_changed_length_is_damage_though_its_batch_has_changed_elsewhere_too() -> None:
    """Then no CRC tells where the batch ended, but the batches that follow it do."""
    disk, positions = await written(end=5)
    disk.flip_bit(FIRST, positions[2] + 10, 4)
    disk.flip_bit(FIRST, positions[2] + 90, 4)
    assert (await reopened(disk, SAME_BOOT)).recovered.damaged


async def test_a_torn_batch_of_records_that_hold_batches_is_no_damage() -> None:
    """Its bytes look like batches, but not like those that would follow here."""
    inner = b"".join(batch(offset)[1][0] for offset in range(5))
    disk, _ = await written(end=5)
    torn = batch(5, value=inner + b"x" * 100)[1][0][:-50]
    disk.put(FIRST, disk.content(FIRST) + torn)
    log = await reopened(disk, SAME_BOOT)
    assert (log.log_end_offset, log.recovered.damaged) == (5, "")
    assert log.recovered.cut_bytes == len(torn)


async def test_an_end_below_what_was_committed_is_damage() -> None:
    disk, positions = await written(end=5, committed=4)
    disk.put(FIRST, disk.content(FIRST)[: positions[4]])
    assert not (await reopened(disk, SAME_BOOT)).recovered.damaged
    disk.put(FIRST, disk.content(FIRST)[: positions[3]])
    assert "4 was committed" in (await reopened(disk, SAME_BOOT)).recovered.damaged


async def test_a_segment_that_is_gone_is_damage() -> None:
    disk, _ = await written(end=5, committed=4)
    await disk.remove(FIRST)
    log = await reopened(disk, SAME_BOOT)
    assert not log.has_segments
    assert "4 was committed" in log.recovered.damaged


async def test_a_bad_batch_that_was_found_is_remembered_until_it_is_cut() -> None:
    disk, positions = await written(end=5, clean=True)
    log = await Log.open(disk, PATH, PLAIN, run=SAME_BOOT)
    disk.flip_bit(FIRST, positions[2] + 70)
    await log.damage.forget_corrupt()
    await log.damage.note_corrupt()
    await log.close(clean=False)
    disk.lose_power()
    for _ in range(2):
        with pytest.raises(LogCorruptError, match="a bad batch was found"):
            await reopened(disk, SAME_BOOT)
    log = await reopened(disk, SAME_BOOT, SALVAGE)
    assert log.log_end_offset == 2
    assert (await reopened(disk, SAME_BOOT)).log_end_offset == 2


async def test_a_bad_batch_after_a_clean_stop_is_damage_though_the_slot_is_lost() -> None:
    disk, positions = await written(end=5, clean=True)
    await disk.remove(f"{PATH}/synced")
    disk.flip_bit(FIRST, positions[3] + 64)
    assert (await reopened(disk, STOPPED)).recovered.damaged


async def test_a_tail_that_the_power_took_is_not_called_damage() -> None:
    """The controller hears of it by the directory; with flush.on.ack it was never acknowledged."""
    disk, positions = await written(end=5)
    disk.flip_bit(FIRST, positions[3] + 64)
    log = await reopened(disk, UNKNOWN)
    assert log.recovered.lossy
    assert not log.recovered.damaged


async def test_with_flush_on_ack_an_end_below_what_was_committed_is_damage_in_any_boot() -> None:
    config = LogConfig(track_synced=True)
    disk, positions = await written(end=5, committed=4, config=config)
    disk.put(FIRST, disk.content(FIRST)[: positions[3]])
    assert (await reopened(disk, UNKNOWN, config)).recovered.damaged


async def test_damage_is_told_at_each_open_until_it_is_forgotten() -> None:
    """After a crash between the cut and the report, the log must not pass for whole."""
    disk, positions = await written(end=5)
    disk.flip_bit(FIRST, positions[2] + 64)
    for _ in range(2):
        assert (await reopened(disk, SAME_BOOT)).recovered.damaged
    log = await Log.open(disk, PATH, PLAIN, run=SAME_BOOT)
    await log.damage.forget_damage()
    await log.close(clean=False)
    assert not (await reopened(disk, SAME_BOOT)).recovered.damaged


async def test_damage_is_noted_durably_before_the_cut() -> None:
    """Wherever the power fails during an open, the next one sees the bad batch, or the note."""
    for stop in range(40):
        disk, positions = await written(end=5, clean=True)
        await disk.remove(f"{PATH}/synced")
        disk.flip_bit(FIRST, positions[2] + 64)
        left = [stop]

        def hook(name: str, path: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError("the power fails")

        disk.hook = hook
        with suppress(StorageError):
            await Log.open(disk, PATH, PLAIN, run=STOPPED)
        disk.hook = None
        disk.lose_power()
        log = await Log.open(disk, PATH, PLAIN, run=STOPPED)
        assert log.recovered.damaged, stop
        await log.close(clean=False)


async def test_a_corrupt_log_is_salvaged_up_to_the_first_bad_batch() -> None:
    disk, positions = await written(end=5, clean=True)
    disk.flip_bit(FIRST, positions[3] + 64)
    flipped = disk.content(FIRST)
    disk.put(FIRST, flipped[: positions[4]])  # the end is gone, so what was synced is not there
    with pytest.raises(LogCorruptError):
        await Log.open(disk, PATH, PLAIN, run=STOPPED)
    log = await Log.open(disk, PATH, SALVAGE, run=STOPPED)
    assert (log.log_end_offset, log.recovered.damaged != "") == (3, True)
    await log.append([batch(3)])
    await log.close(clean=False)
    log = await reopened(disk, SAME_BOOT)
    assert (log.log_end_offset, log.recovered.damaged != "") == (4, True)
    assert DAMAGED_FILE in disk.names(PATH)


async def test_salvage_finds_a_bad_batch_below_what_was_synced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery_point, "STOP_BYTES_MAX", 0)  # as a log that is not small is closed
    disk, positions = await written(end=5, config=LogConfig(index_interval_bytes=50), clean=True)
    disk.flip_bit(FIRST, positions[1] + 64)
    assert (await reopened(disk, STOPPED)).log_end_offset == 5, "a start does not look there"
    assert (await reopened(disk, STOPPED, SALVAGE)).log_end_offset == 1


async def noted_corrupt() -> SimulatedDisk:
    """A disk with a log in use with a bad batch below what was synced, when the power fails."""
    disk, positions = await written(end=5, config=LogConfig(index_interval_bytes=50), clean=True)
    log = await Log.open(disk, PATH, PLAIN, run=STOPPED)
    disk.flip_bit(FIRST, positions[1] + 64)
    await log.damage.note_corrupt()
    await log.close(clean=False)
    disk.lose_power()
    return disk


async def test_a_log_that_was_found_corrupt_in_use_opens_for_salvage_alone() -> None:
    """An open looks only above `synced`: the bad batch would be trusted again."""
    disk = await noted_corrupt()
    for run in (UNKNOWN, SAME_BOOT, STOPPED):
        with pytest.raises(LogCorruptError, match="not been repaired"):
            await Log.open(disk, PATH, PLAIN, run=run)
    log = await reopened(disk, UNKNOWN, SALVAGE)
    assert (log.log_end_offset, log.recovered.damaged != "") == (1, True)
    log = await reopened(disk, SAME_BOOT)
    assert (log.log_end_offset, log.recovered.damaged != "") == (1, True), "told until forgotten"


async def test_a_corruption_stays_noted_until_the_bad_batch_is_gone_for_good() -> None:
    """Wherever the power fails in a salvage: the next open is refused, or finds good batches."""
    for stop in range(60):
        disk = await noted_corrupt()
        left = [stop]

        def hook(name: str, path: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError("the power fails")

        disk.hook = hook
        with suppress(StorageError):
            await reopened(disk, UNKNOWN, SALVAGE)
        disk.hook = None
        disk.lose_power()
        with suppress(LogCorruptError):
            log = await reopened(disk, UNKNOWN)
            assert (log.log_end_offset, log.recovered.damaged != "") == (1, True), stop
    assert CORRUPT_FILE not in disk.names(PATH)


async def test_the_only_copy_forgets_that_it_is_corrupt() -> None:
    disk = await noted_corrupt()
    log = await reopened(disk, UNKNOWN, SALVAGE)
    for is_noted in (True, True, False, False):
        await (log.damage.note_corrupt() if is_noted else log.damage.forget_corrupt())
        assert (CORRUPT_FILE in disk.names(PATH)) == is_noted


async def test_a_note_that_can_not_be_made_leaves_the_log_as_it_was() -> None:
    disk, _ = await written(end=5)
    log = await Log.open(disk, PATH, PLAIN, run=SAME_BOOT)

    def full(name: str, path: str) -> None:
        if path.endswith(CORRUPT_FILE):
            raise OSError(errno.ENOSPC, "no room")

    disk.hook = full
    with pytest.raises(TryAgainError):
        await log.damage.note_corrupt()
    disk.hook = None
    await log.append([batch(5)])
    await log.close(clean=False)


@pytest.mark.parametrize("raised", [1, 2, 3])
async def test_a_salvage_keeps_no_batch_whose_epoch_was_raised(raised: int) -> None:
    """It would claim a later epoch, and take no batch of the leader after it: stuck for ever."""
    disk = SimulatedDisk(random.Random(1))
    await disk.make_directory("/data")
    log = await Log.open(disk, PATH, PLAIN)
    for offset in range(6):
        await log.append([batch(offset, epoch=4)])
    await log.close(clean=True)
    disk.flip_bit(FIRST, 109 * raised + 15, 0)  # the last byte of leader_epoch: 4 becomes 5
    salvaged = await Log.open(disk, PATH, SALVAGE)
    assert (salvaged.log_end_offset, salvaged.last_epoch) == (raised, 4)
    await salvaged.close(clean=False)


async def test_a_salvage_keeps_the_batches_before_one_whose_epoch_was_lowered() -> None:
    disk = SimulatedDisk(random.Random(1))
    await disk.make_directory("/data")
    log = await Log.open(disk, PATH, PLAIN)
    for offset in range(6):
        await log.append([batch(offset, epoch=5)])
    await log.close(clean=True)
    disk.flip_bit(FIRST, 109 * 3 + 15, 0)  # 5 becomes 4
    salvaged = await Log.open(disk, PATH, SALVAGE)
    assert (salvaged.log_end_offset, salvaged.last_epoch) == (3, 5)
    await salvaged.close(clean=False)
