"""The records that the application has in hand: given to it, and it has not come back yet.

A task comes back when it asks for records again. Only then are its records done, and may be
committed automatically. A task that ended without an error hands its records to the task that asks
next, as in ``await asyncio.create_task(consumer.getone())``. The records of a task that failed or
was cancelled are never done: a commit stays before them until the application commits or seeks.

A partition that `getmany` gave to one task is not given to another task before the first one comes
back: otherwise two tasks would work on records of the same key at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quorate.model import AnyRecord, TopicPartition

Asker = asyncio.Task[Any]


@dataclass(slots=True)
class Hand:
    """What one task has in hand: partition -> offset of the first record of the last answer."""

    firsts: Mapping[TopicPartition, int]
    #: Partitions of which other tasks get nothing until this task comes back.
    exclusive: Collection[TopicPartition] = ()


class Hands:
    """What all tasks of the application have in hand."""

    def __init__(self) -> None:
        #: The only task that has something in hand, if that is one record of getone(); then
        #: nothing is in `_hands`. While such a task goes on, its next record costs no more than to
        #: put it here: to come back and to be given a record are one act.
        self.solo: Asker | None = None
        self.record: AnyRecord | None = None
        #: A task with one record has the record itself here.
        self._hands: dict[Asker, Hand | AnyRecord] = {}
        #: Partition -> offset of the first record that a failed task had in hand.
        self._dropped: dict[TopicPartition, int] = {}

    def came_back(self, asker: Asker) -> None:
        """Note that this task is done with all that it was given."""
        self.end_solo()
        self._hands.pop(asker, None)
        if self._hands:
            for other in [one for one in self._hands if one.done()]:
                hand = _hand(self._hands.pop(other))
                if _failed(other):
                    for key, offset in hand.firsts.items():
                        self._dropped.setdefault(key, offset)

    def gave_one(self, asker: Asker, record: AnyRecord) -> None:
        """Note that this task gets a record."""
        self.end_solo()
        if self._hands:
            self._hands[asker] = record
        else:
            self.solo, self.record = asker, record

    def end_solo(self) -> None:
        """Let the next getone() note in full that its task comes back."""
        if self.solo is not None and self.record is not None:
            self._hands[self.solo] = self.record
        self.solo = None

    def gave(self, asker: Asker, records: Mapping[TopicPartition, Sequence[AnyRecord]]) -> None:
        """Note that this task gets these records."""
        self.end_solo()
        firsts = {key: listed[0].offset for key, listed in records.items()}
        self._hands[asker] = Hand(firsts, firsts)

    def taken_by_others(self, asker: Asker) -> frozenset[TopicPartition]:
        """Return the partitions of which this task must get nothing now."""
        if not self._hands:
            return frozenset()
        return frozenset(
            key
            for other, hand in self._hands.items()
            if other is not asker and not other.done()
            for key in _hand(hand).exclusive
        )

    def settle(self, only: Asker | None = None) -> None:
        """Take all records for done, or one task's: the application commits its positions."""
        self.end_solo()
        self._dropped.clear()
        if only is not None:
            if only in self._hands:
                self._hands[only] = Hand({}, _hand(self._hands[only]).exclusive)
            return
        self._hands = {
            task: Hand({}, _hand(hand).exclusive)
            for task, hand in self._hands.items()
            if not task.done()
        }

    def holds(self, keys: Collection[TopicPartition]) -> bool:
        """Return whether a task that still runs has records of these partitions in hand."""
        self.end_solo()
        return any(
            key in _hand(hand).firsts
            for task, hand in self._hands.items()
            if not task.done()
            for key in keys
        )

    def firsts(self) -> dict[TopicPartition, int]:
        """Return, for each partition in hand, the offset of the first record that is not done."""
        self.end_solo()
        found = dict(self._dropped)
        for hand in self._hands.values():
            for key, offset in _hand(hand).firsts.items():
                found[key] = min(offset, found.get(key, offset))
        return found

    def forget(self, keys: Collection[TopicPartition]) -> None:
        """Forget these partitions: the application has moved its position, or has them no more."""
        self.end_solo()
        for key in keys:
            self._dropped.pop(key, None)
        gone = frozenset(keys)
        for asker, held in list(self._hands.items()):
            hand = _hand(held)
            if not gone.isdisjoint(hand.firsts) or not gone.isdisjoint(hand.exclusive):
                kept = {key: first for key, first in hand.firsts.items() if key not in gone}
                exclusive = [key for key in hand.exclusive if key not in gone]
                self._hands[asker] = Hand(kept, exclusive)


def _hand(hand: Hand | AnyRecord) -> Hand:
    if isinstance(hand, Hand):
        return hand
    return Hand({TopicPartition(hand.topic, hand.partition): hand.offset})


def _failed(task: Asker) -> bool:
    if task.cancelled():
        return True
    # exception() would mark the error as seen, and asyncio would not log it any more
    return getattr(task, "_exception", None) is not None
