"""quorate storage verify: every kind of damage is found, and a sound disk has no fault."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from quorate.record.batch import parse_header
from quorate_quorum.log.epochs import EpochCache, decode
from quorate_quorum.log.events import encode_events
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.real_disk import RealDisk
from quorate_quorum.log.slots import SLOT_BYTES
from quorate_quorum.raft.driver.quorum_state import encode_state
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.v1.events_pb2 import EpochStart, MetadataEvent
from tests.unit.quorate_cli.inspect.builders import (
    DAMAGED,
    batch,
    compact_partition,
    dumped,
    make_partition,
    make_voter,
    run,
    snapshot_of,
    trim_partition,
)


def verified(path: Path) -> tuple[int, list[dict[str, Any]]]:
    result = run("storage", "verify", str(path), "-o", "json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert rows[-1]["kind"] == "verified", result.output
    return result.exit_code, rows[:-1]


def verified_while_locked(disk: Path) -> tuple[int, list[dict[str, Any]]]:
    descriptor = os.open(disk / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return verified(disk / "t-0")
    finally:
        os.close(descriptor)


def flip(path: Path, at: int, bits: int = 16) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= bits
    path.write_bytes(data)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    asyncio.run(make_voter(tmp_path))
    asyncio.run(make_partition(tmp_path / "t-0"))
    assert verified(tmp_path) == (0, [])
    return tmp_path


def test_a_sound_disk_has_no_fault_and_is_left_as_it_was(disk: Path) -> None:
    before = snapshot_of(disk)
    assert run("storage", "verify", str(disk)).exit_code == 0
    assert snapshot_of(disk) == before


@pytest.mark.parametrize("pattern", DAMAGED)
def test_a_damaged_file_is_named(disk: Path, pattern: str) -> None:
    path = sorted(disk.glob(pattern))[0]
    path.write_bytes(b"\xff" * 13)

    for asked in (disk, path.parent, *([path] if path.suffix != ".index" else [])):
        status, rows = verified(asked)
        assert status == 1
        assert str(path) in [row["file"] for row in rows if row["kind"] == "fault"]


def test_a_flipped_bit_is_found_where_it_lies(disk: Path) -> None:
    path = disk / "t-0" / "00000000000000000000.log"
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    status, rows = verified(disk / "t-0")
    assert status == 1
    assert [(row["file"], row["position"]) for row in rows] == [(str(path), 0)]


def test_a_segment_that_is_missing_is_found(disk: Path) -> None:
    segments = sorted((disk / "t-0").glob("*.log"))
    segments[1].unlink()
    _, rows = verified(disk / "t-0")
    assert any("is the next" in row["what"] for row in rows)


def test_an_entry_of_an_index_that_names_no_batch_is_found(disk: Path) -> None:
    for path in (next((disk / "t-0").glob("*.index")), next((disk / "t-0").glob("*.timeindex"))):
        data = bytearray(path.read_bytes())
        data[7] ^= 1
        path.write_bytes(data)
        _, rows = verified(disk / "t-0")
        assert any(row["file"] == str(path) and "no batch has" in row["what"] for row in rows)


def test_the_checkpoint_may_lead_by_one_entry_at_the_end(disk: Path) -> None:
    path = disk / "t-0" / "leader-epoch-checkpoint"
    known = decode(path.read_bytes())
    assert known is not None
    path.write_bytes(EpochCache([*known.entries, (9, 180)]).encode())
    assert verified(disk / "t-0") == (0, [])
    path.write_bytes(EpochCache([*known.entries, (9, 180), (10, 190)]).encode())
    assert verified(disk / "t-0")[0] == 1
    path.write_bytes(EpochCache(known.entries[:1]).encode())
    assert verified(disk / "t-0")[0] == 1
    path.unlink()
    assert verified(disk / "t-0")[0] == 1


def test_a_slot_torn_by_a_crash_is_legal_and_a_lost_end_is_not(disk: Path) -> None:
    path = disk / "t-0" / "synced"
    data = bytearray(path.read_bytes())
    data[SLOT_BYTES + 9] ^= 1
    path.write_bytes(data)
    assert verified(disk / "t-0")[0] == 0
    last = sorted((disk / "t-0").glob("*.log"))[-1]
    last.write_bytes(b"")
    assert any("the log ends at" in row["what"] for row in verified(disk / "t-0")[1])


def test_a_torn_last_write_is_a_note_on_a_locked_directory_only(disk: Path) -> None:
    last = sorted((disk / "t-0").glob("*.log"))[-1]
    with last.open("ab") as file:
        file.write(batch(180, 3, 4)[:70])
    assert verified(disk)[0] == 1
    status, rows = verified_while_locked(disk)
    assert status == 0
    assert [(row["kind"], row["file"]) for row in rows] == [("note", str(last))]


@pytest.mark.parametrize("at", [5, 8, 16, 80])
def test_a_bad_batch_before_good_ones_is_a_fault_of_a_running_node_too(disk: Path, at: int) -> None:
    """No write under way leaves good batches behind it. `at`: a byte of each part of a batch."""
    last = sorted((disk / "t-0").glob("*.log"))[-1]
    sizes = [row["size"] for row in dumped(last) if row["kind"] == "batch"]
    position = sum(sizes[:3])
    flip(last, position + at)
    status, rows = verified_while_locked(disk)
    faults = [row for row in rows if row["kind"] == "fault" and row["file"] == str(last)]
    assert status == 1
    assert faults[0]["position"] == position
    assert "byte 0" not in faults[0]["what"]


@pytest.mark.parametrize("at", [8, 16, 80])
def test_a_bad_last_batch_of_a_running_node_may_be_a_write_under_way(disk: Path, at: int) -> None:
    last = sorted((disk / "t-0").glob("*.log"))[-1]
    size = [row["size"] for row in dumped(last) if row["kind"] == "batch"][-1]
    position = last.stat().st_size - size
    flip(last, position + at)
    _, rows = verified_while_locked(disk)
    notes = [row["what"] for row in rows if row["kind"] == "note" and row["file"] == str(last)]
    assert len(notes) == 1
    assert f"byte {position}" in notes[0]
    assert "byte 0" not in notes[0]


def test_a_log_above_0_without_its_snapshot_is_found(disk: Path) -> None:
    metadata = disk / "__cluster_metadata-0"
    (metadata / "00000000000000000000.log").rename(metadata / "00000000000000000009.log")
    _, rows = verified(metadata)
    assert any("no snapshot reaches up to it" in row["what"] for row in rows)


def test_an_epoch_that_no_epoch_start_began_is_found(disk: Path) -> None:
    """A batch's epoch lies outside its CRC, and a voter does not start with such a log."""
    path = disk / "__cluster_metadata-0" / "00000000000000000000.log"
    data = bytearray(path.read_bytes())
    data[15] ^= 4
    path.write_bytes(data)
    status, rows = verified(disk)
    assert status == 1
    assert (str(path), 0) in [(row["file"], row.get("position")) for row in rows]
    said = [row["what"] for row in rows if row["file"] == str(path)]
    assert len(said) == 1
    assert "no EpochStart since epoch 0 begins that" in said[0]


def test_a_quorum_state_that_is_older_than_the_log_is_found(disk: Path) -> None:
    metadata = disk / "__cluster_metadata-0"
    path = metadata / "00000000000000000000.log"
    end = parse_header(path.read_bytes()).end_offset
    event = MetadataEvent(epoch_start=EpochStart(epoch=3))
    with path.open("ab") as file:
        file.write(encode_events([event], base_offset=end, epoch=3, timestamp_ms=0))
    (metadata / "leader-epoch-checkpoint").write_bytes(EpochCache([(0, 0), (3, end)]).encode())
    assert verified(disk) == (0, [])
    (metadata / "quorum-state").write_bytes(encode_state(HardState(2)))
    _, rows = verified(disk)
    assert [row["what"] for row in rows] == ["it says epoch 2, and the log has epoch 3"]
    (metadata / "quorum-state").unlink()
    _, rows = verified(disk)
    assert [row["what"] for row in rows] == ["it is missing, and the log has epoch 3"]


def test_the_folder_around_log_directories_is_refused_and_they_are_named(tmp_path: Path) -> None:
    """Else a few files of it would be "verified", and the logs in it not looked at."""
    asyncio.run(make_voter(tmp_path / "voter" / "data"))
    for verb in ("verify", "dump"):
        result = run("storage", verb, str(tmp_path / "voter"))
        assert result.exit_code == 2
        assert f"name one of those in it: {tmp_path}/voter/data" in result.stderr


def test_a_compacted_log_has_no_fault_and_a_changed_offset_in_it_is_one(disk: Path) -> None:
    asyncio.run(compact_partition(disk / "t-0"))
    assert verified(disk) == (0, [])
    segment = disk / "t-0/00000000000000000000.log"
    assert verified(segment) == (0, [])
    (row,) = dumped(disk / "t-0/00000000000000000000.checksum")
    assert (row["kind"], row["base_offset"]) == ("segment-checksum", 0)
    assert row["size"] == segment.stat().st_size
    data = bytearray(segment.read_bytes())
    second = parse_header(bytes(data)).size
    data[second + 7] += 1  # the offset of the second batch: it looks like another gap
    segment.write_bytes(data)
    status, rows = verified(disk)
    assert status == 1
    assert any("compaction wrote" in row["what"] for row in rows)


def test_a_compaction_that_was_under_way_is_no_fault(disk: Path) -> None:
    (disk / "t-0/00000000000000000000.log.cleaned").write_bytes(b"half of it")
    status, rows = verified(disk)
    assert status == 0
    assert [row["kind"] for row in rows] == ["note"]


@pytest.mark.parametrize("start", [1, 89, 100, 100_000])
def test_a_log_that_begins_inside_a_segment_or_a_batch_is_sound(disk: Path, start: int) -> None:
    end = int(sorted((disk / "t-0").glob("*.log"))[-1].stem) if start == 100_000 else start
    asyncio.run(trim_partition(disk / "t-0", end))
    assert verified(disk) == (0, [])


def test_a_log_whose_first_segment_begins_above_its_start_has_lost_records(disk: Path) -> None:
    asyncio.run(trim_partition(disk / "t-0", 5))
    first = sorted((disk / "t-0").glob("*.log"))[0]
    for path in (disk / "t-0").glob(f"{first.stem}.*"):
        path.unlink()
    status, rows = verified(disk / "t-0")
    assert status == 1
    assert any("it says offset 5, and the first segment begins at" in one["what"] for one in rows)


def test_a_compacted_log_that_was_cut_back_to_a_start_in_a_gap_has_no_fault(disk: Path) -> None:
    async def cut_back(start: int) -> None:
        real = RealDisk()
        log = await Log.open(real, str(disk / "t-0"), LogConfig(segment_bytes=8000))
        await log.move_start(start)
        await log.truncate(start)
        await log.close(clean=True)
        real.close()

    asyncio.run(compact_partition(disk / "t-0"))
    asyncio.run(cut_back(50))
    assert verified(disk / "t-0") == (0, [])
