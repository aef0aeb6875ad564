"""The partitions of a consumer that has a group: the coordinator gives them, or assign() does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from quorate.cluster.cluster import Cluster
from quorate.cluster.topic_views import TopicView
from quorate.consumer.assignment import Assignment
from quorate.consumer.group.group import ConsumerGroup
from quorate.consumer.subscription import Change, Subscription
from quorate.errors import InvalidRequestError
from quorate.model import TopicPartition


class GroupAssignment(Assignment):
    """Tells the group what the application subscribes to. The group has no part in assign()."""

    def __init__(self, subscription: Subscription, assigned: Callable[[Change], None]) -> None:
        super().__init__(subscription, assigned)
        self._group: ConsumerGroup | None = None

    @property
    def listener(self) -> object | None:
        """The application's listener."""
        found: object | None = self._listener
        return found

    def tell(self, error: Exception) -> None:
        """Let the next read raise this error. The first error that was not raised yet stays."""
        self.listener_error = self.listener_error or error

    def join(self, cluster: Cluster, group: ConsumerGroup) -> None:
        """Apply what the user asked for before start()."""
        self._group = group
        self.follow(cluster)
        if self._partitions is None and (self.topics or self._pattern is not None):
            self._subscribe_group(group)

    def leave(self) -> None:
        self._group = None
        super().leave()

    def subscribe(
        self, topics: Sequence[str], pattern: str | None, listener: object | None = None
    ) -> None:
        if self._partitions:
            raise InvalidRequestError(
                "this consumer has partitions by assign(): call unsubscribe() before subscribe()"
            )
        super().subscribe(topics, pattern, listener)
        if self._group is not None:
            self._subscribe_group(self._group)

    def unsubscribe(self) -> None:
        if self._partitions is not None or self._group is None:
            super().unsubscribe()
            return
        # the group removes the partitions after the listener was called
        self.topics, self._pattern = (), None
        self._group.unsubscribe()

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        is_member = self._group is not None and not self._group.is_out
        if self.topics or self._pattern is not None or is_member:
            raise InvalidRequestError(
                "this consumer is subscribed: call and await unsubscribe() before assign()"
            )
        super().assign(partitions)

    def _subscribe_group(self, group: ConsumerGroup) -> None:
        group.subscribe(self.topics, self._pattern)

    def _found(self, topics: Sequence[TopicView], *, late: bool) -> None:
        if self._group is None:
            return
        counts = self._group.placement.first_counts
        for topic in topics:
            counts.setdefault(topic.topic_id, 0 if late else len(topic.numbers))

    def _check_listener(self, listener: object | None) -> None:
        """Allow asynchronous callbacks."""
