"""What a consumer reads and fetches next, without a clock or a wire: position, buffer, session."""

from __future__ import annotations

import random
from collections import Counter, deque

import pytest

from quorate.consumer.buffer import Buffer
from quorate.consumer.fetch_session import CHANGES_MAX, FetchSession
from quorate.consumer.partition_state import UNKNOWN, Batch, PartitionState
from quorate.consumer.subscription import Subscription
from quorate.model import TopicPartition
from quorate.record.batch import BatchBuilder, parse_header

TOPIC_ID = b"t" * 16


def state_at(partition: int = 0, offset: int = 0, epoch: int = UNKNOWN) -> PartitionState:
    state = PartitionState(TopicPartition("t", partition), TOPIC_ID)
    state.seek(offset, epoch)
    return state


def batch(offset: int, count: int = 1, epoch: int = 0) -> Batch:
    builder = BatchBuilder()
    for _ in range(count):
        builder.append(0, None, b"v")
    data = memoryview(builder.build(base_offset=offset, leader_epoch=epoch))
    return parse_header(data), data


def fetch(state: PartitionState, size: int, *batches: Batch) -> None:
    state.fetched(list(batches) or [batch(state.fetch_offset)], size)


def read(state: PartitionState) -> None:
    """Read all that is held, as the reader of records does."""
    while state.chunk or state.ahead:
        if not state.chunk:
            state.take()
        header, _ = state.chunk[0]
        state.reads(header)
        state.position, state.position_epoch = header.end_offset, header.leader_epoch
        state.chunk.popleft()
        state.passes(header)
    state.finish()


class TestPosition:
    def test_a_fetch_tells_the_epoch_of_the_last_record_fetched(self) -> None:
        state = state_at(offset=5, epoch=2)
        assert (state.fetch_offset, state.fetch_epoch) == (5, 2)
        fetch(state, 10, batch(5, 3, epoch=2), batch(8, 2, epoch=4))
        assert (state.fetch_offset, state.fetch_epoch) == (10, 4)
        state.fetch_again()  # what is held is dropped: the user has read nothing of it
        assert (state.fetch_offset, state.fetch_epoch) == (5, 2)
        assert not state.is_readable

    def test_every_other_fetch_is_another_version(self) -> None:
        state = state_at()
        versions = [state.version]
        fetch(state, 10)
        versions.append(state.version)
        state.seek(5)
        versions.append(state.version)
        state.seek_to("latest")
        versions.append(state.version)
        assert len(set(versions)) == 4

    def test_an_offset_that_was_looked_up_before_a_seek_is_dropped(self) -> None:
        state = state_at()
        state.seek_to("latest")
        asked = state.version
        state.seek_to("latest")
        state.found(7, 1, asked)
        assert state.needs_offset
        state.found(9, 1, state.version)
        assert (state.position, state.position_epoch) == (9, 1)

    def test_a_seek_within_what_is_held_keeps_it(self) -> None:
        state = state_at()
        fetch(state, 10, batch(0, 10))
        version = state.version
        state.seek(4)
        assert (state.position, state.fetch_offset, state.held_bytes) == (4, 10, 10)
        assert state.version == version
        assert state.position_epoch == UNKNOWN  # of the record before it nothing is known
        state.seek(3)  # back: it is not certain what lies there
        assert (state.fetch_offset, state.held_bytes) == (3, 0)

    @pytest.mark.parametrize(
        ("epoch", "end_offset", "safe"),
        [
            (4, 12, 12),  # the last epoch is cut
            (2, 7, 7),  # the epoch before it too
            (2, 99, 8),  # the leader wrote on in epoch 2 where we read epoch 4
            (0, 99, 5),  # of all that we read nothing is there
            (-1, 0, 0),
        ],
    )
    def test_the_safe_offset_is_where_the_first_record_read_may_differ(
        self, epoch: int, end_offset: int, safe: int
    ) -> None:
        state = state_at(offset=5)
        fetch(state, 10, batch(5, 3, epoch=2), batch(8, 7, epoch=4))
        read(state)
        assert (state.position, state.position_epoch) == (15, 4)
        assert state.epochs == [(2, 5), (4, 8)]
        assert state.safe_offset(epoch, end_offset) == safe

    def test_epochs_that_are_remembered_are_bounded(self) -> None:
        state = state_at()
        fetch(state, 10, *(batch(number, epoch=number) for number in range(100)))
        read(state)
        assert len(state.epochs) == 32
        assert state.safe_offset(0, 50) == 50


class TestBuffer:
    def filled(self, partitions: int, chunks: int = 1) -> tuple[Buffer, list[PartitionState]]:
        buffer = Buffer(1 << 30)
        states = [state_at(number) for number in range(partitions)]
        for _ in range(chunks):
            for state in states:
                fetch(state, 10)
                buffer.changed(state)
        return buffer, states

    def take(self, buffer: Buffer, state: PartitionState) -> None:
        state.take()
        state.chunk.clear()
        state.finish()
        buffer.had_turn(state)

    def test_partitions_take_turns(self) -> None:
        buffer, states = self.filled(3, chunks=2)
        turns = []
        while (state := buffer.first()) is not None:
            turns.append(states.index(state))
            self.take(buffer, state)
        assert turns == [0, 1, 2, 0, 1, 2]
        assert buffer.bytes_held == 0

    def test_turns_of_some_partitions_keep_their_order(self) -> None:
        buffer, states = self.filled(4)
        by_name = {state.topic_partition: state for state in states}
        self.take(buffer, states[1])
        fetch(states[1], 10)
        buffer.changed(states[1])
        for only in ([3, 1, 0], [0, 1, 2, 3, 7]):
            keys = {TopicPartition("t", number) for number in only}
            order = [states.index(state) for state in buffer.in_turn(keys, by_name)]
            assert order == [one for one in (0, 2, 3, 1) if one in only]

    def test_a_paused_partition_has_no_turn_and_counts(self) -> None:
        buffer, states = self.filled(2)
        states[0].paused = True
        buffer.changed(states[0])
        assert buffer.first() is states[1]
        assert buffer.bytes_held == 20
        states[0].paused = False
        buffer.changed(states[0])
        self.take(buffer, states[1])
        assert buffer.first() is states[0]

    def test_a_read_that_finds_nothing_in_a_full_buffer_drops_what_others_hold(self) -> None:
        buffer = Buffer(100)
        states = [state_at(number) for number in range(10)]
        for state in states:
            fetch(state, 10)
            buffer.changed(state)
        assert buffer.is_full
        self.take(buffer, states[0])
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

    def test_what_a_paused_partition_held_is_fetched_again_when_it_goes_on(self) -> None:
        buffer = Buffer(10)
        state = state_at()
        fetch(state, 10)
        state.paused = True
        buffer.changed(state)
        assert buffer.found_nothing() == [state]
        assert not state.is_wanted(1000)
        state.paused = False
        assert state.is_wanted(1000)

    def test_nothing_is_dropped_while_there_is_room(self) -> None:
        buffer, _ = self.filled(5)
        assert buffer.found_nothing() == []
        assert buffer.bytes_held == 50


class TestSession:
    def test_a_request_names_what_changed_and_forgets_what_is_not_wanted(self) -> None:
        session = FetchSession(100)
        states = [state_at(number) for number in range(3)]
        for state in states:
            session.add(state)
        first = session.next_request()
        assert first is not None
        assert (first.named, first.forgotten) == (states, [])
        assert session.next_request() is None  # nothing to name while one is under way
        session.answered(first.request_id)
        fetch(states[0], 10)
        session.touch(states[0])
        states[1].paused = True
        session.touch(states[1])
        second = session.next_request()
        assert second is not None
        assert (second.named, second.forgotten) == ([states[0]], [(TOPIC_ID, 1)])
        session.answered(second.request_id)
        third = session.next_request()
        assert third is not None
        assert (third.named, third.forgotten) == ([], [])

    def test_nothing_is_asked_where_nothing_is_wanted(self) -> None:
        session = FetchSession(100)
        state = state_at()
        state.paused = True
        session.add(state)
        assert session.next_request() is None
        assert session.is_idle

    def test_an_answer_to_an_older_fetch_is_dropped(self) -> None:
        session = FetchSession(100)
        state = state_at(offset=5)
        session.add(state)
        first = session.next_request()
        assert first is not None
        assert session.awaits(first.request_id, TOPIC_ID, 0, 5) is state
        state.seek(7)
        session.touch(state)
        assert session.awaits(first.request_id, TOPIC_ID, 0, 5) is None
        state.seek(5, 3)  # the same offset, and another question: of what epoch it is
        session.touch(state)
        assert session.awaits(first.request_id, TOPIC_ID, 0, 5) is None
        second = session.next_request()
        assert second is not None
        assert session.awaits(first.request_id, TOPIC_ID, 0, 5) is None
        assert session.awaits(second.request_id, TOPIC_ID, 0, 5) is state

    def test_two_requests_are_under_way_at_most(self) -> None:
        session = FetchSession(100)
        for number in range(3):
            session.add(state_at(number))
            assert (session.next_request() is not None) == (number < 2)

    def test_a_partition_that_left_is_forgotten_and_may_come_back(self) -> None:
        session = FetchSession(100)
        old, stays = state_at(0), state_at(1)
        session.add(old)
        session.add(stays)
        first = session.next_request()
        assert first is not None
        session.answered(first.request_id)
        session.remove(old)
        assert session.next_request() is not None
        new = state_at(0, 3)
        session.add(new)
        session.answered(2)
        last = session.next_request()
        assert last is not None
        assert last.named == [new]
        assert session.awaits(last.request_id, TOPIC_ID, 0, 3) is new

    def test_a_new_stream_is_told_everything(self) -> None:
        session = FetchSession(100)
        states = [state_at(number) for number in range(3)]
        for state in states:
            session.add(state)
        assert session.next_request() is not None
        session.restart()
        again = session.next_request()
        assert again is not None
        assert again.named == states
        assert again.request_id == 2  # it grows on

    def test_a_request_names_a_bounded_number_and_the_next_ones_the_rest(self) -> None:
        session = FetchSession(100)
        for number in range(CHANGES_MAX + 10):
            session.add(state_at(number))
        sizes = []
        while (asked := session.next_request()) is not None and asked.named:
            sizes.append(len(asked.named))
            session.answered(asked.request_id)
        assert sizes == [CHANGES_MAX, 10]


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
