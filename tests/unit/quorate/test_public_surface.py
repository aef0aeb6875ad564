"""Every argument of every public call is checked, and every call knows its state.

The calls are found by inspection. So a new class, method or argument without a check fails here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import inspect
import math
import re
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any, NamedTuple

import pydantic
import pytest
from google.protobuf.struct_pb2 import Struct

import quorate
import quorate.sync
import quorate_testing
from quorate import NewTopic, RecordBatch, TopicPartition, serializers
from quorate.errors import ClosedError, QuorateError, WrongLoopError
from quorate.record.column_builder import ColumnBuilder
from quorate.serializers import (
    Avro,
    AvroSchema,
    Confluent,
    ConfluentRegistry,
    Json,
    Msgspec,
    Protobuf,
    Pydantic,
)
from quorate.settings import (
    RECORD_TIMESTAMP_MS,
    Flag,
    Names,
    Number,
    OneOf,
    Text,
    Whole,
    settings_of,
)
from quorate.sync.background import background
from quorate_testing import (
    AsyncEmbeddedCluster,
    ClusterClock,
    ClusterFaults,
    ClusterNetwork,
    EmbeddedCluster,
    SimulatedCluster,
)

#: As in the name of a file that is not UTF-8. No message can carry it.
LONE_SURROGATE = "\udcff"


class Wrong:
    """An object that no call takes."""

    def __repr__(self) -> str:
        return "Wrong()"


class Order(pydantic.BaseModel):
    number: int


async def never() -> None:
    """Stands for a program of a user."""


PACKAGES = (quorate, quorate.sync, quorate_testing, serializers)
CLIENTS = (quorate.Producer, quorate.Consumer, quorate.Admin, quorate.SchemaRegistry)
SYNC_CLIENTS = (
    quorate.sync.Producer,
    quorate.sync.Consumer,
    quorate.sync.Admin,
    quorate.sync.SchemaRegistry,
)
#: What calls of clients return, and has calls itself.
RESULTS = (quorate.Delivery, quorate.sync.Delivery, RecordBatch)
#: How an object of the other classes is made, if not without arguments.
MAKERS: dict[Any, Callable[[], object]] = {
    Avro: lambda: Avro("int"),
    AvroSchema: lambda: AvroSchema("int"),
    Confluent: lambda: Confluent(Json()),
    ConfluentRegistry: lambda: ConfluentRegistry("http://localhost:1"),
    Msgspec: lambda: Msgspec(int),
    Protobuf: lambda: Protobuf(Struct),
    Pydantic: lambda: Pydantic(Order),
}
#: A right value for each argument that has no default, by name.
RIGHT: dict[str, Any] = {
    "address": "http://localhost:1",
    "batch": RecordBatch(None, ColumnBuilder(), 1000, int),
    "before": {TopicPartition("t", 0): 0},
    "targets": {TopicPartition("t", 0): [0]},
    "expected": {TopicPartition("t", 0): [0]},
    "broker_id": 0,
    "callback": print,
    "count": 1,
    "data": b"",
    "directory_id": "f" * 32,
    "endpoint": "localhost:1",
    "fingerprint": 1,
    "group_id": "g",
    "group_ids": ["g"],
    "inner": Json(),
    "level": 1,
    "main": never,
    "message": Struct,
    "model": Order,
    "name": "t",
    "node": 0,
    "offset": 0,
    "offsets": {TopicPartition("t", 0): 0},
    "partition": TopicPartition("t", 0),
    "partitions": [TopicPartition("t", 0)],
    "path": "schemas.json",
    "predicate": bool,
    "rule": "NONE",
    "schema": AvroSchema("int"),
    "schema_id": 1,
    "seconds": 1,
    "subject": "s",
    "these": 0,
    "timestamp_ms": 0,
    "timestamps": {TopicPartition("t", 0): 0},
    "topic": "t",
    "topics": ["t"],
    "type": int,
    "value": None,
    "values": [b""],
    "voter_id": 1,
}
#: What a call needs besides.
ALSO: dict[str, dict[str, Any]] = {
    "create_topics": {"topics": [NewTopic(name="t")]},
    "remove_members": {"all": True},
    "send_batch": {"partition": 0},
    "explain_partition": {"partition": 0},
    "subscribe": {"topics": ["t"]},
}
#: Wrong values of arguments that a call checks by hand, besides Wrong(): by name.
BY_HAND: dict[str, tuple[Any, ...]] = {
    "headers": (
        5,
        0,
        False,
        "",
        {},
        [(LONE_SURROGATE, b"")],
        [5],
        [("a", "b")],
        [(b"a", b"b")],
        ["ab"],
        {"a": b"b"},
    ),
    "partition": (-1, 2**31, True, 0.5, "0"),
    "timestamp_ms": (RECORD_TIMESTAMP_MS.least - 1, 2**63, True, 0.5, "0"),
    "keys": (b"ab", [b"a", b"b"], [5], {"a": b"b"}),
    "values": ([5], b"ab", {"a": b"b"}),
    "key": (5, "k"),
    "value": (5, "v"),
    "folder": ("", 5),
    "racks": ("AB", ["A", "B"], [5]),
    "configs": ({5: "a"}, "a=b", [("a", "b")]),
    "brokers": ("3", 0, 100, True, None),
    "voters": ("3", 0, 10, True, None),
    "confluent": (5,),
    "schemas": (5, "int"),
    "encoding": (5, "latin-77"),
    "node": (7, True, None, 0.5, "nobody"),
    "these": (7, True, 0.5, "nobody", [7], []),
    "those": (7, True, 0.5, "nobody", [7], []),
    "kinds": ("cut", ["fire"], []),
    "main": (5, None),
    "predicate": (5, None),
}
#: Arguments that are not the user's, and why.
NOT_OF_USERS = {
    "AsyncEmbeddedCluster.__init__": "EmbeddedCluster makes it",
    "ClusterClock.__init__": "SimulatedCluster makes it",
    "ClusterFaults.__init__": "SimulatedCluster makes it",
    "ClusterNetwork.__init__": "SimulatedCluster makes it",
    "Delivery.__init__": "Producer.send makes it",
    "RecordBatch.__init__": "Producer.create_batch makes it",
    "close_at_exit": "the interpreter's exit calls it",
}
#: A serializer ignores the topic: it is there for serializers of users.
IGNORED = {"serialize": {"topic"}, "deserialize": {"topic"}}
#: Calls that choose what to read. They count before start(), too.
BEFORE_START = {
    "subscribe", "unsubscribe", "assign", "assignment", "pause", "paused", "resume", "seek",
    "seek_to_beginning", "seek_to_end", "seek_to_time", "highwater", "position",
}  # fmt: skip
#: Calls without work in the loop. They go on working after stop().
ANY_TIME = {"find", "look_up", "store", "check_may_write", "stop", "start", "flush"}


#: Calls that tell what the object has, and ask for nothing.
READS = {"assignment", "paused"}


class Call(NamedTuple):
    """A public call: the constructor of a class, or one of its methods."""

    kind: Any
    method: str

    def __str__(self) -> str:
        package = self.kind.__module__.partition(".sync")
        return f"{'sync.' if package[1] else ''}{self.kind.__name__}.{self.method}"


def is_value(kind: Any) -> bool:
    """Return whether a class is of values that calls return, or of things that users write."""
    return (
        (dataclasses.is_dataclass(kind) and kind is not NewTopic)
        or issubclass(kind, (tuple, Exception, enum.Enum))
        or getattr(kind, "_is_protocol", False)
    )


def classes() -> list[Any]:
    found = {}
    for package in PACKAGES:
        homes = getattr(package, "_HOMES", ())
        for name in {*package.__all__, *homes}:
            kind = getattr(package, name)
            if inspect.isclass(kind) and not is_value(kind):
                found[kind] = f"{kind.__module__}.{name}"
    return sorted(found, key=lambda kind: found[kind])


def calls_of(kind: Any) -> Iterator[Call]:
    for name in dir(kind):
        found = getattr(inspect.getattr_static(kind, name), "__func__", None) or getattr(kind, name)
        if not inspect.isfunction(found) or (name.startswith("_") and name != "__init__"):
            continue
        if name not in NOT_OF_USERS and f"{kind.__name__}.{name}" not in NOT_OF_USERS:
            yield Call(kind, name)


def parameters(call: Call) -> dict[str, inspect.Parameter]:
    of = call.kind if call.method == "__init__" else getattr(call.kind, call.method)
    found = dict(inspect.signature(of).parameters)
    for name in {"self", *IGNORED.get(call.method, ())}:
        found.pop(name, None)
    return found


def rules(call: Call) -> dict[str, Any]:
    """Return the rules that the call declares. Those of a blocking call stand at its twin."""
    if call.kind in SYNC_CLIENTS:
        kind = getattr(quorate, call.kind.__name__)
        method = getattr(kind, call.method, None)
        return {} if method is None else {n: rule for n, (rule, _) in settings_of(method).items()}
    return {n: rule for n, (rule, _) in settings_of(getattr(call.kind, call.method)).items()}


def wrong_for(rule: Any) -> Iterator[Any]:
    """Yield values that a rule must refuse: of a wrong type and out of the range."""
    match rule:
        case Whole() | Number():
            yield from (rule.least - 1, rule.most * 2 + 2, True, "1", math.nan, math.inf)
        case Text():
            yield from (5, b"a", LONE_SURROGATE, "x" * (rule.chars_max + 1))
            yield from () if rule.may_be_empty else ("",)
        case Flag():
            yield from (1, "yes")
        case OneOf():
            yield from ("another", 7, True)
        case Names():
            yield from ("ab", 5, [5], [LONE_SURROGATE])


def bound(call: Call, made: object, values: dict[str, Any], given: str = "") -> Callable[[], Any]:
    """Return the call with the values of the arguments without a default, and of `given`."""
    function = call.kind if call.method == "__init__" else getattr(made, call.method)
    several: list[Any] = []
    named = {"topic": "t"} if call.method in IGNORED else {}
    for name, parameter in parameters(call).items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            several += [values[name]] if name == given else values[name] if not given else []
        elif name == given or parameter.default is parameter.empty:
            assert name in values, f"{call}: RIGHT needs a right value of {name}"
            named[name] = values[name]
    named.update({one: value for one, value in ALSO.get(call.method, {}).items() if one != given})
    if not several:
        return lambda: function(**named)
    first = [named.pop(name) for name in parameters(call) if name in named]
    return lambda: function(*first, *several)


def wrong_arguments(call: Call) -> Iterator[tuple[str, Any]]:
    declared = rules(call)
    for name in parameters(call):
        by_hand = () if name in declared and call.method != "__init__" else BY_HAND.get(name, ())
        if call.method in ("serialize", "committed"):
            by_hand = ()
        for given in (Wrong(), *wrong_for(declared.get(name)), *by_hand):
            yield name, given


def problem(call: Call, name: str, given: Any, error: BaseException | None) -> str | None:
    """Return what is wrong with the error of a call with a wrong argument."""
    what = f"{call}({name}={given!r})"
    if error is None:
        return f"{what} is accepted"
    said = str(error)
    if not isinstance(error, TypeError | ValueError | QuorateError):
        return f"{what} raises {error!r}"
    if not re.search(rf"\b{name.rstrip('s')}", said):
        return f"{what} does not name the argument: {said}"
    if "must" not in said and "leave it None" not in said:
        return f"{what} does not say what is allowed: {said}"
    return None


async def outcome(function: Callable[[], Any]) -> BaseException | None:
    """Return the error of a call. It is awaited, if it is asynchronous."""
    try:
        found = function()
        if inspect.isawaitable(found):
            async with asyncio.timeout(60):
                await found
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("kind", [*CLIENTS, *SYNC_CLIENTS, *RESULTS], ids=lambda kind: str(kind))
def test_an_argument_that_a_call_does_not_have_is_named(kind: Any) -> None:
    problems = []
    for call in calls_of(kind):
        function = kind if call.method == "__init__" else getattr(kind, call.method)
        this = () if call.method == "__init__" else (object.__new__(kind),)
        needed = {
            name: RIGHT[name]
            for name, one in parameters(call).items()
            if one.default is one.empty and one.kind is not one.VAR_POSITIONAL
        }
        if hasattr(kind, "_run") and this:
            this = (kind(),)
        error = asyncio.run(outcome(lambda f=function, t=this, n=needed: f(*t, **n, nonsense_ms=1)))  # type: ignore[misc]
        if "there is no argument nonsense_ms" not in str(error):
            problems.append(f"{call}: {error!r}")
    assert problems == []


def test_the_nearest_argument_is_named() -> None:
    producer: Any = quorate.sync.Producer()
    said = r"^Producer.send: there is no argument timestamp; did you mean timestamp_ms\?"
    with pytest.raises(TypeError, match=said):
        producer.send("t", timestamp=5)
    with pytest.raises(TypeError, match=r"^Consumer.getone: .* timeout_ms; it takes none"):
        quorate.sync.Consumer().getone(timeout_ms=5)  # type: ignore[arg-type]


def test_the_walk_finds_the_classes_of_users() -> None:
    found = classes()
    assert {*CLIENTS, *SYNC_CLIENTS, EmbeddedCluster, AsyncEmbeddedCluster, Avro} <= set(found)
    assert Call(quorate.sync.Admin, "create_topic") in calls_of(quorate.sync.Admin)


#: These run in virtual time, and not in the loop of a test. They have a test of their own.
SIMULATED = (SimulatedCluster, ClusterClock, ClusterFaults, ClusterNetwork)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in classes() if kind not in SIMULATED],
    ids=lambda kind: f"{kind.__module__}.{kind.__name__}",
)
async def test_a_wrong_argument_of_any_call_is_refused_by_name(
    kind: Any, quorate_cluster: EmbeddedCluster, quorate_topic: str
) -> None:
    problems: list[str | None] = []
    servers = quorate_cluster.bootstrap_servers
    made: Any
    async with AsyncExitStack() as stack:
        if kind is quorate.sync.Producer:
            made = stack.enter_context(quorate.sync.Producer(bootstrap_servers=servers))
        elif kind is quorate.Producer:
            made = await stack.enter_async_context(quorate.Producer(bootstrap_servers=servers))
        elif kind is quorate.sync.Delivery:
            blocking = stack.enter_context(quorate.sync.Producer(bootstrap_servers=servers))
            made = blocking.send(quorate_topic, b"v")
        elif kind is quorate.Delivery:
            client = await stack.enter_async_context(quorate.Producer(bootstrap_servers=servers))
            made = await client.send(quorate_topic, b"v")
        elif kind is RecordBatch:
            client = await stack.enter_async_context(quorate.Producer(bootstrap_servers=servers))
            made = client.create_batch()
        elif kind is AsyncEmbeddedCluster:
            made = quorate_cluster._cluster
        elif kind is EmbeddedCluster:
            made = quorate_cluster
        elif kind is NewTopic:
            made = NewTopic(name="t")
        else:
            made = MAKERS.get(kind, kind)()
        right = {**RIGHT, "topic": quorate_topic}
        if hasattr(made, "create_batch"):
            right["batch"] = made.create_batch()
            right["batch"].append(b"v")
        for call in calls_of(kind):
            for name, given in wrong_arguments(call):
                function = bound(call, made, {**right, name: given}, name)
                problems.append(problem(call, name, given, await outcome(function)))
    assert "\n".join(filter(None, problems)) == ""


def test_a_wrong_argument_of_a_simulated_cluster_is_refused_by_name() -> None:
    problems: list[str | None] = []
    with SimulatedCluster() as cluster:

        async def walk(kind: Any, made: object) -> None:
            for call in calls_of(kind):
                for name, given in wrong_arguments(call):
                    if name == "arguments":
                        continue  # they are the program's own
                    function = bound(call, made, {**RIGHT, name: given}, name)
                    problems.append(problem(call, name, given, await outcome(function)))

        for made in (cluster, cluster.clock, cluster.faults, cluster.network):
            cluster.run(walk, type(made), made)
    assert "\n".join(filter(None, problems)) == ""


def works(call: Call, allowed: set[str]) -> bool:
    return call.method == "__init__" or call.method in allowed


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_call_of_a_client_that_does_not_run_says_so(
    kind: Any, quorate_cluster: EmbeddedCluster
) -> None:
    servers = quorate_cluster.bootstrap_servers
    unstarted, stopped = (kind(bootstrap_servers=servers) for _ in range(2))
    async with stopped:
        pass
    for client, allowed in ((unstarted, ANY_TIME | BEFORE_START), (stopped, ANY_TIME | READS)):
        for call in calls_of(kind):
            if works(call, allowed):
                continue
            error = await outcome(bound(call, client, RIGHT))
            # a member of no group says so, whether it runs or not
            is_known = isinstance(error, ClosedError) or call.method in ("commit", "committed")
            assert is_known, f"{call}: {error!r}"
            told = "was stopped; make a new one" if client is stopped else "call start()"
            if isinstance(error, ClosedError) and kind is not quorate.Admin:
                assert told in str(error), f"{call}: {error!r}"


@pytest.mark.parametrize("kind", SYNC_CLIENTS)
def test_a_call_of_a_blocking_client_that_does_not_run_says_so(
    kind: Any, quorate_cluster: EmbeddedCluster
) -> None:
    servers = quorate_cluster.bootstrap_servers
    unstarted, stopped = (kind(bootstrap_servers=servers) for _ in range(2))
    with stopped:
        pass
    for client, allowed in ((unstarted, ANY_TIME | BEFORE_START), (stopped, ANY_TIME | READS)):
        for call in calls_of(kind):
            if not works(call, allowed):
                error = asyncio.run(outcome(bound(call, client, RIGHT)))
                is_known = isinstance(error, ClosedError) or call.method in ("commit", "committed")
                assert is_known, f"{call}: {error!r}"


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_call_from_another_loop_is_refused(kind: Any, quorate_cluster: EmbeddedCluster) -> None:
    """A client of Quorate that was not stopped in its loop can be used in no other one."""
    client = kind(bootstrap_servers=quorate_cluster.bootstrap_servers)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.start())

    async def elsewhere() -> list[str]:
        found = []
        for call in calls_of(kind):
            if works(call, ANY_TIME - {"start", "stop", "flush"} | READS):
                continue
            error = await outcome(bound(call, client, RIGHT))
            if not isinstance(error, WrongLoopError):
                found.append(f"{call}: {error!r}")
        return found

    try:
        assert "\n".join(asyncio.run(elsewhere())) == ""
    finally:
        loop.run_until_complete(client.stop())
        loop.close()


@pytest.mark.parametrize("kind", SYNC_CLIENTS)
def test_a_call_of_a_blocking_client_after_a_fork_is_refused(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = kind()
    monkeypatch.setattr(background(), "is_of_this_process", False)
    for call in calls_of(kind):
        if not works(call, ANY_TIME - {"start", "stop", "flush"}):
            error = asyncio.run(outcome(bound(call, client, RIGHT)))
            assert isinstance(error, WrongLoopError), f"{call}: {error!r}"


def test_a_cluster_in_this_process_speaks_of_its_arguments(tmp_path: Any) -> None:
    """Its errors name no options of the command."""
    file = tmp_path / "file"
    file.write_text("")
    problems: list[str | None] = []
    with ExitStack() as stack:
        stack.enter_context(EmbeddedCluster(folder=tmp_path / "used", racks=["A"]))
        for settings in (
            {"brokers": 100},
            {"voters": "3"},
            {"racks": ["A", "B"]},
            {"folder": file},
            {"folder": tmp_path / "used"},
            {"folder": tmp_path / "used", "racks": ["B"]},
        ):
            with pytest.raises((TypeError, ValueError)) as found, EmbeddedCluster(**settings):
                pass
            said = str(found.value)
            if "--" in said or not said.startswith(f"EmbeddedCluster: {list(settings)[-1]}"):
                problems.append(f"{settings}: {said}")
    assert problems == []
