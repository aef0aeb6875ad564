"""quorate storage dump: what a node's files say, damaged ones too."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from pathlib import Path

import pytest

from quorate.record.batch import parse_header
from quorate.record.compression import CODECS
from quorate_cli.event_fields import fields_of
from quorate_quorum.log.real_disk import ReadOnlyDisk
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_cli.inspect.builders import (
    DAMAGED,
    batch,
    dumped,
    make_partition,
    make_voter,
    run,
    snapshot_of,
)


def test_metadata_is_shown_event_by_event(tmp_path: Path) -> None:
    asyncio.run(make_voter(tmp_path))

    rows = dumped(tmp_path / "__cluster_metadata-0" / "00000000000000000000.log", "--count", 2)

    assert [(row["offset"], row["epoch"], row["type"]) for row in rows] == [
        (0, 0, "feature"),
        (1, 0, "voters"),
    ]
    assert rows[0]["fields"] == {"name": "metadata.version", "level": 2}
    (voter,) = rows[1]["fields"]["voters"]
    assert (voter["id"], voter["endpoint"]) == (1, "v1:9")
    (identity,) = dumped(tmp_path / "meta.properties")
    assert voter["directory_id"] == identity["directory_id"], "both in hex"


def test_fields_of_0_are_shown_and_those_that_were_not_set_are_not(tmp_path: Path) -> None:
    """Broker 0 leads partition 0; a change without a leader is no change to broker 0."""
    assert fields_of(ev.Partition(topic_id=b"t" * 16, leader=0, isr=[0])) == {
        "topic_id": (b"t" * 16).hex(),
        "partition": 0,
        "replicas": [],
        "adding": [],
        "removing": [],
        "isr": [0],
        "elr": [],
        "last_isr": [],
        "leader": 0,
        "leader_epoch": 0,
        "partition_epoch": 0,
        "recovered_epoch": 0,
        "throttle": 0,
        "original": [],
        "causes": [],
        "history": "",
    }
    change = ev.PartitionChange(topic_id=b"t" * 16, isr=ev.BrokerSet(brokers=[0, 2]))
    assert fields_of(change)["isr"] == {"brokers": [0, 2]}
    assert "leader" not in fields_of(change)
    assert fields_of(ev.PartitionChange(leader=0))["leader"] == 0


def test_a_voters_directory_is_shown_whole_and_left_as_it_was(tmp_path: Path) -> None:
    asyncio.run(make_voter(tmp_path))
    before = snapshot_of(tmp_path)

    rows = dumped(tmp_path)

    kinds = {row["kind"] for row in rows}
    assert {"identity", "run", "quorum-state", "event", "epoch", "synced", "file"} <= kinds
    assert "fault" not in kinds
    state = next(row for row in rows if row["kind"] == "quorum-state")
    assert (state["epoch"], state["voted_for"]) == (5, 1)
    assert {"snapshot_start", "topic", "snapshot_end"} <= {row.get("type") for row in rows}
    assert snapshot_of(tmp_path) == before


def test_a_partition_is_shown_batch_by_batch(tmp_path: Path) -> None:
    directory = tmp_path / "t-0"
    asyncio.run(make_partition(directory))

    rows = dumped(directory, "--from-offset", 4, "--count", 2, "--records")

    batches = [row for row in rows if row["kind"] == "batch"]
    assert [(row["base_offset"], row["last_offset"]) for row in batches] == [(3, 5), (6, 8)]
    assert {row["codec"] for row in batches} == {"none"}
    assert (batches[0]["producer_id"], batches[0]["base_sequence"]) == (7, 3)
    records = [row for row in rows if row["kind"] == "record"]
    assert [row["key"] for row in records] == ["k3", "k4", "k5", "k6", "k7", "k8"]
    assert {row["epoch"] for row in rows if row["kind"] == "epoch"} == {1, 4}
    assert any(row["kind"] == "producer" and row["producer_id"] == 7 for row in rows)
    index = next(directory.glob("*.index"))
    assert {row["kind"] for row in dumped(index)} == {"offset-index"}
    assert "base_offset=0" in run("storage", "dump", str(directory)).stdout


def test_batches_of_every_codec_are_shown_with_their_records(tmp_path: Path) -> None:
    log = tmp_path / "00000000000000000000.log"
    log.write_bytes(b"".join(batch(3 * codec, 3, 1, codec=codec) for codec in CODECS.values()))

    rows = dumped(log, "--records")

    assert [row["codec"] for row in rows if row["kind"] == "batch"] == list(CODECS)
    shown = [(row["offset"], row["key"]) for row in rows if row["kind"] == "record"]
    assert shown == [(offset, f"k{offset}") for offset in range(15)]


@pytest.mark.parametrize("pattern", DAMAGED)
@pytest.mark.parametrize("command", ["dump"])
def test_a_damaged_file_is_a_message_and_status_1(
    tmp_path: Path, pattern: str, command: str
) -> None:
    asyncio.run(make_voter(tmp_path))
    asyncio.run(make_partition(tmp_path / "t-0"))
    (path,) = sorted(tmp_path.glob(pattern))[:1]
    path.write_bytes(b"\xff" * 13)

    result = run("storage", command, str(path), "-o", "json")

    assert result.exit_code == 1
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["kind"], last["file"]) == ("fault", str(path))
    assert last["what"]


def test_the_batches_behind_a_damaged_one_are_shown(tmp_path: Path) -> None:
    asyncio.run(make_partition(tmp_path / "t-0"))
    path = tmp_path / "t-0" / "00000000000000000000.log"
    data = bytearray(path.read_bytes())
    size = parse_header(data).size
    data[size + 100] ^= 1
    path.write_bytes(data)

    rows = dumped(path)

    assert rows[0]["kind"] == "batch"
    assert (rows[1]["kind"], rows[1]["position"]) == ("fault", size)
    assert rows[2]["base_offset"] == 6


def test_what_is_no_nodes_file_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    for path in (tmp_path, tmp_path / "holiday.jpg", tmp_path / "absent"):
        result = run("storage", "dump", str(path))
        assert result.exit_code in (1, 2)
        assert result.stdout == ""


def test_a_locked_directory_is_read_and_said_to_be_locked(tmp_path: Path) -> None:
    asyncio.run(make_voter(tmp_path))
    descriptor = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked = run("storage", "dump", str(tmp_path / "__cluster_metadata-0"))
    finally:
        os.close(descriptor)

    assert locked.exit_code == 0
    assert "a running node holds this directory" in locked.output
    assert "a running node" not in run("storage", "dump", str(tmp_path)).output


async def test_the_disk_of_the_tools_refuses_to_change_anything(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"x")
    disk = ReadOnlyDisk()
    try:
        file = await disk.open(path)
        assert await file.read_at(0, 9) == b"x"
        with pytest.raises(OSError, match="descriptor"):
            await file.append((b"y",))
        await file.close()
        for change in (
            disk.open(path + "b", create=True),
            disk.remove(path),
            disk.rename(path, path + "b"),
            disk.make_directory(path + "c"),
            disk.remove_directory(str(tmp_path)),
            disk.sync_directory(str(tmp_path)),
            disk.lock(str(tmp_path)),
        ):
            with pytest.raises(OSError, match="reading only"):
                await change
    finally:
        disk.close()
    assert os.listdir(tmp_path) == ["a"]
