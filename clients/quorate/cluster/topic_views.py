"""What a client knows of topics, partitions and their leaders. A machine: it sends nothing.

It never goes back to an older leader_epoch, whatever a broker that lags behind answers, and learns
leaders from error answers too (KIP-951).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from quorate.errors import QuorateError, from_wire
from quorate.settings import TOPIC
from quorate.v1.admin_pb2 import PartitionMetadata, TopicMetadata
from quorate.v1.common_pb2 import ErrorCode, LeaderHint


@dataclass(slots=True)
class PartitionView:
    """What this client knows of one partition's leader."""

    partition: int
    leader: int = -1
    leader_epoch: int = -1
    endpoint: str = ""
    replicas: tuple[int, ...] = ()
    isr: tuple[int, ...] = ()


@dataclass(slots=True)
class TopicView:
    """What this client knows of one topic."""

    name: str
    topic_id: bytes
    partitions: list[PartitionView] = field(default_factory=list)
    is_internal: bool = False
    #: Deleted, or made again under its name: another view has its place.
    is_gone: bool = False
    #: When it was made, as time of the event loop, not too early; infinity: not known.
    created_at: float = math.inf
    #: All partition numbers, and those that have a leader; replaced when that changes.
    numbers: tuple[int, ...] = ()
    available: tuple[int, ...] = ()

    def leaders_changed(self) -> None:
        """Work out again what follows from the partitions."""
        numbers = tuple(view.partition for view in self.partitions)
        available = tuple(view.partition for view in self.partitions if view.leader >= 0)
        if numbers != self.numbers:
            self.numbers = numbers
        if available != self.available:
            self.available = available


class Told(NamedTuple):
    """What an answer says beside its topics."""

    #: Where each broker listens.
    brokers: Mapping[int, str]
    #: The broker lags behind what we know, so what it does not know proves nothing.
    is_stale: bool
    #: The time of the event loop, and of the answering broker's clock, at the answer.
    now: float
    broker_ms: int


class TopicViews:
    """The topics in use, by name; a topic made again under its name is another one, by its id."""

    def __init__(self) -> None:
        self.topics: dict[str, TopicView] = {}
        self.topic_errors: dict[str, QuorateError] = {}
        self.all_topics = False
        self._wanted: dict[str, None] = {}

    def want(self, names: Iterable[str]) -> bool:
        """Keep these topics fresh from now on; True if one of them is new to us.

        TypeError if a name is no string: every later look at the cluster would fail on it.
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
        """Return what is known of a partition, None if the topic or number is not known."""
        topic = self.topics.get(name)
        if topic is None or not 0 <= partition < len(topic.partitions):
            return None
        return topic.partitions[partition]

    def leader_endpoint(self, name: str, topic_id: bytes, partition: int) -> str:
        """Return where a partition's leader listens.

        Empty if it has no leader, or if the topic of that name is another one by now.
        """
        topic = self.topics.get(name)
        if topic is None or topic.topic_id != topic_id or partition >= len(topic.partitions):
            return ""
        view = topic.partitions[partition]
        return view.endpoint if view.leader >= 0 else ""

    def take_hint(
        self, name: str, partition: int, hint: LeaderHint, brokers: Mapping[int, str]
    ) -> bool:
        """Take a leader from an error answer; True if it is newer than what we knew."""
        view = self.partition(name, partition)
        if view is None or hint.leader < 0 or hint.leader_epoch <= view.leader_epoch:
            return False
        endpoint = hint.listener.endpoint or brokers.get(hint.leader, "")
        if not endpoint:
            return False
        view.leader, view.leader_epoch, view.endpoint = hint.leader, hint.leader_epoch, endpoint
        self.topics[name].leaders_changed()
        return True

    def take_topics(self, topics: Sequence[TopicMetadata], told: Told) -> bool:
        """Take what a broker says of topics; return whether it is news."""
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
                return False  # that topic was deleted since, and made again
            self._forget(topic.name)
            known = TopicView(topic.name, topic.topic_id, is_internal=topic.internal)
            if topic.created_ms:
                # The cluster's clocks say how old it is, so ours may be wrong.
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
        return has_news

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
        return False  # a broker that lags behind: never back to an older leader
    before = (view.leader, view.leader_epoch, view.endpoint)
    kept = view.endpoint if told.leader == view.leader >= 0 else ""
    view.leader, view.leader_epoch = told.leader, told.leader_epoch
    view.endpoint = brokers.get(told.leader, kept)
    view.replicas, view.isr = tuple(told.replicas), tuple(told.isr)
    return before != (view.leader, view.leader_epoch, view.endpoint)
