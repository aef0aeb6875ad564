"""Directories that the image does not know go out of the way, and are removed later."""

from __future__ import annotations

from structlog.testing import capture_logs

from quorate_broker.files.directories import LogDirectories
from quorate_broker.files.strays import Strays
from quorate_broker.replica.replica import Key
from tests.unit.quorate_broker.files.builders import (
    D1,
    D2,
    GONE,
    TOPIC,
    config,
    formatted,
    image,
    placed,
    replica,
)


def nothing_needed(_: Key) -> bool:
    return False


async def test_only_what_this_history_wrote_and_no_longer_places_is_removed() -> None:
    disk = await formatted(("/d1", D1))
    await replica(disk, "/d1/t-0", TOPIC)
    await replica(disk, "/d1/t-1", TOPIC)  # the topic has one partition
    await replica(disk, "/d1/gone-0", GONE)
    await replica(disk, "/d1/old-0", GONE, generation=9)
    await replica(disk, "/d1/foreign-0", GONE, cluster_id="c2")
    await replica(disk, f"/d1/x-0.{GONE.hex()}.stray", GONE)
    await disk.make_directory("/d1/lost+found")
    held = await LogDirectories.open(config("/d1"), disk)
    strays = Strays(disk, held, "c1", 1)
    await strays.set_aside(image(9, topic=placed()), 3)
    kept = {"t-0", "old-0", "foreign-0", "lost+found"}
    names = set(await disk.list("/d1"))
    assert kept <= names
    assert {f"gone-0.{GONE.hex()}.stray", f"t-1.{TOPIC.hex()}.stray"} <= names
    await strays.remove_after(1, nothing_needed)
    names = set(await disk.list("/d1"))
    assert kept <= names
    assert not [name for name in names if name.endswith(".stray")]


async def test_a_replica_that_was_placed_on_another_disk_is_a_stray_here() -> None:
    disk = await formatted(("/d1", D1), ("/d2", D2))
    await replica(disk, "/d1/t-0", TOPIC)
    await replica(disk, "/d2/t-0", TOPIC)
    held = await LogDirectories.open(config("/d1", "/d2"), disk)
    await Strays(disk, held, "c1", 1).set_aside(image(9, topic=placed(D2)), 3)
    assert "t-0" not in await disk.list("/d1")
    assert "t-0" in await disk.list("/d2")


async def test_a_copy_stays_until_the_placed_replica_is_in_sync() -> None:
    """An operator may have moved it: then it is the only one with its records."""
    disk = await formatted(("/d1", D1), ("/d2", D2))
    await replica(disk, "/d1/t-0", TOPIC)
    held = await LogDirectories.open(config("/d1", "/d2"), disk)
    strays = Strays(disk, held, "c1", 1)
    with capture_logs() as logs:
        await strays.set_aside(image(9, topic=placed(D2)), 3)
    stray = f"t-0.{TOPIC.hex()}.stray"
    (told,) = [one for one in logs if one["event"] == "replica_in_a_wrong_directory"]
    assert (told["found"], told["placed"]) == ("/d1/t-0", "/d2/t-0")
    assert told["moved_to"] == f"/d1/{stray}"
    held.unlock()
    held = await LogDirectories.open(config("/d1", "/d2"), disk)
    strays = Strays(disk, held, "c1", 1)
    await strays.set_aside(image(9, topic=placed(D2)), 3)
    asked: list[Key] = []

    def is_needed(key: Key) -> bool:
        asked.append(key)
        assert stray in disk.names("/d1")
        return len(asked) < 3

    await strays.remove_after(1, is_needed)
    assert asked == [(TOPIC, 0)] * 3
    assert stray not in disk.names("/d1")


async def test_a_second_copy_does_not_replace_the_first() -> None:
    disk = await formatted(("/d1", D1), ("/d2", D2))
    stray = f"t-0.{TOPIC.hex()}.stray"
    await replica(disk, f"/d1/{stray}", TOPIC)
    await replica(disk, "/d1/t-0", TOPIC)
    held = await LogDirectories.open(config("/d1", "/d2"), disk)
    await Strays(disk, held, "c1", 1).set_aside(image(9, topic=placed(D2)), 3)
    assert {stray, "t-0"} <= set(disk.names("/d1"))


async def test_a_directory_that_is_not_named_as_a_replica_is_left_alone() -> None:
    disk = await formatted(("/d1", D1))
    await replica(disk, "/d1/t-0", TOPIC)
    await replica(disk, "/d1/t-0.backup", TOPIC)
    await replica(disk, "/d1/backup of gone", GONE)
    held = await LogDirectories.open(config("/d1"), disk)
    strays = Strays(disk, held, "c1", 1)
    await strays.set_aside(image(9, topic=placed()), 3)
    await strays.remove_after(1, nothing_needed)
    assert {"t-0", "t-0.backup", "backup of gone"} <= set(disk.names("/d1"))
