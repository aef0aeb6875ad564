"""Where a node listens: which texts name a listener, and which of them a node opens."""

from __future__ import annotations

import re

import pytest

from quorate.v1 import common_pb2 as wire
from quorate_quorum.node.config import BrokerConfig, ConfigError, NodeConfig, QuorumConfig
from quorate_quorum.node.config_sources import load
from quorate_quorum.node.listeners import (
    ListenerAddress,
    from_wire,
    inter_broker,
    parse,
    parse_all,
    to_wire,
    unsupported,
)

FORM = "must be [NAME=]PROTOCOL[+tls]://HOST:PORT or HOST:PORT, with a port from 1 to 65535"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7092", ("grpc", "grpc", False, "127.0.0.1", 7092)),
        ("grpc://127.0.0.1:7092", ("grpc", "grpc", False, "127.0.0.1", 7092)),
        ("kafka://localhost:9092", ("kafka", "kafka", False, "localhost", 9092)),
        ("grpc+tls://db.example.org:65535", ("grpc", "grpc", True, "db.example.org", 65535)),
        ("IN_1=grpc://node-7.rack_2:1", ("IN_1", "grpc", False, "node-7.rack_2", 1)),
        ("out=kafka+tls://[2001:db8::7]:9", ("out", "kafka", True, "2001:db8::7", 9)),
        ("[::1]:7092", ("grpc", "grpc", False, "::1", 7092)),
        ("[fe80::1%eth0]:7092", ("grpc", "grpc", False, "fe80::1%eth0", 7092)),
    ],
)
def test_a_text_names_a_listener(text: str, address: tuple[str, str, bool, str, int]) -> None:
    assert parse(text) == ListenerAddress(*address)
    assert parse(str(parse(text))) == parse(text)
    assert from_wire(to_wire(parse(text))) == parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "localhost:",
        ":7092",
        "localhost:0",
        "localhost:65536",
        "localhost:7x",
        "local host:7092",
        "grpc://",
        "grpc://localhost",
        "grpc://localhost:7092/",
        "grpc:localhost:7092",
        "=grpc://localhost:7092",
        "in=localhost:7092",
        "1n=grpc://localhost:7092",
        "in out=grpc://localhost:7092",
        "grpc+tls+tls://localhost:7092",
        "grpc+zip://localhost:7092",
        "::1:7092",
        "[::1]",
        "[::g]:7092",
        "[localhost]:7092",
        "999.0.0.1:7092",
        "10.0.1:7092",
        "localhost:7092,localhost:7093",
    ],
)
def test_another_text_names_none(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} {FORM}")):
        parse(text)


@pytest.mark.parametrize("protocol", ["http", "GRPC", "grpcs", "plaintext"])
def test_an_unknown_protocol_is_refused_with_those_that_are_known(protocol: str) -> None:
    with pytest.raises(ValueError, match=f"no protocol has the name '{protocol}'; allowed are"):
        parse(f"in={protocol}://localhost:7092")


def test_port_0_is_the_port_that_the_listener_got() -> None:
    address = parse("out=grpc://[::1]:0", port_min=0)
    assert str(address.bound_at("[::1]:40000")) == "out=grpc://[::1]:40000"
    assert address.bound_at("[::1]:40000").bound_at("[::1]:5").port == 40_000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("grpc+tls://h:1", "TLS does not exist yet, and a +tls listener is never opened without"),
        ("kafka+tls://h:1", "TLS does not exist yet, and a +tls listener is never opened without"),
    ],
)
def test_what_does_not_exist_yet_is_refused(text: str, reason: str) -> None:
    assert reason in (unsupported(parse(text)) or "")


def test_nodes_reach_a_broker_by_its_first_grpc_listener_unless_another_is_named() -> None:
    addresses = parse_all(("k=kafka://h:1", "a=grpc://h:2", "b=grpc://h:3"))
    assert inter_broker(addresses, "").name == "a"
    assert inter_broker(addresses, "b").name == "b"
    for name in ("k", "c"):
        with pytest.raises(ValueError, match=f"{name!r} is no listener .* allowed .*: a, b"):
            inter_broker(addresses, name)


@pytest.mark.parametrize(
    "told",
    [
        wire.Listener(),
        wire.Listener(protocol="grpc", endpoint="h:1"),
        wire.Listener(name="a b", protocol="grpc", endpoint="h:1"),
        wire.Listener(name="a", protocol="", endpoint="h:1"),
        wire.Listener(name="a", protocol="grpc", endpoint="h:0"),
        wire.Listener(name="a", protocol="grpc", endpoint="h" * 250 + ":70000"),
        wire.Listener(name="a", protocol="grpc", endpoint="h" * 251 + ":7092"),
    ],
)
def test_an_address_that_cannot_be_is_not_taken_from_a_peer(told: wire.Listener) -> None:
    with pytest.raises(ValueError, match="listener"):
        from_wire(told)


def test_a_protocol_of_a_newer_release_is_taken_from_a_peer() -> None:
    told = wire.Listener(name="a", protocol="quic", endpoint="h:1")
    assert to_wire(from_wire(told)) == told


def loaded(*sets: str, kind: type[NodeConfig] = BrokerConfig) -> NodeConfig:
    given = ("node.id=1", "log.dirs=/d", "quorum.bootstrap.servers=v:1", *sets)
    return load(kind, None, {}, given)


def refused(*sets: str, kind: type[NodeConfig] = BrokerConfig) -> str:
    with pytest.raises(ConfigError) as raised:
        loaded(*sets, kind=kind)
    return str(raised.value)


OPEN = "allow.insecure.listeners=true"
TWO = "listeners=in=grpc://10.0.0.1:1,out=grpc://0.0.0.0:2"


def test_a_broker_has_listeners_of_several_names() -> None:
    told = "advertised.listeners=out=grpc://db.example.org:92,in=grpc://10.0.0.1:1"
    config = loaded(TWO, told, OPEN, "inter.broker.listener.name=in")
    assert [str(one) for one in config.listener_addresses] == [
        "in=grpc://10.0.0.1:1",
        "out=grpc://0.0.0.0:2",
    ]
    assert [str(one) for one in config.advertised_addresses] == [
        "in=grpc://10.0.0.1:1",
        "out=grpc://db.example.org:92",
    ]
    assert config.advertised == "10.0.0.1:1"
    config = loaded(TWO, told, OPEN, "inter.broker.listener.name=out")
    assert config.advertised == "db.example.org:92"
    assert isinstance(config, BrokerConfig)
    assert config.host == "db.example.org"


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (("listeners=127.0.0.1:1,grpc://127.0.0.1:2",), "have one name, 'grpc'"),
        (("listeners=a=grpc://127.0.0.1:1,b=grpc://127.0.0.1:1",), "are one address"),
        (("listeners=http://127.0.0.1:1",), "no protocol has the name 'http'; allowed are grpc"),
        (("listeners=kafka://127.0.0.1:1",), "no listener that other nodes can dial"),
        (("listeners=grpc+tls://127.0.0.1:1",), "never opened without it"),
        (("listeners=127.0.0.1:1", "advertised.listeners=grpc+tls://h:1"), "never opened without"),
        ((TWO, OPEN), "0.0.0.0:2 is no address that others can dial"),
        (("listeners=[::]:1", OPEN), "[::]:1 is no address that others can dial"),
        (("listeners=h:1", OPEN, "advertised.listeners=[::]:1"), "[::]:1 is no address"),
        ((TWO, OPEN, "advertised.listeners=in=grpc://h:1"), "has 1 addresses, and listeners has 2"),
        (
            ("listeners=127.0.0.1:1", "advertised.listeners=out=grpc://h:1"),
            "advertised.listeners: out=grpc://h:1 is of 'out', and listeners has grpc: both need",
        ),
        (
            ("listeners=127.0.0.1:1", "inter.broker.listener.name=in"),
            "inter.broker.listener.name: 'in' is no listener that other nodes can dial; allowed "
            "are the grpc listeners: grpc",
        ),
        (("listeners=in=grpc://127.0.0.1:1,out=grpc://10.0.0.1:2",), "reach beyond this machine"),
    ],
)
def test_listeners_that_cannot_be_are_refused(sets: tuple[str, ...], said: str) -> None:
    reason = refused(*sets)
    assert said in reason
    assert reason.startswith("--set ")  # where it was given


def test_a_voter_has_one_listener() -> None:
    two = "listeners=a=grpc://127.0.0.1:1,b=grpc://127.0.0.1:2"
    assert "a voter has one listener, and 2 are given" in refused(two, kind=QuorumConfig)
    of_kafka = "listeners=kafka://127.0.0.1:1"
    assert "a voter has a grpc listener, and no other" in refused(of_kafka, kind=QuorumConfig)
    config = loaded("listeners=quorum=grpc://127.0.0.1:1", kind=QuorumConfig)
    assert config.advertised == "127.0.0.1:1"
