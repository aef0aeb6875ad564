"""At which rate a replica is copied: by its move, or by the lists of its topic."""

from __future__ import annotations

from typing import Literal

import pytest

from quorate_broker.replication.throttle import rate_of
from quorate_quorum.configs import ThrottleConfig, TopicConfig
from quorate_quorum.metadata.partitions import PartitionImage, ReplicaImage

#: Broker 1 leads; 2 is in sync, 3 is not, and 4 is being added.
STATE = PartitionImage(
    replicas=tuple(ReplicaImage(broker, b"d" * 16) for broker in (4, 1, 2, 3)),
    isr=(1, 2),
    leader=1,
    adding=(4,),
    removing=(3,),
    throttle=50,
)
LEADER, FOLLOWER = "leader.replication.throttled.", "follower.replication.throttled."


def rate(
    side: Literal["leader", "follower"],
    follower: int,
    topic: dict[str, str],
    rates: tuple[int, int],
    number: int = 0,
) -> int | None:
    return rate_of(
        side,
        STATE,
        TopicConfig.of(topic, {}),
        ThrottleConfig(
            leader_replication_throttled_rate=rates[0],
            follower_replication_throttled_rate=rates[1],
        ),
        number=number,
        broker_id=1 if side == "leader" else follower,
        follower=follower,
    )


ALL = {LEADER + "replicas": "*", FOLLOWER + "replicas": "*"}
NO = (ThrottleConfig().leader_replication_throttled_rate,) * 2
CASES: list[tuple[str, int, dict[str, str], tuple[int, int], int | None]] = [
    # the throttle of the move is that of the replicas that it adds
    ("leader", 4, {}, NO, 50),
    ("follower", 4, {}, NO, 50),
    ("leader", 3, {}, NO, None),
    ("follower", 3, {}, NO, None),
    # a list needs a rate, and a rate a list
    ("leader", 3, ALL, NO, None),
    ("leader", 3, {}, (7, 8), None),
    ("leader", 3, ALL, (7, 8), 7),
    ("follower", 3, ALL, (7, 8), 8),
    # the lower one counts
    ("leader", 4, ALL, (70, 8), 50),
    ("leader", 4, ALL, (7, 8), 7),
    ("follower", 4, ALL, (7, 80), 50),
    # the leader's list names the leader, the follower's the follower
    ("leader", 3, {LEADER + "replicas": "0:1"}, (7, 8), 7),
    ("leader", 3, {LEADER + "replicas": "0:3"}, (7, 8), None),
    ("leader", 3, {LEADER + "replicas": "1:1"}, (7, 8), None),
    ("follower", 3, {FOLLOWER + "replicas": "0:3,0:4"}, (7, 8), 8),
    ("follower", 3, {FOLLOWER + "replicas": "0:1"}, (7, 8), None),
    ("follower", 3, {LEADER + "replicas": "*"}, (7, 8), None),
]  # fmt: skip


@pytest.mark.parametrize(("side", "follower", "topic", "rates", "expected"), CASES)
def test_the_rate_of_a_replica_that_is_out_of_sync(
    side: Literal["leader", "follower"],
    follower: int,
    topic: dict[str, str],
    rates: tuple[int, int],
    expected: int | None,
) -> None:
    assert rate(side, follower, topic, rates) == expected


@pytest.mark.parametrize("side", ["leader", "follower"])
def test_a_replica_in_the_isr_has_no_throttle(side: Literal["leader", "follower"]) -> None:
    assert rate(side, 2, ALL, (7, 8)) is None
