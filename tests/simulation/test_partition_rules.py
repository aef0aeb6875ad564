"""Each rule of partition_rules.py is broken, by hand or by a patch: it must say so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import pytest
from crc32c import crc32c

from quorate import TopicPartition
from quorate_broker.replica.in_sync_replicas import InSyncReplicas
from quorate_broker.replica.leader import Leader
from quorate_broker.replica.producers import Producer
from quorate_quorum.metadata.partitions import PartitionImage, ReplicaImage
from quorate_testing.simulated.chaos import Fault
from quorate_testing.simulated.loop import SimulationError
from tests.harness.cluster_scene import LOG, TOPIC, Scene, play
from tests.harness.cluster_shape import Shape
from tests.harness.invariants import Invariants, Violation
from tests.harness.partition_rules import PartitionRules, check_maximal, check_state
from tests.harness.scene_clients import ask
from tests.harness.world import run_seed

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

KEY = TopicPartition(TOPIC, 0)
#: Where the CRC of a batch is, and where the bytes begin that it covers.
CRC_AT, COVERED_FROM = 17, 21
#: Three replicas, of which two are in the ISR.
STATE = PartitionImage(
    leader=0,
    replicas=tuple(ReplicaImage(broker_id, bytes(16)) for broker_id in range(3)),
    isr=(0, 1),
)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (replace(STATE, isr=(0, 3)), r"ISR \(0, 3\) or ELR \(\) not in \(0, 1, 2\)"),
        (replace(STATE, elr=(4,)), r"ELR \(4,\) not in"),
        (replace(STATE, elr=(1,)), r"\{1\} are in ISR and ELR"),
        (replace(STATE, leader=2), r"leader 2 is not in the ISR \(0, 1\)"),
    ],
)
def test_an_impossible_state_of_a_partition_is_seen(state: PartitionImage, told: str) -> None:
    check_state("t-0", STATE)
    with pytest.raises(Violation, match=told):
        check_state("t-0", state)


def test_a_leader_that_does_not_count_with_a_member_of_the_isr_is_seen() -> None:
    check_maximal("broker-0", "t-0", STATE, (0, 1, 2))
    with pytest.raises(Violation, match="the controller's ISR of t-0 is"):
        check_maximal("broker-0", "t-0", STATE, (0, 2))


def watched(act: Callable[[Scene, PartitionRules], Coroutine[Any, Any, None]]) -> None:
    """Play a scene with the rules."""

    async def acts(scene: Scene) -> None:
        rules = PartitionRules(scene.cluster, TOPIC)
        scene.loop.on_instant = rules.check
        await act(scene, rules)
        scene.loop.on_instant = None

    play(acts)


def change_a_batch(scene: Scene, broker_id: int, offset: int) -> None:
    """Change one byte of the last record's value, and the CRC with it."""
    disk = scene.node(broker_id).disk
    content = bytearray(disk.content(LOG))
    start, end = scene.position_of(broker_id, offset), scene.position_of(broker_id, offset + 1)
    content[end - 2] ^= 1
    content[start + CRC_AT : start + COVERED_FROM] = crc32c(
        content[start + COVERED_FROM : end]
    ).to_bytes(4, "big")
    disk.put(LOG, bytes(content))


def test_a_replica_with_another_committed_batch_is_seen() -> None:
    async def act(scene: Scene, rules: PartitionRules) -> None:
        await scene.produce(20)
        await scene.until(lambda: rules.batches.compared >= 60, "all replicas were compared")
        follower = next(b for b in scene.state.isr if b != scene.state.leader)
        await scene.cluster.stop(f"broker-{follower}")
        change_a_batch(scene, follower, 5)
        scene.cluster.start(f"broker-{follower}")
        await scene.whole()
        await scene.produce(1)

    with pytest.raises((SimulationError, Violation), match="committed batches differ"):
        watched(act)


def test_an_acknowledgement_above_the_high_watermark_is_seen() -> None:
    async def act(scene: Scene, rules: PartitionRules) -> None:
        await scene.produce(20)
        rules.acknowledged(0, 19)
        await scene.produce(1)
        rules.acknowledged(0, 21)
        await scene.produce(1)

    with pytest.raises((SimulationError, Violation), match="all below 22 was acknowledged"):
        watched(act)


def test_a_high_watermark_that_goes_back_is_seen() -> None:
    async def act(scene: Scene) -> None:
        scene.loop.on_instant = Invariants(scene.cluster).check
        await scene.produce(20)
        follower = next(b for b in scene.state.isr if b != scene.state.leader)
        await scene.until(lambda: scene.replica(follower).high_watermark == 20, "it is known")
        scene.replica(follower).log.high_watermark = 5
        await scene.produce(1)

    with pytest.raises((SimulationError, Violation), match="went from 20 to 5"):
        play(act)


def test_a_follower_may_drop_what_an_election_has_lost_that_was_told() -> None:
    """The last member of the ISR comes back after an unclean election, with the most records."""

    async def act(scene: Scene) -> None:
        scene.loop.on_instant = Invariants(scene.cluster).check
        await scene.produce(20)
        last = scene.state.leader
        others = [b for b in (0, 1, 2) if b != last]
        for broker_id in others:
            scene.cluster.kill(f"broker-{broker_id}")
        await scene.until(lambda: scene.state.isr == (last,), "it is alone")
        await scene.produce(10)
        await scene.cluster.stop(f"broker-{last}")
        for broker_id in others:
            scene.cluster.start(f"broker-{broker_id}")
        await asyncio.sleep(3)
        await ask(scene, lambda admin: admin.elect_leaders(unclean=True, partitions=[KEY]))
        await scene.until(lambda: scene.state.leader in others, "another leads")
        scene.cluster.start(f"broker-{last}")
        await scene.whole()
        assert any(told.startswith("dropping records that were committed") for told in scene.told)
        scene.loop.on_instant = None

    play(act, configs={"min.insync.replicas": "1"})


def run(kinds: Sequence[str], seeds: range) -> None:
    """Run seeds with these faults in turn; each lasts until after the next has begun."""
    for seed in seeds:
        run_seed(
            seed,
            [
                Fault(2.0 + 0.7 * n, kinds[n % len(kinds)], 0.9, 0.13 * n % 1, 100 * seed + n)
                for n in range(20)
            ],
            shape=Shape(),
        )


def test_a_batch_that_is_written_twice_is_seen_when_it_is_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Producer, "check", lambda *_: None)
    with pytest.raises((Violation, SimulationError), match=r"sequence \d+ came, and \d+ is next"):
        run(("break streams", "half-open", "kill"), range(6))


def test_a_leader_that_serves_before_it_knows_what_is_committed_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Leader, "knows_high_watermark", True)
    with pytest.raises((Violation, SimulationError), match="clients see the high watermark"):
        run(("kill several", "delay"), range(6))


def test_a_leader_that_forgets_what_it_has_proposed_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def recount(in_sync: InSyncReplicas) -> None:
        in_sync.maximal = in_sync.committed

    monkeypatch.setattr(InSyncReplicas, "_recount", recount)
    with pytest.raises((Violation, SimulationError), match="and the leader's largest is"):
        run(("kill several", "delay"), range(6))


def test_a_leader_that_lacks_what_is_committed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leader, "_end_of", lambda leader, _: leader.log_end_offset)
    with pytest.raises((Violation, SimulationError), match=r"is committed|was acknowledged|went"):
        run(("delay", "kill several"), range(6))
