"""The log directories of this broker: how much of them each replica uses, and which has which."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from quorate.net.principal import Principal
from quorate_broker.operations.partitions import PARTITIONS_A_TURN
from quorate_broker.replica.partition import Partition
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.node.authorizer import (
    ALTER_CLUSTER,
    DESCRIBE_CLUSTER,
    DESCRIBE_TOPIC,
    Authorizer,
    Caller,
)

REQUIRED: Final = DESCRIBE_CLUSTER
UNKNOWN_BYTES = -1


class ReplicaSize(NamedTuple):
    """One replica: the bytes of its log, the range of its offsets, and what is wrong with it."""

    topic: str
    partition: int
    size: int
    log_start_offset: int
    log_end_offset: int
    is_leader: bool
    compaction_failure: str
    #: Why the replica is damaged or offline, or that it lost records; empty if none of that holds.
    trouble: str


class LogDir(NamedTuple):
    """One log directory. `failure` is empty while the directory is in use.

    `directory_id` is empty if the directory could not be read at the start.
    """

    path: str
    directory_id: bytes
    failure: str
    free_bytes: int
    replicas: list[ReplicaSize]


class LogDirs:
    """The DescribeLogDirs operation, for all clients of a broker."""

    def __init__(self, replicas: Replicas, authorizer: Authorizer) -> None:
        self._replicas = replicas
        self._authorizer = authorizer

    async def describe(self, principal: Principal, topics: Collection[str] | None) -> list[LogDir]:
        """Describe each directory, with the replicas of `topics`.

        None means all topics. Topics that the caller may not describe are left out.
        Raises ClusterAuthorizationFailedError.
        """
        caller = Caller(principal, self._authorizer)
        caller.check(REQUIRED)
        replicas, wanted = self._replicas, None if topics is None else frozenset(topics)
        held: dict[bytes, list[ReplicaSize]] = {one: [] for one in replicas.directories}
        for number, partition in enumerate(replicas.all(), 1):
            is_asked = wanted is None or partition.topic in wanted
            if is_asked and caller.may(DESCRIBE_TOPIC, partition.topic):
                found = ReplicaSize(
                    partition.topic,
                    partition.partition,
                    partition.log.size,
                    partition.log_start_offset,
                    partition.log_end_offset,
                    partition.is_leader,
                    partition.compaction_failure,
                    self._trouble(partition),
                )
                held[partition.directory_id].append(found)
            if number % PARTITIONS_A_TURN == 0:
                await asyncio.sleep(0)
        for found_in, unopened in self._unopened(caller, wanted):
            held[found_in].append(unopened)
        described = [
            LogDir(
                directory.path,
                directory_id,
                failure := replicas.failed_directories.get(directory_id, ""),
                UNKNOWN_BYTES if failure else await self._free_bytes(directory.path),
                sorted(held[directory_id]),
            )
            for directory_id, directory in list(replicas.directories.items())
        ]
        return described + [
            LogDir(path, b"", f"not readable at the start: {reason}", UNKNOWN_BYTES, [])
            for path, reason in replicas.unreadable_directories.items()
        ]

    def paths(self, principal: Principal) -> frozenset[str]:
        """Return the paths of the directories. Raises ClusterAuthorizationFailedError."""
        Caller(principal, self._authorizer).check(ALTER_CLUSTER)
        return frozenset(one.path for one in self._replicas.directories.values())

    def path_of(self, topic: str, partition: int) -> str | None:
        """Return the directory of a replica, as the image has it; None if the broker has none."""
        found = self._replicas.image.topic_named(topic)
        state = None if found is None else self._replicas.image.partition(found.id, partition)
        directory_id = None if state is None else state.directory_of(self._replicas.broker_id)
        directory = self._replicas.directories.get(directory_id or b"")
        return None if directory is None else directory.path

    def _trouble(self, partition: Partition) -> str:
        if partition.offline is not None:
            return f"it is offline: {partition.offline}"
        if partition.damage.reason is not None:
            return f"a batch is damaged: {partition.damage.reason}"
        return self._replicas.losses.reason_of(partition.key)

    def _unopened(
        self, caller: Caller, wanted: Collection[str] | None
    ) -> Iterator[tuple[bytes, ReplicaSize]]:
        """Yield the replicas whose logs are not open, each with the id of its directory."""
        replicas = self._replicas
        for key, reason in replicas.unopened.items():
            topic, state = replicas.image.topics.get(key[0]), replicas.image.partition(*key)
            if topic is None or state is None or replicas.find(*key) is not None:
                continue
            directory_id = state.directory_of(replicas.broker_id)
            is_asked = wanted is None or topic.name in wanted
            if (
                is_asked
                and directory_id in replicas.directories
                and caller.may(DESCRIBE_TOPIC, topic.name)
            ):
                trouble = f"it is not open: {reason}"
                yield directory_id, ReplicaSize(topic.name, key[1], 0, 0, 0, False, "", trouble)

    async def _free_bytes(self, path: str) -> int:
        try:
            return await self._replicas.environment.disk.free_bytes(path)
        except OSError:
            return UNKNOWN_BYTES
