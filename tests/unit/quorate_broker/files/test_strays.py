"""Directories that the image does not know go out of the way, and are removed later."""

from __future__ import annotations

from quorate_broker.files.directories import LogDirectories
from quorate_broker.files.strays import Strays
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


class TestStrays:
    async def test_only_what_this_history_wrote_and_no_longer_places_is_removed(self) -> None:
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
        await strays.remove_after(1)
        names = set(await disk.list("/d1"))
        assert kept <= names
        assert not [name for name in names if name.endswith(".stray")]

    async def test_a_replica_that_was_placed_on_another_disk_is_a_stray_here(self) -> None:
        disk = await formatted(("/d1", D1), ("/d2", D2))
        await replica(disk, "/d1/t-0", TOPIC)
        await replica(disk, "/d2/t-0", TOPIC)
        held = await LogDirectories.open(config("/d1", "/d2"), disk)
        await Strays(disk, held, "c1", 1).set_aside(image(9, topic=placed(D2)), 3)
        assert "t-0" not in await disk.list("/d1")
        assert "t-0" in await disk.list("/d2")
