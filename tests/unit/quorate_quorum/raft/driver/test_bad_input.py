"""Bad input of a stranger or a broken peer: it gets a clear error, and the quorum goes on.

Each case is sent to the controller, whose answer is checked, and to another voter. Afterwards the
same voter leads in the same epoch, and a registration commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from quorate.errors import NetworkError
from quorate.net.network import Method
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.methods import (
    ALLOCATE_PRODUCER_IDS,
    ALTER_PARTITIONS,
    BEGIN_EPOCH,
    CREATE_INTERNAL_TOPIC,
    DESCRIBE_NODE,
    END_EPOCH,
    FETCH_SNAPSHOT,
    FORWARD,
    HEARTBEAT,
    RAFT_FETCH,
    REGISTER,
    VOTE,
    WATCH,
)
from quorate_quorum.node.features import SUPPORTED, to_wire
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import raft_pb2 as raft
from quorate_quorum.v1.events_pb2 import Directory
from tests.harness.addresses import listening_at
from tests.unit.quorate_quorum.builders import CLUSTER, Machine, VoterWorld, in_a_world

STRANGER = 999
HUGE = 2**63 - 1
HUGE_EPOCH = 2**31 - 1
EPOCH_MAX = 2**30
GARBAGE = bytes(range(255, 128, -1)) * 9


class Facts(NamedTuple):
    """The facts that a peer with full knowledge of the quorum would put into its messages."""

    target: Machine
    other: Machine
    epoch: int
    snapshot: raft.SnapshotId
    snapshot_size: int

    def history(self, **changed: Any) -> raft.History:
        given: dict[str, Any] = {"cluster_id": CLUSTER, "quorum_generation": 1}
        return raft.History(**(given | changed))

    def vote(self, **changed: Any) -> raft.VoteRequest:
        given: dict[str, Any] = {
            "history": self.history(),
            "voter_id": self.target.node_id,
            "voter_directory_id": self.target.directory_id,
            "candidate_id": self.other.node_id,
            "candidate_directory_id": self.other.directory_id,
            "epoch": self.epoch,
            "last_epoch": self.epoch,
            "log_end_offset": 1_000,
        }
        return raft.VoteRequest(**(given | changed))

    def begin(self, **changed: Any) -> raft.BeginEpochRequest:
        given: dict[str, Any] = {
            "history": self.history(),
            "epoch": self.epoch,
            "leader_id": self.other.node_id,
            "leader_directory_id": self.other.directory_id,
            "endpoint": "nowhere:1",
        }
        return raft.BeginEpochRequest(**(given | changed))

    def end(self, **changed: Any) -> raft.EndEpochRequest:
        given: dict[str, Any] = {
            "history": self.history(),
            "epoch": self.epoch,
            "leader_id": self.other.node_id,
            "preferred_successors": [self.target.node_id],
        }
        return raft.EndEpochRequest(**(given | changed))

    def opened(self, **changed: Any) -> raft.RaftOpen:
        given: dict[str, Any] = {
            "history": self.history(),
            "replica_id": STRANGER,
            "directory_id": b"s" * 16,
            "incarnation": b"i" * 16,
            "stream_number": 1,
        }
        return raft.RaftOpen(**(given | changed))

    def fetch(self, **changed: Any) -> raft.RaftFetchRequest:
        given: dict[str, Any] = {"open": self.opened(), "epoch": self.epoch}
        return raft.RaftFetchRequest(**(given | changed))

    def chunk(self, **changed: Any) -> raft.FetchSnapshotRequest:
        given: dict[str, Any] = {
            "history": self.history(),
            "epoch": self.epoch,
            "snapshot": self.snapshot,
            "position": 0,
            "max_bytes": 100,
        }
        return raft.FetchSnapshotRequest(**(given | changed))


def registration(**changed: Any) -> wire.RegisterRequest:
    given: dict[str, Any] = {
        "cluster_id": CLUSTER,
        "broker_id": 7,
        "incarnation": b"n" * 16,
        **listening_at(f"broker-{changed.get('broker_id', 7)}:9092"),
        "directories": [Directory(directory_id=b"d" * 16)],
        "features": to_wire(SUPPORTED),
    }
    return wire.RegisterRequest(**(given | changed))


def forward(
    cluster_id: str = CLUSTER, count: int = 1, generation: int = 0, **changed: Any
) -> wire.ForwardRequests:
    method = "/quorate.v1.Admin/CreateTopics"
    given: dict[str, Any] = {
        "request_id": 1,
        "method": method,
        "principal": "User:ANONYMOUS",
        "deadline_ms": 1_000,
    }
    one = wire.ForwardRequest(**(given | changed))
    return wire.ForwardRequests(
        cluster_id=cluster_id, requests=[one] * count, quorum_generation=generation
    )


def altered(**changed: Any) -> wire.AlterPartitionsRequest:
    return wire.AlterPartitionsRequest(**({"broker_id": STRANGER, "broker_epoch": 1} | changed))


def watch(**changed: Any) -> wire.WatchRequest:
    given: dict[str, Any] = {"cluster_id": CLUSTER, "from_offset": 0, "last_applied_epoch": -1}
    return wire.WatchRequest(**(given | changed))


def heartbeat(**changed: Any) -> wire.HeartbeatRequest:
    given: dict[str, Any] = {
        "cluster_id": CLUSTER,
        "broker_id": 7,
        "broker_epoch": 1,
        "incarnation": b"n" * 16,
    }
    return wire.HeartbeatRequest(**(given | changed))


def producer_ids(**changed: Any) -> wire.AllocateProducerIdsRequest:
    given: dict[str, Any] = {"cluster_id": CLUSTER, "broker_id": 7, "broker_epoch": 1}
    return wire.AllocateProducerIdsRequest(**(given | changed))


def internal_topic(**changed: Any) -> wire.CreateInternalTopicRequest:
    given: dict[str, Any] = {"cluster_id": CLUSTER, "name": "__consumer_offsets"}
    return wire.CreateInternalTopicRequest(**(given | changed))


@dataclass(frozen=True)
class Case:
    """One bad message. `code` None: the answer is no error, and grants nothing."""

    name: str
    method: Method[Any, Any]
    request: Callable[[Facts], Any]
    code: str | None


CASES = [
    Case("vote-of-another-cluster", VOTE,
         lambda f: f.vote(history=f.history(cluster_id="x")), "WRONG_CLUSTER"),
    Case("vote-of-another-generation", VOTE,
         lambda f: f.vote(history=f.history(quorum_generation=2)), "WRONG_CLUSTER"),
    Case("vote-of-another-bootstrap", VOTE,
         lambda f: f.vote(history=f.history(bootstrap_hash=b"x" * 32)), "WRONG_CLUSTER"),
    Case("vote-without-history", VOTE, lambda f: f.vote(history=None), "WRONG_CLUSTER"),
    Case("vote-without-directory", VOTE,
         lambda f: f.vote(candidate_directory_id=b""), "INVALID_REQUEST"),
    Case("vote-for-a-voter-that-we-are-not", VOTE,
         lambda f: f.vote(voter_id=STRANGER, epoch=f.epoch + 1), None),
    Case("vote-for-a-disk-that-is-not-ours", VOTE,
         lambda f: f.vote(voter_directory_id=b"x" * 16, epoch=f.epoch + 1), None),
    Case("vote-of-a-stranger", VOTE,
         lambda f: f.vote(candidate_id=STRANGER, epoch=f.epoch + 1), None),
    Case("vote-of-a-stale-epoch", VOTE, lambda f: f.vote(epoch=f.epoch - 1), None),
    Case("vote-of-a-negative-epoch", VOTE, lambda f: f.vote(epoch=-HUGE_EPOCH), None),
    Case("vote-of-an-epoch-far-ahead", VOTE, lambda f: f.vote(epoch=EPOCH_MAX), None),
    Case("vote-of-the-last-epoch-of-all", VOTE, lambda f: f.vote(epoch=HUGE_EPOCH), None),
    Case("vote-of-a-negative-log", VOTE,
         lambda f: f.vote(last_epoch=-1, log_end_offset=-HUGE), None),
    Case("vote-of-a-huge-log", VOTE,
         lambda f: f.vote(last_epoch=HUGE_EPOCH, log_end_offset=HUGE, pre_vote=True), None),
    Case("vote-garbage", VOTE, lambda _: GARBAGE, "broken"),
    Case("begin-of-another-cluster", BEGIN_EPOCH,
         lambda f: f.begin(history=f.history(cluster_id="x")), "WRONG_CLUSTER"),
    Case("begin-of-another-generation", BEGIN_EPOCH,
         lambda f: f.begin(history=f.history(quorum_generation=2)), "WRONG_CLUSTER"),
    Case("begin-of-another-leader-in-our-epoch", BEGIN_EPOCH, lambda f: f.begin(),
         "INVALID_REQUEST"),
    Case("begin-of-a-stale-epoch", BEGIN_EPOCH,
         lambda f: f.begin(epoch=f.epoch - 1), "FENCED_LEADER_EPOCH"),
    Case("begin-of-a-negative-epoch", BEGIN_EPOCH,
         lambda f: f.begin(epoch=-1), "FENCED_LEADER_EPOCH"),
    Case("begin-of-an-epoch-far-ahead", BEGIN_EPOCH,
         lambda f: f.begin(epoch=EPOCH_MAX), "INVALID_REQUEST"),
    Case("begin-of-a-stranger", BEGIN_EPOCH,
         lambda f: f.begin(leader_id=STRANGER, epoch=f.epoch + 1), "INVALID_REQUEST"),
    Case("begin-without-directory", BEGIN_EPOCH,
         lambda f: f.begin(leader_directory_id=b"", epoch=f.epoch + 1), "INVALID_REQUEST"),
    Case("begin-garbage", BEGIN_EPOCH, lambda _: GARBAGE, "broken"),
    Case("end-of-another-cluster", END_EPOCH,
         lambda f: f.end(history=f.history(cluster_id="x")), "WRONG_CLUSTER"),
    Case("end-of-another-generation", END_EPOCH,
         lambda f: f.end(history=f.history(quorum_generation=2)), "WRONG_CLUSTER"),
    Case("end-of-our-reign-by-another", END_EPOCH, lambda f: f.end(), "INVALID_REQUEST"),
    Case("end-of-a-stale-epoch", END_EPOCH,
         lambda f: f.end(epoch=f.epoch - 1), "FENCED_LEADER_EPOCH"),
    Case("end-of-an-epoch-far-ahead", END_EPOCH,
         lambda f: f.end(epoch=EPOCH_MAX), "INVALID_REQUEST"),
    Case("end-by-a-stranger", END_EPOCH,
         lambda f: f.end(leader_id=STRANGER, epoch=f.epoch + 1), "INVALID_REQUEST"),
    Case("end-with-very-many-successors", END_EPOCH,
         lambda f: f.end(preferred_successors=[-1] * 100_000), "INVALID_REQUEST"),
    Case("end-garbage", END_EPOCH, lambda _: GARBAGE, "broken"),
    Case("fetch-of-another-cluster", RAFT_FETCH,
         lambda f: f.fetch(open=f.opened(history=f.history(cluster_id="x"))), "WRONG_CLUSTER"),
    Case("fetch-of-another-generation", RAFT_FETCH,
         lambda f: f.fetch(open=f.opened(history=f.history(quorum_generation=2))),
         "WRONG_CLUSTER"),
    Case("fetch-without-open", RAFT_FETCH, lambda f: f.fetch(open=None), "WRONG_CLUSTER"),
    Case("fetch-without-directory", RAFT_FETCH,
         lambda f: f.fetch(open=f.opened(directory_id=b"x")), "INVALID_REQUEST"),
    Case("fetch-with-a-huge-incarnation", RAFT_FETCH,
         lambda f: f.fetch(open=f.opened(incarnation=b"x" * 100_000)), "INVALID_REQUEST"),
    Case("fetch-of-a-stale-epoch", RAFT_FETCH,
         lambda f: f.fetch(epoch=f.epoch - 1), "FENCED_LEADER_EPOCH"),
    Case("fetch-of-an-observer-ahead", RAFT_FETCH,
         lambda f: f.fetch(epoch=f.epoch + 1), "INVALID_REQUEST"),
    Case("fetch-of-an-epoch-far-ahead", RAFT_FETCH,
         lambda f: f.fetch(epoch=HUGE_EPOCH), "INVALID_REQUEST"),
    Case("fetch-from-a-negative-offset", RAFT_FETCH,
         lambda f: f.fetch(fetch_offset=-1), "INVALID_REQUEST"),
    Case("fetch-from-a-huge-offset", RAFT_FETCH,
         lambda f: f.fetch(fetch_offset=HUGE, last_fetched_epoch=HUGE_EPOCH), None),
    Case("fetch-of-a-negative-past", RAFT_FETCH,
         lambda f: f.fetch(fetch_offset=1, last_fetched_epoch=-9, round=2**64 - 1), None),
    Case("fetch-garbage", RAFT_FETCH, lambda _: GARBAGE, "broken"),
    Case("snapshot-of-another-cluster", FETCH_SNAPSHOT,
         lambda f: f.chunk(history=f.history(cluster_id="x")), "WRONG_CLUSTER"),
    Case("snapshot-of-another-generation", FETCH_SNAPSHOT,
         lambda f: f.chunk(history=f.history(quorum_generation=2)), "WRONG_CLUSTER"),
    Case("snapshot-of-a-stale-epoch", FETCH_SNAPSHOT,
         lambda f: f.chunk(epoch=f.epoch - 1), "FENCED_LEADER_EPOCH"),
    Case("snapshot-of-a-future-epoch", FETCH_SNAPSHOT,
         lambda f: f.chunk(epoch=HUGE_EPOCH), "NOT_CONTROLLER"),
    Case("snapshot-that-is-not", FETCH_SNAPSHOT,
         lambda f: f.chunk(snapshot=raft.SnapshotId(offset=HUGE, epoch=1)), "SNAPSHOT_NOT_FOUND"),
    Case("snapshot-of-a-negative-offset", FETCH_SNAPSHOT,
         lambda f: f.chunk(snapshot=raft.SnapshotId(offset=-1, epoch=-1)), "SNAPSHOT_NOT_FOUND"),
    Case("snapshot-without-id", FETCH_SNAPSHOT,
         lambda f: f.chunk(snapshot=None), "SNAPSHOT_NOT_FOUND"),
    Case("snapshot-from-a-negative-position", FETCH_SNAPSHOT,
         lambda f: f.chunk(position=-1), "INVALID_REQUEST"),
    Case("snapshot-from-beyond-its-end", FETCH_SNAPSHOT,
         lambda f: f.chunk(position=f.snapshot_size), "INVALID_REQUEST"),
    Case("snapshot-from-a-huge-position", FETCH_SNAPSHOT,
         lambda f: f.chunk(position=HUGE), "INVALID_REQUEST"),
    Case("snapshot-of-no-bytes", FETCH_SNAPSHOT,
         lambda f: f.chunk(max_bytes=0), "INVALID_REQUEST"),
    Case("snapshot-garbage", FETCH_SNAPSHOT, lambda _: GARBAGE, "broken"),
    Case("describe-garbage", DESCRIBE_NODE, lambda _: GARBAGE, "broken"),
    Case("register-in-another-cluster", REGISTER,
         lambda _: registration(cluster_id="x"), "WRONG_CLUSTER"),
    Case("register-in-another-generation", REGISTER,
         lambda _: registration(quorum_generation=2), "WRONG_CLUSTER"),
    Case("register-in-a-negative-generation", REGISTER,
         lambda _: registration(quorum_generation=-1), "WRONG_CLUSTER"),
    Case("register-a-negative-id", REGISTER,
         lambda _: registration(broker_id=-1), "INVALID_REQUEST"),
    Case("register-without-incarnation", REGISTER,
         lambda _: registration(incarnation=b""), "INVALID_REQUEST"),
    Case("register-a-huge-endpoint", REGISTER,
         lambda _: registration(**listening_at("h" * 100_000 + ":1")), "INVALID_REQUEST"),
    Case("register-without-directories", REGISTER,
         lambda _: registration(directories=[]), "INVALID_REQUEST"),
    Case("register-garbage", REGISTER, lambda _: GARBAGE, "broken"),
    Case("heartbeat-in-another-cluster", HEARTBEAT,
         lambda _: heartbeat(cluster_id="x"), "WRONG_CLUSTER"),
    Case("heartbeat-in-another-generation", HEARTBEAT,
         lambda _: heartbeat(quorum_generation=2), "WRONG_CLUSTER"),
    Case("heartbeat-of-nobody", HEARTBEAT, lambda _: heartbeat(), "FENCED"),
    Case("heartbeat-of-a-negative-epoch", HEARTBEAT,
         lambda _: heartbeat(broker_id=-1, broker_epoch=-HUGE, applied_offset=-1), "FENCED"),
    Case("heartbeat-garbage", HEARTBEAT, lambda _: GARBAGE, "broken"),
    Case("alter-partitions-in-another-generation", ALTER_PARTITIONS,
         lambda _: altered(quorum_generation=2), "WRONG_CLUSTER"),
    Case("alter-partitions-of-nobody", ALTER_PARTITIONS, lambda _: altered(), "FENCED"),
    Case("alter-partitions-of-a-negative-epoch", ALTER_PARTITIONS,
         lambda _: altered(broker_id=-1, broker_epoch=-HUGE), "FENCED"),
    Case("alter-partitions-garbage", ALTER_PARTITIONS, lambda _: GARBAGE, "broken"),
    Case("forward-to-another-cluster", FORWARD, lambda _: forward(cluster_id="x"),
         "WRONG_CLUSTER"),
    Case("forward-in-another-generation", FORWARD, lambda _: forward(generation=2),
         "WRONG_CLUSTER"),
    Case("forward-of-an-unknown-method", FORWARD,
         lambda _: forward(method="/x" * 50_000), "UNSUPPORTED"),
    Case("forward-of-no-principal", FORWARD, lambda _: forward(principal="ann"),
         "INVALID_REQUEST"),
    Case("forward-of-garbage", FORWARD, lambda _: forward(request=GARBAGE), "INVALID_REQUEST"),
    Case("forward-without-time", FORWARD, lambda _: forward(deadline_ms=0), "REQUEST_TIMED_OUT"),
    Case("forward-too-many-at-once", FORWARD, lambda _: forward(count=1001), "broken"),
    Case("forward-garbage", FORWARD, lambda _: GARBAGE, "broken"),
    Case("producer-ids-of-another-cluster", ALLOCATE_PRODUCER_IDS,
         lambda _: producer_ids(cluster_id="x"), "WRONG_CLUSTER"),
    Case("producer-ids-in-another-generation", ALLOCATE_PRODUCER_IDS,
         lambda _: producer_ids(quorum_generation=-1), "WRONG_CLUSTER"),
    Case("producer-ids-for-nobody", ALLOCATE_PRODUCER_IDS, lambda _: producer_ids(), "FENCED"),
    Case("internal-topic-of-another-cluster", CREATE_INTERNAL_TOPIC,
         lambda _: internal_topic(cluster_id="x"), "WRONG_CLUSTER"),
    Case("internal-topic-in-another-generation", CREATE_INTERNAL_TOPIC,
         lambda _: internal_topic(quorum_generation=-1), "WRONG_CLUSTER"),
    Case("internal-topic-of-any-name", CREATE_INTERNAL_TOPIC,
         lambda _: internal_topic(name="__mine" * 9999), "INVALID_TOPIC"),
    Case("internal-topic-without-brokers", CREATE_INTERNAL_TOPIC,
         lambda _: internal_topic(), "NOT_ENOUGH_REPLICAS"),
    Case("internal-topic-garbage", CREATE_INTERNAL_TOPIC, lambda _: GARBAGE, "broken"),
    Case("producer-ids-garbage", ALLOCATE_PRODUCER_IDS, lambda _: GARBAGE, "broken"),
    Case("watch-of-another-cluster", WATCH, lambda _: watch(cluster_id="x"), "WRONG_CLUSTER"),
    Case("watch-of-another-generation", WATCH,
         lambda _: watch(quorum_generation=-5), "WRONG_CLUSTER"),
    Case("watch-from-a-negative-offset", WATCH,
         lambda _: watch(from_offset=-1), "INVALID_REQUEST"),
    Case("watch-of-a-negative-epoch", WATCH,
         lambda _: watch(from_offset=1, last_applied_epoch=-2), "INVALID_REQUEST"),
    Case("watch-from-a-huge-offset", WATCH,
         lambda _: watch(from_offset=HUGE, last_applied_epoch=HUGE_EPOCH), None),
    Case("watch-of-a-past-that-never-was", WATCH,
         lambda _: watch(from_offset=1, last_applied_epoch=HUGE_EPOCH), None),
    Case("watch-garbage", WATCH, lambda _: GARBAGE, "broken"),
]  # fmt: skip


async def sent(world: VoterWorld, to: Machine, method: Method[Any, Any], request: Any) -> Any:
    """Return the first answer (None: the stream ended without one), or raise NetworkError."""
    if isinstance(request, bytes):
        method = Method(
            method.path,
            bytes,
            method.decode_request,
            method.encode_response,
            method.decode_response,
            method.streams_requests,
            method.streams_responses,
        )
    host = world.network.host("stranger")

    async def one() -> AsyncIterator[Any]:
        yield request
        await asyncio.sleep(1)

    async def ask() -> Any:
        connection = host.connect(to.endpoint)
        try:
            if not method.streams_responses:
                return await connection.unary(method, request, timeout_ms=2_000)
            async with aclosing(connection.stream(method, one())) as answers:
                return await anext(aiter(answers), None)
        finally:
            await connection.close()

    return await world.loop.process("stranger").spawn(ask())


async def facts_of(world: VoterWorld) -> Facts:
    """A quorum that leads, has committed, and has a snapshot."""
    await world.start()
    leader = await world.controller()
    other = next(machine for machine in world.voters if machine is not leader)
    node = leader.server.raft
    answer = await sent(world, leader, REGISTER, registration(broker_id=1))
    assert answer.error.code == ErrorCode.ERROR_CODE_NONE
    taken = await leader.run(node.taker.take(node.high_watermark, node.epoch, []))
    size, _ = await leader.run(node.answers.read_snapshot(taken, 0, 1))
    snapshot = raft.SnapshotId(offset=taken.offset, epoch=taken.epoch)
    return Facts(leader, other, node.epoch, snapshot, size)


async def check_lives(world: VoterWorld, facts: Facts) -> None:
    await asyncio.sleep(2)
    assert [m.server.raft.epoch for m in world.voters] == [facts.epoch] * 3
    assert facts.target.server.is_controller
    after = registration(broker_id=2, directories=[Directory(directory_id=b"e" * 16)])
    answer = await sent(world, facts.target, REGISTER, after)
    assert answer.error.code == ErrorCode.ERROR_CODE_NONE
    assert answer.broker_epoch > 0


def code_of(answer: Any) -> str:
    if isinstance(answer, wire.ForwardResponses) and answer.responses:
        (answer,) = answer.responses
    error = getattr(answer, "header", answer).error
    assert error.message or not error.code, "an error says what is wrong"
    return str(ErrorCode.Name(error.code)).removeprefix("ERROR_CODE_")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused_and_the_quorum_goes_on(case: Case) -> None:
    """No single message moves the epoch or ends the reign."""

    async def program(world: VoterWorld) -> None:
        facts = await facts_of(world)
        request = case.request(facts)
        if case.code == "broken":
            for machine in (facts.target, facts.other):
                try:
                    answer = await sent(world, machine, case.method, request)
                except NetworkError:
                    continue
                assert answer is None, "a stream may end instead"
        else:
            answer = await sent(world, facts.target, case.method, request)
            assert answer is not None
            assert code_of(answer) == (case.code or "NONE")
            assert not getattr(answer, "granted", False)
            await sent(world, facts.other, case.method, request)
        await check_lives(world, facts)

    in_a_world(program)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 1, 0, 2)], ids=str)
def test_chunks_of_a_snapshot_may_be_asked_for_in_any_order(order: Sequence[int]) -> None:
    async def program(world: VoterWorld) -> None:
        facts = await facts_of(world)
        step = -(-facts.snapshot_size // 3)
        chunks: dict[int, bytes] = {}
        for number in order:
            request = facts.chunk(position=number * step, max_bytes=step)
            answer = await sent(world, facts.target, FETCH_SNAPSHOT, request)
            assert (code_of(answer), answer.position) == ("NONE", number * step)
            chunks[number] = answer.chunk
        whole = await sent(world, facts.target, FETCH_SNAPSHOT, facts.chunk(max_bytes=2**32 - 1))
        assert b"".join(chunks[number] for number in sorted(chunks)) == whole.chunk
        assert len(whole.chunk) == facts.snapshot_size
        await check_lives(world, facts)

    in_a_world(program)
