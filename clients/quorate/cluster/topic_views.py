"""What a client knows of topics, partitions and their leaders. A machine: it sends nothing.

A view never goes back to an older leader_epoch, even if the answer of a broker that lags behind has
one. A view also learns leaders from error answers (KIP-951).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from quorate.errors import QuorateError, from_wire
from quorate.settings import TOPIC
from quorate.v1.admin_pb2 import PartitionMetadata, TopicMetadata
from quorate.v1.common_pb2 import ErrorCode, LeaderHint

log = logging.getLogger(__name__)


@dataclass(slots=True)
class PartitionView:
    """What this client knows of one partition's leader."""

    partition: int
    leader: int = -1
    leader_epoch: int = -1
    endpoint: str = ""
    #: Why this client cannot reach the leader; None if it can, or if there is no leader.
    hindrance: QuorateError | None = None
    replicas: tuple[int, ...] = ()
    isr: tuple[int, ...] = ()

    @property
    def is_available(self) -> bool:
        """Whether there is a leader and the client knows no reason why it cannot reach it."""
        return self.leader >= 0 and self.hindrance is None


@dataclass(slots=True)
class TopicView:
    """What this client knows of one topic."""

    name: str
    topic_id: bytes
    partitions: list[PartitionView] = field(default_factory=list)
    is_internal: bool = False
    #: The topic was deleted. If it was created again under the same name, another view has replaced
    #: this one.
    is_gone: bool = False
    #: When the topic was created, estimated on the event loop's clock; infinity if not known.
    created_at: float = math.inf
    #: All partition numbers. `available` has the numbers of the partitions with a leader. A change
    #: makes new tuples.
    numbers: tuple[int, ...] = ()
    available: tuple[int, ...] = ()
    #: Whether the leader of some partition cannot be reached. The client logs this once.
    is_hindered: bool = False

    def leaders_changed(self) -> None:
        """Compute `numbers` and `available` from the partitions again."""
        numbers = tuple(view.partition for view in self.partitions)
        available = tuple(view.partition for view in self.partitions if view.is_available)
        if numbers != self.numbers:
            self.numbers = numbers
        if available != self.available:
            self.available = available


class Told(NamedTuple):
    """The parts of a metadata answer that concern all its topics."""

    #: Broker id -> endpoint.
    brokers: Mapping[int, str]
    #: Whether the broker lags behind this client. Then a topic may exist that the broker does not
    #: know.
    is_stale: bool
    #: The time at which the answer came, on the event loop's clock, and the time at which the
    #: broker answered, on the broker's clock.
    now: float
    broker_ms: int


class TopicViews:
    """The topics in use, by name. A topic that was created again under its name has another id."""

    def __init__(self) -> None:
        self.topics: dict[str, TopicView] = {}
        self.topic_errors: dict[str, QuorateError] = {}
        self.all_topics = False
        self._wanted: dict[str, None] = {}

    def want(self, names: Iterable[str]) -> bool:
        """Keep these topics fresh from now on. Return whether one of them was not kept before.

        Raises TypeError if a name is no string: with such a name every later metadata request would
        fail.
        """
        fresh = [name for name in names if name not in self._wanted]
        for name in fresh:
            TOPIC.check("a topic", "its name", name)
        self._wanted.update(dict.fromkeys(fresh))
        return bool(fresh)

    def unwant(self, name: str) -> None:
        """Forget a topic that is not in use any more."""
        self._wanted.pop(name, None)
        self.topic_errors.pop(name, None)
        self._forget(name)

    def partition(self, name: str, partition: int) -> PartitionView | None:
        """Return the view of a partition; None if the topic or the number is unknown."""
        topic = self.topics.get(name)
        if topic is None or not 0 <= partition < len(topic.partitions):
            return None
        return topic.partitions[partition]

    def leader_endpoint(self, name: str, topic_id: bytes, partition: int) -> str:
        """Return the endpoint of a partition's leader; empty if there is none.

        Also empty if the topic with this name has another id now.
        """
        topic = self.topics.get(name)
        if topic is None or topic.topic_id != topic_id or partition >= len(topic.partitions):
            return ""
        view = topic.partitions[partition]
        return view.endpoint if view.leader >= 0 else ""

    def take_hint(
        self, name: str, partition: int, hint: LeaderHint, brokers: Mapping[int, str]
    ) -> bool:
        """Learn a leader from an error answer. Return whether it is newer than the known one."""
        view = self.partition(name, partition)
        if view is None or hint.leader < 0 or hint.leader_epoch <= view.leader_epoch:
            return False
        endpoint = hint.listener.endpoint or brokers.get(hint.leader, "")
        if not endpoint:
            return False
        view.leader, view.leader_epoch, view.endpoint = hint.leader, hint.leader_epoch, endpoint
        view.hindrance = None
        self.topics[name].leaders_changed()
        return True

    def take_topics(self, topics: Sequence[TopicMetadata], told: Told) -> bool:
        """Take over the topics of a metadata answer. Return whether anything changed."""
        has_news = False
        if self.all_topics and not told.is_stale:
            present = {topic.name for topic in topics}
            for name in [name for name in self.topics if name not in present]:
                has_news |= self._forget(name)
        for topic in topics:
            if topic.error.code == ErrorCode.ERROR_CODE_NONE:
                has_news |= self._take_topic(topic, told)
            else:
                self.topic_errors[topic.name] = from_wire(topic.error)
                if topic.error.code == ErrorCode.ERROR_CODE_UNKNOWN_TOPIC and not told.is_stale:
                    has_news |= self._forget(topic.name)
        return has_news

    def _take_topic(self, topic: TopicMetadata, told: Told) -> bool:
        known = self.topics.get(topic.name)
        has_news = False
        if known is None or known.topic_id != topic.topic_id:
            if known is not None and told.is_stale:
                # this answer is older: the topic was deleted and created again since
                return False
            self._forget(topic.name)
            known = TopicView(topic.name, topic.topic_id, is_internal=topic.internal)
            if topic.created_ms:
                # The age is the difference of two times of the cluster's clocks. So the client's
                # own wall clock may be wrong.
                known.created_at = told.now - (told.broker_ms - topic.created_ms + 1) / 1000
            self.topics[topic.name] = known
            has_news = True
        self.topic_errors.pop(topic.name, None)
        while len(known.partitions) < len(topic.partitions):
            known.partitions.append(PartitionView(len(known.partitions)))
            has_news = True
        for one in topic.partitions:
            if 0 <= one.partition < len(known.partitions):
                has_news |= _take_partition(known.partitions[one.partition], one, told.brokers)
        known.leaders_changed()
        self._warn_of(known)
        return has_news

    def _warn_of(self, topic: TopicView) -> None:
        """Log once that leaders of a topic cannot be reached.

        Otherwise a consumer would wait for these leaders, and its user would see no reason.
        """
        hindered = {view.partition: view.hindrance for view in topic.partitions if view.hindrance}
        if hindered and not topic.is_hindered:
            log.warning(
                "%d partitions of %r have a leader that this client cannot reach: %s",
                len(hindered),
                topic.name,
                next(iter(hindered.values())),
            )
        topic.is_hindered = bool(hindered)

    def _forget(self, name: str) -> bool:
        gone = self.topics.pop(name, None)
        if gone is None:
            return False
        gone.is_gone = True
        for view in gone.partitions:
            view.leader, view.endpoint = -1, ""
        return True


def _take_partition(
    view: PartitionView, told: PartitionMetadata, brokers: Mapping[int, str]
) -> bool:
    if told.leader_epoch < view.leader_epoch:
        # this broker lags behind: never go back to an older leader
        return False
    before = (view.leader, view.leader_epoch, view.endpoint)
    view.hindrance = from_wire(told.error) if told.error.code else None
    is_kept = told.leader == view.leader >= 0 and view.hindrance is None
    kept = view.endpoint if is_kept else ""
    view.leader, view.leader_epoch = told.leader, told.leader_epoch
    view.endpoint = brokers.get(told.leader, kept)
    view.replicas, view.isr = tuple(told.replicas), tuple(told.isr)
    return before != (view.leader, view.leader_epoch, view.endpoint)
