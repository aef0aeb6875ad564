"""The troubles of the cluster, for `quorate cluster health`.

The partitions in trouble are kept in sets, which follow each change of the image. So a request
never walks over all partitions. Nodes in trouble are searched at each request: nodes are few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from quorate.v1 import admin_pb2 as admin
from quorate_quorum.metadata.brokers import BrokerImage
from quorate_quorum.metadata.configs import CLUSTER
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import NO_LEADER, Key, PartitionImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.metadata.waiting import waits_for

EXAMPLES_MAX = 100


class PartitionHealth:
    """The partitions in trouble, in dicts that serve as ordered sets.

    A replica that a reassignment adds does not count: its partition is as safe as before. A
    partition whose ISR is below min ISR lacks another replica, so it is under-replicated, too.
    Therefore a change of min.insync.replicas checks only the under-replicated partitions.
    """

    def __init__(self) -> None:
        self.offline: dict[Key, None] = {}
        self.under_min_isr: dict[Key, None] = {}
        self.under_replicated: dict[Key, None] = {}

    def applied(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Take in one change of the image."""
        for topic in delta.topics.removed:
            for index in range(len(topic.partitions)):
                self._forget((topic.id, index))
        for key in delta.topics.changed_partitions:
            self._look(image, key)
        configured = delta.topics.changed_configs
        if configured:
            is_all = CLUSTER in configured
            for key in [k for k in self.under_replicated if is_all or k[0] in configured]:
                self._look(image, key)

    def _look(self, image: MetadataImage, key: Key) -> None:
        topic = image.topics.get(key[0])
        partition = image.partition(*key)
        if topic is None or partition is None:
            self._forget(key)
            return
        _put(self.offline, key, partition.leader == NO_LEADER)
        _put(self.under_replicated, key, partition.is_under_replicated)
        _put(self.under_min_isr, key, _is_under_min_isr(image, topic, partition))

    def _forget(self, key: Key) -> None:
        for one in (self.offline, self.under_min_isr, self.under_replicated):
            one.pop(key, None)


def _put(found: dict[Key, None], key: Key, is_in: bool) -> None:
    if is_in:
        found.setdefault(key)
    else:
        found.pop(key, None)


def _is_under_min_isr(image: MetadataImage, topic: TopicImage, partition: PartitionImage) -> bool:
    """Return whether the ISR is too small to commit. If it is complete, no config is read."""
    return partition.is_under_replicated and len(partition.isr) < image.min_isr(topic, partition)


def describe_health(
    image: MetadataImage,
    quorum: admin.DescribeQuorumResponse,
    partitions: PartitionHealth,
    why_fenced: Callable[[BrokerImage], str],
    may_see: Callable[[str], bool],
) -> admin.DescribeHealthResponse:
    """Return all troubles. `why_fenced` returns the reason why a broker stays fenced.

    Partitions of topics that the caller may not see are counted, but not named.
    """
    return admin.DescribeHealthResponse(
        controller=quorum.leader,
        nodes=[*_voters(quorum), *_brokers(image, why_fenced)],
        offline=_offline(image, partitions.offline, may_see),
        under_min_isr=_trouble(image, partitions.under_min_isr, may_see),
        under_replicated=_trouble(image, partitions.under_replicated, may_see),
    )


def _voters(quorum: admin.DescribeQuorumResponse) -> Iterator[admin.NodeTrouble]:
    for one in quorum.voters:
        if one.caught_up:
            continue
        state, reason = "not_heard", "is not heard: it does not run, or cannot reach the controller"
        if one.heard:
            state = "behind"
            reason = f"has not caught up: it lacks {one.lag} records of the metadata log"
        elif one.last_caught_up_ms < 0:
            reason = "has not been heard by this controller: it does not run, or cannot reach it"
        yield admin.NodeTrouble(
            id=one.id, voter=True, endpoint=one.endpoint, state=state, reason=reason
        )


def _brokers(
    image: MetadataImage, why_fenced: Callable[[BrokerImage], str]
) -> Iterator[admin.NodeTrouble]:
    for broker in image.sorted_brokers():
        failed = sum(directory.failed for directory in broker.directories)
        if broker.fenced:
            state, reason = "fenced", f"is fenced: {why_fenced(broker)}"
        elif broker.shutting_down:
            state, reason = "shutting_down", "is shutting down"
        elif failed:
            state = "failed_directory"
            reason = (
                f"has given up {failed} of its {len(broker.directories)} log directories: its log"
                " says why"
            )
        else:
            continue
        yield admin.NodeTrouble(id=broker.id, endpoint=broker.endpoint, state=state, reason=reason)


def _offline(
    image: MetadataImage, found: Mapping[Key, None], may_see: Callable[[str], bool]
) -> admin.PartitionTrouble:
    """Return `_trouble`, and what each example waits for."""
    trouble = _trouble(image, found, may_see)
    shown = _examples(image, found, may_see)
    trouble.waits_for.extend(waits_for(image, topic, index) for topic, index in shown)
    return trouble


def _trouble(
    image: MetadataImage, found: Mapping[Key, None], may_see: Callable[[str], bool]
) -> admin.PartitionTrouble:
    """Return the count, and as examples at most EXAMPLES_MAX of those that the caller may see."""
    shown = _examples(image, found, may_see)
    examples = [f"{topic.name}/{index}" for topic, index in shown]
    return admin.PartitionTrouble(count=len(found), examples=examples)


def _examples(
    image: MetadataImage, found: Mapping[Key, None], may_see: Callable[[str], bool]
) -> list[tuple[TopicImage, int]]:
    first = ((image.topics[key[0]], key[1]) for key in islice(found, EXAMPLES_MAX))
    return [(topic, index) for topic, index in first if may_see(topic.name)]
