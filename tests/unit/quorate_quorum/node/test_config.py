"""The configuration of a node: what wins, and what each refusal says."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quorate_quorum.configs import CONFIGS
from quorate_quorum.node.config import (
    BrokerConfig,
    ConfigError,
    NodeConfig,
    QuorumConfig,
    load,
    without_effect,
)

BROKER = """
node.id = 1
broker.rack = "R1"
listeners = ["127.0.0.1:7092"]
advertised.listeners = ["localhost:7092"]
quorum.bootstrap.servers = ["localhost:7093", "localhost:7193", "localhost:7293"]
log.dirs = ["/var/lib/quorate"]
"""
QUORUM = """
node.id = 100
listeners = ["127.0.0.1:7093"]
log.dirs = ["/var/lib/quorate"]
"""


def file_with(tmp_path: Path, text: str) -> str:
    path = tmp_path / "node.toml"
    path.write_text(text)
    return str(path)


def refused(
    kind: type[NodeConfig],
    path: str | None,
    env: dict[str, str] | None = None,
    sets: tuple[str, ...] = (),
) -> str:
    with pytest.raises(ConfigError) as raised:
        load(kind, path, env or {}, sets)
    return str(raised.value)


def test_a_broker_reads_its_file(tmp_path: Path) -> None:
    config = load(BrokerConfig, file_with(tmp_path, BROKER), {}, ())
    assert config.node_id == 1
    assert config.broker_rack == "R1"
    assert config.advertised == "localhost:7092"
    assert config.host == "localhost"
    assert config.log_dirs == ("/var/lib/quorate",)
    assert len(config.quorum_bootstrap_servers) == 3
    assert config.replica_lag_time_max_ms == 10_000
    assert not config.is_insecure


def test_a_voter_reads_its_file(tmp_path: Path) -> None:
    config = load(QuorumConfig, file_with(tmp_path, QUORUM), {}, ())
    assert config.advertised == "127.0.0.1:7093"
    assert (config.quorum_fetch_timeout_ms, config.quorum_election_timeout_ms) == (1000, 500)
    assert (config.broker_session_timeout_ms, config.broker_disconnect_grace_ms) == (3000, 500)
    assert (config.broker_heartbeat_interval_ms, config.unclean_recovery_wait_ms) == (500, 60_000)


@pytest.mark.parametrize(
    "text",
    [
        '"broker.rack" = "R9"',
        '[broker]\nrack = "R9"',
    ],
    ids=["quoted", "table"],
)
def test_a_name_may_be_written_as_toml_likes(tmp_path: Path, text: str) -> None:
    path = file_with(tmp_path, BROKER.replace('broker.rack = "R1"', "") + text)
    assert load(BrokerConfig, path, {}, ()).broker_rack == "R9"


def test_the_command_line_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    path = file_with(tmp_path, BROKER)
    env = {"QUORATE_BROKER_RACK": "from-env", "QUORATE_NODE_ID": "2", "HOME": "/"}
    sets = ("broker.rack=from-set",)
    assert load(BrokerConfig, path, {}).broker_rack == "R1"
    assert load(BrokerConfig, path, env).broker_rack == "from-env"
    assert load(BrokerConfig, path, env, sets).broker_rack == "from-set"
    assert load(BrokerConfig, path, env, sets).node_id == 2


def test_no_file_is_needed() -> None:
    sets = ("node.id=3", "listeners=127.0.0.1:0", "log.dirs=/a, /b")
    env = {"QUORATE_LOCAL_CLUSTER": "TRUE", "QUORATE_LOG_LEVEL": "debug"}
    config = load(QuorumConfig, None, env, sets)
    assert config.listeners == ("127.0.0.1:0",)
    assert config.log_dirs == ("/a", "/b")
    assert config.local_cluster is True
    assert config.log_level == "debug"


def test_variables_that_are_somebody_elses_are_left_alone(tmp_path: Path) -> None:
    """The command's, the other kind of node's, and what Kubernetes says of a service `quorate`."""
    env = {
        "QUORATE_BOOTSTRAP": "localhost:7092",
        "QUORATE_QUORUM_FETCH_TIMEOUT_MS": "2000",
        "QUORATE_SERVICE_HOST": "10.0.0.1",
        "QUORATE_SERVICE_PORT_CLIENTS": "7092",
        "QUORATE_PORT": "tcp://10.0.0.1:7092",
        "QUORATE_PORT_7092_TCP_ADDR": "10.0.0.1",
        "QUORATE_BROKER_PORT_7092_TCP": "tcp://10.0.0.1:7092",
    }
    assert load(BrokerConfig, file_with(tmp_path, BROKER), env).node_id == 1


def test_an_unknown_name_says_the_nearest(tmp_path: Path) -> None:
    path = file_with(tmp_path, BROKER + 'broker.rak = "R2"')
    said = "broker.rak = 'R2': no setting has that name; the nearest is broker.rack"
    assert refused(BrokerConfig, path) == f"{path}: {said}"
    path = file_with(tmp_path, BROKER)
    assert refused(BrokerConfig, path, sets=("broker.rak=R2",)) == f"--set broker.rak=R2: {said}"
    assert refused(BrokerConfig, path, {"QUORATE_BROKER_RAK": "R2"}) == (
        f"the environment, QUORATE_BROKER_RAK: {said}"
    )


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("node.id", '"one"', "a whole number from 0 to 2147483647, not 'one'"),
        ("node.id", "-1", "a whole number from 0 to 2147483647, not -1"),
        ("node.id", "1.0", "a whole number from 0 to 2147483647, not 1.0"),
        ("node.id", "true", "a whole number from 0 to 2147483647, not True"),
        ("replica.lag.time.max.ms", "0", "a whole number from 1 to 604800000, not 0"),
        ("queued.max.bytes", '"64MiB"', "a whole number from 1024 to 68719476736, not '64MiB'"),
        ("allow.insecure.listeners", "1", "true or false, not 1"),
        ("log.level", '"loud"', "one of debug, info, warning, error, not 'loud'"),
        ("broker.rack", "7", "a string, not 7"),
        ("listeners", '"localhost:1"', 'a list of strings, ["a", "b"] in a file, a,b elsewhere'),
        ("log.dirs", "[1]", 'a list of strings, ["a", "b"] in a file, a,b elsewhere, not [1]'),
    ],
)
def test_a_wrong_type_says_what_is_allowed(
    tmp_path: Path, name: str, value: str, allowed: str
) -> None:
    lines = [line for line in BROKER.splitlines() if not line.startswith(f"{name} =")]
    path = file_with(tmp_path, "\n".join([*lines, f"{name} = {value}"]))
    assert refused(BrokerConfig, path).startswith(f"{path}: {name} must be {allowed}")


@pytest.mark.parametrize(
    ("one", "allowed"),
    [
        ("node.id=0x1", "a whole number from 0 to 2147483647, not '0x1'"),
        ("node.id=1_000", "a whole number from 0 to 2147483647, not '1_000'"),
        ("node.id=", "a whole number from 0 to 2147483647, not ''"),
        ("node.id=" + "9" * 5000, "a whole number from 0 to 2147483647, not '999"),
        ("allow.insecure.listeners=yes", "true or false, not 'yes'"),
    ],
)
def test_a_wrong_text_says_what_is_allowed(tmp_path: Path, one: str, allowed: str) -> None:
    said = refused(BrokerConfig, file_with(tmp_path, BROKER), sets=(one,))
    name = one.partition("=")[0]
    assert said.startswith(f"--set {one}: {name} must be {allowed}")


def test_a_missing_name_says_where_it_may_be_given() -> None:
    assert refused(QuorumConfig, None, sets=("listeners=127.0.0.1:1", "log.dirs=/a")) == (
        "no file given: node.id is missing; it must be a whole number from 0 to 2147483647, "
        "in the file, as QUORATE_NODE_ID in the environment, or as --set node.id=..."
    )


def test_a_set_without_a_value_is_wrong_usage() -> None:
    assert refused(QuorumConfig, None, sets=("node.id",)) == (
        "--set node.id: must be --set name=value"
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.toml")
    assert refused(QuorumConfig, missing) == f"{missing}: cannot be read: No such file or directory"
    for text in ("node.id = ", "node.id = 1\nnode.id.x = 2", "node.id = 1\nnode.id = 2"):
        path = file_with(tmp_path, text)
        assert refused(QuorumConfig, path).startswith(f"{path}: is not TOML: ")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    assert "is not TOML" in refused(QuorumConfig, str(tmp_path / "binary.toml"))


@pytest.mark.parametrize(
    "name",
    [*sorted(CONFIGS), "log.retention.ms", "log.segment.bytes", "log.retention.hours"],
)
def test_a_default_of_topics_is_the_clusters(tmp_path: Path, name: str) -> None:
    path = file_with(tmp_path, BROKER + f"{name} = 1")
    said = refused(BrokerConfig, path)
    assert said.startswith(f"{path}: {name} = 1: it is a default of topics")
    assert "`quorate cluster config`" in said
    variable = "QUORATE_" + name.replace(".", "_").upper()
    assert "a default of topics" in refused(
        BrokerConfig, file_with(tmp_path, BROKER), {variable: "1"}
    )


def test_a_setting_of_the_other_kind_of_node_is_refused(tmp_path: Path) -> None:
    path = file_with(tmp_path, BROKER + "broker.session.timeout.ms = 9000")
    assert refused(BrokerConfig, path).endswith("it is a setting of a voter, and this node is none")
    path = file_with(tmp_path, QUORUM + 'broker.rack = "R1"')
    assert refused(QuorumConfig, path).endswith(
        "it is a setting of a broker, and this node is none"
    )


@pytest.mark.parametrize(
    ("kind", "sets", "said"),
    [
        (
            BrokerConfig,
            ("listeners=0.0.0.0:7092",),
            "--set listeners=0.0.0.0:7092: listeners 0.0.0.0:7092 reach beyond this machine, and "
            "nothing is encrypted: listen on 127.0.0.1, or set allow.insecure.listeners = true",
        ),
        (
            QuorumConfig,
            ("listeners=db1.example.org:7092",),
            "--set listeners=db1.example.org:7092: listeners db1.example.org:7092 reach beyond "
            "this machine, and nothing is encrypted: listen on 127.0.0.1, or set "
            "allow.insecure.listeners = true",
        ),
        (
            QuorumConfig,
            ("listeners=0.0.0.0:7092", "allow.insecure.listeners=true"),
            "--set listeners=0.0.0.0:7092: 0.0.0.0:7092 is no address that others can dial: set "
            "advertised.listeners to one that is",
        ),
        (
            BrokerConfig,
            ("listeners=localhost",),
            "--set listeners=localhost: listeners: 'localhost' must be "
            "[NAME=]PROTOCOL[+tls]://HOST:PORT or HOST:PORT, with a port from 0 to 65535",
        ),
        (
            BrokerConfig,
            ("advertised.listeners=localhost:0",),
            "--set advertised.listeners=localhost:0: advertised.listeners: 'localhost:0' must be "
            "[NAME=]PROTOCOL[+tls]://HOST:PORT or HOST:PORT, with a port from 1 to 65535",
        ),
        (
            BrokerConfig,
            ("listeners=localhost:99999",),
            "--set listeners=localhost:99999: listeners: 'localhost:99999' must be "
            "[NAME=]PROTOCOL[+tls]://HOST:PORT or HOST:PORT, with a port from 0 to 65535",
        ),
        (BrokerConfig, ("listeners=",), "--set listeners=: listeners must name at least one"),
        (
            BrokerConfig,
            ("listeners=127.0.0.1:1,b=grpc://127.0.0.1:2",),
            "--set listeners=127.0.0.1:1,b=grpc://127.0.0.1:2, FILE: advertised.listeners has 1 "
            "addresses, and listeners has 2: one for each is needed",
        ),
        (
            BrokerConfig,
            ("quorum.bootstrap.servers=",),
            "--set quorum.bootstrap.servers=: quorum.bootstrap.servers must name at least one "
            "voter, as host:port",
        ),
        (
            BrokerConfig,
            ("quorum.bootstrap.servers=http://x",),
            "--set quorum.bootstrap.servers=http://x: quorum.bootstrap.servers: 'http://x' must "
            "be host:port",
        ),
        (BrokerConfig, ("log.dirs=",), "--set log.dirs=: log.dirs must name at least one"),
        (
            BrokerConfig,
            ("log.dirs=/a,/a",),
            "--set log.dirs=/a,/a: log.dirs names a directory twice",
        ),
        (
            QuorumConfig,
            ("broker.session.timeout.ms=900",),
            "--set broker.session.timeout.ms=900: broker.heartbeat.interval.ms (500) must not be "
            "above 1/2 of broker.session.timeout.ms (900)",
        ),
        (
            QuorumConfig,
            ("broker.disconnect.grace.ms=3001",),
            "--set broker.disconnect.grace.ms=3001: broker.disconnect.grace.ms (3001) must not be "
            "above broker.session.timeout.ms (3000)",
        ),
        (
            QuorumConfig,
            ("quorum.fetch.timeout.ms=400",),
            "--set quorum.fetch.timeout.ms=400: quorum.fetch.wait.max.ms (250) must not be above "
            "1/2 of quorum.fetch.timeout.ms (400)",
        ),
        (
            QuorumConfig,
            ("socket.request.max.bytes=65536",),
            "--set socket.request.max.bytes=65536: quorum.fetch.max.bytes (1048576) must not be "
            "above socket.request.max.bytes (65536)",
        ),
        (
            BrokerConfig,
            ("queued.max.bytes=1024",),
            "--set queued.max.bytes=1024: stream.queued.max.bytes (16777216) must not be above "
            "queued.max.bytes (1024)",
        ),
        (
            BrokerConfig,
            ("replica.lag.time.max.ms=300",),
            "--set replica.lag.time.max.ms=300: replica.fetch.wait.max.ms (250) must not be above "
            "1/2 of replica.lag.time.max.ms (300)",
        ),
        (
            BrokerConfig,
            ("advertised.listeners=a:7093", "quorum.bootstrap.servers=a:7093,b:7093"),
            "--set advertised.listeners=a:7093, --set quorum.bootstrap.servers=a:7093,b:7093, "
            "FILE: quorum.bootstrap.servers names a:7093, where this broker itself listens: "
            "voters listen there. If this node is a voter, format it with --initial-voters, ",
        ),
    ],
)
def test_an_impossible_pair_is_named(
    tmp_path: Path, kind: type[NodeConfig], sets: tuple[str, ...], said: str
) -> None:
    path = file_with(tmp_path, BROKER if kind is BrokerConfig else QUORUM)
    assert refused(kind, path, sets=sets).startswith(said.replace("FILE", path))


def test_listening_to_others_is_allowed_when_asked_for(tmp_path: Path) -> None:
    sets = ("listeners=0.0.0.0:7092", "allow.insecure.listeners=true")
    config = load(BrokerConfig, file_with(tmp_path, BROKER), {}, sets)
    assert config.is_insecure
    assert config.advertised == "localhost:7092"


@pytest.mark.parametrize("listener", ["127.0.0.1:0", "localhost:7092", "[::1]:7092", "127.9.9.9:1"])
def test_this_machine_alone_is_not_insecure(tmp_path: Path, listener: str) -> None:
    sets = (f"listeners={listener}",)
    assert not load(QuorumConfig, file_with(tmp_path, QUORUM), {}, sets).is_insecure


def test_what_is_taken_and_has_no_effect_is_said(tmp_path: Path) -> None:
    path = file_with(tmp_path, QUORUM)
    assert without_effect(load(QuorumConfig, path, {})) == []
    (log_dirs,) = without_effect(load(QuorumConfig, path, {}, ("log.dirs=/a,/b",)))
    assert "uses only the first, /a" in log_dirs


@pytest.mark.parametrize("kind", [QuorumConfig, BrokerConfig])
def test_no_name_begins_another(kind: type[NodeConfig]) -> None:
    """TOML could not say both: `a.b = 1` makes a value of what `a.b.c = 2` makes a table of."""
    names = [name.replace("_", ".") for name in kind.__struct_fields__]
    assert not [(one, other) for one in names for other in names if other.startswith(f"{one}.")]


@pytest.mark.parametrize("kind", [QuorumConfig, BrokerConfig])
def test_every_default_is_allowed(kind: type[NodeConfig]) -> None:
    for field in msgspec.structs.fields(kind):
        if not field.required:
            hint: Any = typing.get_type_hints(kind, include_extras=True)[field.name]
            assert msgspec.convert(field.default, hint) == field.default
