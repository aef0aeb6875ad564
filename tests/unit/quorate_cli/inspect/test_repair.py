"""quorate storage verify --repair: it tells what a cut would lose, and cuts only if asked to."""

from __future__ import annotations

import asyncio
import fcntl
import json
import random
from pathlib import Path
from typing import Any

import pytest

from quorate.errors import StorageError
from quorate_cli.inspect.repair import find_loss, repair
from quorate_quorum.log.directory import DAMAGED_FILE
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.real_disk import RealDisk
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_broker.builders import World
from tests.unit.quorate_cli.inspect.builders import (
    compact_partition,
    make_partition,
    make_voter,
    run,
    snapshot_of,
)
from tests.unit.quorate_quorum.log.builders import CrashAt, append

#: The first offset of the batch that is made bad: one of the second segment.
BAD = 90
END = 180


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    asyncio.run(make_voter(tmp_path))
    asyncio.run(make_partition(tmp_path / "t-0"))
    return tmp_path


def asked(path: Path, *options: str) -> tuple[int, list[dict[str, Any]]]:
    result = run("storage", "verify", str(path), "--repair", "-o", "json", *options)
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def damage(path: Path) -> tuple[Path, int]:
    """Flip a bit in the middle of the second segment; return the file and the batch's position."""
    file = sorted((path / "t-0").glob("*.log"))[1]
    data = bytearray(file.read_bytes())
    size = 12 + int.from_bytes(data[8:12], "big")
    data[3 * size + 100] ^= 1
    file.write_bytes(data)
    return file, 3 * size


@pytest.mark.parametrize("named", ["", "t-0"], ids=["log directory", "partition"])
def test_what_would_be_lost_is_told_and_nothing_is_changed(disk: Path, named: str) -> None:
    file, position = damage(disk)
    first = int(file.stem) + 9
    before = snapshot_of(disk / "t-0")
    status, rows = asked(disk / named)
    assert status == 1
    [loss] = [row for row in rows if row["kind"] == "loss"]
    assert (loss["file"], loss["position"]) == (str(file), position)
    assert (loss["lost_from_offset"], loss["lost_before_offset"]) == (first, END)
    assert loss["synced_before_offset"] == END
    sizes = sum(path.stat().st_size for path in (disk / "t-0").glob("*.log"))
    kept = sorted((disk / "t-0").glob("*.log"))[0].stat().st_size + position
    assert loss["cut_bytes"] == sizes - kept
    assert snapshot_of(disk / "t-0") == before
    result = run("storage", "verify", str(disk), "--repair")
    assert "nothing was changed; to lose these records, add --accept-loss" in result.output


def test_an_accepted_loss_is_cut_kept_aside_and_told_at_the_next_start(disk: Path) -> None:
    file, position = damage(disk)
    first = int(file.stem) + 9
    segments = sorted((disk / "t-0").glob("*.log"))
    before = {path.name: path.read_bytes() for path in segments}
    status, rows = asked(disk, "--accept-loss")
    assert status == 0
    cut = rows[-1]
    assert (cut["kind"], cut["log_end_offset"]) == ("cut", first)
    kept = Path(cut["kept"])
    assert kept.parent == disk
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {
        f"{file.name}.from-byte-{position}": before[file.name][position:],
        f"{segments[2].name}.from-byte-0": before[segments[2].name],
    }
    assert file.read_bytes() == before[file.name][:position]
    assert (disk / "t-0" / DAMAGED_FILE).exists()
    assert asked(disk)[0] == 0, "a second repair finds nothing"
    assert run("storage", "verify", str(disk)).exit_code == 0, "what is kept is no part of a log"

    async def opened() -> str:
        real = RealDisk()
        log = await Log.open(real, str(disk / "t-0"), LogConfig())
        await log.close(clean=False)
        real.close()
        return log.recovered.damaged

    assert asyncio.run(opened())


def test_a_sound_log_is_left_as_it_is(disk: Path) -> None:
    before = snapshot_of(disk / "t-0")
    assert asked(disk, "--accept-loss") == (0, [])
    assert snapshot_of(disk / "t-0") == before


def test_an_end_that_is_missing_is_told(disk: Path) -> None:
    last = sorted((disk / "t-0").glob("*.log"))[-1]
    base = int(last.stem)
    last.write_bytes(b"")
    status, [loss] = asked(disk)
    assert status == 1
    assert (loss["lost_from_offset"], loss["lost_before_offset"], loss["cut_bytes"]) == (
        base,
        END,
        0,
    )
    status, rows = asked(disk, "--accept-loss")
    assert (status, rows[-1]["log_end_offset"], rows[-1]["kept"]) == (0, base, "")


def test_a_compacted_segment_with_a_changed_epoch_goes_as_a_whole(disk: Path) -> None:
    asyncio.run(compact_partition(disk / "t-0"))
    assert asked(disk) == (0, [])
    file = sorted((disk / "t-0").glob("*.log"))[0]
    data = bytearray(file.read_bytes())
    data[15] ^= 1
    file.write_bytes(data)
    status, [loss] = asked(disk)
    assert (status, loss["position"], loss["lost_from_offset"]) == (1, 0, 0)
    status, rows = asked(disk, "--accept-loss")
    assert (status, rows[-1]["log_end_offset"]) == (0, 0)


def test_a_running_node_and_a_voters_log_are_left_alone(disk: Path) -> None:
    damage(disk)
    with open(disk / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = snapshot_of(disk)
        result = run("storage", "verify", str(disk), "--repair", "--accept-loss")
        assert result.exit_code == 1
        assert "a running node holds" in result.output
        assert snapshot_of(disk) == before
    log = disk / "__cluster_metadata-0" / "00000000000000000000.log"
    log.write_bytes(b"\xff" * 100)
    result = run("storage", "verify", str(disk), "--repair", "--accept-loss")
    assert "the log of a voter is not cut; replace the disk of the voter" in result.output
    assert log.read_bytes() == b"\xff" * 100


def test_a_wrong_use_is_refused(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    file, _ = damage(disk)
    assert run("storage", "verify", str(disk), "--accept-loss").exit_code == 2
    assert run("storage", "verify", str(file), "--repair").exit_code == 2
    elsewhere = tmp_path_factory.mktemp("copy")
    asyncio.run(make_partition(elsewhere / "t-0"))
    result = run("storage", "verify", str(elsewhere / "t-0"), "--repair")
    assert result.exit_code == 1
    assert "in no log directory of a node" in result.output
    (disk / "t-0" / "00000000000000000000.log.swap").write_bytes(b"")
    status, [refused] = asked(disk, "--accept-loss")
    assert (status, refused["kind"]) == (1, "refused")


async def test_a_broker_tells_of_the_loss_before_the_replica_has_a_role() -> None:
    world = World(brokers=2)
    await world.start()
    broker = world.brokers[2]
    for number in range(6):
        await world.brokers[1].produce(b"%d" % number)
    await world.caught_up(2)
    await broker.partition.log.sync()
    await broker.stop(clean=True)
    path = "/data/invoice-0/00000000000000000000.log"
    size = len(broker.disk.content(path)) // 6
    broker.disk.flip_bit(path, 3 * size + 62)
    loss = await find_loss(broker.disk, "/data/invoice-0")
    assert loss is not None
    assert (loss.first, loss.end) == (3, 6)
    assert await repair(broker.disk, loss, "/data/kept.damaged") == 3
    await broker.start()
    assert broker.partition.key in broker.replicas.losses
    assert broker.partition.role is None
    await world.register(broker)
    assert broker.partition.role is None, "the image counts on it until the controller knows"
    await world.change(isr=[1])
    await world.caught_up(2)
    assert await broker.stored() == await world.brokers[1].stored()
    await world.stop()


@pytest.mark.parametrize("seed", range(5))
async def test_a_crash_at_any_step_of_a_repair_loses_no_more_and_is_told(seed: int) -> None:
    for count in range(1, 200):
        disk = SimulatedDisk(random.Random(100 * seed + count))
        await disk.make_directory("/data")
        log = await Log.open(disk, "/data/t-0", LogConfig(segment_bytes=400))
        await append(log, 12)
        await log.sync()
        await log.close(clean=True)
        disk.flip_bit("/data/t-0/00000000000000000003.log", 70)
        loss = await find_loss(disk, "/data/t-0")
        assert loss is not None
        crash = CrashAt(disk, count, power=count % 2 == 0, quiet=("read", "open"))
        try:
            await repair(disk, loss, "/data/kept.damaged")
        except (OSError, StorageError):
            assert crash.end()
        if not crash.end():
            break
        again = await find_loss(disk, "/data/t-0")
        if again is not None:
            assert again.first == loss.first
            await repair(disk, again, "/data/kept-2.damaged")
        log = await Log.open(disk, "/data/t-0", LogConfig(segment_bytes=400))
        assert log.log_end_offset == loss.first
        assert log.recovered.damaged
        await log.close(clean=False)
    assert count > 10
