"""What is true of a replica whatever its role: which one it is, what the image says, its failure.

Partition extends it by the roles. The objects of the roles (LeaderReplica, FollowerReplica) and
the log (ReplicaLog) are given it: it stands below them all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal, Protocol

import structlog

from quorate.errors import (
    FencedLeaderEpochError,
    NotLeaderError,
    OutcomeUnknownError,
    QuorateError,
    StorageError,
    UnknownLeaderEpochError,
)
from quorate.v1.common_pb2 import LeaderHint
from quorate_broker.replica.hints import hinted
from quorate_broker.replica.watches import Watches

if TYPE_CHECKING:
    from quorate.aio.turns import Turns
    from quorate_quorum.configs import TopicConfig
    from quorate_quorum.metadata.partitions import PartitionImage
    from quorate_quorum.node.config import BrokerConfig
    from quorate_quorum.node.environment import Environment

log_line = structlog.get_logger(__name__)

#: Topic id and number of a partition.
Key = tuple[bytes, int]

#: storage: the disk failed (its directory is lost); replica: its log is to be opened again, the
#: disk is good; corrupt: bytes below what was synced are not what was written; broken: an
#: invariant does not hold, or this program has a defect.
Failure = Literal["storage", "replica", "corrupt", "broken"]


class ReplicaHost(Protocol):
    """What a replica needs of its broker; Replicas implements it."""

    config: BrokerConfig
    environment: Environment
    #: One request may bring batches for a thousand partitions: their appends share the turns.
    append_turns: Turns

    async def prepare(self, replica: Replica, *, is_noted: bool) -> None:
        """Make the replica's directory and say whose it is, before the first append.

        `is_noted`: the broker remembers already that this replica was written.
        """

    async def written(self, replica: Replica) -> None:
        """Remember, outside its directory, that it was written: before that is acknowledged."""


class Replica(ABC):
    """See the module."""

    def __init__(
        self, topic_id: bytes, topic: str, partition: int, host: ReplicaHost, directory_id: bytes
    ) -> None:
        self.topic_id = topic_id
        self.topic = topic
        self.partition = partition
        self.key: Key = (topic_id, partition)
        self.name = f"{topic}-{partition}"
        self.directory_id = directory_id
        self.host = host
        self.broker_id = host.config.node_id
        #: What the image says of the partition; None before the first image.
        self.state: PartitionImage | None = None
        self._config: TopicConfig | None = None
        #: Why this replica serves nothing; None: it serves.
        self.offline: str | None = None
        self.failure: Failure | None = None
        #: Consumers' streams. They are woken when the high watermark, the log's start or the role
        #: changes.
        self.watches = Watches()
        #: Followers' streams. They are woken at every append too.
        self.replica_watches = Watches()

    # the image

    @property
    def config(self) -> TopicConfig:
        """The topic's configuration; only once an image was followed."""
        assert self._config is not None
        return self._config

    @property
    def leader(self) -> int:
        """The broker that leads; -1: there is no leader."""
        return -1 if self.state is None else self.state.leader

    @property
    def leader_epoch(self) -> int:
        return -1 if self.state is None else self.state.leader_epoch

    @property
    def hint(self) -> LeaderHint:
        """The current leader, for a caller that asked the wrong broker."""
        return LeaderHint(leader=self.leader, leader_epoch=self.leader_epoch)

    # the role, as far as the log needs to know it

    @property
    @abstractmethod
    def is_leader(self) -> bool: ...

    @abstractmethod
    def isr_wanted(self) -> None:
        """Let the ISR be looked at soon."""

    @abstractmethod
    def take_offline(self, failure: Failure, reason: str) -> None:
        """Serve nothing from now on."""

    # errors

    def check_epoch(self, theirs: int, ours: int) -> None:
        """Raise unless the caller knows the same leader_epoch as this broker (KIP-320)."""
        if theirs == ours:
            return
        text = f"{self.name}: leader_epoch {theirs} was given, and {ours} is known here"
        if theirs < ours:
            raise hinted(FencedLeaderEpochError(text), self.hint)
        raise hinted(UnknownLeaderEpochError(text + "; retry"), self.hint)

    def not_leader(self) -> QuorateError:
        """Return the error for a caller that took this broker for the leader.

        An offline replica says that it is offline only if no other broker may lead: a client that
        is told so gives up, and another leader may be elected in a moment.
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
        """Return the error for a caller that asks an offline replica."""
        return hinted(StorageError(f"{self.name} is offline here: {self.offline}"), self.hint)

    def outcome_unknown(self, why: str) -> OutcomeUnknownError:
        """Return the error for a batch that may be in the log, and may yet commit."""
        return hinted(OutcomeUnknownError(f"{self.name}: {why}"), self.hint)

    def wake_all(self) -> None:
        """Wake consumers' and followers' streams."""
        self.watches.wake()
        self.replica_watches.wake()

    @property
    def _others_may_lead(self) -> bool:
        return self.state is not None and has_other_leaders(self.state, self.broker_id)


def has_other_leaders(state: PartitionImage, broker_id: int) -> bool:
    """Whether another replica than this broker's has all that is committed."""
    return any(one != broker_id for one in (*state.isr, *state.elr))
