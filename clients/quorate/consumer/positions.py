"""The calls of a consumer that choose its partitions and positions, or return them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Generator, Iterable, Mapping, Sequence
from typing import Annotated, Any

from quorate.argument_names import named
from quorate.cluster.client import Client
from quorate.consumer.assignment import Assignment
from quorate.consumer.fetcher import Fetcher
from quorate.consumer.offset_lookup import EARLIEST, LATEST, TIMEOUT_S
from quorate.consumer.partition_state import UNKNOWN, PartitionState, Reset
from quorate.consumer.subscription import Change, Subscription
from quorate.errors import InvalidRequestError
from quorate.model import OffsetAndTimestamp, TopicPartition
from quorate.settings import (
    INT32_MAX,
    OFFSET,
    TIMESTAMP_MS,
    TOPIC,
    ByPartition,
    Names,
    Partition,
    Partitions,
    Whole,
    checked,
)
from quorate.topic_pattern import Pattern


class PendingPositions:
    """The result of a call that sets positions. Await it to wait until the positions are fixed.

    Without await, background tasks look the positions up.
    """

    __slots__ = ("_settle",)

    def __init__(self, settle: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._settle = settle

    def __await__(self) -> Generator[Any, None, None]:
        return self._settle().__await__()


class ConsumerPositions(Client):
    """The part of a consumer that chooses what to read. Choices before start() count, too."""

    def __init__(
        self, bootstrap_servers: str | Sequence[str], client_id: str, policy: Reset
    ) -> None:
        super().__init__(bootstrap_servers, client_id)
        self._subscription = Subscription(policy)
        self._assignment = Assignment(self._subscription, self._assigned)
        self._fetcher: Fetcher | None = None

    # -- what to read ----------------------------------------------------------------------------

    @checked
    def subscribe(
        self,
        topics: Annotated[Sequence[str], Names(what="topics")] = (),
        pattern: Annotated[str | None, Pattern()] = None,
        listener: object | None = None,
    ) -> PendingPositions:
        """Read all partitions of these topics, or of topics whose whole name matches `pattern`.

        The pattern's syntax is that of RE2, with and without a group. Raises InvalidPatternError if
        RE2 refuses it.

        Partitions and matching topics that appear later are read from their beginning. If the
        listener has on_partitions_assigned(list), on_partitions_revoked(list) or
        on_partitions_lost(list), these are called. If they raise, the next read raises the same
        error. On a started consumer, await the call to wait until the positions are fixed.

        With a group_id, the members of the group share these partitions, and the cluster matches
        the pattern. The callbacks may be asynchronous. They are
        awaited: a partition goes to another member only after on_partitions_revoked has ended.
        Partitions that another member has already are lost instead, and can't be committed; without
        on_partitions_lost, on_partitions_revoked is called for them. Without a group_id the
        callbacks must be plain functions.
        """
        self._check_not_closed()
        self._assignment.subscribe(topics, pattern, listener)
        return PendingPositions(self._settle_all)

    @named
    def unsubscribe(self) -> PendingPositions:
        """Read no partition any more.

        A member of a group gives its partitions back, and leaves the group. Await the call to wait
        for this.
        """
        self._check_not_closed()
        self._assignment.unsubscribe()
        return PendingPositions(self._settle_all)

    @checked
    def assign(
        self, partitions: Annotated[Iterable[TopicPartition], Partitions()]
    ) -> PendingPositions:
        """Read exactly these partitions. Partitions that were assigned before keep their positions.

        Raises UnknownTopicError if a known topic has no such partition. On a started consumer,
        await the call to wait until the positions are fixed.
        """
        self._check_not_closed()
        self._assignment.assign(partitions)
        return PendingPositions(self._settle_all)

    @named
    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions that are read."""
        return frozenset(self._subscription.states)

    def _assigned(self, change: Change) -> None:
        if self._fetcher is not None:
            self._fetcher.assigned(change)
            # wake the reader: if the user's listener has raised, the read raises the error
            self._fetcher.arrived.ring()

    async def _settle_all(self) -> None:
        """Wait until the position in each assigned partition is known or refused."""
        await self._assignment.known()
        await self._settle(list(self._subscription.states.values()))

    async def _settle(self, states: Collection[PartitionState]) -> None:
        if self._fetcher is not None:
            await self._fetcher.offsets.settle(states)

    # -- positions -------------------------------------------------------------------------------

    @checked
    def seek(
        self,
        partition: Annotated[TopicPartition, Partition()],
        offset: Annotated[int, OFFSET],
        leader_epoch: Annotated[int | None, Whole(0, INT32_MAX, "of the record before")] = None,
    ) -> None:
        """Continue at `offset`, which is 0 or more.

        `leader_epoch` is the epoch of the last record that was read before `offset`, if the caller
        knows it. If this record is not in the log any more, a read then raises LogTruncatedError,
        or auto_offset_reset applies.
        """
        state = self._state(partition)
        state.seek(offset, UNKNOWN if leader_epoch is None else leader_epoch)
        self._moved(state)

    @checked
    def seek_to_beginning(
        self, *partitions: Annotated[TopicPartition, Partition()]
    ) -> PendingPositions:
        """Continue at the first record that the log has.

        Without arguments, do so in all assigned partitions.
        """
        states = self._states(partitions)
        for state in states:
            self._seek_to("earliest", state)
        return PendingPositions(lambda: self._settle(states))

    @checked
    def seek_to_end(self, *partitions: Annotated[TopicPartition, Partition()]) -> PendingPositions:
        """Continue at the present high watermark.

        Without arguments, do so in all assigned partitions.

        With await, the call waits until the positions are fixed. Then the consumer reads all
        records that are acknowledged later, and none that were acknowledged before the call.
        Without await, the consumer continues at the last high watermark that the leader sent. It
        may read some older records, but it misses no record that is acknowledged after the call.
        """
        states = self._states(partitions)
        for state in states:
            if not state.seek_to_known_end():
                state.seek_to("latest")
            self._moved(state)
        return PendingPositions(lambda: self._settle_at_end(states))

    @checked
    async def seek_to_time(
        self,
        timestamp_ms: Annotated[int, TIMESTAMP_MS],
        *partitions: Annotated[TopicPartition, Partition()],
    ) -> None:
        """Continue at the first record at or after a time (ms since 1970).

        In a partition without such a record, continue at the present high watermark. Without
        partitions, do so in all assigned partitions. Raises RequestTimedOutError.
        """
        states = {state.topic_partition: state for state in self._states(partitions)}
        found = await self.offsets_for_times(dict.fromkeys(states, timestamp_ms))
        for key, state in states.items():
            first = found[key]
            if self._subscription.states.get(key) is not state:
                continue  # it was taken away meanwhile
            if first is None:
                self._seek_to("latest", state)
            else:
                state.seek(first.offset)
                self._moved(state)
        await self._settle([state for key, state in states.items() if found[key] is None])

    @checked
    async def position(self, partition: Annotated[TopicPartition, Partition()]) -> int:
        """Return the offset of the next record. If it is not known yet, look it up.

        Raises RequestTimedOutError if the leader does not answer.
        """
        state = self._state(partition)
        if state.position == UNKNOWN:
            await self._running_fetcher().offsets.settle([state], leaderless_wait_s=TIMEOUT_S)
            state = self._state(partition)
            if state.error is not None:
                error, state.error = state.error, None
                self._changed(state)
                raise error
        return state.position

    @checked
    def pause(self, *partitions: Annotated[TopicPartition, Partition()]) -> None:
        """Read nothing from these partitions until resume()."""
        for state in [self._state(partition) for partition in partitions]:
            state.paused = True
            self._changed(state)

    @checked
    def resume(self, *partitions: Annotated[TopicPartition, Partition()]) -> None:
        """Read from these partitions again."""
        for state in [self._state(partition) for partition in partitions]:
            state.paused = False
            self._changed(state)

    @named
    def paused(self) -> frozenset[TopicPartition]:
        """Return the partitions that are paused."""
        return frozenset(k for k, state in self._subscription.states.items() if state.paused)

    @checked
    def highwater(self, partition: Annotated[TopicPartition, Partition()]) -> int | None:
        """Return the high watermark in the last fetch answer; None before the first answer."""
        mark = self._state(partition).high_watermark
        return None if mark == UNKNOWN else mark

    @named
    async def lag(self) -> dict[TopicPartition, int]:
        """Return by how many offsets each assigned partition is behind its high watermark."""
        ends = await self.end_offsets(self.assignment())
        found = {}
        for key in sorted(ends):
            if key in self._subscription.states:  # a group may have moved it away meanwhile
                found[key] = max(0, ends[key] - await self.position(key))
        return found

    # -- questions about partitions, assigned or not -----------------------------------------------

    @checked
    async def beginning_offsets(
        self, partitions: Annotated[Iterable[TopicPartition], Partitions()]
    ) -> dict[TopicPartition, int]:
        """Return the offset of the first record that the log of each partition has."""
        return await self._offsets(partitions, EARLIEST)

    @checked
    async def end_offsets(
        self, partitions: Annotated[Iterable[TopicPartition], Partitions()]
    ) -> dict[TopicPartition, int]:
        """Return the high watermark of each partition."""
        return await self._offsets(partitions, LATEST)

    @checked
    async def offsets_for_times(
        self, timestamps: Annotated[Mapping[TopicPartition, int], ByPartition(TIMESTAMP_MS)]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """Return the first record at or after each time (ms since 1970); None if there is none."""
        listed = await self._running_fetcher().offsets.list_offsets(dict(timestamps))
        return {
            key: OffsetAndTimestamp(one.offset, one.timestamp_ms) if one.offset >= 0 else None
            for key, one in listed.items()
        }

    @checked
    async def partitions_for(self, topic: Annotated[str, TOPIC]) -> set[int]:
        """Return the numbers of a topic's partitions."""
        return set((await self._running_fetcher().cluster.topic(topic)).numbers)

    # -- inside ------------------------------------------------------------------------------------

    async def _offsets(
        self, partitions: Iterable[TopicPartition], time: int
    ) -> dict[TopicPartition, int]:
        wanted = dict.fromkeys(partitions, time)
        listed = await self._running_fetcher().offsets.list_offsets(wanted)
        return {key: listed[key].offset for key in wanted}

    def _seek_to(self, reset: Reset, state: PartitionState) -> None:
        state.seek_to(reset)
        self._moved(state)

    async def _settle_at_end(self, states: Collection[PartitionState]) -> None:
        for state in states:
            if not state.needs_offset:
                self._seek_to("latest", state)
        await self._settle(states)

    def _states(self, partitions: Sequence[TopicPartition]) -> list[PartitionState]:
        self._check_not_closed()
        return [self._state(one) for one in partitions or tuple(self._subscription.states)]

    def _state(self, partition: TopicPartition) -> PartitionState:
        self._check_not_closed()
        state = self._subscription.states.get(TopicPartition._make(partition))
        if state is None:
            raise InvalidRequestError(
                f"{partition[0]}-{partition[1]} is not assigned to this consumer; assigned are "
                f"{sorted(self._subscription.states)}"
            )
        return state

    def _moved(self, state: PartitionState) -> None:
        """React to a seek of the user."""
        self._changed(state)

    def _changed(self, state: PartitionState) -> None:
        if self._fetcher is not None and self._stopped is None:
            self._fetcher.changed(state)

    def _running_fetcher(self) -> Fetcher:
        self._owner.check_alive()
        if self._stopped is not None or self._fetcher is None:
            raise self._not_running_error()
        error, self._assignment.listener_error = self._assignment.listener_error, None
        if error is not None:
            raise error
        return self._fetcher
