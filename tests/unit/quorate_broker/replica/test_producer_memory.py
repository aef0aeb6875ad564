"""When producers are forgotten, and how a broker answers then: nothing is written twice."""

from __future__ import annotations

import random
import sys
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.errors import (
    OutOfOrderSequenceError,
    OverloadedError,
    QuorateError,
    UnknownProducerIdError,
)
from quorate_broker.replica.producer_memory import (
    KEPT_MS,
    PRODUCER_BYTES,
    TICK_MS,
    ProducerMemory,
)
from quorate_broker.replica.producers import TRANSIT_MS, Producers, producers_in
from quorate_quorum.node.config import BrokerConfig

MINUTE_MS = 60_000
#: The default of producer.id.expiration.ms.
DAY_MS = 24 * 60 * MINUTE_MS


class Header(NamedTuple):
    producer_id: int = 9
    producer_epoch: int = 0
    base_sequence: int = 0
    base_offset: int = 0
    last_offset_delta: int = 0


def memory_of(**limits: Any) -> ProducerMemory:
    config = BrokerConfig(node_id=1, listeners=("b:1",), log_dirs=("/d",), **limits)
    return ProducerMemory(config)


def pass_time(memory: ProducerMemory, ms: int) -> None:
    memory.now_ms += ms


def with_producers(memory: ProducerMemory, *producer_ids: int) -> Producers:
    producers = Producers(memory)
    for offset, producer_id in enumerate(producer_ids):
        producers.observe(Header(producer_id=producer_id, base_offset=offset))
    return producers


# --- when -----------------------------------------------------------------------------------------


def test_a_producer_is_forgotten_by_time_and_never_by_the_number_of_others() -> None:
    memory = memory_of(partition_producers_max=2)
    producers = with_producers(memory, 1, *range(100, 200))
    pass_time(memory, KEPT_MS)
    assert producers.forget() == 0
    assert len(producers) == 101
    producers.observe(Header(producer_id=100, base_sequence=1, base_offset=200))
    pass_time(memory, 1)
    assert producers.forget() == 99
    assert producers.get(1) is None
    assert producers.get(100) is not None


def test_below_the_bound_a_producer_is_forgotten_when_it_expires() -> None:
    memory = memory_of()
    producers = with_producers(memory, 1)
    pass_time(memory, DAY_MS)
    assert producers.forget() == 0
    pass_time(memory, 1)
    assert producers.forget() == 1


def test_the_time_is_that_of_the_broker_at_work_not_of_records_or_of_a_paused_process() -> None:
    memory = memory_of()
    memory.tick(1_000)
    memory.tick(1_000 + TICK_MS)
    assert memory.now_ms == TICK_MS
    memory.tick(1_000 + 3_600_000)  # stopped for an hour: requests of that time arrive only now
    assert memory.now_ms == 3 * TICK_MS


def test_a_producer_that_repeats_a_batch_is_heard() -> None:
    memory = memory_of()
    producers = with_producers(memory, 1, 2)
    pass_time(memory, DAY_MS)
    assert producers.staging().check(Header(producer_id=1, base_offset=2)) is not None
    pass_time(memory, 1)
    assert producers.forget() == 1
    assert producers.get(1) is not None


@pytest.mark.parametrize(
    "bound", ["partition_producer_state_max_bytes", "producer_state_max_bytes"]
)
def test_at_the_bound_in_bytes_a_new_producer_is_refused_and_an_old_one_goes_on(bound: str) -> None:
    memory = memory_of(**{bound: 2 * PRODUCER_BYTES})
    producers = with_producers(memory, 1, 2)
    with pytest.raises(OverloadedError, match="send again later") as refused:
        producers.staging().check(Header(producer_id=3, base_offset=2))
    assert refused.value.retriable
    assert producers.staging().check(Header(1, 0, 1, 2)) is None
    pass_time(memory, KEPT_MS + 1)
    assert producers.staging().check(Header(producer_id=3, base_offset=2)) is None


def test_new_producers_of_one_append_count_against_the_bound_together() -> None:
    staging = with_producers(
        memory_of(partition_producer_state_max_bytes=2 * PRODUCER_BYTES), 1
    ).staging()
    assert staging.check(Header(producer_id=2, base_offset=1)) is None
    with pytest.raises(OverloadedError):
        staging.check(Header(producer_id=3, base_offset=2))


def test_a_follower_remembers_what_its_leader_took_beyond_its_own_bound() -> None:
    producers = with_producers(memory_of(producer_state_max_bytes=PRODUCER_BYTES), 1, 2, 3)
    assert len(producers) == 3


def test_what_is_let_go_gives_its_memory_back() -> None:
    memory = memory_of()
    producers = with_producers(memory, 1, 2)
    data = producers.snapshot()
    producers.restore(data)
    assert memory.count == 2
    pass_time(memory, DAY_MS + 1)
    producers.forget()
    assert memory.count == 0
    producers.restore(data)
    producers.reset()
    assert memory.count == 0


# --- over restarts --------------------------------------------------------------------------------


def test_a_snapshot_keeps_for_how_long_each_producer_was_silent() -> None:
    memory = memory_of()
    producers = with_producers(memory, 1)
    pass_time(memory, 20 * 3_600_000)
    producers.observe(Header(producer_id=2, base_offset=1))
    data = producers.snapshot()
    assert [(one.producer_id, one.silent_ms) for one in producers_in(data)] == [
        (1, 20 * 3_600_000),
        (2, 0),
    ]

    after = memory_of()  # another process, whose clock begins at 0
    restored = Producers(after)
    restored.restore(data)
    pass_time(after, 4 * 3_600_000 + 1)
    assert restored.forget() == 1
    assert restored.get(2) is not None


def test_what_is_replayed_counts_as_heard_now() -> None:
    memory = memory_of(partition_producers_max=0)
    pass_time(memory, DAY_MS)
    producers = with_producers(memory, 1)
    pass_time(memory, KEPT_MS)
    assert producers.forget() == 0


# --- answers to producers that the partition does not know ----------------------------------------


def test_sequence_0_of_a_forgotten_producer_is_not_new_if_it_may_have_been_written() -> None:
    memory = memory_of(producer_id_expiration_ms=KEPT_MS)
    producers = with_producers(memory, 9, 10)
    pass_time(memory, KEPT_MS + MINUTE_MS)
    producers.forget()
    again = Header(base_offset=2)
    with pytest.raises(UnknownProducerIdError, match="can't be told"):
        producers.staging().check(again, in_doubt_ms=KEPT_MS + MINUTE_MS)
    assert producers.staging().check(again) is None  # nothing of it was sent before: it is new


def test_a_batch_younger_than_what_was_forgotten_was_not_written() -> None:
    memory = memory_of(producer_id_expiration_ms=KEPT_MS)
    producers = with_producers(memory, 10)
    pass_time(memory, KEPT_MS + 1)
    producers.forget()
    young = KEPT_MS - TRANSIT_MS
    assert producers.staging().check(Header(base_offset=2), in_doubt_ms=young) is None
    with pytest.raises(OutOfOrderSequenceError, match="nothing of it was written"):
        producers.staging().check(Header(base_sequence=4, base_offset=2), in_doubt_ms=young)


def test_where_nobody_was_ever_forgotten_an_unknown_producer_has_written_nothing() -> None:
    producers = with_producers(memory_of(), 10)
    with pytest.raises(OutOfOrderSequenceError):
        producers.staging().check(Header(base_sequence=4, base_offset=1), in_doubt_ms=DAY_MS)


@pytest.mark.parametrize("is_empty", [True, False], ids=["empty", "with records"])
def test_a_replica_that_lacks_the_beginning_of_the_log_does_not_know_who_wrote_there(
    is_empty: bool,
) -> None:
    producers = Producers(memory_of())
    if not is_empty:
        producers.observe(Header(producer_id=10, base_offset=500))
    with pytest.raises(UnknownProducerIdError):
        producers.staging().check(Header(base_offset=501), in_doubt_ms=1)
    assert producers.staging().check(Header(base_offset=501)) is None


def test_that_nothing_was_seen_yet_survives_a_snapshot() -> None:
    producers = Producers(memory_of())
    producers.restore(Producers(memory_of()).snapshot())
    with pytest.raises(UnknownProducerIdError):
        producers.staging().check(Header(base_offset=501), in_doubt_ms=1)


# --- cost -----------------------------------------------------------------------------------------


def test_a_producer_costs_no_more_bytes_than_it_is_counted_for() -> None:
    producers = Producers(memory_of())
    for number in range(1_000):
        for batch in range(5):
            producers.observe(Header(10**9 + number, 0, 10 * batch, 10**9 + batch, 9))
    known = producers._known
    size = sys.getsizeof(known) + sum(map(sys.getsizeof, known.values()))
    assert size + sum(map(sys.getsizeof, known)) <= PRODUCER_BYTES * len(producers)
    assert len(producers.snapshot()) <= 100 * len(producers) + 30


# --- all of it, by chance -------------------------------------------------------------------------


class Sent(NamedTuple):
    """A batch that a client has sent, and may send again."""

    header: Header
    first_ms: int


class Replica:
    """The producers of one replica, whose process has a clock of its own."""

    def __init__(self) -> None:
        self.start(None)

    def start(self, data: bytes | None) -> None:
        self.memory = memory_of(
            producer_id_expiration_ms=60 * MINUTE_MS,
            partition_producers_max=3,
            partition_producer_state_max_bytes=5 * PRODUCER_BYTES,
        )
        self.producers = Producers(self.memory)
        if data is not None:
            self.producers.restore(data)


class Cluster:
    """One partition on two replicas, the log that they share, and its honest clients."""

    def __init__(self) -> None:
        self.log: list[Header] = []
        self.replicas = [Replica(), Replica()]
        self.snapshots: list[tuple[int, bytes]] = [(0, Producers().snapshot())] * 2
        self.sent: list[Sent] = []
        self.next_sequence: dict[int, int] = {}
        self.heard_ms: dict[int, int] = {}
        self.leader = 0
        self.now_ms = 0

    def send(self, producer_id: int) -> None:
        header = Header(producer_id, 0, self.next_sequence.get(producer_id, 0))
        self.sent.append(Sent(header, self.now_ms))
        if self.offer(header, 0):
            self.next_sequence[producer_id] = header.base_sequence + 1

    def send_again(self, which: int) -> None:
        if self.sent:
            one = self.sent[which % len(self.sent)]
            self.offer(one.header, self.now_ms - one.first_ms + 1)

    def offer(self, header: Header, in_doubt_ms: int) -> bool:
        is_there = any(header[:3] == one[:3] for one in self.log)
        placed = header._replace(base_offset=len(self.log))
        producers = self.replicas[self.leader].producers
        try:
            original = producers.staging().check(placed, in_doubt_ms=in_doubt_ms)
        except QuorateError as error:
            proves = isinstance(error, OutOfOrderSequenceError)
            assert not (proves and is_there), "called a gap, it is written again"
            return False
        if original is not None:
            assert is_there, "called a duplicate, it is lost"
            return False
        assert not is_there, "written twice"
        self.log.append(placed)
        self.heard_ms[header.producer_id] = self.now_ms
        for replica in self.replicas:
            replica.producers.observe(placed)
        return True

    def wait(self, minutes: int) -> None:
        self.now_ms += minutes * MINUTE_MS
        for replica in self.replicas:
            pass_time(replica.memory, minutes * MINUTE_MS)
            replica.producers.forget()
            for producer_id, heard_ms in self.heard_ms.items():
                if self.now_ms - heard_ms <= KEPT_MS:
                    assert replica.producers.get(producer_id) is not None

    def take_snapshot(self, index: int) -> None:
        self.snapshots[index] = (len(self.log), self.replicas[index].producers.snapshot())

    def restart(self, index: int) -> None:
        """A crash: the newest snapshot, then what lies above it."""
        end, data = self.snapshots[index]
        self.replicas[index].start(data)
        for header in self.log[end:]:
            self.replicas[index].producers.observe(header)


STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 6)),
    st.tuples(st.just("send_again"), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 14, 16, 61])),
    st.tuples(st.sampled_from(["take_snapshot", "restart", "lead"]), st.integers(0, 1)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=80))
def test_nothing_is_written_twice_whatever_is_forgotten(steps: list[tuple[str, int]]) -> None:
    cluster = Cluster()
    for step, argument in steps:
        if step == "lead":
            cluster.leader = argument
        else:
            getattr(cluster, step)(argument)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 2**32))
def test_no_bytes_make_a_snapshot_that_is_none(data: bytes, seed: int) -> None:
    sound = with_producers(memory_of(), *range(3)).snapshot()
    chance = random.Random(seed)
    at = chance.randrange(len(sound))
    damaged = sound[:at] + data + sound[at + chance.randrange(1, 9) :]
    if damaged == sound:
        return
    producers = Producers(memory_of())
    with pytest.raises(QuorateError):
        producers.restore(damaged)
    assert len(producers) == 0
