"""How much of a simulated cluster may be damaged at a time, and what its plans contain."""

from __future__ import annotations

import random
from dataclasses import dataclass

from quorate_testing.simulated.cluster import SimulatedNode
from quorate_testing.simulated.disk import SimulatedDisk
from tests.harness.cluster_damage import Damage, Damages, replica_directories
from tests.harness.cluster_faults import KINDS
from tests.harness.cluster_shape import FLAGS, REPLICATION, Shape
from tests.harness.world import plan_of, shape_of


@dataclass
class Situation:
    """The state of a cluster that Damages reads."""

    now_s: float = 0.0
    is_in_sync: bool = True


def damages(world: Situation, shape: Shape) -> Damages:
    return Damages(shape, lambda: world.is_in_sync, lambda: world.now_s)


def broker(number: int) -> SimulatedNode:
    disk = SimulatedDisk(random.Random(number))
    return SimulatedNode(f"broker-{number}", number, is_voter=False, rack="", disk=disk)


def test_fewer_than_min_isr_are_hurt_until_all_are_in_sync_again() -> None:
    world = Situation()
    told = damages(world, Shape(min_isr=2))
    first, second = broker(1), broker(2)
    assert told.may_hurt(first)
    assert not told.may_hurt(second), "of the same instant: it is not known yet that one is hurt"
    world.now_s, world.is_in_sync = 1.0, False
    assert told.may_hurt(first), "again"
    assert not told.may_hurt(second)
    world.now_s, world.is_in_sync = 2.0, True
    assert told.may_hurt(second)
    assert not told.exceeded


async def test_the_replicas_of_a_topic_are_found_in_each_log_directory() -> None:
    disk = broker(1).disk
    for path in ("/data/t-0/a", "/data2/t-12/a", "/data2/other-1/a", "/data/t-3.stray/a"):
        await disk.make_directory(path.rpartition("/")[0])
        await disk.open(path, create=True)
    assert replica_directories(disk, "t") == ["/data/t-0", "/data2/t-12"]


async def test_a_flipped_bit_that_nobody_has_found_counts_although_all_are_in_sync() -> None:
    world = Situation()
    told = damages(world, Shape(min_isr=2))
    first, second = broker(1), broker(2)
    file = await first.disk.open("/log", create=True)
    await file.append((b"a record",))
    assert told.may_hurt(first)
    first.disk.flip_bit("/log", 3)
    told.note(first, Damage(first.disk, "/log", 3, first.disk.content("/log")[3]))
    world.now_s = 1.0
    assert not told.may_hurt(second)
    await file.truncate(0)
    assert told.may_hurt(second), "what was cut is there no more"


def test_nothing_is_hurt_where_nothing_may_be_but_beyond_the_promise() -> None:
    assert not damages(Situation(), Shape(min_isr=1)).may_hurt(broker(1))
    told = damages(Situation(), Shape(min_isr=1, beyond=True))
    assert told.may_hurt(broker(1))
    assert told.exceeded


def test_seeds_have_all_kinds_of_faults_and_all_shapes() -> None:
    seeds = range(300)
    assert {fault.kind for seed in seeds for fault in plan_of(seed)} == set(KINDS)
    shapes = [shape_of(seed) for seed in seeds]
    assert {(one.replication_factor, one.min_isr) for one in shapes} == set(REPLICATION)
    for name in (*FLAGS, "syncs_on_ack", "is_patient", "is_whole"):
        assert {getattr(one, name) for one in shapes} == {False, True}, name


def test_a_third_of_the_seeds_or_more_have_the_whole_cluster() -> None:
    whole = [shape for shape in map(shape_of, range(300)) if shape.is_whole]
    assert len(whole) > 100
    for shape in whole:
        programs = (shape.moves, shape.configures, shape.trims, shape.grows, shape.recreates)
        assert (shape.brokers, shape.producers) == (5, 3)
        assert shape.producers + len(shape.reads_in) + sum(programs) >= 10
