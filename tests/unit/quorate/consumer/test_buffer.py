"""Partitions take turns, what is held is bounded, and no partition that is read starves."""

from __future__ import annotations

import random
from collections import Counter, deque

import pytest

from quorate.consumer.buffer import Buffer
from quorate.consumer.fetch_session import FetchSession
from quorate.consumer.partition_state import PartitionState
from quorate.consumer.subscription import Subscription
from quorate.model import TopicPartition
from tests.unit.quorate.consumer.builders import TOPIC_ID, fetch, state_at


def filled(partitions: int, chunks: int = 1) -> tuple[Buffer, list[PartitionState]]:
    buffer = Buffer(1 << 30)
    states = [state_at(number) for number in range(partitions)]
    for _ in range(chunks):
        for state in states:
            fetch(state, 10)
            buffer.changed(state)
    return buffer, states


def take(buffer: Buffer, state: PartitionState) -> None:
    state.take()
    state.chunk.clear()
    state.finish()
    buffer.had_turn(state)


def test_partitions_take_turns() -> None:
    buffer, states = filled(3, chunks=2)
    turns = []
    while (state := buffer.first()) is not None:
        turns.append(states.index(state))
        take(buffer, state)
    assert turns == [0, 1, 2, 0, 1, 2]
    assert buffer.bytes_held == 0


def test_turns_of_some_partitions_keep_their_order() -> None:
    buffer, states = filled(4)
    by_name = {state.topic_partition: state for state in states}
    take(buffer, states[1])
    fetch(states[1], 10)
    buffer.changed(states[1])
    for only in ([3, 1, 0], [0, 1, 2, 3, 7]):
        keys = {TopicPartition("t", number) for number in only}
        order = [states.index(state) for state in buffer.in_turn(keys, by_name)]
        assert order == [one for one in (0, 2, 3, 1) if one in only]


def test_a_paused_partition_has_no_turn_and_counts() -> None:
    buffer, states = filled(2)
    states[0].paused = True
    buffer.changed(states[0])
    assert buffer.first() is states[1]
    assert buffer.bytes_held == 20
    states[0].paused = False
    buffer.changed(states[0])
    take(buffer, states[1])
    assert buffer.first() is states[0]


def test_a_read_that_finds_nothing_in_a_full_buffer_drops_what_others_hold() -> None:
    buffer = Buffer(100)
    states = [state_at(number) for number in range(10)]
    for state in states:
        fetch(state, 10)
        buffer.changed(state)
    assert buffer.is_full
    take(buffer, states[0])
    fetch(states[0], 10)
    buffer.changed(states[0])  # read last of all
    dropped = buffer.found_nothing()
    assert dropped == states[1:6]  # the longest unread first
    assert buffer.bytes_held == 50
    for state in dropped:
        assert (state.fetch_offset, state.is_wanted(1000)) == (0, False)
    assert buffer.found_nothing() == []
    # They are fetched again when they are asked for, and no earlier.
    assert buffer.asked_for({TopicPartition("t", 2), TopicPartition("t", 99)}) == [states[2]]
    assert states[2].is_wanted(1000)
    assert buffer.asked_for(frozenset()) == [states[1], *states[3:6]]
    assert buffer.asked_for(frozenset()) == []


def test_what_a_paused_partition_held_is_fetched_again_when_it_goes_on() -> None:
    buffer = Buffer(10)
    state = state_at()
    fetch(state, 10)
    state.paused = True
    buffer.changed(state)
    assert buffer.found_nothing() == [state]
    assert not state.is_wanted(1000)
    state.paused = False
    assert state.is_wanted(1000)


def test_nothing_is_dropped_while_there_is_room() -> None:
    buffer, _ = filled(5)
    assert buffer.found_nothing() == []
    assert buffer.bytes_held == 50


class Broker:
    """A broker's fetch session: partitions take turns, an answer has room for `parts` of them."""

    def __init__(self, parts: int, size: int) -> None:
        self.parts, self.size = parts, size
        self.turns: dict[int, int] = {}

    def answer(self, named: list[PartitionState], forgotten: list[tuple[bytes, int]]) -> list[int]:
        for _, number in forgotten:
            self.turns.pop(number, None)
        for state in named:
            self.turns.pop(state.topic_partition.partition, None)
            self.turns[state.topic_partition.partition] = state.fetch_offset
        answered = list(self.turns)[: self.parts]
        for number in answered:
            del self.turns[number]
        return answered


@pytest.mark.parametrize("seed", range(20))
def test_no_partition_that_is_read_starves_whatever_others_hold(seed: int) -> None:
    """Fairness: with endless records everywhere, each read of a partition gets some soon.

    A user pauses, resumes and asks for subsets by chance; what is held stays bounded.
    """
    chance = random.Random(seed)
    print(f"seed {seed}")
    partitions = chance.choice([1, 3, 20])
    size = chance.choice([1, 7, 30])
    buffer, session = Buffer(100), FetchSession(20)
    subscription = Subscription("earliest")
    change = subscription.assign(
        {TopicPartition("t", number): TOPIC_ID for number in range(partitions)}, late=False
    )
    states = change.added
    broker = Broker(chance.choice([1, 3]), size)
    for state in states:
        state.seek(0)
        session.add(state)
    got: Counter[int] = Counter()
    for _ in range(60):
        asked = frozenset(
            state.topic_partition for state in chance.sample(states, chance.randint(1, partitions))
        )
        only = asked if chance.random() < 0.7 else frozenset()
        for state in states:
            state.paused = chance.random() < 0.3
            buffer.changed(state)
            session.touch(state)
        readable = [s for s in states if not s.paused and (not only or s.topic_partition in only)]
        if not readable:
            continue
        waited: deque[int] = deque()
        missing = {state.topic_partition.partition for state in readable}
        for _ in range(40 * partitions):
            for state in buffer.asked_for(only):
                session.touch(state)
            turns = buffer.in_turn(only, subscription.states) if only else []
            if not only and (first := buffer.first()) is not None:
                turns = [first]
            for state in turns:
                state.take()
                state.position = state.fetch_offset if not state.ahead else state.position
                state.chunk.clear()
                state.finish()
                buffer.had_turn(state)
                session.touch(state)
                missing.discard(state.topic_partition.partition)
                got[state.topic_partition.partition] += 1
            if not turns:
                for state in buffer.found_nothing():
                    session.touch(state)
            if not missing:
                break
            request = None if buffer.is_full else session.next_request()
            if request is not None:
                session.answered(request.request_id)
                for number in broker.answer(request.named, request.forgotten):
                    offset = states[number].fetch_offset
                    if session.awaits(request.request_id, TOPIC_ID, number, offset) is not None:
                        fetch(states[number], size)
                        buffer.changed(states[number])
                        session.touch(states[number])
            waited.append(buffer.bytes_held)
        assert not missing, f"never read: {sorted(missing)} of {sorted(only)}"
        assert max(waited, default=0) < 100 + broker.parts * size
    assert sum(got.values()) > 0
