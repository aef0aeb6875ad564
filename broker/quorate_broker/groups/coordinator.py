"""The groups that this broker coordinates: a Shard for each led partition of __consumer_offsets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from quorate.aio.tasks import Tasks
from quorate.aio.turns import Turns
from quorate.errors import CoordinatorNotAvailableError, NotCoordinatorError
from quorate.net.principal import Principal
from quorate.v1.common_pb2 import LeaderHint
from quorate_broker.groups.image_topics import ImageTopics, changed_names
from quorate_broker.groups.machine.config import GroupsConfig
from quorate_broker.groups.machine.shard import ShardMachine
from quorate_broker.groups.machine.topics import Topics
from quorate_broker.groups.partitioning import partition_of
from quorate_broker.groups.replay import RECORDS_A_TURN
from quorate_broker.groups.shard import Shard, ShardHost
from quorate_broker.replica.hints import hinted
from quorate_broker.replica.leader_replica import LeaderReplica
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.replica import Key
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.topics import OFFSETS_TOPIC
from quorate_quorum.node.authorizer import DESCRIBE_TOPIC, Authorizer, Caller
from quorate_quorum.node.config import BrokerConfig

#: The longest wait for the end of cancelled loads.
END_TIMEOUT_S = 1.0


class Coordinator:
    """Makes a Shard when this broker becomes the leader of a partition, and ends it afterwards.

    It is a RoleListener of Replicas, and hears of images after the broker has carried them out. So
    a new shard never sees an older image than the one that made this broker the leader: such an
    image would lack topics for which offsets are committed already.
    """

    def __init__(
        self,
        replicas: Replicas,
        fail: Callable[[str], None],
        authorizer: Authorizer,
        make_machine: Callable[[GroupsConfig, Topics], ShardMachine] | None = None,
    ) -> None:
        self._replicas = replicas
        self._tasks = Tasks(lambda name, error: fail(f"{name}: {error!r}"))
        self._shards: dict[Key, Shard] = {}
        self._host = ShardHost(
            config=groups_config(replicas.config),
            commit_timeout_ms=replicas.config.offsets_commit_timeout_ms,
            wall_clock_ms=replicas.environment.wall_clock_ms,
            topics=lambda: ImageTopics(replicas.image),
            tasks=self._tasks,
            turns=Turns(RECORDS_A_TURN),
            make_machine=make_machine
            or partial(ShardMachine, may_describe=partial(_may_describe, authorizer)),
        )

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards of this broker, loaded or not."""
        return tuple(self._shards.values())

    def shard_of(self, group_id: str) -> Shard:
        """Return the shard that has a group.

        Raises NotCoordinatorError with a hint, or CoordinatorNotAvailableError.
        """
        image = self._replicas.image
        topic = image.topic_named(OFFSETS_TOPIC)
        if topic is None:
            raise CoordinatorNotAvailableError(
                f"broker {self._replicas.broker_id} knows no {OFFSETS_TOPIC} yet: look the "
                "coordinator up (FindCoordinators), which makes it"
            )
        index = partition_of(group_id, len(topic.partitions))
        shard = self._shards.get((topic.id, index))
        if shard is not None:
            return shard
        state = topic.partitions[index]
        if state.leader in (-1, self._replicas.broker_id):
            raise CoordinatorNotAvailableError(
                f"{OFFSETS_TOPIC}-{index}, which has group {group_id[:249]!r}, has no leader now, "
                "or its leader is just beginning: ask again"
            )
        raise hinted(
            NotCoordinatorError(
                f"broker {self._replicas.broker_id} does not coordinate group "
                f"{group_id[:249]!r}; broker {state.leader} does"
            ),
            LeaderHint(leader=state.leader, leader_epoch=state.leader_epoch),
        )

    # RoleListener

    def role_changed(self, partition: Partition) -> None:
        if partition.topic != OFFSETS_TOPIC:
            return
        role = partition.role
        shard = self._shards.get(partition.key)
        if shard is not None and shard.leader is role:
            return
        self.removed(partition)
        if isinstance(role, LeaderReplica):
            self._shards[partition.key] = Shard(partition, role, self._host)

    def removed(self, partition: Partition) -> None:
        shard = self._shards.pop(partition.key, None)
        if shard is not None:
            shard.end()

    def isr_wanted(self, partition: Partition) -> None:
        """Do nothing: the ISR keeper does it."""

    def isr_unsettled(self, partition: Partition) -> None:
        """Do nothing: the ISR keeper does it."""

    # ImageListener

    def image_changed(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Tell all shards which topics changed."""
        if not self._shards:
            return
        names = changed_names(delta, image)
        if names:
            for shard in self._shards.values():
                shard.topics_changed(names)

    async def stop(self) -> None:
        """End all shards. It is safe to call this twice."""
        for key in list(self._shards):
            self._shards.pop(key).end()
        await self._tasks.end_all(timeout_s=END_TIMEOUT_S)


def _may_describe(authorizer: Authorizer, principal: Principal, topic: str) -> bool:
    return Caller(principal, authorizer).may(DESCRIBE_TOPIC, topic)


def groups_config(config: BrokerConfig) -> GroupsConfig:
    """Return the bounds and times of the groups, as the node's configuration says."""
    return GroupsConfig(
        session_timeout_ms=config.group_consumer_session_timeout_ms,
        session_timeout_ms_min=config.group_consumer_min_session_timeout_ms,
        session_timeout_ms_max=config.group_consumer_max_session_timeout_ms,
        heartbeat_interval_ms=config.group_consumer_heartbeat_interval_ms,
        disconnect_grace_ms=config.group_disconnect_grace_ms,
        assignment_interval_ms=config.group_consumer_assignment_interval_ms,
        members_max=config.group_max_size,
        initial_rebalance_delay_ms=config.group_initial_rebalance_delay_ms,
        classic_session_timeout_ms_min=config.group_min_session_timeout_ms,
        classic_session_timeout_ms_max=config.group_max_session_timeout_ms,
        offset_metadata_bytes_max=config.offset_metadata_max_bytes,
        offsets_retention_ms=config.offsets_retention_minutes * 60_000,
        offsets_check_interval_ms=config.offsets_retention_check_interval_ms,
    )
