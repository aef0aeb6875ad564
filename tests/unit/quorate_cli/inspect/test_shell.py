"""quorate quorum shell: the metadata of a disk, without a quorum, damaged disks too."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from quorate.record.batch import parse_header
from quorate_cli.app import app
from quorate_cli.inspect.image_shell import ImageShell, ShellError
from quorate_cli.node_disks import format_voters
from quorate_quorum.log.events import encode_events
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.real_disk import RealDisk
from quorate_quorum.snapshots import file as snapshot
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_quorum.metadata.builders import (
    config_event,
    directory_id,
    partition_made,
    register_event,
    topic_event,
    topic_id,
    unfence_event,
)

LOG = "00000000000000000000.log"
SNAPSHOT = "00000000000000000040-0000000003.snapshot"


def shell(path: Path, *words: str, input: str | None = None, status: int | None = 0) -> Result:
    result = CliRunner().invoke(app, ["quorum", "shell", str(path), *words], input=input)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert status in (None, result.exit_code), result.output
    return result


def lines(path: Path, *words: str) -> list[str]:
    return shell(path, *words).stdout.splitlines()


def made_topics(numbers: Sequence[int]) -> list[ev.MetadataEvent]:
    events = []
    for number in numbers:
        events.append(topic_event(number, f"orders.{number}"))
        events += [partition_made(number, index, (0, 1), leader=index) for index in range(2)]
    return events


async def append(directory: Path, events: Sequence[ev.MetadataEvent], epoch: int) -> None:
    disk = RealDisk()
    log = await Log.open(disk, str(directory), LogConfig(track_synced=True))
    data = encode_events(events, base_offset=log.log_end_offset, epoch=epoch, timestamp_ms=0)
    await log.append([(parse_header(data), (data,))])
    await log.sync()
    await log.close(clean=True)
    disk.close()


async def make_voter(directory: Path) -> Path:
    """A voter whose log goes from its formatting to three topics; return the metadata's."""
    await format_voters("c1", [(1, "v1:9", str(directory))])
    metadata = directory / "__cluster_metadata-0"
    at = (await end_of(metadata))[0]
    brokers = [register_event(id, at + id, rack=f"R{id}") for id in (0, 1)]
    await append(metadata, [*brokers, unfence_event(1, at + 1)], 2)
    await append(metadata, [*made_topics((1, 2)), config_event("retention.ms", "5", 1)], 3)
    return metadata


async def end_of(metadata: Path) -> tuple[int, int]:
    disk = RealDisk()
    log = await Log.open(disk, str(metadata), LogConfig(track_synced=True))
    found = (log.log_end_offset, log.last_epoch)
    await log.close(clean=True)
    disk.close()
    return found


async def make_snapshot(directory: Path, offset: int = 40, epoch: int = 3) -> Path:
    disk = RealDisk()
    start = ev.SnapshotStart(
        version=1, offset=offset, epoch=epoch, cluster_id="c1", quorum_generation=7
    )
    events = [ev.MetadataEvent(register_broker=register_event(0, 5).register_broker)]
    await snapshot.write_snapshot(disk, str(directory), start, [*events, *made_topics((3,))])
    disk.close()
    return directory / snapshot.file_name(snapshot.SnapshotId(offset, epoch))


@pytest.fixture
def voter(tmp_path: Path) -> Path:
    """The metadata log of a stopped voter."""
    return asyncio.run(make_voter(tmp_path / "v"))


def test_a_log_directory_is_walked_from_its_root(voter: Path) -> None:
    for path in (voter, voter.parent):
        assert lines(path, "ls") == [
            "brokers/",
            "configs/",
            "created/",
            "features/",
            "forming/",
            "producers/",
            "provenance/",
            "topicIds/",
            "topics/",
            "voters/",
        ]
    assert lines(voter, "--", "ls", "/topics") == ["orders.1/", "orders.2/"]
    assert lines(voter, "ls", "topics/orders.1") == ["id", "configs/", "0/", "1/"]
    assert lines(voter, "ls", "/brokers/0/rack") == ["rack"]


def test_every_room_says_what_the_log_said(voter: Path) -> None:
    values = {
        "/brokers/0/fenced": "true",
        "/brokers/1/fenced": "false",
        "/brokers/1/rack": "R1",
        f"/brokers/0/directories/{directory_id(0).hex()}/failed": "false",
        "/topics/orders.1/configs/retention.ms": "5",
        "/topics/orders.1/0/isr": "[0, 1]",
        "/topics/orders.2/1/leader": "1",
        f"/topicIds/{topic_id(2).hex()}": "orders.2",
        "/features/metadata.version": "2",
        "/voters/1/endpoint": "v1:9",
        "/created/partitions": "4",
        "/provenance/cluster_id": "c1",
        "/provenance/epoch": "3",
    }
    for path, value in values.items():
        assert lines(voter, "cat", path) == [value], path


def test_a_topic_that_is_still_being_made_is_shown_apart(voter: Path) -> None:
    begun = ev.MetadataEvent(topic=ev.Topic(topic_id=topic_id(7), name="big", partitions=3))
    asyncio.run(append(voter, [begun, partition_made(7, 0, (0, 1))], 3))

    (text,) = lines(voter, "cat", f"/forming/{topic_id(7).hex()}")

    assert json.loads(text) == {"name": "big", "partitions": 3, "made": 1}
    assert lines(voter, "find", "/topics", "-name", "big") == []


def test_cat_of_a_folder_is_one_document(voter: Path) -> None:
    (text,) = lines(voter, "cat", "/topics/orders.2/1")
    partition = json.loads(text)
    assert (partition["leader"], partition["replicas"]) == (1, [0, 1])
    assert partition["directories"]["1"] == directory_id(1).hex()


def test_wildcards_stand_for_one_name(voter: Path) -> None:
    assert lines(voter, "cat", "/topics/*/1/leader") == [
        "/topics/orders.1/1/leader: 1",
        "/topics/orders.2/1/leader: 1",
    ]


def test_find_by_name_and_by_value(voter: Path) -> None:
    assert lines(voter, "find", "/topics/orders.1", "-name", "?") == [
        "/topics/orders.1/0/",
        "/topics/orders.1/0/directories/0",
        "/topics/orders.1/0/directories/1",
        "/topics/orders.1/1/",
        "/topics/orders.1/1/directories/0",
        "/topics/orders.1/1/directories/1",
    ]
    assert lines(voter, "find", "/topics", "-name", "leader", "-value", "1") == [
        "/topics/orders.1/1/leader: 1",
        "/topics/orders.2/1/leader: 1",
    ]
    assert lines(voter, "find", "-name", "nothing") == []


def test_tree_is_indented_and_as_deep_as_asked(voter: Path) -> None:
    assert lines(voter, "tree", "/voters/1")[0::2] == ["/voters/1/", "  endpoint: v1:9"]
    assert lines(voter, "tree", "-depth", "1", "/topics") == [
        "/topics/",
        "  orders.1/",
        "  orders.2/",
    ]


def test_json_is_a_document_a_line(voter: Path) -> None:
    def rows(*words: str) -> list[object]:
        options = ["quorum", "shell", "-o", "json", str(voter)]
        return [
            json.loads(line)
            for line in CliRunner().invoke(app, [*options, *words]).stdout.splitlines()
        ]

    assert rows("find", "/created") == [
        {"path": "/created", "folder": True},
        {"path": "/created/partitions", "folder": False, "value": 4},
        {"path": "/created/topics", "folder": False, "value": 2},
    ]
    created = {"path": "/created", "value": {"partitions": 4, "topics": 2}}
    assert rows("cat", "/created") == rows("tree", "/created") == [created]
    assert rows("ls", "/voters") == [{"path": "/voters/1", "folder": True}]


def test_piped_lines_are_commands_and_a_wrong_one_is_status_1(voter: Path) -> None:
    done = shell(
        voter, input="cd /topics\nls  # all\n\ncd orders.1/0\npwd\ncat ../../orders.2/id\n"
    )
    assert done.stdout.splitlines() == [
        "orders.1/",
        "orders.2/",
        "/topics/orders.1/0",
        topic_id(2).hex(),
    ]
    failed = shell(voter, input="cd /nowhere\npwd\nexit\nls\n", status=1)
    assert failed.stdout == "/\n"
    assert "no such entry" in failed.stderr
    assert "brokers" in failed.stderr, "it says what there is"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("dance",), "no command"),
        (("cat", "/topics/orders.9"), "/topics holds orders.1, orders.2"),
        (("cat", "/created/topics/more"), "is a value"),
        (("cat",), "cat what?"),
        (("ls", "-l"), "no option"),
        (("find", "-name"), "needs a value"),
        (("tree", "-depth", "-1"), "a whole number"),
        (("cd", "/created/topics"), "not a folder"),
        (("pwd", "x"), "takes nothing"),
        (("cat", "/topics/*/9"), "no such entry"),
    ],
)
def test_what_makes_no_sense_is_told(voter: Path, words: tuple[str, ...], said: str) -> None:
    assert said in shell(voter, *words, status=1).stderr


def test_an_open_quote_is_told(voter: Path) -> None:
    assert "quotation" in shell(voter, input="ls 'x\n", status=1).stderr


def test_output_ends_at_the_limit_and_says_so(voter: Path) -> None:
    result = CliRunner().invoke(app, ["quorum", "shell", "--limit", "3", str(voter), "find", "/"])
    assert len(result.stdout.splitlines()) == 3
    assert "--limit" in result.stderr
    assert result.exit_code == 1


def test_a_snapshot_is_walked_alone(tmp_path: Path) -> None:
    path = asyncio.run(make_snapshot(tmp_path))

    result = shell(path, "cat", "/provenance/*")

    assert "/provenance/cluster_id: c1" in result.stdout
    assert "/provenance/quorum_generation: 7" in result.stdout
    assert "/provenance/offset: 40" in result.stdout
    assert "may not be committed" not in result.stderr
    assert lines(path, "ls", "/topics") == ["orders.3/"]


def test_a_log_goes_on_from_the_newest_snapshot_and_its_tail_is_said_to_be_uncertain(
    voter: Path,
) -> None:
    end, epoch = asyncio.run(end_of(voter))
    asyncio.run(make_snapshot(voter, end, epoch))
    asyncio.run(append(voter, made_topics((4, 5)), epoch + 1))

    result = shell(voter, "ls", "/topics")

    assert result.stdout.split() == ["orders.3/", "orders.4/", "orders.5/"]
    assert f"the last 6 records, from offset {end}, may not be committed" in result.stderr


def test_a_log_with_another_past_than_the_snapshot_is_left_out(voter: Path) -> None:
    """What a crash between a fetched snapshot and the new start of the log leaves."""
    end, epoch = asyncio.run(end_of(voter))
    asyncio.run(append(voter, made_topics((4,)), epoch))
    asyncio.run(make_snapshot(voter, end, epoch + 5))

    result = shell(voter, "ls", "/topics")

    assert result.stdout.split() == ["orders.3/"]
    assert "another past" in result.stderr


def test_a_log_without_its_beginning_is_damage(voter: Path) -> None:
    end, epoch = asyncio.run(end_of(voter))
    asyncio.run(make_snapshot(voter, end - 1, epoch))
    (voter / LOG).rename(voter / f"{end:020d}.log")

    assert "Traceback" not in shell(voter, "ls", status=1).stderr


def test_a_torn_end_is_left_out_and_said(voter: Path) -> None:
    """What a crash leaves above the last sync; a start cuts it off as well."""
    with (voter / LOG).open("ab") as file:
        file.write(encode_events(made_topics((8,)), base_offset=99, epoch=3, timestamp_ms=0)[:-9])

    result = shell(voter, "ls", "/topics")

    assert result.stdout.split() == ["orders.1/", "orders.2/"]
    assert "no whole batch" in result.stderr


def test_a_torn_end_below_what_was_durable_is_damage(voter: Path) -> None:
    with (voter / LOG).open("rb+") as file:
        file.truncate((voter / LOG).stat().st_size - 5)

    assert "was durable" in shell(voter, "ls", status=1).stderr


def test_damage_inside_the_log_names_the_byte(voter: Path) -> None:
    path = voter / LOG
    data = bytearray(path.read_bytes())
    size = parse_header(data).size
    data[size + 100] ^= 1
    path.write_bytes(data)

    assert f"{LOG}, byte {size}: " in shell(voter, "ls", status=1).stderr


def test_events_that_contradict_the_past_are_damage(voter: Path) -> None:
    asyncio.run(append(voter, made_topics((1,)), 3))

    assert "a topic id is new" in shell(voter, "ls", status=1).stderr


def test_a_newer_feature_level_is_told_with_both(voter: Path) -> None:
    level = ev.MetadataEvent(feature=ev.Feature(name="metadata.version", level=99))
    asyncio.run(append(voter, [level], 3))

    assert "level 99" in shell(voter, "ls", status=1).stderr


@pytest.mark.parametrize("position", [0, 30, 100, -3])
def test_a_damaged_snapshot_is_a_message(tmp_path: Path, position: int) -> None:
    path = asyncio.run(make_snapshot(tmp_path))
    data = bytearray(path.read_bytes())
    data[position] ^= 0x41
    path.write_bytes(data)

    for one in (path, tmp_path):
        assert SNAPSHOT in shell(one, "ls", status=1).stderr


def test_what_is_no_metadata_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    (tmp_path / (SNAPSHOT + ".part")).write_bytes(b"x")
    for name in ("", "holiday.jpg", "absent", SNAPSHOT + ".part"):
        assert shell(tmp_path / name, "ls", status=2).stdout == ""


def test_nothing_is_written_and_a_running_nodes_lock_is_no_hindrance(voter: Path) -> None:
    def content() -> dict[str, tuple[int, bytes]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(voter.parent.rglob("*"))
            if path.is_file()
        }

    descriptor = os.open(voter.parent / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        before = content()
        result = shell(voter, "tree")
        assert content() == before
    finally:
        os.close(descriptor)
    if os.path.exists("/proc/locks"):
        assert "a running node" in result.stderr


def test_a_copy_without_its_surroundings_is_read(voter: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(voter / LOG, copy)

    assert lines(copy, "ls", "/topics") == ["orders.1/", "orders.2/"]


def test_hostile_names_and_values_do_not_reach_the_terminal(voter: Path) -> None:
    evil = "\x1b]0;x\x07/../a b"
    events = [ev.MetadataEvent(topic=ev.Topic(topic_id=topic_id(9), name=evil))]
    asyncio.run(append(voter, [*events, config_event("retention.ms", evil)], 3))

    result = shell(voter, "find", "/")

    assert "\x1b" not in result.output
    (name,) = [one for one in lines(voter, "ls", "/topics") if not one.startswith("orders")]
    assert lines(voter, "cat", f"/topics/{name}id") == [topic_id(9).hex()]
    assert json.loads(lines(voter, "cat", "/configs/retention.ms")[0]) == evil
    assert json.loads(lines(voter, "cat", f"/topicIds/{topic_id(9).hex()}")[0]) == evil


def test_completion_knows_commands_and_paths() -> None:
    walk = ImageShell({"topics": {"orders": {"0": 1}, "other": 2}})

    assert walk.complete("c", "c") == ["cat ", "cd "]
    assert walk.complete("ls t", "t") == ["topics/"]
    assert walk.complete("cat /topics/o", "/topics/o") == ["/topics/orders/", "/topics/other "]
    assert walk.complete("cat /nowhere/o", "/nowhere/o") == []
    list(walk.run(["cd", "topics"]))
    assert walk.complete("ls ", "") == ["orders/", "other "]


def test_a_document_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorate_cli.inspect.image_shell.DOCUMENT_ENTRIES_MAX", 10)
    walk = ImageShell({"many": {str(number): number for number in range(20)}})

    assert list(walk.run(["cat", "/many/3"])) == ["3"]
    with pytest.raises(ShellError, match="more than 10 entries"):
        list(walk.run(["cat", "/many"]))
