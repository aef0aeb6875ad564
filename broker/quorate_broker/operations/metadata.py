"""Metadata: a broker describes topics, brokers and configs from its own image.

The answers are the image's own immutable values. They are yielded one by one, so that a gRPC
listener can turn them into bytes in several turns of the loop. If the caller names a topic that it
is not allowed to see, the refusal is the same whether or not the topic exists. A list of all topics
leaves out such topics.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from quorate.errors import (
    InvalidRequestError,
    QuorateError,
    QuorumUnavailableError,
    UnknownTopicError,
)
from quorate.net.principal import Principal
from quorate_broker.operations.admin import answered_in_time
from quorate_broker.operations.partitions import TOPIC_ID_BYTES, refuse_duplicates
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.configs import CONFIGS, check_config, effective, fixed_at_creation
from quorate_quorum.metadata.brokers import BrokerImage
from quorate_quorum.metadata.history import PastChange, changes_of
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.metadata.waiting import waits_for
from quorate_quorum.node.authorizer import (
    DESCRIBE_CLUSTER,
    DESCRIBE_TOPIC,
    Authorizer,
    Caller,
    Operation,
    Required,
    ResourceType,
)

#: The right to see topics: their names and partitions.
TOPICS_REQUIRED: Final = DESCRIBE_TOPIC
CONFIGS_REQUIRED: Final = Required(Operation.DESCRIBE_CONFIGS, ResourceType.TOPIC)
CLUSTER_REQUIRED: Final = DESCRIBE_CLUSTER
#: The most topics that one request may name.
TOPICS_MAX = 10_000
#: Longest wait of a read on a broker that has just started and does not know the cluster yet.
READY_TIMEOUT_MS = 5_000


class TopicMissing(NamedTuple):
    """A topic that was asked for, by name or by id, and that cannot be described."""

    name: str
    topic_id: bytes
    error: QuorateError


class ConfigFound(NamedTuple):
    """The value in force of a setting. `source` is "topic", "cluster" or "default"."""

    name: str
    value: str
    source: str


class Explained(NamedTuple):
    """A partition, and the changes that led to its state: the oldest first."""

    topic: TopicImage
    number: int
    state: PartitionImage
    changes: tuple[PastChange, ...]
    #: How many in-sync replicas a commit needs.
    min_isr: int
    #: Without a leader: the end of a sentence that begins with the partition; else empty.
    waits_for: str


class Metadata:
    """The metadata operation, for all clients of a broker.

    `ready` is set when the image has reached this broker's registration. Reads wait for this,
    because a broker that has restarted must not answer from an old image.
    """

    def __init__(self, client: QuorumClient, ready: asyncio.Event, authorizer: Authorizer) -> None:
        self._client = client
        self._ready = ready
        self._authorizer = authorizer

    @property
    def controller_id(self) -> int:
        """The id of the quorum's leader; -1: not known."""
        return self._client.leader_id

    @property
    def quorum_generation(self) -> int:
        return self._client.quorum_generation

    @property
    def brokers(self) -> Mapping[int, BrokerImage]:
        """The brokers in this broker's image, even if the image has not caught up."""
        return self._client.image.brokers

    async def image(self, caller_timeout_ms: int) -> MetadataImage:
        """Return the newest image. Raise QuorumUnavailableError if this broker has not caught up.

        `caller_timeout_ms`: how long the caller waits for its answer; 0: not known.
        """
        if not self._ready.is_set():
            wait_ms = answered_in_time(READY_TIMEOUT_MS, caller_timeout_ms)
            try:
                async with asyncio.timeout(wait_ms / 1000):
                    await self._ready.wait()
            except TimeoutError:
                raise QuorumUnavailableError(
                    "this broker has not caught up with the cluster's metadata yet: "
                    "ask another one, or later"
                ) from None
        return self._client.image

    def all_topics(self, image: MetadataImage, principal: Principal) -> Iterator[TopicImage]:
        """Yield the topics that the principal may see, in the order of their names."""
        caller = Caller(principal, self._authorizer)
        for topic in image.sorted_topics():
            if caller.may(TOPICS_REQUIRED, topic.name):
                yield topic

    def topics(
        self,
        image: MetadataImage,
        principal: Principal,
        names: Sequence[str],
        topic_ids: Sequence[bytes] = (),
    ) -> Iterator[TopicImage | TopicMissing]:
        """Yield the topics with the given names, then those with the given ids, in this order.

        Raises InvalidRequestError if a name or id occurs twice.
        """
        refuse_duplicates((*names, *topic_ids))
        caller = Caller(principal, self._authorizer)
        for name in names:
            yield _named(image, caller, name)
        for topic_id in topic_ids:
            yield _of_id(image, caller, topic_id)

    def explained(
        self, image: MetadataImage, principal: Principal, name: str, number: int
    ) -> Explained:
        """Return a partition with its history.

        Raises UnknownTopicError, and TopicAuthorizationFailedError if the principal may not see the
        topic.
        """
        found = _named(image, Caller(principal, self._authorizer), name)
        if isinstance(found, TopicMissing):
            raise found.error
        state = image.partition(found.id, number)
        if state is None:
            raise UnknownTopicError(
                f"topic {name!r} has partitions 0 to {len(found.partitions) - 1}, and no {number}"
            )
        changes = changes_of(state.history)
        waiting = waits_for(image, found, number)
        return Explained(found, number, state, changes, image.min_isr(found, state), waiting)

    def configs(self, image: MetadataImage, principal: Principal, name: str) -> list[ConfigFound]:
        """Return every setting of a topic; if `name` is empty, of the cluster."""
        Caller(principal, self._authorizer).check(CONFIGS_REQUIRED, name or None)
        if not name:
            return [_config(one, {}, image.configs) for one in sorted(CONFIGS)]
        topic = image.topic_named(name)
        if topic is None:
            raise _unknown(name)
        return _of_topic(topic.configs, image.configs)

    def new_topic_configs(
        self, image: MetadataImage, principal: Principal, name: str, given: Mapping[str, str]
    ) -> list[ConfigFound]:
        """Return every setting that a new topic with the given configs has."""
        Caller(principal, self._authorizer).check(CONFIGS_REQUIRED, name)
        own = {one: check_config(one, text, of_topic=True) for one, text in given.items()}
        return _of_topic({**fixed_at_creation(image.configs), **own}, image.configs)

    def own_configs(self, topic: TopicImage | TopicMissing, principal: Principal) -> dict[str, str]:
        """Return the configs that were set for a topic; empty if the principal may not see them."""
        caller = Caller(principal, self._authorizer)
        if isinstance(topic, TopicMissing) or not caller.may(CONFIGS_REQUIRED, topic.name):
            return {}
        return dict(sorted(topic.configs.items()))

    async def cluster(self, principal: Principal, caller_timeout_ms: int) -> MetadataImage:
        """Return the image. Raise an error unless the principal may see every broker."""
        Caller(principal, self._authorizer).check(CLUSTER_REQUIRED)
        return await self.image(caller_timeout_ms)


def check_count(named: int) -> None:
    """Raise InvalidRequestError if a request names more topics than it may."""
    if named > TOPICS_MAX:
        raise InvalidRequestError(f"a request names {named} topics; {TOPICS_MAX} are allowed")


def _named(image: MetadataImage, caller: Caller, name: str) -> TopicImage | TopicMissing:
    refusal = caller.refusal(TOPICS_REQUIRED, name)
    if refusal is not None:
        return TopicMissing(name, b"", refusal)
    return image.topic_named(name) or TopicMissing(name, b"", _unknown(name))


def _of_id(image: MetadataImage, caller: Caller, topic_id: bytes) -> TopicImage | TopicMissing:
    """Return the topic with this id.

    A refusal would tell the caller that the topic exists. So a caller without the right gets the
    error for a topic that does not exist.
    """
    topic = image.topics.get(topic_id)
    if topic is not None and caller.may(TOPICS_REQUIRED, topic.name):
        return topic
    error: QuorateError = UnknownTopicError(f"no topic has the id {topic_id.hex()}")
    if len(topic_id) != TOPIC_ID_BYTES:
        error = InvalidRequestError(f"a topic id has {TOPIC_ID_BYTES} bytes, not {len(topic_id)}")
    return TopicMissing("", topic_id, error)


def _unknown(name: str) -> UnknownTopicError:
    return UnknownTopicError(f"no topic is named {name[:249]!r}; `quorate topic list` shows all")


def _of_topic(own: Mapping[str, str], cluster: Mapping[str, str]) -> list[ConfigFound]:
    """Return every setting that a topic may have, with its value in force.

    A setting that is fixed when a topic is created does not follow the cluster's value: see
    `effective`.
    """
    return [_config(name, own, cluster) for name in sorted(CONFIGS) if CONFIGS[name].is_of_topics]


def _config(name: str, own: Mapping[str, str], cluster: Mapping[str, str]) -> ConfigFound:
    return ConfigFound(name, *effective(name, own, cluster))
