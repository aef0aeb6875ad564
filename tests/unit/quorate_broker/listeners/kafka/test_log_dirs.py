"""AlterReplicaLogDirs: whether replicas are in the directories that are named; none is moved."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from quorate_broker.listeners.kafka import errors as codes
from quorate_broker.listeners.kafka.call import Call, Client
from quorate_broker.listeners.kafka.cluster import ClusterRequests
from quorate_broker.listeners.kafka.messages import alter_replica_log_dirs as alter
from quorate_broker.operations.log_dirs import LogDirs
from quorate_quorum.node.authorizer import AllowAll, Authorizer
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    built,
    directory_id,
    partition_made,
    topic_event,
)

#: Broker 1 has two directories. The replica of orders/0 is in the first one; 1 is elsewhere.
IMAGE = built(
    topic_event(1, "orders"),
    partition_made(1, 0, [0, 1]),
    partition_made(1, 1, [0, 2]),
    on=brokers([0, 1, 2], disks=2),
)
DIRECTORIES = {directory_id(1, disk): SimpleNamespace(path=f"/d{disk}") for disk in (0, 1)}


async def asked(authorizer: Authorizer, *named: tuple[str, str, int]) -> list[tuple[str, int, int]]:
    """Ask for (path, topic, partition); return topic, partition and code of each result."""
    replicas: Any = SimpleNamespace(image=IMAGE, broker_id=1, directories=DIRECTORIES)
    operations: Any = SimpleNamespace(
        metadata=None, admin=None, rights=None, log_dirs=LogDirs(replicas, authorizer)
    )
    request = alter.AlterReplicaLogDirsRequest(
        [
            alter.AlterReplicaLogDir(path, [alter.AlterReplicaLogDirTopic(topic, [partition])])
            for path, topic, partition in named
        ]
    )
    work = ClusterRequests(operations, "c", 1, lambda: 0)
    call: Any = Call(request, 2, Client("a", "kafka"))
    response = await work.alter_replica_log_dirs(call)
    return [
        (one.topic_name, part.partition_index, part.error_code)
        for one in response.results
        for part in one.partitions
    ]


@pytest.mark.parametrize(
    ("path", "topic", "partition", "code"),
    [
        ("/d0", "orders", 0, codes.NONE),
        ("/d1", "orders", 0, codes.INVALID_REQUEST),
        ("/d2", "orders", 0, codes.LOG_DIR_NOT_FOUND),
        ("/d0", "orders", 1, codes.REPLICA_NOT_AVAILABLE),
        ("/d0", "orders", 2, codes.REPLICA_NOT_AVAILABLE),
        ("/d0", "orders", -1, codes.REPLICA_NOT_AVAILABLE),
        ("/d0", "others", 0, codes.REPLICA_NOT_AVAILABLE),
    ],
)
async def test_a_replica_may_be_asked_for_where_it_is(
    path: str, topic: str, partition: int, code: int
) -> None:
    assert await asked(AllowAll(), (path, topic, partition)) == [(topic, partition, code)]


async def test_several_directories_are_answered_by_topic() -> None:
    named = (("/d0", "orders", 0), ("/d1", "a", 0), ("/d1", "orders", 1))
    assert await asked(AllowAll(), *named) == [
        ("orders", 0, codes.NONE),
        ("orders", 1, codes.REPLICA_NOT_AVAILABLE),
        ("a", 0, codes.REPLICA_NOT_AVAILABLE),
    ]


async def test_it_requires_the_right_to_alter_the_cluster() -> None:
    refusal: Any = SimpleNamespace(authorize=lambda *_: False)
    found = await asked(refusal, ("/d0", "orders", 0))
    assert found == [("orders", 0, codes.CLUSTER_AUTHORIZATION_FAILED)]
