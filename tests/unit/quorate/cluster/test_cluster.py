"""A client's view of the cluster, and the public names of the library."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from typing import Any
from unittest import mock

import pytest

import quorate
from quorate import Admin, Consumer, Producer
from quorate.cluster.cluster import METADATA_AGE_MAX_S, Cluster
from quorate.errors import (
    ListenerNotFoundError,
    QuorateError,
    QuorumUnavailableError,
    UnknownTopicError,
    UnresolvedHostError,
    WrongClusterError,
    from_wire,
    to_wire,
)
from quorate.net.network import current_network
from quorate.v1 import admin_pb2
from quorate.v1.admin_pb2 import MetadataRequest
from quorate.v1.common_pb2 import LeaderHint
from quorate_testing.in_process import InProcessNetwork
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.addresses import listener
from tests.harness.fake_leaders import FakeBroker, FakeCluster, with_cluster


def test_never_back_to_an_older_leader_or_a_deleted_topic() -> None:
    async def program(fake: FakeCluster) -> None:
        fake.add_topic("t")
        stale = fake.metadata(MetadataRequest(topics=["t"]))
        view = Cluster(fake.bootstrap, client_id="c")
        await view.start()
        await view.topic("t")
        hint = LeaderHint(leader=1, leader_epoch=5, listener=listener("b1:9092"))
        assert view.learn("t", 0, hint)
        assert not view.learn("t", 0, hint)
        view._take(stale)
        known = view.partition("t", 0)
        assert known is not None
        assert (known.leader, known.leader_epoch) == (1, 5)
        fake.delete_topic("t")
        made_again = fake.add_topic("t")
        await view.refresh()
        view._take(stale)
        assert view.topics["t"].topic_id == made_again.topic_id
        await view.stop()

    with_cluster(program)


def test_a_leader_that_cannot_be_reached_is_logged_once_and_forgotten_when_it_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def program(fake: FakeCluster) -> None:
        fake.add_topic("t", partitions=4)
        fake.hindrances = {1: ListenerNotFoundError("broker 1 has no listener 'external'")}
        view = Cluster(fake.bootstrap, client_id="c")
        await view.start()
        topic = await view.topic("t")
        assert (topic.numbers, topic.available) == ((0, 1, 2, 3), (0, 2))
        assert view.leader_endpoint("t", topic.topic_id, 1) == ""
        fake.image_offset += 1
        await view.refresh()
        assert [one.getMessage() for one in caplog.records if one.levelname == "WARNING"] == [
            "2 partitions of 't' have a leader that this client cannot reach: broker 1 has no"
            " listener 'external'"
        ]
        fake.hindrances = {}
        fake.image_offset += 1
        await view.refresh()
        assert topic.available == topic.numbers
        await view.stop()

    with_cluster(program)


class NamesWithoutAddress(InProcessNetwork):
    """A network in which the names of some hosts have no address."""

    def __init__(self, unknown: tuple[str, ...]) -> None:
        super().__init__()
        self.unknown = unknown

    def connect(self, endpoint: str, **options: Any) -> Any:
        if endpoint not in self.unknown:
            return super().connect(endpoint, **options)
        connection = mock.Mock()
        connection.unary.side_effect = UnresolvedHostError(f"the host of {endpoint} is not known")
        connection.close = mock.AsyncMock()
        return connection


@pytest.mark.parametrize(
    ("servers", "waits_s"),
    [
        (["typo-1:1"], (3, 4)),
        (["typo-1:1", "typo-2:1"], (3, 4)),
        (["typo-1:1", "down:1"], (29, 31)),
    ],
)
def test_names_that_no_machine_has_are_told_long_before_the_timeout(
    servers: list[str], waits_s: tuple[int, int]
) -> None:
    async def program(loop: SimulatedLoop) -> None:
        current_network.set(NamesWithoutAddress(("typo-1:1", "typo-2:1")))
        view = Cluster(servers, client_id="c")
        with pytest.raises(QuorumUnavailableError, match="the host of typo-1:1 is not known"):
            await view.start(timeout_ms=30_000)
        await view.stop()
        assert waits_s[0] <= loop.time() <= waits_s[1]

    simulate(program, seed=1, time_max_s=60)


def test_many_who_ask_share_the_looks() -> None:
    async def program(fake: FakeCluster) -> None:
        view = Cluster(fake.bootstrap, client_id="c")
        await view.start()
        asked = await asyncio.gather(*(view.topic("t") for _ in range(50)), return_exceptions=True)
        assert all(isinstance(one, UnknownTopicError) for one in asked)
        assert sum(broker.metadata_asked for broker in fake.brokers) < 30
        await view.stop()

    with_cluster(program)


def test_a_silent_broker_is_asked_last() -> None:
    async def program(fake: FakeCluster) -> None:
        fake.add_topic("t")
        view = Cluster(fake.bootstrap, client_id="c")
        await view.start()
        fake.brokers[0].running.clear()
        await view.refresh()
        before = asyncio.get_running_loop().time()
        for _ in range(5):
            await view.refresh()
        assert asyncio.get_running_loop().time() - before < 0.1
        await view.stop()

    with_cluster(program)


def test_a_look_that_finds_the_same_image_is_told_nothing_else() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 3)
        view = Cluster(cluster.bootstrap, client_id="test")
        await view.start()
        await view.topic("t")
        asked: list[admin_pb2.MetadataRequest] = []
        answers: list[admin_pb2.MetadataResponse] = []
        metadata = cluster.metadata

        def watched(request: admin_pb2.MetadataRequest) -> admin_pb2.MetadataResponse:
            asked.append(request)
            answers.append(metadata(request))
            return answers[-1]

        cluster.metadata = watched  # type: ignore[method-assign]
        await view.refresh()
        await view.refresh()
        assert answers[-1].unchanged
        assert len(view.topics["t"].partitions) == 3
        cluster.move("t", 0, 1)
        await view.refresh()  # another image: all of it
        assert not answers[-1].unchanged
        assert view.topics["t"].partitions[0].leader == 1
        view.want(["u"])  # another question: all of it
        await view.refresh()
        assert not asked[-1].HasField("known_image_offset")
        await view.stop()

    with_cluster(program)


PRODUCER = """bootstrap_servers client_id acks enable_idempotence compression_type max_batch_size
    linger_ms buffer_memory request_timeout_ms delivery_timeout_ms max_in_flight partitioner
    key_serializer value_serializer security"""
CONSUMER = """bootstrap_servers group_id group_instance_id client_id client_rack auto_offset_reset
    enable_auto_commit auto_commit_interval_ms max_poll_records fetch_min_bytes fetch_max_bytes
    fetch_max_wait_ms max_partition_fetch_bytes session_timeout_ms max_poll_interval_ms assignor
    isolation_level key_deserializer value_deserializer security"""
SEND = "topic value key partition timestamp_ms headers"


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (Producer.__init__, PRODUCER),
        (Producer.send, SEND),
        (Producer.send_and_wait, SEND),
        (Producer.send_many, "topic values keys"),
        (Consumer.__init__, CONSUMER),
        (Consumer.getmany, "timeout_ms max_records"),
        (Consumer.subscribe, "topics pattern listener"),
        (Consumer.commit, "offsets"),
        (Admin.__init__, "bootstrap_servers"),
        (Admin.create_topic, "name num_partitions replication_factor"),
        (Admin.create_partitions, "topic count validate_only"),
    ],
)
def test_calls_have_the_arguments_that_users_know(call: object, names: str) -> None:
    assert callable(call)
    assert set(names.split()) <= set(inspect.signature(call).parameters)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Producer, "start stop send send_many send_and_wait flush partitions_for"),
        (quorate.Delivery, "done result add_done_callback __await__"),
        (
            Consumer,
            """getone getmany subscribe unsubscribe assign assignment seek seek_to_beginning
            seek_to_end position committed commit pause resume paused highwater beginning_offsets
            end_offsets offsets_for_times lag start stop __aiter__""",
        ),
        (
            Admin,
            """create_topic create_topics create_partitions delete_topics list_topics
            describe_topics describe_cluster describe_quorum describe_configs alter_configs
            describe_features update_feature transfer_leadership
            add_voter remove_voter""",
        ),
    ],
)
def test_methods_that_users_know_exist(kind: type, names: str) -> None:
    assert [name for name in names.split() if not callable(getattr(kind, name, None))] == []


def test_every_public_name_is_there() -> None:
    assert [name for name in quorate.__all__ if not hasattr(quorate, name)] == []


async def test_one_string_is_not_taken_for_names_of_a_letter_each() -> None:
    admin = Admin(bootstrap_servers="localhost:1")
    with pytest.raises(TypeError, match="list of names, not the string 'events'"):
        await admin.delete_topics("events")
    with pytest.raises(TypeError, match="list of names, not the string 'events'"):
        await admin.describe_topics("events")


def test_a_client_goes_on_with_no_other_cluster_at_the_address_of_its_own() -> None:
    async def program(fake: FakeCluster) -> None:
        fake.add_topic("t")
        settings: dict[str, Any] = {"bootstrap_servers": fake.bootstrap}
        async with (
            Admin(**settings) as admin,
            Producer(delivery_timeout_ms=20000, **settings) as old,
            Consumer("t", auto_offset_reset="earliest", **settings) as reader,
        ):
            await old.send_and_wait("t", b"in the old cluster")
            await reader.getone()
            await fake.become_another()
            topic = fake.add_topic("t")  # of the same id, by chance
            async with Producer(**settings) as new:
                await new.send_and_wait("t", b"new")  # with the same producer id
            named = r"works with cluster fake, and another cluster answers at .*fake'"
            for _ in range(2):
                with pytest.raises(WrongClusterError, match=named):
                    await old.send_and_wait("t", b"old")
                with pytest.raises(WrongClusterError, match=named):
                    await reader.getone()
                with pytest.raises(WrongClusterError, match=named):
                    await admin.list_topics()
            assert topic.partitions[0].values() == [b"new"]

    with_cluster(program)


def test_a_client_goes_on_while_a_broker_of_its_own_cluster_answers() -> None:
    async def program(fake: FakeCluster) -> None:
        topic = fake.add_topic("t")
        async with Producer(bootstrap_servers=fake.bootstrap) as producer:
            await producer.send_and_wait("t", b"0")
            await fake.become_another(brokers=fake.brokers[:1])
            fake.cluster_id = "fake"
            fake.topics["t"] = topic
            fake.image_offset += 10  # it went on meanwhile
            fake.move("t", 0, 1)
            assert (await producer.send_and_wait("t", b"1")).offset == 1

    with_cluster(program)


def test_clients_ask_the_bootstrap_servers_again_when_every_broker_has_moved() -> None:
    async def program(fake: FakeCluster) -> None:
        fake.add_topic("t")
        seed = FakeBroker(fake, 9)  # no broker of the answers has its address
        seed.endpoint = "seed:9092"
        await seed.start()
        settings: dict[str, Any] = {"bootstrap_servers": seed.endpoint}
        async with (
            Producer(**settings) as producer,
            Consumer("t", auto_offset_reset="earliest", **settings) as consumer,
        ):
            for turn in range(3):
                place = await producer.send_and_wait("t", b"%d" % turn)
                async with asyncio.timeout(10):
                    assert (await consumer.getone()).offset == place.offset == turn
                await seed.kill()
                await asyncio.sleep(2 * METADATA_AGE_MAX_S)  # another broker has answered last
                await seed.start()
                for broker in fake.brokers:
                    await broker.kill()
                await asyncio.sleep(turn * 60)  # every address that they know is dead
                for broker in fake.brokers:
                    broker.endpoint = f"moved{turn}-{broker.id}:9092"
                    await broker.start()
                fake.image_offset += 1

    with_cluster(program)


def test_an_answer_that_names_another_cluster_is_not_taken() -> None:
    async def program(fake: FakeCluster) -> None:
        view = Cluster(fake.bootstrap, client_id="c")
        await view.start()
        fake.cluster_id = "another"
        with pytest.raises(WrongClusterError, match=r"works with cluster fake.*cluster another"):
            await view.refresh()
        assert view.cluster_id == "fake"
        await view.stop()

    with_cluster(program)


def test_the_library_is_silent_until_the_program_configures_logging() -> None:
    program = "import logging, quorate; logging.getLogger('quorate.x').error('broken')"
    said = []
    for configure in ("", "logging.basicConfig(); "):
        code = program.replace("logging.getL", configure + "logging.getL")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        said.append("broken" in done.stderr)
    assert said == [False, True]


def test_every_error_says_what_to_do() -> None:
    kinds: list[type[QuorateError]] = [QuorateError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    ours = [kind for kind in kinds[1:] if kind.__module__ == "quorate.errors"]
    assert len(ours) > 40
    assert [kind for kind in ours if not kind.advice] == []
    assert [kind for kind in ours if getattr(quorate.errors, kind.__name__) is not kind] == []
    error = from_wire(to_wire(UnknownTopicError("no topic is named t")))
    assert error.__notes__ == [UnknownTopicError.advice]
    assert str(error) == "no topic is named t"
