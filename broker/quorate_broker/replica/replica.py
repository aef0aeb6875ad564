"""A replica without its role: its identity, its state in the image, its failure.

Partition adds the roles. The role objects (LeaderReplica, FollowerReplica) and the log (ReplicaLog)
have a reference to the replica. This module imports none of them.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal, Protocol

import structlog

from quorate.aio.turns import Turns
from quorate.errors import (
    FencedLeaderEpochError,
    NotLeaderError,
    OutcomeUnknownError,
    QuorateError,
    StorageError,
    UnknownLeaderEpochError,
)
from quorate.v1.common_pb2 import LeaderHint
from quorate_broker.replica.checks import ProducerBatches
from quorate_broker.replica.hints import hinted
from quorate_broker.replica.watches import Watches
from quorate_quorum.configs import TopicConfig
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.metadata.topics import INTERNAL_TOPICS
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.environment import Environment

log_line = structlog.get_logger(__name__)

#: Topic id and number of a partition.
Key = tuple[bytes, int]

#: The kinds of failure of a replica:
#: storage: the disk failed, and the whole log directory is lost;
#: replica: the disk is good, and the log must be opened again;
#: corrupt: the log has other bytes than those that were written and synced;
#: broken: an invariant does not hold, or this program has a bug.
Failure = Literal["storage", "replica", "corrupt", "broken"]


class ReplicaHost(Protocol):
    """The part of the broker that a replica uses. Replicas implements it."""

    config: BrokerConfig
    environment: Environment
    #: Limits the appends in one turn of the loop, over all partitions, because one request may have
    #: batches for a thousand partitions.
    append_turns: Turns
    #: Limits how many replicas make their first append at the same time, by log directory.
    first_appends: Mapping[bytes, asyncio.Semaphore]
    #: The replicas whose high watermark (or its epoch) is newer than the one on the disk, or that
    #: owe records (Partition.owed). A dict has an order, and each key once.
    unsaved: dict[Key, None]
    #: The replicas that were appended to since their last recovery point.
    appended: dict[Key, None]
    #: Limits how many logs are synced by flush.ms at the same time, by log directory.
    flushes: Mapping[bytes, asyncio.Semaphore]
    #: Checks the batches of producers, for all partitions.
    producer_batches: ProducerBatches

    async def prepare(self, replica: Replica, *, is_noted: bool) -> None:
        """Make the replica's directory, with the file that names its owner.

        Call it before the first append. `is_noted`: the inventory says already that this replica
        was written.
        """

    def eligible_epoch(self, replica: Replica, broker_id: int) -> int:
        """Return the broker_epoch of a broker; -1 if it must not enter the partition's ISR."""

    async def written(self, replica: Replica) -> None:
        """Note in the inventory that the replica was written, before a write is acknowledged."""


class Replica(ABC):
    """A replica without its role: see the module."""

    def __init__(
        self, topic_id: bytes, topic: str, partition: int, host: ReplicaHost, directory_id: bytes
    ) -> None:
        self.topic_id = topic_id
        self.topic = topic
        self.partition = partition
        self.key: Key = (topic_id, partition)
        self.name = f"{topic}-{partition}"
        #: Whether the topic is the cluster's own: clients may only read it.
        self.is_internal = topic in INTERNAL_TOPICS
        self.directory_id = directory_id
        self.host = host
        self.broker_id = host.config.node_id
        #: The partition's state in the image; None before the first image.
        self.state: PartitionImage | None = None
        self._config: TopicConfig | None = None
        #: Why this replica serves nothing; None: it serves.
        self.offline: str | None = None
        self.failure: Failure | None = None
        #: Streams of consumers. They are woken when the high watermark, the log's start or the role
        #: changes.
        self.watches = Watches()
        #: Streams of followers. They are woken at the same events, and at every append.
        self.replica_watches = Watches()

    # the image

    @property
    def config(self) -> TopicConfig:
        """The topic's configuration. It is known after the first follow_image."""
        assert self._config is not None
        return self._config

    @property
    def leader(self) -> int:
        """The id of the leader's broker; -1: there is no leader."""
        return -1 if self.state is None else self.state.leader

    @property
    def leader_epoch(self) -> int:
        return -1 if self.state is None else self.state.leader_epoch

    @property
    def hint(self) -> LeaderHint:
        """The present leader, for a caller that asked the wrong broker."""
        return LeaderHint(leader=self.leader, leader_epoch=self.leader_epoch)

    # the role, as far as the log needs to know it

    @property
    @abstractmethod
    def is_leader(self) -> bool: ...

    @abstractmethod
    def isr_wanted(self) -> None:
        """Ask the ISR keeper to check the ISR soon."""

    @abstractmethod
    def appended(self) -> None:
        """Take note of an append to the log."""

    @abstractmethod
    def found_damage(self, reason: str) -> None:
        """Have a damaged log repaired, as the role demands."""

    @abstractmethod
    def retention_wanted(self) -> None:
        """Ask the retention keeper to check the log soon."""

    @abstractmethod
    def take_offline(self, failure: Failure, reason: str) -> None:
        """Stop serving, because the replica has failed."""

    # errors

    def check_epoch(self, theirs: int, ours: int) -> None:
        """Raise an error unless the caller knows the same leader_epoch as this broker (KIP-320)."""
        if theirs == ours:
            return
        text = f"{self.name}: leader_epoch {theirs} was given, and {ours} is known here"
        if theirs < ours:
            raise hinted(FencedLeaderEpochError(text), self.hint)
        raise hinted(UnknownLeaderEpochError(text + "; retry"), self.hint)

    def not_assigned(self, broker_id: int) -> UnknownLeaderEpochError:
        """Return the error for a follower that has no replica, as far as this broker knows."""
        known = () if self.state is None else self.state.broker_ids
        return UnknownLeaderEpochError(
            f"{self.name}: broker {broker_id} has no replica of it in leader_epoch "
            f"{self.leader_epoch}; brokers {list(known)} have: retry"
        )

    def not_leader(self) -> QuorateError:
        """Return the error for a caller that expects this broker to be the leader.

        For an offline replica this is StorageError only if no other broker may lead. If another
        broker may lead, it may be elected in a moment, and a StorageError would make the client
        give up.
        """
        if self.offline is not None and not self._others_may_lead:
            return self.offline_error()
        return hinted(
            NotLeaderError(
                f"broker {self.broker_id} does not lead {self.name}; "
                f"broker {self.leader} does, in leader_epoch {self.leader_epoch}"
            ),
            self.hint,
        )

    def offline_error(self) -> StorageError:
        """Return the error for a request to an offline replica."""
        return hinted(StorageError(f"{self.name} is offline here: {self.offline}"), self.hint)

    def outcome_unknown(self, why: str) -> OutcomeUnknownError:
        """Return the error for a batch that may be in the log, and may be committed later."""
        return hinted(OutcomeUnknownError(f"{self.name}: {why}"), self.hint)

    def wake_all(self) -> None:
        """Wake the streams of consumers and followers."""
        self.watches.wake()
        self.replica_watches.wake()

    @property
    def _others_may_lead(self) -> bool:
        return self.state is not None and has_other_leaders(self.state, self.broker_id)


def has_other_leaders(state: PartitionImage, broker_id: int) -> bool:
    """Return whether a replica on another broker has all committed records (ISR or ELR)."""
    return any(one != broker_id for one in (*state.isr, *state.elr))
