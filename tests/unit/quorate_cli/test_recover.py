"""`quorate quorum recover` as an operator types it, on a real disk."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from quorate.record import batch as record_batch
from quorate_cli.app import app
from quorate_cli.node_disks import format_voters
from quorate_quorum.log.events import encode_events
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.real_disk import RealDisk
from quorate_quorum.raft.driver.bootstrap import metadata_directory
from quorate_quorum.v1.events_pb2 import EpochStart, MetadataEvent

#: No server listens there.
LOST = ("127.0.0.1:1", "127.0.0.1:2")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration of one voter of three, that has been in epoch 3."""
    data = str(tmp_path / "v1")
    voters = [(1, "127.0.0.1:3", data)]
    voters += [(2 + n, at, str(tmp_path / f"v{2 + n}")) for n, at in enumerate(LOST)]
    asyncio.run(_made(voters, data))
    path = tmp_path / "voter.toml"
    path.write_text(
        f'node.id = 1\nlisteners = ["127.0.0.1:3"]\nlog.dirs = ["{data}"]\n'
        f"quorum.bootstrap.servers = {json.dumps([at for _, at, _ in voters])}\n"
    )
    return path


async def _made(voters: list[tuple[int, str, str]], data: str) -> None:
    await format_voters("c1", voters)
    disk = RealDisk()
    config = LogConfig(track_synced=True, verify_all=True)
    log = await Log.open(disk, metadata_directory(data), config)
    event = MetadataEvent(epoch_start=EpochStart(epoch=3, leader_id=2))
    batch = encode_events([event], base_offset=log.log_end_offset, epoch=3, timestamp_ms=0)
    await log.append(((record_batch.check(batch), (batch,)),))
    await log.sync()
    await log.close(clean=True)
    disk.close()


def recover(config: Path, *more: str, status: int = 0) -> Any:
    done = CliRunner().invoke(
        app, ["quorum", "recover", "--config", str(config), "-o", "json", "--timeout", "1", *more]
    )
    assert done.exit_code == status, done.output
    return json.loads(done.stdout) if done.stdout else done.output


def files(config: Path) -> dict[str, bytes]:
    data = config.parent / "v1"
    return {str(one): one.read_bytes() for one in sorted(data.rglob("*")) if one.is_file()}


def test_a_dry_run_tells_what_is_there_and_what_would_be_done_and_writes_nothing(
    config: Path,
) -> None:
    before = files(config)
    said = recover(config, "--dry-run")
    assert files(config) == before
    disk = said["disk"]
    end = disk["log_end_offset"]
    assert (said["done"], said["dry_run"], said["refused"]) == (False, True, [])
    assert (disk["id"], disk["cluster_id"], disk["quorum_generation"]) == (1, "c1", 1)
    assert (disk["last_epoch"], disk["high_watermark"], disk["snapshot"]) == (3, end - 1, None)
    assert [voter["id"] for voter in disk["voters"]] == [1, 2, 3]
    assert (disk["brokers"], disk["topics"], disk["partitions"]) == ([], 0, 0)
    assert said["peers"] == [{"endpoint": at, "answered": False} for at in LOST]
    assert said["new"]["quorum_generation"] == 2
    assert said["new"]["offset"] == end + 1_000_000_000
    assert said["new"]["epoch"] > 3


def test_it_begins_the_next_generation_once(config: Path) -> None:
    planned = recover(config, "--dry-run")["new"]
    done = recover(config)
    assert (done["done"], done["new"]) == (True, planned)
    assert "generation=2" in (config.parent / "v1" / "meta.properties").read_text()
    before = files(config)
    again = recover(config, status=1)
    assert again["done"] is False
    assert "the only voter already" in again["refused"][0]
    assert files(config) == before


def test_it_is_refused_while_a_process_holds_the_directory(config: Path) -> None:
    disk = RealDisk()
    lock = asyncio.run(disk.lock(str(config.parent / "v1")))
    try:
        assert "in use" in recover(config, status=1)
        if not os.path.exists("/proc/locks"):
            return  # where the system has no list of locks, a dry run can't tell
        looked = recover(config, "--dry-run", status=1)
        assert "in use" in looked["refused"][0]
        assert looked["disk"]["last_epoch"] == 3, "it tells what is there all the same"
    finally:
        lock.release()
        disk.close()


def test_the_text_says_the_same(config: Path) -> None:
    done = CliRunner().invoke(
        app, ["quorum", "recover", "--config", str(config), "--dry-run", "--timeout", "1"]
    )
    assert done.exit_code == 0
    assert "its log ends at" in done.stdout
    assert "no answer: taken for lost" in done.stdout
    assert "would begin quorum_generation 2" in done.stdout


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_directory_that_is_not_there_is_named_with_what_to_do(
    config: Path, more: tuple[str, ...]
) -> None:
    shutil.rmtree(config.parent / "v1")
    done = CliRunner().invoke(app, ["quorum", "recover", "--config", str(config), *more])
    assert done.exit_code == 1
    assert str(config.parent / "v1") in done.stderr
    assert "Errno" not in done.stderr


def test_each_reason_of_a_refusal_has_a_line_of_its_own(config: Path) -> None:
    if not os.path.exists("/proc/locks"):
        pytest.skip("where the system has no list of locks, a dry run can't tell")
    recover(config)
    with (config.parent / "v1" / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = CliRunner().invoke(
            app, ["quorum", "recover", "--config", str(config), "--dry-run", "--timeout", "1"]
        )
    assert done.exit_code == 1
    first, second = done.stderr.splitlines()
    assert first.startswith("quorate: refused: ")
    assert "in use" in first
    assert second.startswith("  and ")
