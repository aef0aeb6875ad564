"""What the application has in hand, against a model that notes every ask in full."""

from __future__ import annotations

import random
from typing import Any

import pytest

from quorate.consumer.group.hands import Hands
from quorate.model import AnyRecord, Record, TopicPartition

KEYS = [TopicPartition("t", number) for number in range(3)]


class Task:
    """A task that runs, ends, or fails, as the test says."""

    def __init__(self) -> None:
        self.is_over = False
        self._exception: Exception | None = None

    def done(self) -> bool:
        return self.is_over

    def cancelled(self) -> bool:
        return False

    def end(self, *, fails: bool) -> None:
        self.is_over, self._exception = True, ValueError() if fails else None


def record(key: TopicPartition, offset: int) -> AnyRecord:
    return Record(key.topic, key.partition, offset, 0, "create_time", None, b"", (), 0)


class Model:
    """The first offset of each partition that each task has, and those of failed tasks."""

    def __init__(self) -> None:
        self.held: dict[Any, dict[TopicPartition, int]] = {}
        self.exclusive: dict[Any, set[TopicPartition]] = {}
        self.dropped: dict[TopicPartition, int] = {}

    def asks(self, task: Any) -> None:
        self.held.pop(task, None)
        for other in [one for one in self.held if one.done()]:
            firsts = self.held.pop(other)
            if other._exception is not None:
                self.dropped = {**firsts, **self.dropped}

    def firsts(self) -> dict[TopicPartition, int]:
        found = dict(self.dropped)
        for firsts in self.held.values():
            for key, offset in firsts.items():
                found[key] = min(offset, found.get(key, offset))
        return found

    def taken(self, task: Any) -> frozenset[TopicPartition]:
        others = (one for one in self.held if one is not task and not one.done())
        return frozenset(key for one in others for key in self.exclusive[one] & set(self.held[one]))


def ask(hands: Hands, task: Any, given: AnyRecord | None) -> None:
    """Ask as getone() does: a task that goes on alone takes the short way."""
    if given is not None and hands.solo is task:
        hands.record = given
        return
    hands.came_back(task)
    if given is not None:
        hands.gave_one(task, given)


@pytest.mark.parametrize("seed", range(100))
def test_what_is_in_hand_is_known_whichever_way_a_task_asks(seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    hands, model, offset = Hands(), Model(), 0
    tasks: list[Any] = [Task() for _ in range(3)]
    waiting: list[Any] = []
    for _ in range(200):
        task = chance.choice(tasks)
        key, offset = chance.choice(KEYS), offset + 1
        if task in waiting:
            # its ask was noted before, and others have asked since
            waiting.remove(task)
            if key in model.taken(task):
                continue
            hands.gave_one(task, record(key, offset))
            model.held[task], model.exclusive[task] = {key: offset}, set()
        elif (chosen := chance.random()) < 0.6:
            model.asks(task)
            is_taken = key in model.taken(task)
            ask(hands, task, None if is_taken else record(key, offset))
            if not is_taken:
                model.held[task], model.exclusive[task] = {key: offset}, set()
        elif chosen < 0.7:
            model.asks(task)
            hands.came_back(task)
            assert hands.taken_by_others(task) == model.taken(task)
            free = [one for one in KEYS if one not in model.taken(task)]
            if free:
                hands.gave(task, {one: [record(one, offset)] for one in free})
                model.held[task] = dict.fromkeys(free, offset)
                model.exclusive[task] = {*free}
        elif chosen < 0.8:
            model.asks(task)
            hands.came_back(task)
            waiting.append(task)
        elif chosen < 0.85:
            task.end(fails=chance.random() < 0.5)
            tasks[tasks.index(task)] = Task()
        elif chosen < 0.9:
            hands.forget([key])
            model.dropped.pop(key, None)
            for firsts in model.held.values():
                firsts.pop(key, None)
        else:
            assert hands.firsts() == model.firsts()
            assert hands.taken_by_others(task) == model.taken(task)


def test_a_task_that_goes_on_alone_is_noted_once() -> None:
    hands, task = Hands(), Task()
    asker: Any = task
    ask(hands, asker, record(KEYS[0], 1))
    assert hands.solo is asker
    ask(hands, asker, record(KEYS[1], 5))
    assert hands.firsts() == {KEYS[1]: 5}
    assert hands.solo is None, "the next ask is noted in full"
