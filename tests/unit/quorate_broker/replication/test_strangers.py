"""Replica streams that claim what is not theirs: each is refused, and nothing changes for it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, NamedTuple

import pytest

from quorate.errors import QuorateError
from quorate.v1.common_pb2 import Error, ErrorCode
from quorate_broker.methods import REPLICA_FETCH
from quorate_broker.replication import follower_positions
from quorate_broker.replication.follower_positions import FollowerPositions
from quorate_broker.v1.replica_pb2 import ReplicaFetchPartition, ReplicaFetchRequest, ReplicaOpen
from quorate_quorum.v1 import events_pb2 as ev
from tests.harness.hostile_streams import HostileStreams
from tests.unit.quorate_broker.builders import TOPIC_ID, World, directory_id, until

#: A topic of which broker 3 has no replica.
OTHER_ID = bytes(reversed(range(16)))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Broker 3 is stopped, and out of the ISR: what comes as broker 3 is a stranger's."""
    world = World()
    await world.start()
    await world.commit(
        ev.MetadataEvent(topic=ev.Topic(topic_id=OTHER_ID, name="other")),
        ev.MetadataEvent(
            partition=ev.Partition(
                topic_id=OTHER_ID,
                partition=0,
                replicas=[ev.Replica(broker_id=b, directory_id=directory_id(b)) for b in (1, 2)],
                isr=(1, 2),
                leader=1,
                recovered_epoch=-1,
            )
        ),
    )
    await world.brokers[1].produce(b"a", b"b")
    await world.fence(3)
    await world.change(isr=[1, 2], leader=1)
    await world.brokers[3].stop()
    yield world
    await world.stop()


def opening(world: World, **claimed: Any) -> ReplicaOpen:
    """What broker 3 would say, but for what is claimed."""
    truth: dict[str, Any] = {
        "cluster_id": "cluster",
        "replica_id": 3,
        "broker_epoch": world.image.brokers[3].epoch,
        "incarnation": world.image.brokers[3].incarnation,
        "stream_number": 1_000,
    }
    return ReplicaOpen(**(truth | claimed))


async def refusal(world: World, to: int, opened: ReplicaOpen | None, **named: Any) -> Error:
    """Open a stream to a broker, name one partition, and return the first error."""
    told: dict[str, Any] = {
        "topic_id": TOPIC_ID, "leader_epoch": 1, "fetch_offset": 2, "last_fetched_epoch": 0,
    }  # fmt: skip
    request = ReplicaFetchRequest(
        open=opened,
        partitions=[ReplicaFetchPartition(**(told | named))],
        max_bytes=1 << 20,
        max_wait_ms=10,
        request_number=1,
    )

    async def requests() -> AsyncIterator[ReplicaFetchRequest]:
        yield request
        await asyncio.sleep(10)

    connection = world.network_of("stranger").connect(world.brokers[to].endpoint)
    try:
        async with (
            asyncio.timeout(10),
            aclosing(connection.stream(REPLICA_FETCH, requests())) as frames,
        ):
            async for frame in frames:
                for error in (frame.header.error, *(p.error for p in frame.header.partitions)):
                    if error.code:
                        return error
    finally:
        await connection.close()
    raise AssertionError("nothing was refused")


class Claim(NamedTuple):
    """What a stream claims, and the refusal: its code, and words of what was asked and found."""

    opened: dict[str, Any]
    named: dict[str, Any]
    code: str
    words: str
    to: int = 1


#: In what is claimed and told, EPOCH_OF_2 is the broker_epoch of broker 2.
CLAIMS: dict[str, Claim] = {
    "another cluster": Claim(
        {"cluster_id": "other"},
        {},
        "WRONG_CLUSTER",
        "cluster 'other' was asked, this is 'cluster'",
    ),
    "no registered broker": Claim(
        {"replica_id": 9},
        {},
        "UNKNOWN_BROKER",
        "broker 9 with broker_epoch EPOCH_OF_3 is not known here yet; its registration here: none",
    ),
    "a registration to come": Claim(
        {"broker_epoch": 999},
        {},
        "UNKNOWN_BROKER",
        "broker 3 with broker_epoch 999 is not known here yet; its registration here: broker_epoch"
        " EPOCH_OF_3",
    ),
    "a registration that is over": Claim(
        {"broker_epoch": 0}, {}, "FENCED", "broker_epoch 0 was replaced by EPOCH_OF_3"
    ),
    "the id of another broker": Claim(
        {"replica_id": 2, "broker_epoch": "EPOCH_OF_2"},
        {},
        "FENCED",
        f"broker_epoch EPOCH_OF_2 is of the process {(bytes([2, 1]) * 8).hex()}, and"
        f" {(bytes([3, 1]) * 8).hex()} asks",
    ),
    "another process's registration": Claim(
        {"incarnation": b"s" * 16},
        {},
        "FENCED",
        f"and {(b's' * 16).hex()} asks: give each broker a node.id of its own",
    ),
    "a replica that is not assigned": Claim(
        {},
        {"topic_id": OTHER_ID, "leader_epoch": 0},
        "UNKNOWN_LEADER_EPOCH",
        "broker 3 has no replica of it in leader_epoch 0; brokers [1, 2] have",
    ),
    "a leader epoch that is over": Claim(
        {},
        {"leader_epoch": 0},
        "FENCED_LEADER_EPOCH",
        "leader_epoch 0 was given, and 1 is known here",
    ),
    "a leader epoch to come": Claim(
        {},
        {"leader_epoch": 7},
        "UNKNOWN_LEADER_EPOCH",
        f"leader_epoch 7 of {TOPIC_ID.hex()}-0 was given, and 1 is known here, led by broker 1",
    ),
    "a leader that is none": Claim(
        {}, {}, "NOT_LEADER", "broker 2 does not lead invoice-0; broker 1 does", to=2
    ),
    "no such topic": Claim(
        {},
        {"topic_id": b"x" * 16},
        "UNKNOWN_LEADER_EPOCH",
        f"of {(b'x' * 16).hex()}-0 was given, and no such partition is known here; retry",
    ),
    "no such partition": Claim(
        {}, {"partition": 7}, "UNKNOWN_LEADER_EPOCH", "-7 was given, and no such partition is known"
    ),
    "a negative partition": Claim(
        {}, {"partition": -1}, "UNKNOWN_LEADER_EPOCH", "--1 was given, and no such partition is"
    ),
    "an offset below the log": Claim(
        {}, {"fetch_offset": -5}, "OFFSET_OUT_OF_RANGE", "-5 is below the start 0"
    ),
    "an offset above the log": Claim(
        {},
        {"fetch_offset": 9, "last_fetched_epoch": -1},
        "OFFSET_OUT_OF_RANGE",
        "9 is above the end 2",
    ),
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS.keys())
async def test_a_stream_that_claims_what_is_not_its_own_is_refused(
    world: World, claim: Claim
) -> None:
    one, before, words = world.brokers[1], world.image, claim.words
    epochs = {f"EPOCH_OF_{b}": before.brokers[b].epoch for b in (2, 3)}
    for name, epoch in epochs.items():
        words = words.replace(name, str(epoch))
    opened = {name: epochs.get(value, value) for name, value in claim.opened.items()}
    leaders = [one.replicas.get(key, 0).as_leader().machine for key in (TOPIC_ID, OTHER_ID)]
    known = [(leader.high_watermark, leader.isr) for leader in leaders]

    error = await refusal(world, claim.to, opening(world, **opened), **claim.named)

    assert ErrorCode.Name(error.code) == f"ERROR_CODE_{claim.code}", error.message
    assert words in error.message
    assert [(leader.high_watermark, leader.isr) for leader in leaders] == known
    assert not any(3 in leader.replicas and leader.replicas[3].stream for leader in leaders)
    await one.produce(b"c")
    assert world.image is before


async def test_a_stream_that_does_not_begin_with_its_names_is_refused(world: World) -> None:
    error = await refusal(world, 1, None)
    assert error.code == ErrorCode.ERROR_CODE_WRONG_CLUSTER
    assert "cluster '' was asked" in error.message


async def test_an_older_stream_of_a_broker_does_not_displace_the_newer_one(world: World) -> None:
    two = world.brokers[2]
    older = opening(
        world,
        replica_id=2,
        broker_epoch=world.image.brokers[2].epoch,
        incarnation=two.incarnation,
        stream_number=0,
    )
    error = await refusal(world, 1, older)
    assert error.code == ErrorCode.ERROR_CODE_FENCED
    assert "stream 0 of broker 2 was replaced by" in error.message
    await world.brokers[1].produce(b"c")


@pytest.mark.parametrize("registers_again", [False, True])
async def test_a_position_that_waited_is_taken_only_for_the_registration_it_came_with(
    world: World, monkeypatch: pytest.MonkeyPatch, registers_again: bool
) -> None:
    """The older run of broker 3 would acknowledge records that its disk may have lost since."""
    monkeypatch.setattr(follower_positions, "EARLY_MS_MAX", 3_600_000)
    came: list[ReplicaFetchPartition] = []
    name = FollowerPositions.name

    def noted(positions: FollowerPositions, stream: Any, named: Any, now_ms: int) -> None:
        name(positions, stream, named, now_ms)
        came.append(named)

    monkeypatch.setattr(FollowerPositions, "name", noted)
    two, three, early = world.brokers[2], world.brokers[3], world.state.leader_epoch + 1

    def waiting() -> list[ReplicaFetchPartition]:
        return [one for one in came if one.log_start_offset == 1]

    named = {"leader_epoch": early, "fetch_offset": 2, "log_start_offset": 1}
    asked = asyncio.create_task(refusal(world, 2, opening(world), **named))
    await until(lambda: len(waiting()) == 1)
    if registers_again:
        three.incarnation = b"n" * 16
        await world.register(three)
    await world.change(leader=2)
    await two.produce(b"c")

    taken = 1 if registers_again else 2
    assert len(waiting()) == taken
    stream = two.partition.as_leader().machine.replicas[3].stream
    assert (stream is None) == registers_again
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked


@pytest.mark.parametrize("seed", range(4))
async def test_no_stream_of_a_stranger_harms_a_leader(world: World, seed: int) -> None:
    """It speaks as broker 3, which is fenced, and has a replica."""
    one = world.brokers[1]
    drawn = HostileStreams(random.Random(seed), opening(world), [TOPIC_ID, OTHER_ID])
    for _ in range(30):
        await send(world, drawn.stream())
        await one.produce(b"good", timeout_ms=5_000)
    assert one.partition.offline is None
    assert one.partition.high_watermark == one.partition.log_end_offset == 32
    assert await one.stored() == await world.brokers[2].stored()
    assert world.state.isr == (1, 2)


async def send(world: World, stream: list[ReplicaFetchRequest]) -> None:
    """Send the requests of a stream to broker 1, and read for a moment what comes."""

    async def requests() -> AsyncIterator[ReplicaFetchRequest]:
        for request in stream:
            yield request
        await asyncio.sleep(0.02)

    connection = world.network_of("stranger").connect(world.brokers[1].endpoint)
    with contextlib.suppress(QuorateError):
        async with aclosing(connection.stream(REPLICA_FETCH, requests())) as frames:
            async for _ in frames:
                pass
    await connection.close()
