"""Arguments and settings of the library are checked in the call that gets them."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable
from typing import Annotated, Any

import pytest

import quorate
import quorate.sync
from quorate import Admin, Consumer, NewTopic, Producer, TopicPartition
from quorate.cluster.cluster import Cluster
from quorate.errors import (
    InvalidPartitionsError,
    InvalidRequestError,
    InvalidTopicError,
    QuorateError,
)
from quorate.serializers import Json, String
from quorate.settings import Whole, checked, settings_of
from quorate_testing import EmbeddedCluster
from tests.harness.fake_leaders import FakeCluster, with_cluster

NO_NUMBERS = [True, "5", None, 1.5, math.inf, math.nan, 2**63, -(2**63), b"5", [5]]


def numbers_of(kind: Callable[..., Any]) -> list[str]:
    """Return the settings of a constructor whose defaults are numbers."""
    found = settings_of(kind.__init__)
    return [
        name
        for name, (_, default) in found.items()
        if isinstance(default, int | float) and not isinstance(default, bool)
    ]


@pytest.mark.parametrize("kind", [Producer, Consumer, Admin])
@pytest.mark.parametrize("given", NO_NUMBERS, ids=repr)
def test_every_number_is_checked_where_it_is_given(kind: Any, given: object) -> None:
    names = numbers_of(kind)
    assert names
    for name in names:
        if name == "linger_ms" and given == 1.5:
            continue
        with pytest.raises((TypeError, ValueError), match=f"{kind.__name__}: {name} must be .*not"):
            kind(**{name: given})


@pytest.mark.parametrize("kind", [Producer, Consumer, Admin])
def test_every_setting_has_a_rule(kind: Any) -> None:
    known = set(settings_of(kind.__init__)) | {"self", "assignor"}
    assert set(inspect.signature(kind.__init__).parameters) <= known


def test_a_whole_float_is_a_number() -> None:
    assert Producer(request_timeout_ms=1500.0)._request_timeout_ms == 1500  # type: ignore[arg-type]


class Coded:
    def serialize(self, topic: str, value: object) -> bytes:
        return b""


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Producer(bootstrap_servers=7092), r"HOST:PORT.*not 7092"),  # type: ignore[arg-type]
        (lambda: Admin(bootstrap_servers="h:x"), r"ports of 1 to 65535, not 'h:x'"),
        (lambda: Consumer(bootstrap_servers=["h:1", 2]), "not 2"),  # type: ignore[list-item]
        (lambda: Producer(bootstrap_servers=[]), r"not \[\]"),
        (lambda: Producer(value_serializer=Json), r"an object, as Json\(\), and not the class"),  # type: ignore[arg-type]
        (lambda: Producer(key_serializer=5), r"serialize\(topic, value\), or a function, not 5"),  # type: ignore[arg-type]
        (lambda: Consumer(value_deserializer=String), r"as String\(\), and not the class"),  # type: ignore[arg-type]
        (lambda: Consumer(value_deserializer=Coded()), "deserialize"),  # type: ignore[arg-type]
        (lambda: Producer(acks=True), '"all", 1, 0 or -1, not True'),
        (lambda: Producer(enable_idempotence=1), "True or False, not 1"),  # type: ignore[arg-type]
        (lambda: Producer(partitioner=3), r"a function \(key, partitions, available\), not 3"),  # type: ignore[arg-type]
        (lambda: Consumer(5), r"topics must be a string"),  # type: ignore[arg-type]
        (lambda: Producer(linger=5), "no argument linger; did you mean linger_ms"),  # type: ignore[call-arg]
        (lambda: Producer(**{"linger.ms": 5}), "no argument linger.ms; did you mean linger_ms"),  # type: ignore[arg-type]
        (lambda: Producer(**{"batch.size": 5}), "batch.size; use max_batch_size"),  # type: ignore[arg-type]
        (lambda: Producer(max_request_size=5), "the topic's config max.message.bytes"),  # type: ignore[call-arg]
        (lambda: Producer(transactional_id="a"), "there are no transactions"),  # type: ignore[call-arg]
        (lambda: Producer(retries=5), "retries; .*until delivery_timeout_ms"),  # type: ignore[call-arg]
        (lambda: Consumer(consumer_timeout_ms=5), r"use getmany\(timeout_ms=...\)"),  # type: ignore[call-arg]
        (lambda: Consumer(heartbeat_interval_ms=5), "leave it out"),  # type: ignore[call-arg]
        (lambda: NewTopic(name="t", configs={"a": None}), r"configs\['a'\] must be"),  # type: ignore[dict-item]
        (lambda: NewTopic(name="t", num_partitions=1.5), "1 or more"),  # type: ignore[arg-type]
        (lambda: NewTopic(name="t", assignments=[1]), "lists of broker ids"),  # type: ignore[list-item]
    ],
)
def test_a_refusal_names_what_was_given_and_what_is_allowed(
    make: Callable[[], object], text: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        make()


@pytest.mark.parametrize("package", [quorate, quorate.sync], ids=lambda one: one.__name__)
@pytest.mark.parametrize("name", ["Producer", "Consumer", "Admin", "SchemaRegistry"])
def test_a_dict_of_settings_is_told_how_to_give_them(package: Any, name: str) -> None:
    example = rf'settings are keyword arguments: {name}\(bootstrap_servers="localhost:7092"\)'
    with pytest.raises(TypeError, match=f"^{name}: {example}"):
        getattr(package, name)({"bootstrap.servers": "localhost:9092"})


def test_an_argument_that_must_have_its_name_is_told() -> None:
    told = r"^EmbeddedCluster.create_topic: only name, num_partitions may be given without a name; "
    with pytest.raises(TypeError, match=told + "give by name: replication_factor=, configs="):
        EmbeddedCluster().create_topic("b", 1, 5)  # type: ignore[call-arg]


def test_a_new_topic_is_written_as_in_kafka_s_clients() -> None:
    assert NewTopic("cf", 3, 1) == NewTopic(name="cf", num_partitions=3, replication_factor=1)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.send("\udcff", b""),
        lambda client: client.send("t", b"", headers=[("\udcff", b"")]),
        lambda client: client.partitions_for("\udcff"),
        lambda client: client.subscribe(["\udcff"]),
        lambda client: client.assign([TopicPartition("\udcff", 0)]),
        lambda client: client.commit({TopicPartition("t", 0): (1, "\udcff")}),
        lambda client: client.create_topic("t", configs={"\udcff": "1"}),
        lambda client: client.create_topic("t", configs={"cleanup.policy": "\udcff"}),
        lambda client: client.alter_configs("t", set={"cleanup.policy": "\udcff"}),
        lambda client: client.delete_topics(["\udcff"]),
        lambda client: client.delete_groups(["\udcff"]),
    ],
)
def test_a_text_that_no_message_carries_is_refused_and_the_client_goes_on(
    call: Callable[[Any], Any],
) -> None:
    """A background task would find it later, and the whole client would fail."""

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        servers: dict[str, Any] = {"bootstrap_servers": cluster.bootstrap}
        called = 0
        for client in (Producer(**servers), Consumer(group_id="g", **servers), Admin(**servers)):
            async with client:
                try:
                    with pytest.raises((TypeError, ValueError), match="must be"):
                        await _called(call, client)
                    called += 1
                except AttributeError:
                    continue
                await client._running().refresh()
        assert called

    with_cluster(program)


def test_configurations_may_be_numbers_and_truth_values() -> None:
    topic = NewTopic(name="t", configs={"retention.ms": 1000, "flush.on.ack": True})
    assert topic.configs == {"retention.ms": "1000", "flush.on.ack": "true"}


P0 = TopicPartition("t", 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.seek(P0, 0.5),
        lambda c: c.seek(P0, 2**63),
        lambda c: c.seek(P0, True),
        lambda c: c.seek("t", 0),
        lambda c: c.seek_to_end("t"),
        lambda c: c.assign(P0),
        lambda c: c.assign([("t", -1)]),
        lambda c: c.subscribe("t"),
        lambda c: c.subscribe(["t", None]),
        lambda c: c.subscribe(pattern="("),
        lambda c: c.getmany(timeout_ms=math.inf),
        lambda c: c.getmany(max_records=0),
        lambda c: c.offsets_for_times({P0: 1.5}),
        lambda c: c.offsets_for_times([P0]),
        lambda c: c.partitions_for(3),
        lambda c: c.pause("t"),
    ],
)
def test_a_wrong_argument_is_refused_and_the_consumer_goes_on(call: Callable[[Any], Any]) -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"v")
        settings: dict[str, Any] = {"auto_offset_reset": "earliest"}
        async with Consumer("t", bootstrap_servers=cluster.bootstrap, **settings) as consumer:
            with pytest.raises((TypeError, ValueError, InvalidPartitionsError)):
                await _called(call, consumer)
            async with asyncio.timeout(10):
                assert (await consumer.getone()).value == b"v"

    with_cluster(program)


async def _called(call: Callable[[Any], Any], client: object) -> None:
    result = call(client)
    if inspect.isawaitable(result):
        await result


@pytest.mark.parametrize("partition", [True, 0.5, -1, 2**31, "0", math.nan])
def test_a_wrong_partition_is_refused_and_the_producer_goes_on(partition: Any) -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        given: list[Any] = [partition]
        async with Producer(
            bootstrap_servers=cluster.bootstrap,
            partitioner=lambda *_: given.pop() if given else 0,
        ) as producer:
            for chosen in (partition, None):
                with pytest.raises((TypeError, ValueError, QuorateError)):
                    await producer.send("t", b"v", partition=chosen)
            assert (await producer.send_and_wait("t", b"v")).offset == 0

    with_cluster(program)


async def test_a_rule_is_checked_by_name_and_by_place_and_none_only_where_it_may_be() -> None:
    @checked
    async def call(
        a: Annotated[int, Whole(1, 9)], b: Annotated[int | None, Whole(1, 9)] = None
    ) -> tuple[int, int | None]:
        return a, b

    assert await call(2.0, b=None) == (2, None)  # type: ignore[arg-type]
    for wrong in ({"a": 0}, {"a": None}, {"a": 1, "b": 10}):
        with pytest.raises((TypeError, ValueError), match="whole number from 1 to 9"):
            await call(**wrong)
    assert inspect.iscoroutinefunction(call)


@pytest.mark.parametrize(
    "call",
    [
        lambda a: a.create_topic("t", configs=[]),
        lambda a: a.create_topic(""),
        lambda a: a.create_topics(["t"]),
        lambda a: a.create_topics([], validate_only=1),
        lambda a: a.create_partitions("", 3),
        lambda a: a.create_partitions("t", "3"),
        lambda a: a.create_partitions("t", True),
        lambda a: a.create_partitions("t", 3, validate_only=1),
        lambda a: a.create_partitions("t", 3, assignments=[1]),
        lambda a: a.delete_topics([b"t"]),
        lambda a: a.list_topics(internal="yes"),
        lambda a: a.describe_topics("t"),
        lambda a: a.describe_configs(3),
        lambda a: a.alter_configs("t", set={"a": []}),
        lambda a: a.alter_configs("t", remove="retention.ms"),
        lambda a: a.update_feature("f", "1"),
        lambda a: a.transfer_leadership("1"),
        lambda a: a.add_voter(1, "f" * 31, "h:1"),
        lambda a: a.remove_voter(True),
        lambda a: a.remove_voter(-1),
        lambda a: a.unregister_broker("1"),
        lambda a: a.unregister_broker(-1),
    ],
)
async def test_every_call_of_admin_checks_before_it_asks(call: Callable[[Any], Any]) -> None:
    with pytest.raises((TypeError, ValueError, InvalidRequestError, InvalidTopicError)):
        await call(Admin(bootstrap_servers="localhost:1"))


def test_a_name_that_is_no_string_never_gets_into_the_looks_at_the_cluster() -> None:
    view = Cluster("localhost:1", client_id="c")
    with pytest.raises(TypeError, match="a topic: its name must be a string"):
        view.want((b"t",))  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["http://localhost:7092", "a@b:1", "a b:1"])
def test_an_address_that_no_host_can_have_is_refused_where_it_is_given(address: str) -> None:
    with pytest.raises(ValueError, match=r"bootstrap_servers must be .*not"):
        Producer(bootstrap_servers=address)


@pytest.mark.parametrize(
    "address", ["::1:7092", "[::1:7092", "::1]:7092", "[::1", "[h:1]:2", "[]:1"]
)
def test_an_ipv6_address_stands_in_brackets(address: str) -> None:
    """Without brackets gRPC takes the port for a part of the address."""
    with pytest.raises(ValueError, match=r"in brackets, as \[::1\]:7092, not"):
        Admin(bootstrap_servers=address)
    Admin(bootstrap_servers="[::1]:7092,[fe80::1%eth0]:7092")


def test_an_error_names_the_class_that_the_user_knows() -> None:
    consumer: Any = Consumer("t")
    admin: Any = Admin()
    with pytest.raises((TypeError, ValueError), match=r"^Consumer\.seek: offset"):
        consumer.seek(P0, -1)
    with pytest.raises(TypeError, match=r"^Consumer\.commit: "):
        asyncio.run(consumer.commit(7))
    with pytest.raises((TypeError, ValueError), match=r"^Admin\.alter_group_offsets: "):
        asyncio.run(admin.alter_group_offsets(7, 7))

    class Mine(Consumer):
        """Of a user."""

    with pytest.raises((TypeError, ValueError), match=r"^Consumer\.seek: offset"):
        Mine("t").seek(P0, -1)
