"""Every call of a voter and of a broker declares what it requires, and refuses other callers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from google.protobuf.message import Message

import quorate.net.methods
import quorate_broker.methods
import quorate_quorum.methods
from quorate import Admin, Consumer, Producer
from quorate.errors import ClusterAuthorizationFailedError, TopicAuthorizationFailedError
from quorate.net.frame import Frame
from quorate.net.methods import (
    ADD_VOTER,
    ALTER_CONFIGS,
    COMMIT_OFFSETS,
    CREATE_PARTITIONS,
    CREATE_TOPICS,
    DELETE_GROUPS,
    DELETE_RECORDS,
    DELETE_TOPICS,
    DESCRIBE_CLUSTER,
    DESCRIBE_CONFIGS,
    DESCRIBE_FEATURES,
    DESCRIBE_GROUPS,
    DESCRIBE_HEALTH,
    DESCRIBE_LOG_DIRS,
    DESCRIBE_QUORUM,
    DESCRIBE_TOPICS,
    DRAIN_BROKER,
    ELECT_LEADERS,
    EXPLAIN_PARTITION,
    FETCH,
    FETCH_OFFSETS,
    FIND_COORDINATORS,
    IDENTIFY,
    INIT_PRODUCER_ID,
    LIST_GROUPS,
    LIST_OFFSETS,
    LIST_REASSIGNMENTS,
    MEMBERSHIP,
    METADATA,
    PRODUCE,
    REASSIGN_PARTITIONS,
    REMOVE_MEMBERS,
    REMOVE_VOTER,
    TRANSFER_LEADERSHIP,
    UNREGISTER_BROKER,
    UPDATE_FEATURE,
)
from quorate.net.network import (
    Handler,
    Method,
    Peer,
    Service,
    current_chance,
    current_network,
)
from quorate.net.principal import ANONYMOUS, Principal
from quorate.record.batch import BatchBuilder
from quorate.v1 import admin_pb2 as admin
from quorate.v1 import groups_pb2 as groups
from quorate.v1 import records_pb2 as records
from quorate.v1.common_pb2 import Error, ErrorCode
from quorate_broker.methods import REPLICA_FETCH
from quorate_broker.server import BrokerServer
from quorate_broker.v1 import replica_pb2 as replica
from quorate_quorum.controller.driver.admin_calls import ADMIN_CALLS
from quorate_quorum.log.identity import Identity, write_identity
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
from quorate_quorum.node.authorizer import (
    ANYONE,
    BY_CONTROLLER,
    CLUSTER,
    Operation,
    Required,
    Resource,
    ResourceType,
)
from quorate_quorum.node.config import BrokerConfig, QuorumConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.raft.driver.bootstrap import format_voter
from quorate_quorum.raft.machine.voters import Voter
from quorate_quorum.server import QuorumServer
from quorate_quorum.v1 import controller_pb2 as controller
from quorate_quorum.v1 import raft_pb2 as raft
from quorate_testing.in_process import InProcessListener, InProcessNetwork
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import SimulatedLoop, simulate

VOTER, BROKER = "v100:7093", "b0:7092"
MALLORY = Principal("User", "mallory")
ZOO = b"zoo".ljust(16, b"\0")
TOPIC_REFUSED = ErrorCode.ERROR_CODE_TOPIC_AUTHORIZATION_FAILED
CLUSTER_REFUSED = ErrorCode.ERROR_CODE_CLUSTER_AUTHORIZATION_FAILED
GROUP_REFUSED = ErrorCode.ERROR_CODE_GROUP_AUTHORIZATION_FAILED
REFUSED = {
    ResourceType.TOPIC: TOPIC_REFUSED,
    ResourceType.GROUP: GROUP_REFUSED,
    ResourceType.CLUSTER: CLUSTER_REFUSED,
}


class Rules:
    """Mallory may do what the test allows, others all that it does not deny. Notes questions."""

    def __init__(self) -> None:
        self.allowed: set[tuple[Operation, Resource]] = set()
        self.denied: set[tuple[Operation, Resource]] = set()
        self.asked: list[tuple[Principal, Operation, Resource]] = []
        self.fails = False

    def authorize(self, principal: Principal, operation: Operation, resource: Resource) -> bool:
        self.asked.append((principal, operation, resource))
        if self.fails and principal == MALLORY:
            raise ConnectionError("the directory of users does not answer")
        if principal == MALLORY:
            return (operation, resource) in self.allowed
        return (operation, resource) not in self.denied


class Network(InProcessNetwork):
    """Keeps the services that nodes serve, so that a test calls them as any principal."""

    def __init__(self) -> None:
        super().__init__()
        self.services: dict[str, Sequence[Service]] = {}

    async def serve(
        self, endpoint: str, services: Sequence[Service], **options: str
    ) -> InProcessListener:
        self.services[endpoint] = services
        return await super().serve(endpoint, services, **options)


class World:
    """A voter and a broker with the topic zoo, each with rules of its own."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.network = Network()
        self.voter_rules, self.broker_rules = Rules(), Rules()

    def environment(self, seed: int, disk: SimulatedDisk, rules: Rules) -> Environment:
        return Environment(
            network=self.network,
            disk=disk,
            wall_clock_ms=lambda: 1_700_000_000_000 + int(self.loop.time() * 1000),
            chance=random.Random(seed),
            authorizer=rules,
        )

    async def start(self) -> None:
        voter_disk, broker_disk = SimulatedDisk(random.Random(1)), SimulatedDisk(random.Random(2))
        directory_id = b"v" * 16
        voters = [Voter(100, directory_id, VOTER)]
        await format_voter(voter_disk, "/data", Identity("c1", 100, directory_id, 1), voters, {})
        await write_identity(broker_disk, "/data", Identity("c1", 0, b"b" * 16, 0))
        self.voter = QuorumServer(
            QuorumConfig(node_id=100, listeners=(VOTER,), log_dirs=("/data",)),
            self.environment(1, voter_disk, self.voter_rules),
        )
        self.broker = BrokerServer(
            BrokerConfig(
                node_id=0,
                listeners=(BROKER,),
                log_dirs=("/data",),
                quorum_bootstrap_servers=(VOTER,),
            ),
            self.environment(2, broker_disk, self.broker_rules),
        )
        await self.voter.start()
        await self.broker.start()
        await self.broker.unfenced()
        created = await self.call(CREATE_TOPICS, creation("zoo"), ANONYMOUS)
        assert codes(created) == {ErrorCode.ERROR_CODE_NONE}

    async def stop(self) -> None:
        await self.broker.stop()
        await self.voter.stop()
        await self.network.close()

    @property
    def services(self) -> list[Any]:
        return [service for served in self.network.services.values() for service in served]

    def handler(self, method: Method[Any, Any]) -> Handler:
        tables = (service.handlers() for service in self.services)
        found: Handler = next(table[method] for table in tables if method in table)
        return found

    async def call(self, method: Method[Any, Any], request: Any, principal: Principal) -> Any:
        """Return the answer; of a stream the first answer."""
        peer = Peer("test", principal, timeout_ms=5000)
        if not method.streams_responses:
            return await self.handler(method)(request, peer)
        asked = once(request) if method.streams_requests else request
        async with aclosing(self.handler(method)(asked, peer)) as answers:
            return await anext(answers)

    @property
    def state(self) -> tuple[Any, ...]:
        """The state that a refused call must not change."""
        image = self.voter.image
        held = self.broker.replicas.get(ZOO, 0)
        return image.offset, image.epoch, self.voter.raft.epoch, held.log_end_offset


async def once(request: Any) -> AsyncIterator[Any]:
    yield request
    await asyncio.Event().wait()


async def each(requests: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    while True:
        yield await requests.get()


def in_a_world(program: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def run(loop: SimulatedLoop) -> None:
        world = World(loop)
        await world.start()
        await program(world)
        await world.stop()

    simulate(run, seed=1, time_max_s=600)


def creation(*names: str) -> admin.CreateTopicsRequest:
    request = admin.CreateTopicsRequest()
    for name in names:
        topic_id = name.encode().ljust(16, b"\0")
        request.topics.add(name=name, topic_id=topic_id, num_partitions=1, replication_factor=1)
    return request


def produced() -> Frame[records.ProduceHeader]:
    builder = BatchBuilder()
    builder.append(1_700_000_000_000, None, b"x")
    batch = builder.build()
    header = records.ProduceHeader(request_id=1, acks=1, timeout_ms=1000)
    header.partitions.add(topic_id=ZOO, partition=0, leader_epoch=-1, size=len(batch))
    return Frame(header, (bytes(batch),))


def fetch() -> records.FetchRequest:
    asked = records.FetchPartition(topic_id=ZOO, leader_epoch=-1, max_bytes=1000)
    return records.FetchRequest(request_id=1, max_bytes=1000, partitions=[asked])


def offsets() -> records.ListOffsetsRequest:
    asked = records.ListOffsetsPartition(topic_id=ZOO, timestamp_ms=-1, leader_epoch=-1)
    return records.ListOffsetsRequest(partitions=[asked])


def deletion_of_records() -> records.DeleteRecordsRequest:
    asked = records.DeleteRecordsPartition(topic_id=ZOO, before_offset=0, leader_epoch=-1)
    return records.DeleteRecordsRequest(partitions=[asked])


#: A request for each call that requires a right.
REQUESTS: dict[Method[Any, Any], Any] = {
    PRODUCE: produced(),
    FETCH: fetch(),
    LIST_OFFSETS: offsets(),
    DELETE_RECORDS: deletion_of_records(),
    INIT_PRODUCER_ID: records.InitProducerIdRequest(producer_id=-1, producer_epoch=-1),
    METADATA: admin.MetadataRequest(topics=["zoo"]),
    DESCRIBE_TOPICS: admin.DescribeTopicsRequest(topics=["zoo"]),
    EXPLAIN_PARTITION: admin.ExplainPartitionRequest(topic="zoo"),
    DESCRIBE_CONFIGS: admin.DescribeConfigsRequest(topic="zoo"),
    DESCRIBE_CLUSTER: admin.DescribeClusterRequest(),
    CREATE_TOPICS: creation("new"),
    CREATE_PARTITIONS: admin.CreatePartitionsRequest(topic="zoo", count=9),
    DELETE_TOPICS: admin.DeleteTopicsRequest(topics=["zoo"]),
    ALTER_CONFIGS: admin.AlterConfigsRequest(topic="zoo", set={"retention.ms": "60000"}),
    DESCRIBE_QUORUM: admin.DescribeQuorumRequest(),
    DESCRIBE_HEALTH: admin.DescribeHealthRequest(),
    DESCRIBE_LOG_DIRS: admin.DescribeLogDirsRequest(),
    DESCRIBE_FEATURES: admin.DescribeFeaturesRequest(),
    UPDATE_FEATURE: admin.UpdateFeatureRequest(name="metadata.version", level=1),
    ELECT_LEADERS: admin.ElectLeadersRequest(topics=[admin.ElectionTopic(topic="zoo")]),
    REASSIGN_PARTITIONS: admin.ReassignPartitionsRequest(),
    LIST_REASSIGNMENTS: admin.ListReassignmentsRequest(),
    DRAIN_BROKER: admin.DrainBrokerRequest(broker_id=9),
    UNREGISTER_BROKER: admin.UnregisterBrokerRequest(broker_id=9),
    TRANSFER_LEADERSHIP: admin.TransferLeadershipRequest(voter_id=9),
    ADD_VOTER: admin.AddVoterRequest(voter_id=9),
    REMOVE_VOTER: admin.RemoveVoterRequest(voter_id=9),
    FIND_COORDINATORS: groups.FindCoordinatorsRequest(group_ids=["g"]),
    MEMBERSHIP: groups.MemberHeartbeat(group_id="g", member_id="m"),
    COMMIT_OFFSETS: groups.CommitOffsetsRequest(group_id="g", member_epoch=-1),
    FETCH_OFFSETS: groups.FetchOffsetsRequest(group_id="g", member_epoch=-1, all=True),
    LIST_GROUPS: groups.ListGroupsRequest(),
    DESCRIBE_GROUPS: groups.DescribeGroupsRequest(group_ids=["g"]),
    DELETE_GROUPS: groups.DeleteGroupsRequest(group_ids=["g"]),
    REMOVE_MEMBERS: groups.RemoveMembersRequest(group_id="g", all=True),
    REPLICA_FETCH: replica.ReplicaFetchRequest(),
    VOTE: raft.VoteRequest(),
    BEGIN_EPOCH: raft.BeginEpochRequest(),
    END_EPOCH: raft.EndEpochRequest(),
    RAFT_FETCH: raft.RaftFetchRequest(),
    FETCH_SNAPSHOT: raft.FetchSnapshotRequest(),
    DESCRIBE_NODE: raft.DescribeNodeRequest(),
    REGISTER: controller.RegisterRequest(cluster_id="c1"),
    HEARTBEAT: controller.HeartbeatRequest(cluster_id="c1"),
    ALTER_PARTITIONS: controller.AlterPartitionsRequest(),
    FORWARD: controller.ForwardRequests(cluster_id="x"),
    ALLOCATE_PRODUCER_IDS: controller.AllocateProducerIdsRequest(cluster_id="c1"),
    CREATE_INTERNAL_TOPIC: controller.CreateInternalTopicRequest(cluster_id="c1"),
    WATCH: controller.WatchRequest(cluster_id="x"),
}


def every_method() -> set[Method[Any, Any]]:
    modules = (quorate.net.methods, quorate_quorum.methods, quorate_broker.methods)
    return {one for module in modules for one in vars(module).values() if isinstance(one, Method)}


def codes(answer: Any) -> set[int]:
    """Return the codes of all errors in an answer; NONE stands for an answer without one."""
    message = answer.header if isinstance(answer, Frame) else answer
    return {error.code for error in errors_in(message)} or {ErrorCode.ERROR_CODE_NONE}


def errors_in(message: Message) -> Iterator[Error]:
    for field, value in message.ListFields():
        if field.message_type is None or isinstance(value, str | bytes):
            continue
        for one in value if field.is_repeated else (value,):
            if isinstance(one, Error):
                yield one
            elif isinstance(one, Message):
                yield from errors_in(one)


def test_health_names_only_partitions_of_topics_that_the_caller_may_describe() -> None:
    async def program(world: World) -> None:
        world.voter_rules.allowed.add((Operation.DESCRIBE, CLUSTER))
        await world.broker.stop()
        inner = controller.ForwardRequest(
            method=DESCRIBE_HEALTH.path, principal=str(MALLORY), deadline_ms=5000
        )
        asked = controller.ForwardRequests(cluster_id="c1", requests=[inner])

        async def offline() -> tuple[int, list[str]]:
            (answer,) = (await world.call(FORWARD, asked, ANONYMOUS)).responses
            found = DESCRIBE_HEALTH.decode_response(answer.response).offline
            return found.count, list(found.examples)

        for _ in range(100):
            if (await offline())[0]:
                break
            await asyncio.sleep(0.1)
        assert await offline() == (1, [])
        world.voter_rules.allowed.add((Operation.DESCRIBE, Resource(ResourceType.TOPIC, "zoo")))
        assert await offline() == (1, ["zoo/0"])

    in_a_world(program)


def test_every_call_of_every_service_declares_what_it_requires() -> None:
    async def program(world: World) -> None:
        served: dict[Method[Any, Any], Any] = {}
        for service in world.services:
            handlers = service.handlers()
            assert set(handlers) == set(service.required), f"{service} declares other calls"
            served.update(service.required)
        assert set(served) == every_method()
        for method, one in served.items():
            if one == BY_CONTROLLER:
                served[method] = ADMIN_CALLS[method.path].required
        public = [method for method, one in served.items() if not isinstance(one, Required)]
        assert public == [IDENTIFY]
        assert served[IDENTIFY] == ANYONE
        assert set(REQUESTS) == set(served) - {IDENTIFY}, "a call has no case below"

    in_a_world(program)


def test_every_call_refuses_whoever_may_not_and_does_nothing() -> None:
    async def program(world: World) -> None:
        required = {m: one for service in world.services for m, one in service.required.items()}
        required |= {call.method: call.required for call in ADMIN_CALLS.values()}
        for method, request in REQUESTS.items():
            before = world.state
            answer = await world.call(method, request, MALLORY)
            # a list has what the caller may see, and is no error
            refused = 0 if method is LIST_GROUPS else REFUSED[required[method].resource_type]
            assert codes(answer) == {refused}, method.path
            assert world.state == before, method.path
        for method, request in REQUESTS.items():
            answer = await world.call(method, request, ANONYMOUS)
            assert not codes(answer) & set(REFUSED.values()), method.path

    in_a_world(program)


def test_an_authorizer_that_raises_refuses_every_call_and_nothing_is_done() -> None:
    async def program(world: World) -> None:
        world.voter_rules.fails = world.broker_rules.fails = True
        for method, request in REQUESTS.items():
            before = world.state
            answer = await world.call(method, request, MALLORY)
            refused = {0} if method is LIST_GROUPS else set(REFUSED.values())
            assert codes(answer) <= refused, method.path
            assert world.state == before, method.path

    in_a_world(program)


def test_a_refusal_by_id_tells_no_name() -> None:
    """An id that the caller may not describe is answered by Metadata like one that no topic has."""

    async def program(world: World) -> None:
        deletion = admin.DeleteTopicsRequest(topic_ids=[ZOO])
        for method, request in (
            (PRODUCE, produced()),
            (FETCH, fetch()),
            (LIST_OFFSETS, offsets()),
            (DELETE_RECORDS, deletion_of_records()),
            (DELETE_TOPICS, deletion),
        ):
            answer = await world.call(method, request, MALLORY)
            message = answer.header if isinstance(answer, Frame) else answer
            (error,) = errors_in(message)
            assert error.code == TOPIC_REFUSED
            assert "'zoo'" not in error.message, method.path
            assert ZOO.hex() in error.message
        told = []
        for topic_id in (ZOO, b"x" * 16):
            answer = await world.call(
                METADATA, admin.MetadataRequest(topic_ids=[topic_id]), MALLORY
            )
            assert results(answer) == [("", ErrorCode.ERROR_CODE_UNKNOWN_TOPIC)]
            told.append(answer.topics[0].error.message.replace(topic_id.hex(), "ID"))
        assert told[0] == told[1]

    in_a_world(program)


def test_a_call_that_is_refused_as_a_whole_tells_nothing_of_the_cluster() -> None:
    """Neither a leader nor an epoch, an offset or the generation: the error stands alone."""

    async def program(world: World) -> None:
        for method, request in REQUESTS.items():
            answer = await world.call(method, request, MALLORY)
            if codes(answer) == {CLUSTER_REFUSED}:
                message = answer.header if isinstance(answer, Frame) else answer
                told = {field.name: value for field, value in message.ListFields()}
                del told["error"]
                assert all(value == -1 for value in told.values()), f"{method.path}: {told}"

    in_a_world(program)


def messages(world: World) -> dict[Method[Any, Any], Any]:
    """A message of each stream between nodes that is answered, and that may be sent again."""
    broker = world.voter.image.brokers[0]
    registration: Any = {"broker_epoch": broker.epoch, "incarnation": broker.incarnation}
    call = controller.ForwardRequest(
        method=DESCRIBE_QUORUM.path, principal=str(ANONYMOUS), deadline_ms=1000
    )
    return {
        ALTER_PARTITIONS: controller.AlterPartitionsRequest(),
        FORWARD: controller.ForwardRequests(cluster_id="c1", requests=[call]),
        HEARTBEAT: controller.HeartbeatRequest(cluster_id="c1", **registration),
        RAFT_FETCH: raft.RaftFetchRequest(
            open=raft.RaftOpen(
                history=raft.History(cluster_id="c1", quorum_generation=1),
                replica_id=50,
                directory_id=b"d" * 16,
                incarnation=b"i",
            ),
            epoch=world.voter.raft.epoch,
        ),
        REPLICA_FETCH: replica.ReplicaFetchRequest(
            open=replica.ReplicaOpen(cluster_id="c1", **registration), max_wait_ms=10
        ),
        WATCH: controller.WatchRequest(cluster_id="c1", last_applied_epoch=-1),
    }


def test_a_right_that_is_withdrawn_ends_for_the_streams_that_are_open_too() -> None:
    async def program(world: World) -> None:
        for method, message in messages(world).items():
            world.voter_rules.allowed = world.broker_rules.allowed = {
                (Operation.CLUSTER_ACTION, CLUSTER)
            }
            sent: asyncio.Queue[Any] = asyncio.Queue()
            sent.put_nowait(message)
            asked = each(sent) if method.streams_requests else message
            async with aclosing(world.handler(method)(asked, Peer("test", MALLORY))) as answers:
                assert CLUSTER_REFUSED not in codes(await anext(answers)), method.path
                world.voter_rules.allowed = world.broker_rules.allowed = set()
                sent.put_nowait(message)
                async with asyncio.timeout(1):
                    while CLUSTER_REFUSED not in codes(await anext(answers)):
                        pass

    in_a_world(program)


def test_a_heartbeat_stream_is_refused_though_the_broker_says_nothing_more_on_it() -> None:
    async def program(world: World) -> None:
        asked = once(messages(world)[HEARTBEAT])
        await world.broker.stop()  # its own stream would replace this one
        world.voter_rules.allowed = {(Operation.CLUSTER_ACTION, CLUSTER)}
        async with aclosing(world.handler(HEARTBEAT)(asked, Peer("test", MALLORY))) as answers:
            assert codes(await anext(answers)) == {0}
            world.voter_rules.allowed = set()
            assert codes(await anext(answers)) == {CLUSTER_REFUSED}

    in_a_world(program)


def test_a_call_that_is_passed_on_is_judged_at_the_controller_by_its_original_principal() -> None:
    async def program(world: World) -> None:
        world.broker_rules.asked.clear()
        request = admin.UnregisterBrokerRequest(broker_id=0)
        answer = await world.call(UNREGISTER_BROKER, request, MALLORY)
        assert codes(answer) == {CLUSTER_REFUSED}
        assert (MALLORY, Operation.ALTER, CLUSTER) in world.voter_rules.asked
        assert (ANONYMOUS, Operation.ALTER, CLUSTER) not in world.voter_rules.asked
        assert world.broker_rules.asked == []

    in_a_world(program)


def topic(name: str) -> Resource:
    return Resource(ResourceType.TOPIC, name)


def results(answer: Any) -> list[tuple[str, int]]:
    return [(one.name, one.error.code) for one in answer.topics]


def test_topics_of_one_request_are_judged_one_by_one() -> None:
    async def program(world: World) -> None:
        rules = world.voter_rules
        rules.allowed.add((Operation.CREATE, topic("mine")))
        request = creation("hers", "mine", "his")
        answer = await world.call(CREATE_TOPICS, request, MALLORY)
        assert results(answer) == [("hers", TOPIC_REFUSED), ("mine", 0), ("his", TOPIC_REFUSED)]
        assert set(world.voter.image.topic_ids) == {"zoo", "mine"}

        rules.allowed.add((Operation.DELETE, topic("mine")))
        deletion = admin.DeleteTopicsRequest(
            topics=["zoo", "mine"], topic_ids=[ZOO, b"x" * 16], timeout_ms=5000
        )
        answer = await world.call(DELETE_TOPICS, deletion, MALLORY)
        unknown = ErrorCode.ERROR_CODE_UNKNOWN_TOPIC
        assert results(answer) == [
            ("zoo", TOPIC_REFUSED),
            ("mine", 0),
            ("", TOPIC_REFUSED),
            ("", unknown),
        ]
        assert set(world.voter.image.topic_ids) == {"zoo"}

    in_a_world(program)


def test_whoever_may_create_in_the_cluster_needs_no_leave_for_each_topic() -> None:
    async def program(world: World) -> None:
        world.voter_rules.allowed.add((Operation.CREATE, CLUSTER))
        answer = await world.call(CREATE_TOPICS, creation("a", "b"), MALLORY)
        assert results(answer) == [("a", 0), ("b", 0)]

    in_a_world(program)


def test_configs_of_the_cluster_are_no_topics() -> None:
    async def program(world: World) -> None:
        defaults = admin.AlterConfigsRequest(set={"retention.ms": "60000"})
        assert codes(await world.call(ALTER_CONFIGS, defaults, MALLORY)) == {CLUSTER_REFUSED}
        world.voter_rules.allowed.add((Operation.ALTER_CONFIGS, CLUSTER))
        assert codes(await world.call(ALTER_CONFIGS, defaults, MALLORY)) == {0}
        answer = await world.call(DESCRIBE_CONFIGS, admin.DescribeConfigsRequest(), MALLORY)
        assert codes(answer) == {CLUSTER_REFUSED}

    in_a_world(program)


def test_the_own_configs_of_a_topic_are_told_only_with_the_right_to_see_configs() -> None:
    async def program(world: World) -> None:
        settings = {"retention.ms": "60000"}
        alter = admin.AlterConfigsRequest(topic="zoo", set=settings)
        assert codes(await world.call(ALTER_CONFIGS, alter, ANONYMOUS)) == {0}
        allowed = world.broker_rules.allowed
        allowed.add((Operation.DESCRIBE, topic("zoo")))
        for names in (["zoo"], []):
            for right in (False, True):
                allowed.discard((Operation.DESCRIBE_CONFIGS, topic("zoo")))
                if right:
                    allowed.add((Operation.DESCRIBE_CONFIGS, topic("zoo")))
                request = admin.DescribeTopicsRequest(topics=names)
                (described,) = (await world.call(DESCRIBE_TOPICS, request, MALLORY)).topics
                assert described.topic.name == "zoo"
                assert dict(described.configs) == (settings if right else {})

    in_a_world(program)


def test_all_topics_are_those_that_the_caller_may_see() -> None:
    async def program(world: World) -> None:
        await world.call(CREATE_TOPICS, creation("ark"), ANONYMOUS)
        world.broker_rules.allowed.add((Operation.DESCRIBE, topic("ark")))
        for method, request in (
            (METADATA, admin.MetadataRequest(all_topics=True)),
            (DESCRIBE_TOPICS, admin.DescribeTopicsRequest()),
        ):
            answer = await world.call(method, request, MALLORY)
            names = [getattr(one, "name", "") or one.topic.name for one in answer.topics]
            assert names == ["ark"]

    in_a_world(program)


def test_a_topic_that_the_caller_may_not_see_looks_the_same_as_none() -> None:
    async def program(world: World) -> None:
        for name in ("zoo", "nothing"):
            request = admin.MetadataRequest(topics=[name])
            assert results(await world.call(METADATA, request, MALLORY)) == [(name, TOPIC_REFUSED)]

    in_a_world(program)


def test_clients_raise_the_refusal() -> None:
    """Clients do not mistake it for a moved leader, and do not retry until the deadline."""

    async def program(world: World) -> None:
        zoo = topic("zoo")
        world.broker_rules.denied |= {(Operation.WRITE, zoo), (Operation.READ, zoo)}
        world.voter_rules.denied |= {(Operation.DELETE, zoo), (Operation.CREATE, CLUSTER)}
        world.voter_rules.denied |= {(Operation.CREATE, topic("new"))}
        current_network.set(world.network)
        current_chance.set(random.Random(5))
        started = world.loop.time()
        async with Admin(bootstrap_servers=BROKER) as client:
            with pytest.raises(TopicAuthorizationFailedError, match="CREATE on topic 'new'"):
                await client.create_topic("new", 1, 1)
            with pytest.raises(TopicAuthorizationFailedError, match="DELETE"):
                await client.delete_topics(["zoo"])
        async with Producer(bootstrap_servers=BROKER) as producer:
            with pytest.raises(TopicAuthorizationFailedError, match="WRITE"):
                await producer.send_and_wait("zoo", b"x")
        async with Consumer("zoo", bootstrap_servers=BROKER) as consumer:
            with pytest.raises(TopicAuthorizationFailedError, match="READ"):
                await consumer.getone()
        world.broker_rules.denied |= {(Operation.DESCRIBE, zoo)}
        async with Producer(bootstrap_servers=BROKER) as producer:
            with pytest.raises(TopicAuthorizationFailedError, match="DESCRIBE"):
                await producer.send_and_wait("zoo", b"x")
        world.broker_rules.denied = {(Operation.IDEMPOTENT_WRITE, CLUSTER)}
        async with Producer(bootstrap_servers=BROKER) as producer:
            with pytest.raises(ClusterAuthorizationFailedError, match="IDEMPOTENT_WRITE"):
                await producer.send_and_wait("zoo", b"x")
        assert world.loop.time() < started + 5

    in_a_world(program)


def commit_of(topic_id: bytes, offset: int = 5) -> groups.CommitOffsetsRequest:
    request = groups.CommitOffsetsRequest(group_id="g", member_epoch=-1)
    request.topics.add(topic_id=topic_id).partitions.add(partition=0, offset=offset)
    return request


async def coordinated(world: World, name: str = "g") -> None:
    """Make the offsets topic, and wait until the broker coordinates a group."""
    request = groups.FindCoordinatorsRequest(group_ids=[name])
    assert codes(await world.call(FIND_COORDINATORS, request, ANONYMOUS)) == {0}
    everything = groups.FetchOffsetsRequest(group_id=name, member_epoch=-1, all=True)
    for _ in range(100):
        if codes(await world.call(FETCH_OFFSETS, everything, ANONYMOUS)) == {0}:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it was never loaded")


def group(name: str) -> Resource:
    return Resource(ResourceType.GROUP, name)


def test_offsets_are_committed_and_told_only_for_topics_that_the_caller_may_use() -> None:
    async def program(world: World) -> None:
        await coordinated(world)
        allowed = world.broker_rules.allowed
        allowed |= {(Operation.READ, group("g")), (Operation.DESCRIBE, group("g"))}
        assert codes(await world.call(COMMIT_OFFSETS, commit_of(ZOO), MALLORY)) == {TOPIC_REFUSED}
        assert codes(await world.call(COMMIT_OFFSETS, commit_of(ZOO), ANONYMOUS)) == {0}
        everything = groups.FetchOffsetsRequest(group_id="g", member_epoch=-1, all=True)
        named = groups.FetchOffsetsRequest(group_id="g", member_epoch=-1)
        named.topics.add(topic_id=ZOO, partitions=[0])
        hidden = await world.call(FETCH_OFFSETS, everything, MALLORY)
        assert not hidden.topics
        assert codes(await world.call(FETCH_OFFSETS, named, MALLORY)) == {TOPIC_REFUSED}
        allowed.add((Operation.DESCRIBE, topic("zoo")))
        for request in (everything, named):
            (told,) = (await world.call(FETCH_OFFSETS, request, MALLORY)).topics
            assert (told.name, told.partitions[0].offset) == ("zoo", 5)
        allowed.add((Operation.READ, topic("zoo")))
        assert codes(await world.call(COMMIT_OFFSETS, commit_of(ZOO, 6), MALLORY)) == {0}

    in_a_world(program)


def test_a_list_has_only_the_groups_that_the_caller_may_describe() -> None:
    async def program(world: World) -> None:
        for name in ("g", "h"):
            request = commit_of(ZOO)
            request.group_id = name
            await coordinated(world, name)
            assert codes(await world.call(COMMIT_OFFSETS, request, ANONYMOUS)) == {0}

        async def listed() -> list[str]:
            answer = await world.call(LIST_GROUPS, groups.ListGroupsRequest(), MALLORY)
            assert codes(answer) == {0}
            return sorted(one.group_id for one in answer.groups)

        assert await listed() == []
        world.broker_rules.allowed.add((Operation.DESCRIBE, group("h")))
        assert await listed() == ["h"]
        world.broker_rules.allowed.add((Operation.DESCRIBE, CLUSTER))
        assert await listed() == ["g", "h"]

    in_a_world(program)


def test_a_member_needs_its_rights_at_each_heartbeat() -> None:
    async def program(world: World) -> None:
        await coordinated(world)
        world.broker_rules.allowed |= {(Operation.READ, group("g"))}
        sent: asyncio.Queue[Any] = asyncio.Queue()
        first = groups.MemberHeartbeat(
            group_id="g",
            member_id="m",
            session_timeout_ms=10_000,
            rebalance_timeout_ms=10_000,
            subscription=groups.Subscription(topics=["zoo"]),
            owned=groups.Partitions(),
            instance_id="",
            rack="",
            assignor="",
        )
        handler, peer = world.handler(MEMBERSHIP), Peer("test:1", MALLORY)
        sent.put_nowait(first)
        async with aclosing(handler(each(sent), peer)) as answers:
            assert codes(await anext(answers)) == {TOPIC_REFUSED}, "it may not describe the topic"
            assert await anext(answers, None) is None
        world.broker_rules.allowed |= {(Operation.DESCRIBE, topic("zoo"))}
        sent.put_nowait(first)
        async with aclosing(handler(each(sent), peer)) as answers:
            state = await anext(answers)
            assert codes(state) == {0}
            world.broker_rules.allowed = set()
            sent.put_nowait(groups.MemberHeartbeat(member_epoch=state.member_epoch))
            told = await anext(answers)
            while codes(told) == {0}:  # what was on its way
                told = await anext(answers)
            assert codes(told) == {GROUP_REFUSED}
            assert await anext(answers, None) is None

    in_a_world(program)


def test_a_pattern_of_a_member_matches_only_topics_that_it_may_describe() -> None:
    async def program(world: World) -> None:
        await coordinated(world)
        assert codes(await world.call(CREATE_TOPICS, creation("ark"), ANONYMOUS)) == {0}
        world.broker_rules.allowed |= {(Operation.READ, group("g"))}
        world.broker_rules.allowed |= {(Operation.DESCRIBE, topic("ark"))}
        sent: asyncio.Queue[Any] = asyncio.Queue()
        whole: dict[str, Any] = {
            "session_timeout_ms": 10_000,
            "rebalance_timeout_ms": 10_000,
            "subscription": groups.Subscription(pattern=".*"),
            "owned": groups.Partitions(),
            **dict.fromkeys(("instance_id", "rack", "assignor"), ""),
        }
        sent.put_nowait(groups.MemberHeartbeat(group_id="g", member_id="m", **whole))
        named: list[bytes] = []
        async with aclosing(world.handler(MEMBERSHIP)(each(sent), Peer("test:1", MALLORY))) as told:
            while not named:
                state = await anext(told)
                assert codes(state) == {0}
                named = [one.topic_id for one in state.assignment.topics]
                echo = {"member_epoch": state.member_epoch, "state_number": state.state_number}
                await asyncio.sleep(0.1)
                sent.put_nowait(groups.MemberHeartbeat(**echo))
        assert len(named) == 1
        assert named != [ZOO]

    in_a_world(program)
