"""The blocking consumer."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Generic, Never, Self, TypeVar, Unpack

from quorate.argument_names import named, takes_no_others, unknown_in
from quorate.consumer import consumer as asynchronous
from quorate.consumer.group.listener import check_listener
from quorate.consumer.partition_state import PartitionState
from quorate.errors import ClosedError, WrongLoopError
from quorate.model import AnyRecord, KeyOut, OffsetAndMetadata, Record, TopicPartition, ValueOut
from quorate.sync.background import Voice
from quorate.sync.client import BlockingClient, OfThread, blocking, direct
from quorate.sync.listener import in_threads, is_in_callback
from quorate.sync.settings import ConsumerSettings

_Consumer = asynchronous.Consumer
T = TypeVar("T")
Offsets = Mapping[TopicPartition, int | tuple[int, str] | OffsetAndMetadata]

#: The iterator asks the loop for so many records that the program needs about this time for them.
#: So an automatic commit, which waits until the program has come back from them, is not late.
ROUND_S: Final = 0.1
#: The longest wait for the first record of a round, after which the iterator asks anew.
WAIT_MS: Final = 60_000


class Consumer(BlockingClient[asynchronous.Consumer[KeyOut, ValueOut]], Generic[KeyOut, ValueOut]):
    """Reads records from topics, in order within each partition; for programs without a loop.

    The settings are those of quorate.Consumer. Iterate it (``for record in consumer``) or call
    ``getone``/``getmany``. Several threads may read: each gets records of its own, and the records
    of one partition go to one thread at a time.

        with Consumer("invoice", group_id="billing") as consumer:
            for record in consumer:
                print(record.partition, record.offset, record.value)

    A thread that ends counts as done with the records that it was given. Records of a partition
    that went to another member meanwhile are given to no thread more.
    """

    def __init__(
        self, *topics: str, **settings: Unpack[ConsumerSettings[KeyOut, ValueOut]]
    ) -> None:
        super().__init__(_Consumer(*topics, **settings))
        self._limit = self._client._max_poll_records

    @named
    def stop(self) -> None:
        """Close the consumer. It is safe to call this twice.

        A member of a group commits, if enable_auto_commit is set, gives its partitions back, and
        leaves. The records that the calling thread was given last count as done.
        """
        self._leave(is_done=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # the program may have failed with the records that it has in hand
        self._leave(is_done=error is None)

    def close_at_exit(self, timeout_s: float) -> None:
        """Close a consumer that the program left open, within `timeout_s`."""
        self._leave(is_done=True, timeout_s=timeout_s)

    # -- reading

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record[KeyOut, ValueOut]:
        shelf = self._shelf()
        while (record := self._from(shelf)) is None:
            try:
                self._fill(shelf)
            except ClosedError:
                if self._client._stopped is not None:
                    raise StopIteration from None
                raise
        return record

    @takes_no_others
    def getone(self, **wrong: Never) -> Record[KeyOut, ValueOut]:
        """Return the next record. Wait until there is one. See quorate.Consumer for the errors."""
        if wrong:
            raise unknown_in(Consumer.getone, self, wrong)
        record = self._from(self._shelf())
        return self._run(self._client.getone) if record is None else record

    @named
    def getmany(
        self,
        *partitions: TopicPartition,
        timeout_ms: float = 0,
        max_records: int | None = None,
    ) -> dict[TopicPartition, list[Record[KeyOut, ValueOut]]]:
        """Return the records that are available, by partition. See quorate.Consumer.getmany."""
        return self._run(
            lambda: self._client.getmany(
                *partitions, timeout_ms=timeout_ms, max_records=max_records
            )
        )

    # -- positions and groups

    _subscribe = blocking(_Consumer.subscribe)

    @named
    def subscribe(
        self,
        topics: Sequence[str] = (),
        pattern: str | None = None,
        listener: object | None = None,
    ) -> None:
        """Read all partitions of these topics, or of topics whose whole name matches `pattern`.

        See quorate.Consumer.subscribe. With a group_id, each callback of the listener runs in a
        thread of its own, while the program's threads may be at work: commit() and other calls work
        there, but those that would wait for the callback (stop, subscribe, unsubscribe, assign).
        Without one, callbacks run in the background thread, where seek(), assignment(), pause() and
        resume() work, and calls that wait raise WrongLoopError.
        """
        if listener is not None and self._client._group_id is not None:
            check_listener(listener)
            listener = in_threads(listener, self)
        self._refuse_in_callback("subscribe")
        self._subscribe(topics, pattern, listener)

    @named
    def unsubscribe(self) -> None:
        """Read no partition any more. See quorate.Consumer.unsubscribe."""
        self._refuse_in_callback("unsubscribe")
        self._unsubscribe()

    @named
    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read exactly these partitions. See quorate.Consumer.assign."""
        self._refuse_in_callback("assign")
        self._assign(partitions)

    @named
    def commit(self, offsets: Offsets | None = None) -> None:
        """Commit these offsets; None: the positions in all assigned partitions.

        With None, the records that the calling thread was given count as done. Those that another
        thread has in hand, and all behind them in their partitions, are left out: that thread may
        still fail with them. See quorate.Consumer.commit for the errors.
        """

        async def commit() -> None:
            if offsets is None:
                await self._client._running_group().commit(None, asyncio.current_task())
            else:
                await self._client.commit(offsets)

        self._run(commit)

    _unsubscribe = blocking(_Consumer.unsubscribe)
    _assign = blocking(_Consumer.assign)
    assignment = direct(_Consumer.assignment)
    seek = direct(_Consumer.seek)
    seek_to_beginning = blocking(_Consumer.seek_to_beginning)
    seek_to_end = blocking(_Consumer.seek_to_end)
    seek_to_time = blocking(_Consumer.seek_to_time)
    position = blocking(_Consumer.position)
    pause = direct(_Consumer.pause)
    resume = direct(_Consumer.resume)
    paused = direct(_Consumer.paused)
    highwater = direct(_Consumer.highwater)
    lag = blocking(_Consumer.lag)
    beginning_offsets = blocking(_Consumer.beginning_offsets)
    end_offsets = blocking(_Consumer.end_offsets)
    offsets_for_times = blocking(_Consumer.offsets_for_times)
    partitions_for = blocking(_Consumer.partitions_for)
    committed = blocking(_Consumer.committed)

    # -- inside

    def _run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run a call in the loop, after the records on this thread's shelf went back."""
        shelf = self._shelf()

        async def run() -> T:
            shelf.put_back()
            return await call()

        return super()._run(run)

    def _from(self, shelf: _Shelf) -> AnyRecord | None:
        """Return the next record of a shelf; None: there is none that the program may get."""
        if not shelf.records:
            return None
        record = shelf.records[0]
        state = shelf.states.get((record.topic, record.partition))
        if state is None or state.is_held or state.position <= record.offset:
            self._run(_nothing)  # puts the shelf back
            return None
        shelf.given = shelf.records.popleft()
        return record

    def _shelf(self) -> _Shelf:
        found = self._of_thread()
        assert isinstance(found, _Shelf)
        return found

    def _new_thread(self, voice: Voice) -> OfThread:
        return _Shelf(voice, self._client)

    def _fill(self, shelf: _Shelf) -> None:
        """Wait for records, and put about as many on the shelf as the program needs for a while."""
        shelf.next_round(time.monotonic(), self._limit)
        while not shelf.records:
            super()._run(shelf.fill)
        shelf.began_s = time.monotonic()

    def _refuse_in_callback(self, call: str) -> None:
        """Raise WrongLoopError if the call would wait for the callback that makes it."""
        if is_in_callback(self):
            raise WrongLoopError(
                f"{call}() was called in a callback of the consumer's listener, and would wait for"
                " the end of this callback: let a thread of the program call it"
            )

    def _leave(self, *, is_done: bool, timeout_s: float | None = None) -> None:
        self._refuse_in_callback("stop")
        self._closing()

        async def stop() -> None:
            # quorate.Consumer.stop() asks whether an exception is handled, which is not known here
            self._client._is_done = is_done
            async with asyncio.timeout(timeout_s):
                await self._client._stop_once()

        self._run(stop)


async def _nothing() -> None:
    """Do nothing in the loop but what every call does there."""


class _Shelf(OfThread):
    """Records that the loop has handed to one thread, and that its program has not asked for."""

    def __init__(self, voice: Voice, consumer: asynchronous.Consumer[Any, Any]) -> None:
        super().__init__(voice)
        self._consumer = consumer
        self.records: deque[AnyRecord] = deque()
        #: The states of their partitions, by topic and number, as the loop had them.
        self.states: dict[tuple[str, int], PartitionState] = {}
        #: The record that the program was given last.
        self.given: AnyRecord | None = None
        #: How many records the next round asks for, and when the last round began.
        self.size = 1
        self.began_s = 0.0

    async def fill(self) -> None:
        """Take the records of one round. Wait for the first."""
        found = await self._consumer.getmany(timeout_ms=WAIT_MS, max_records=self.size)
        states = self._consumer._subscription.states
        self.states = {(key.topic, key.partition): states[key] for key in found if key in states}
        for records in found.values():
            self.records.extend(records)

    def put_back(self) -> None:
        """Give the consumer the records back that the program was not given. Runs in the loop.

        Every call but the reads needs this: a position, a commit and a seek are about the records
        that the program was given. The program still has the last of these in hand.
        """
        records, self.records = self.records, deque()
        if self._consumer._is_closed:
            return
        firsts: dict[TopicPartition, int] = {}
        for record in records:
            firsts.setdefault(TopicPartition(record.topic, record.partition), record.offset)
        states = self._consumer._subscription.states
        for partition, offset in firsts.items():
            state = states.get(partition)
            # Otherwise the partition was away meanwhile, or was sought in by another thread: where
            # it is read now is newer than the shelf.
            is_same = state is self.states.get((partition.topic, partition.partition))
            if state is not None and is_same and state.position > offset:
                self._consumer.seek(partition, offset)
        group, task = self._consumer._group, asyncio.current_task()
        if firsts and group is not None and task is not None and self.given is not None:
            group.commits.hands.gave_one(task, self.given)

    async def last_call(self) -> None:
        self.put_back()

    def next_round(self, now_s: float, limit: int) -> None:
        """Ask for more if the program was quick with the last round, and for fewer if not."""
        if now_s - self.began_s < ROUND_S:
            self.size = min(2 * self.size, limit)
        else:
            self.size = max(1, self.size // 2)


Consumer.__signature__ = inspect.signature(_Consumer)  # type: ignore[attr-defined]
