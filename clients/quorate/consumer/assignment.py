"""The partitions that a consumer reads: chosen by topics, a pattern or names. Follows changes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from quorate.cluster.cluster import Cluster
from quorate.cluster.topic_views import TopicView
from quorate.consumer.group.listener import check_listener, tellable
from quorate.consumer.subscription import Change, Subscription
from quorate.errors import UnknownTopicError
from quorate.model import TopicPartition
from quorate.topic_pattern import compiled

BEFORE_ANY_LOOK = -1
#: Number of looks between two releases of topics that are not read: five minutes.
LOOKS_BETWEEN_RELEASES = 150
LISTENER_CALLS = ("on_partitions_revoked", "on_partitions_assigned")


class Assignment:
    """Follows the view of the cluster. Calls `assigned` when partitions come or go."""

    def __init__(self, subscription: Subscription, assigned: Callable[[Change], None]) -> None:
        self.topics: tuple[str, ...] = ()
        self._pattern: str | None = None
        #: The compiled pattern; None: there is no pattern.
        self._regexp: Any = None
        self._partitions: tuple[TopicPartition, ...] | None = None
        self._subscription = subscription
        self._assigned = assigned
        self._listener: Any = None
        self._cluster: Cluster | None = None
        #: The number of the last metadata request that was sent before the subscription was made.
        self._made_at = BEFORE_ANY_LOOK
        #: The ids of the topics to which the consumer had subscribed before, too. A partition of
        #: them that it does not have is new, even if this subscription is new as well.
        self._kept_topics: frozenset[bytes] = frozenset()
        self._looks = 0
        #: The exception that the user's listener raised; None if there is none. The next read
        #: raises it.
        self.listener_error: Exception | None = None

    @property
    def _wants_all_topics(self) -> bool:
        return self._pattern is not None

    # -- what the user asks for ------------------------------------------------------------------

    def subscribe(
        self, topics: Sequence[str], pattern: str | None, listener: object | None = None
    ) -> None:
        """Read all partitions of these topics, or of topics whose whole name matches `pattern`."""
        if bool(topics) == (pattern is not None):
            raise ValueError("subscribe takes topics or a pattern, one of them")
        check_listener(listener)
        self._check_listener(listener)
        had = self._subscription.states.values() if self._partitions is None else ()
        self._kept_topics = frozenset(state.topic_id for state in had)
        self._pattern, self._regexp = pattern, None if pattern is None else compiled(pattern)
        self.topics, self._partitions, self._listener = tuple(topics), None, listener
        if self._cluster is not None:
            self._made_at = self._cluster.asked
            self._look()
            self.cluster_changed()

    def unsubscribe(self) -> None:
        """Read no partition any more."""
        self.topics, self._pattern, self._partitions = (), None, None
        self._assign({}, late=False)

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read exactly these partitions.

        Raise UnknownTopicError if a known topic has no such partition.
        """
        named = tuple(map(TopicPartition._make, partitions))
        if self._cluster is not None:
            for key in named:
                _check_exists(self._cluster, key)
        self.topics, self._pattern, self._partitions = (), None, named
        if self._cluster is None:
            return
        self._cluster.want({key.topic for key in named})
        known = self._cluster.topics
        # A topic that is not known yet gets its id from the next metadata answer.
        wanted = {key: known[key.topic].topic_id if key.topic in known else b"" for key in named}
        self._assign(wanted, late=False)
        if not all(wanted.values()):
            self._look()

    # -- what the cluster has --------------------------------------------------------------------

    def prepare(self, cluster: Cluster) -> None:
        """Make the view of the cluster follow the wanted topics."""
        cluster.all_topics = self._wants_all_topics
        cluster.want(self.topics)

    def follow(self, cluster: Cluster) -> None:
        """Apply what the user asked for before start()."""
        self._cluster = cluster
        cluster.on_change(self.cluster_changed)
        if self._partitions is not None:
            self.assign(self._partitions)
        self._made_at = cluster.asked
        self.cluster_changed()
        # The view already has all topics of this subscription. So partitions that the next answer
        # adds are new.
        self._made_at = BEFORE_ANY_LOOK

    def leave(self) -> None:
        """Drop the view of the cluster, but keep what the user asked for."""
        self._cluster = None
        self._subscription.assign({}, late=False)

    async def known(self) -> None:
        """Wait until the metadata of everything that the subscription asks for is known.

        Raises UnknownTopicError, QuorumUnavailableError.
        """
        if self._cluster is None:
            return
        for name in self.topics:
            await self._cluster.topic(name)
        while self._wants_all_topics and self._cluster.answered <= self._made_at:
            await self._cluster.look()

    def look_again(self) -> None:
        """Ask for new topics and partitions. The request is cheap if nothing has changed."""
        if self._cluster is None:
            return
        self._looks += 1
        if self._looks % LOOKS_BETWEEN_RELEASES == 0:
            # release topics that were looked up once and are not read
            self._cluster.keep({*self.topics, *(key.topic for key in self._subscription.states)})
        if self.topics or self._wants_all_topics:
            self._look()

    def _look(self) -> None:
        assert self._cluster is not None
        self.prepare(self._cluster)
        self._cluster.request_refresh()

    def cluster_changed(self) -> None:
        """Read the partitions that are new in the cluster. Stop reading those that are gone."""
        cluster = self._cluster
        if cluster is None:
            return
        if self._partitions is not None:
            self._name_topics(cluster)
            return
        # The first answer for this subscription lists the partitions that exist already. Partitions
        # that only a later answer lists are new.
        topics = [cluster.topics[name] for name in self._names(cluster)]
        self._found(topics, late=cluster.answered_before > self._made_at)

    def _found(self, topics: Sequence[TopicView], *, late: bool) -> None:
        """Read all partitions of the topics that the subscription asks for."""
        wanted = {
            TopicPartition(topic.name, number): topic.topic_id
            for topic in topics
            for number in topic.numbers
        }
        self._assign(wanted, late=late, whole_topics=self._kept_topics)

    def _check_listener(self, listener: object | None) -> None:
        for name in LISTENER_CALLS:
            if inspect.iscoroutinefunction(getattr(listener, name, None)):
                raise TypeError(f"the listener's {name} must be a plain function, not async")

    def _names(self, cluster: Cluster) -> list[str]:
        if self._pattern is None:
            return sorted(name for name in set(self.topics) if name in cluster.topics)
        return sorted(
            name
            for name, topic in cluster.topics.items()
            if not topic.is_internal and self._regexp.fullmatch(name.encode()) is not None
        )

    def _name_topics(self, cluster: Cluster) -> None:
        """Note the topic ids that were not known at assign(), and the new ids of topics.

        A topic that was deleted and created again has a new id. It is read from its beginning.
        """
        wanted = {}
        for key, state in self._subscription.states.items():
            topic = cluster.topics.get(key.topic)
            if topic is not None and not state.topic_id:
                state.topic_id = topic.topic_id
            wanted[key] = topic.topic_id if topic is not None else state.topic_id
        self._assign(wanted, late=True)

    def _assign(
        self,
        wanted: dict[TopicPartition, bytes],
        *,
        late: bool,
        whole_topics: frozenset[bytes] = frozenset(),
    ) -> None:
        change = self._subscription.assign(wanted, late=late, whole_topics=whole_topics)
        if not change.removed and not change.added:
            return
        self._assigned(change)
        came = {state.topic_partition for state in change.added}
        went = {state.topic_partition for state in change.removed}
        for name, keys in zip(LISTENER_CALLS, (went - came, came - went), strict=True):
            call = getattr(self._listener, name, None)
            if call is not None and keys:
                try:
                    call(sorted(keys))
                except Exception as error:
                    # do not raise here, because a background task may be the caller: the user's
                    # next read raises the error
                    self.listener_error = tellable(name, error)


def _check_exists(cluster: Cluster, key: TopicPartition) -> None:
    topic = cluster.topics.get(key.topic)
    if topic is not None and not 0 <= key.partition < len(topic.partitions):
        cluster.request_refresh()  # the topic may have grown: then a later call succeeds
        raise UnknownTopicError(
            f"topic {key.topic!r} has partitions 0 to {len(topic.partitions) - 1}, "
            f"and no partition {key.partition}"
        )
