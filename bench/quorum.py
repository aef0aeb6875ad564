"""The figures of the quorum: how fast it commits, how fast it finds a leader, how much it holds.

All but the last with voters as real processes on disks that are synced, asked through the door
that brokers have (`QuorumClient.forward`, gRPC over TCP on 127.0.0.1), which returns when the
change is committed *and* applied to the asker's own image by Watch.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import statistics
import time
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from bench.voters import PATIENCE_S, Voters, ask, door, running, set_once
from quorate.errors import QuorateError
from quorate.net.methods import DESCRIBE_QUORUM
from quorate.net.principal import ANONYMOUS
from quorate.v1.admin_pb2 import CreateTopicsRequest, DescribeQuorumRequest
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.controller.decisions import brokers
from quorate_quorum.controller.decisions.creation import Creation
from quorate_quorum.controller.decisions.free_space import FreeSpace
from quorate_quorum.controller.decisions.outcome import Context, split
from quorate_quorum.controller.decisions.sweep import Sweep
from quorate_quorum.log.events import encode_events
from quorate_quorum.metadata.brokers import BrokerImage, DirectoryImage
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.loader import Loader
from quorate_quorum.node.listeners import parse
from quorate_quorum.node.resources import collect_garbage_in_parts
from quorate_quorum.raft.driver.batches import parse_batches
from quorate_quorum.v1.events_pb2 import MetadataEvent

Figures = dict[str, list[float]]

WARM_UP = 300
CALLS = 2000
CALLERS = 100
LOADED_S = 5.0
KILLS = 3
RUNS = 5
TOPICS = 10_000
PARTITIONS = 3
BROKERS = 3
TOPICS_PER_REQUEST = 500
ONE_TRY_MS = 2000
LEADERLESS_MAX_S = 30.0
#: A voter that was caught up within this time counts as caught up.
CAUGHT_UP_MS = 500


def commit() -> Figures:
    """What a proposal costs: one caller, then a hundred."""
    with running(Voters) as cluster:
        return ask(_commit(cluster))


async def _commit(cluster: Voters) -> Figures:
    async with door(cluster) as client:
        for number in range(WARM_UP):
            await set_once(client, number)
        before = _cpu_s(cluster, client.leader_id)
        calls_ms = sorted([await _timed_ms(client, number) for number in range(CALLS)])
        alone = _cpu_s(cluster, client.leader_id) - before
        before = _cpu_s(cluster, client.leader_id)
        started = time.perf_counter()
        count = await _loaded(client, started + LOADED_S)
        took_s = time.perf_counter() - started
        loaded = _cpu_s(cluster, client.leader_id) - before
    return {
        "commit, one caller, p50, ms": [calls_ms[CALLS // 2]],
        "commit, one caller, p99, ms": [calls_ms[CALLS * 99 // 100]],
        **alone.figures("one caller", CALLS),
        "commits by 100 callers, requests/s": [count / took_s],
        **loaded.figures("100 callers", count),
    }


class Cpu(NamedTuple):
    """Seconds of CPU that each kind of process used."""

    leader: float
    followers: float
    asker: float

    def __sub__(self, before: Cpu) -> Cpu:
        return Cpu(*(now - then for now, then in zip(self, before, strict=True)))

    def figures(self, load: str, count: int) -> Figures:
        """Return the CPU time that one of `count` commits cost."""
        names = ("leader", "two followers", "asking process")
        return {
            f"  {load}, CPU a commit, {name}, us": [seconds / count * 1e6]
            for name, seconds in zip(names, self, strict=True)
        }


def _cpu_s(cluster: Voters, leader_id: int) -> Cpu:
    voters = cluster.cpu_seconds()
    own = os.times()
    return Cpu(voters.pop(leader_id), sum(voters.values()), own.user + own.system)


async def _timed_ms(client: QuorumClient, number: int) -> float:
    started = time.perf_counter()
    await set_once(client, WARM_UP + number)
    return (time.perf_counter() - started) * 1000


async def _loaded(client: QuorumClient, until: float) -> int:
    count = 0

    async def call_on() -> None:
        nonlocal count
        while time.perf_counter() < until:
            count += 1
            await set_once(client, WARM_UP + CALLS + count)

    await asyncio.gather(*(call_on() for _ in range(CALLERS)))
    return count


def leader() -> Figures:
    """The time from a signal to the leader until its successor has committed a proposal."""
    with running(Voters) as cluster:
        return ask(_leader(cluster))


async def _leader(cluster: Voters) -> Figures:
    figures: Figures = {}
    async with door(cluster) as client:
        for name, number in (
            ("new leader after kill -9, s", signal.SIGKILL),
            ("new leader after SIGTERM, s", signal.SIGTERM),
        ):
            figures[name] = [await _without_leader_s(cluster, client, number) for _ in range(KILLS)]
    return figures


async def _without_leader_s(cluster: Voters, client: QuorumClient, number: signal.Signals) -> float:
    """Signal the leader of whole voters, return the time without one, and start it again."""
    await _whole(client)
    gone = client.leader_id
    started = time.perf_counter()
    cluster.signal(gone, number)
    moved = False
    while not moved:  # a proposal after the successor is known commits at the successor
        moved = client.leader_id not in (gone, -1)
        await _committed(client)
    took_s = time.perf_counter() - started
    await asyncio.to_thread(cluster.processes[gone].wait)
    cluster.start_voters()
    return took_s


async def _whole(client: QuorumClient) -> None:
    """Wait until every voter has caught up: else the next kill leaves one voter with the log.

    A voter that has only the bootstrap of the log grants no vote to a candidate with more: its
    disk may have been replaced. So a new quorum survives no kill before all voters have fetched.
    """
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await _committed(client)
            with suppress(QuorateError):
                quorum = await client.forward(
                    DESCRIBE_QUORUM,
                    DescribeQuorumRequest(),
                    principal=ANONYMOUS,
                    timeout_ms=ONE_TRY_MS,
                )
                if all(0 <= v.last_caught_up_ms < CAUGHT_UP_MS for v in quorum.voters):
                    return
            await asyncio.sleep(0.1)


async def _committed(client: QuorumClient) -> None:
    """Propose until a proposal is committed. A failed one may be committed, too; no harm."""
    async with asyncio.timeout(LEADERLESS_MAX_S):
        while True:
            try:
                await set_once(client, time.time_ns() % 1_000_000_000, timeout_ms=ONE_TRY_MS)
            except QuorateError:
                await asyncio.sleep(0.005)
            else:
                return


def topics() -> Figures:
    """30,000 partitions: what they weigh in memory and in a snapshot, and how long they load.

    In this process: the same code runs in voters and brokers. `stall` is the longest turn of the
    controller's loop (decide, replay, encode), or of a follower's loop (decode, replay).
    """
    collect_garbage_in_parts()  # as nodes do
    image, stalls_ms = _filled()
    batches = b"".join(
        encode_events(part, base_offset=0, epoch=1, timestamp_ms=0)
        for part in split(list(image.to_events()), 256 * 1024)
    )
    del image
    gc.collect()
    tracemalloc.start()
    loaded, memory = _loaded_from(batches)[0], tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(loaded.topics) == TOPICS
    del loaded
    _, load_s = _loaded_from(batches)
    return {
        "10,000 topics x 3: image, MB": [memory / 1e6],
        "10,000 topics x 3: snapshot, MB": [len(batches) / 1e6],
        "10,000 topics x 3: load of a snapshot, s": [load_s],
        "create 500 topics x 3 in one request, stall, ms": [statistics.median(stalls_ms)],
        **_large(),
    }


def _filled() -> tuple[MetadataImage, list[float]]:
    image, took_ms = _with_brokers(), []
    for first in range(0, TOPICS, TOPICS_PER_REQUEST):
        request = CreateTopicsRequest()
        for number in range(first, first + TOPICS_PER_REQUEST):
            request.topics.add(
                name=f"topic-{number}",
                topic_id=number.to_bytes(16, "big"),
                num_partitions=PARTITIONS,
                replication_factor=3,
            )
        image, ms = _decided(image, request)
        took_ms.append(ms)
    return image, took_ms


def _large() -> Figures:
    """Make one topic of 10,000 partitions, then fence the broker that leads a third of them."""
    request = CreateTopicsRequest()
    request.topics.add(
        name="large", topic_id=b"l" * 16, num_partitions=10_000, replication_factor=3
    )
    made, fenced = [], []
    for _ in range(RUNS):
        image, stall_ms = _decided(_with_brokers(), request)
        made.append(stall_ms)
        fenced.append(_fenced_ms(image))
    return {
        "create 10,000 partitions in one request, stall, ms": made,
        "fence a replica of 10,000 partitions, stall, ms": fenced,
    }


def _decided(image: MetadataImage, request: CreateTopicsRequest) -> tuple[MetadataImage, float]:
    """Carry out a request as a reign does; return the next image, and the longest turn in ms."""
    creation, turns_ms, is_done = Creation(request), [], False
    while not is_done:
        context = Context(now_ms=0, next_offset=image.offset, new_id=lambda: os.urandom(16))
        started = time.perf_counter()
        outcome = creation.next(image, context)
        after = _proposed(image, outcome.events)
        turns_ms += [(time.perf_counter() - started) * 1000, _followed_ms(image, outcome.events)]
        image, is_done = after, outcome.response
    assert all(not result.error.code for result in creation.response.topics)
    return image, max(turns_ms)


def _fenced_ms(image: MetadataImage) -> float:
    image = _proposed(image, brokers.fence(image, 0).events)
    sweep, turns_ms = Sweep(), []
    sweep.begin([0])
    while sweep.is_busy:
        started = time.perf_counter()
        part = sweep.next(image, FreeSpace())
        after = _proposed(image, part.events)
        sweep.took(part)
        turns_ms += [(time.perf_counter() - started) * 1000, _followed_ms(image, part.events)]
        image = after
    assert all(p.leader != 0 for topic in image.sorted_topics() for p in topic.partitions)
    return max(turns_ms)


def _proposed(image: MetadataImage, events: Sequence[MetadataEvent]) -> MetadataImage:
    for part in split(events):
        encode_events(part, base_offset=image.offset, epoch=1, timestamp_ms=0)
        image = replayed(image, part, epoch=1)
    return image


def _followed_ms(image: MetadataImage, events: Sequence[MetadataEvent]) -> float:
    """Apply the events as a follower of the log does; return the time in ms."""
    if not events:
        return 0.0
    batch = encode_events(events, base_offset=image.offset, epoch=1, timestamp_ms=0)
    loader = Loader(image)
    started = time.perf_counter()
    parse_batches(batch)
    loader.load(batch)
    return (time.perf_counter() - started) * 1000


def _loaded_from(batches: bytes) -> tuple[MetadataImage, float]:
    loader = Loader()
    started = time.perf_counter()
    loader.load_snapshot_part(batches)
    ((_, image),) = loader.finish_snapshot(1, 1)
    return image, time.perf_counter() - started


def _with_brokers() -> MetadataImage:
    events = []
    for number in range(BROKERS):
        directory = DirectoryImage(bytes([number]) * 16)
        broker = BrokerImage(
            number,
            number + 1,
            b"i" * 16,
            (parse(f"b{number}:1"),),
            "grpc",
            "",
            f"h{number}",
            (directory,),
            False,
            False,
        )
        events.append(broker)
    return MetadataImage(brokers=EMPTY.brokers.update({b.id: b for b in events}))
