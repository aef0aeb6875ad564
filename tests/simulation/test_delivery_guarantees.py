"""What docs/delivery-guarantees.md says of a fault is true: what is lost, doubled, worked on twice.

Each fault of its first table comes at the worst moment: while the followers do not hear from the
leader, so that it alone has the last records. Where the table says "none", no acknowledged record
is lost. Where it says more, the test shows such a loss, so that the table promises no less than is
kept.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from quorate import Consumer, Producer
from quorate.errors import DeliveryTimeoutError, QuorateError
from quorate_broker.files.inventory import FILE_NAME
from quorate_testing.simulated.loop import current_process
from tests.harness.cluster_scene import REPLICA, TOPIC, Scene, play

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

PAGE = Path(__file__).parents[2] / "docs/delivery-guarantees.md"
NONE = "none"
#: The seeds among which one must show the loss that the table tells of.
SEEDS = range(1, 9)


@dataclass
class Story:
    """A cluster, a producer's acks, and the values that its producer was told are written."""

    scene: Scene
    acks: str | int
    acked: set[bytes] = field(default_factory=set)

    async def write(self, count: int) -> None:
        """Send records one by one, for two seconds each. Note those that are acknowledged."""
        scene = self.scene

        async def run() -> None:
            async with Producer(
                bootstrap_servers=scene.cluster.bootstrap_servers,
                acks=self.acks,
                delivery_timeout_ms=2_000,
            ) as producer:
                for _ in range(count):
                    value = b"%d" % scene.sent
                    scene.sent += 1
                    try:
                        await producer.send_and_wait(TOPIC, value, partition=0)
                    except QuorateError:
                        continue
                    self.acked.add(value)

        await scene.cluster.spawn_client(run)

    @property
    def leader(self) -> str:
        return f"broker-{self.scene.state.leader}"

    @property
    def followers(self) -> list[str]:
        return [one.name for one in self.scene.cluster.brokers if one.name != self.leader]

    async def only_the_leader_has_the_last(self) -> str:
        """Write while the followers do not hear from the leader. Return the leader's name."""
        leader = self.leader
        self.scene.cluster.network.cut({leader}, set(self.followers))
        await self.write(5)
        return leader

    async def another_leads_than(self, leader: str) -> None:
        await self.scene.until(
            lambda: self.scene.state.leader >= 0 and self.leader != leader, "another one leads"
        )

    async def come_back(self) -> None:
        self.scene.cluster.network.heal()
        self.scene.cluster.start_all()
        await self.scene.whole()

    async def lose_disk(self, name: str) -> None:
        disk = self.scene.cluster.nodes[name].disk
        await disk.remove_directory(REPLICA)
        await disk.remove(f"/data/{FILE_NAME}")


async def a_follower_is_killed(story: Story) -> None:
    story.scene.cluster.kill(story.followers[0])
    await story.write(5)


async def the_leader_is_killed(story: Story) -> None:
    leader = await story.only_the_leader_has_the_last()
    story.scene.cluster.kill(leader)
    await story.another_leads_than(leader)


async def all_are_killed(story: Story) -> None:
    await story.only_the_leader_has_the_last()
    followers = story.followers
    for name in story.scene.cluster.nodes:
        story.scene.cluster.kill(name)
    story.scene.cluster.network.heal()
    for name in (*followers, *(one.name for one in story.scene.cluster.voters)):
        story.scene.cluster.start(name)
    await asyncio.sleep(10)


async def the_leaders_machine_loses_its_power(story: Story) -> None:
    leader = await story.only_the_leader_has_the_last()
    story.scene.cluster.lose_power(leader)
    await story.another_leads_than(leader)


async def all_machines_lose_their_power(story: Story) -> None:
    for name in story.scene.cluster.nodes:
        story.scene.cluster.lose_power(name)


async def the_leaders_disk_is_lost(story: Story) -> None:
    leader = await story.only_the_leader_has_the_last()
    story.scene.cluster.kill(leader)
    await story.lose_disk(leader)
    await story.another_leads_than(leader)


async def the_disks_of_min_isr_are_lost(story: Story) -> None:
    """The two that are in the ISR, while the third is down."""
    third, *both = (one.name for one in story.scene.cluster.brokers)
    story.scene.cluster.kill(third)
    await story.scene.until(lambda: len(story.scene.state.isr) == 2, "the third left the ISR")
    await story.write(5)
    for name in both:
        story.scene.cluster.kill(name)
        await story.lose_disk(name)


async def the_leader_is_cut_off(story: Story) -> None:
    leader = story.leader
    story.scene.cluster.network.cut({leader}, set(story.scene.cluster.nodes) - {leader})
    await story.write(5)
    await story.another_leads_than(leader)


async def the_writer_is_killed(story: Story) -> None:
    """The program dies while its last record, or the answer to it, is on its way."""
    network, is_over = story.scene.cluster.network, asyncio.Event()

    async def run() -> None:
        async with Producer(
            bootstrap_servers=story.scene.cluster.bootstrap_servers, acks=story.acks
        ) as producer:
            for number in range(6):
                value = b"last %d" % number
                if number == 5:
                    network.cut({"writer"}, {story.leader})
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await producer.send_and_wait(TOPIC, value, partition=0)
                        story.acked.add(value)
            process = current_process()
            assert process is not None
            is_over.set()
            process.kill()
            await asyncio.sleep(0)

    story.scene.cluster.spawn_client(run, "writer")
    await is_over.wait()


FAULTS: dict[str, Callable[[Story], Awaitable[None]]] = {
    "a follower is killed (kill -9)": a_follower_is_killed,
    "the leader is killed": the_leader_is_killed,
    "all nodes are killed at once": all_are_killed,
    "the leader's machine loses its power": the_leaders_machine_loses_its_power,
    "all machines lose their power at once": all_machines_lose_their_power,
    "the leader's disk is lost": the_leaders_disk_is_lost,
    "the disks of `min.insync.replicas` replicas are lost": the_disks_of_min_isr_are_lost,
    "the network cuts the leader off": the_leader_is_cut_off,
    "the program that writes is killed": the_writer_is_killed,
}
COLUMNS: tuple[tuple[str | int, dict[str, str]], ...] = (
    ("all", {"flush.on.ack": "true"}),
    ("all", {}),
    (1, {}),
    (0, {}),
)


def rows() -> dict[str, list[str]]:
    """Return the first table of the page: each fault, with what its four columns say."""
    table = re.search(r"(?:^\|.*\n)+", PAGE.read_text(), re.MULTILINE)
    assert table is not None
    lines = [[one.strip() for one in line.split("|")[1:-1]] for line in table[0].splitlines()]
    return {fault: cells[:4] for fault, *cells in lines[2:]}


def lost(fault: str, acks: str | int, configs: dict[str, str], seed: int) -> set[bytes]:
    """Play a fault. Return the acknowledged records that are not there afterwards."""
    missing: set[bytes] = set()

    async def act(scene: Scene) -> None:
        story = Story(scene, acks)
        await story.write(10)
        await FAULTS[fault](story)
        await story.come_back()
        missing.update(story.acked - set((await scene.read()).values()))
        if missing and acks == "all":
            assert scene.state.recovered_epoch >= 0, "the loss is told"

    play(act, configs=configs, seed=seed)
    return missing


def test_each_fault_of_the_page_is_played() -> None:
    assert rows().keys() == FAULTS.keys()


@pytest.mark.parametrize("column", range(4), ids=["flush.on.ack", "all", "1", "0"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_what_the_table_says(fault: str, column: int) -> None:
    acks, configs = COLUMNS[column]
    if rows()[fault][column] == NONE:
        assert lost(fault, acks, configs, SEEDS[0]) == set()
    else:
        assert any(lost(fault, acks, configs, seed) for seed in SEEDS)


@pytest.mark.parametrize(("idempotent", "copies"), [(True, 1), (False, 2)])
def test_a_retry_doubles_a_record_only_without_idempotence(
    *, idempotent: bool, copies: int
) -> None:
    """The answer to the first try does not arrive."""

    async def act(scene: Scene) -> None:
        async def run() -> None:
            async with Producer(
                bootstrap_servers=scene.cluster.bootstrap_servers,
                enable_idempotence=idempotent,
            ) as producer:
                await producer.send_and_wait(TOPIC, b"before", partition=0)
                leader = f"broker-{scene.state.leader}"
                scene.cluster.network.cut({leader}, {"writer"}, one_way=True)
                delivery = await producer.send(TOPIC, b"once", partition=0)
                await asyncio.sleep(0.5)
                scene.cluster.network.break_streams({"writer"}, {leader})
                scene.cluster.network.heal()
                await delivery

        await scene.cluster.spawn_client(run, "writer")
        assert Counter((await scene.read()).values())[b"once"] == copies

    play(act)


async def work(scene: Scene, how: str, dies_at: int, worked: list[int]) -> None:
    """Read as a member of a group. The program dies, as by kill -9, with that record in hand."""
    is_over = asyncio.Event()

    async def run() -> None:
        async with Consumer(
            TOPIC,
            bootstrap_servers=scene.cluster.bootstrap_servers,
            group_id="g",
            auto_offset_reset="earliest",
            enable_auto_commit=how == "automatic commits",
            auto_commit_interval_ms=100,
        ) as consumer:
            while found := await consumer.getmany(timeout_ms=5_000, max_records=5):
                if how == "commit, then work":
                    await consumer.commit()
                for record in (one for records in found.values() for one in records):
                    if int(record.value or b"") == dies_at:
                        process = current_process()
                        assert process is not None
                        is_over.set()
                        process.kill()
                    await asyncio.sleep(0.1)
                    worked.append(int(record.value or b""))
                if how == "work, then commit":
                    await consumer.commit()
        is_over.set()

    scene.cluster.spawn_client(run)
    await is_over.wait()


@pytest.mark.parametrize(
    ("how", "times"),
    [("work, then commit", 2), ("automatic commits", 2), ("commit, then work", 0)],
)
def test_a_program_that_dies_works_on_the_records_in_its_hands_twice_or_never(
    how: str, times: int
) -> None:
    """It dies with record 17, the third of five that it has: 15 and 16 are done."""

    async def act(scene: Scene) -> None:
        await scene.produce(30)
        worked: list[int] = []
        await work(scene, how, 17, worked)
        await work(scene, how, -1, worked)
        counts = Counter(worked)
        assert all(counts[number] == 1 for number in (*range(15), *range(20, 30)))
        if times:
            assert (counts[15], counts[16]) == (times, times)
            assert counts[17] == counts[18] == counts[19] == 1
        else:
            assert counts[15] == counts[16] == 1
            assert counts[17] == counts[18] == counts[19] == 0

    play(act)


async def lose_the_quorum(scene: Scene) -> None:
    for voter in scene.cluster.voters[:2]:
        scene.cluster.kill(voter.name)
    await asyncio.sleep(60)


def test_records_go_on_without_a_majority_of_the_voters() -> None:
    async def act(scene: Scene) -> None:
        servers = scene.cluster.bootstrap_servers

        async def run() -> None:
            async with Producer(bootstrap_servers=servers) as producer:
                await producer.send_and_wait(TOPIC, b"before", partition=0)
                await lose_the_quorum(scene)
                await producer.send_and_wait(TOPIC, b"after", partition=0)

        await scene.cluster.spawn_client(run)
        assert list((await scene.read()).values()) == [b"before", b"after"]

    play(act)


def test_a_new_idempotent_producer_waits_for_a_majority_if_its_broker_has_no_ids() -> None:
    async def act(scene: Scene) -> None:
        servers = scene.cluster.bootstrap_servers
        await lose_the_quorum(scene)

        async def run() -> None:
            async with Producer(bootstrap_servers=servers, acks=1) as without_an_id:
                await without_an_id.send_and_wait(TOPIC, b"acks=1", partition=0)
            async with Producer(bootstrap_servers=servers, delivery_timeout_ms=5_000) as new:
                with pytest.raises(DeliveryTimeoutError, match="no controller") as refused:
                    await new.send_and_wait(TOPIC, b"new", partition=0)
            assert not refused.value.may_be_written

        await scene.cluster.spawn_client(run)
        assert list((await scene.read()).values()) == [b"acks=1"]

    play(act)
