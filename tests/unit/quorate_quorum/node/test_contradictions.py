"""Settings that are impossible together are named, with where they were given."""

from __future__ import annotations

from pathlib import Path

import pytest

from quorate_quorum.node.config import BrokerConfig, NodeConfig, QuorumConfig
from quorate_quorum.node.config_sources import load
from quorate_quorum.node.contradictions import without_effect
from tests.unit.quorate_quorum.node.builders import BROKER, QUORUM, file_with, refused


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
            "this machine (a name other than localhost is taken to, and is not looked up), and "
            "nothing is encrypted: listen on 127.0.0.1, or set "
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
            ("log.dirs=/a/b,/c,/a",),
            "--set log.dirs=/a/b,/c,/a: log.dirs names /a/b, which is inside /a: each must be",
        ),
        (
            BrokerConfig,
            ("log.dirs=/a,/a",),
            "--set log.dirs=/a,/a: log.dirs names a directory twice",
        ),
        (
            BrokerConfig,
            ("log.dirs=/a/b,/a//c/../b/",),
            "--set log.dirs=/a/b,/a//c/../b/: log.dirs names a directory twice: /a/b and "
            "/a//c/../b/ are both /a/b",
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
            "voters listen there. If this node is a voter, quorate-quorum starts it, and "
            "`quorate storage format` takes --initial-voters, --standalone or --new-voter",
        ),
        (
            BrokerConfig,
            ("advertised.listeners=A:7093", "quorum.bootstrap.servers=a.:7093"),
            "--set advertised.listeners=A:7093, --set quorum.bootstrap.servers=a.:7093, "
            "FILE: quorum.bootstrap.servers names A:7093, where this broker itself listens: ",
        ),
    ],
)
def test_an_impossible_pair_is_named(
    tmp_path: Path, kind: type[NodeConfig], sets: tuple[str, ...], said: str
) -> None:
    path = file_with(tmp_path, BROKER if kind is BrokerConfig else QUORUM)
    assert refused(kind, path, sets=sets).startswith(said.replace("FILE", path))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("localhost:1", "LOCALHOST:1"),
        ("localhost:1", "localhost.:1"),
        ("localhost:1", "127.0.0.1:1"),
        ("db.example.org:1", "DB.Example.org:1"),
        ("[::1]:1", "[0:0:0:0:0:0:0:1]:1"),
        ("[fe80::ab]:1", "[FE80::AB]:1"),
        ("10.0.0.1:1", "[::ffff:10.0.0.1]:1"),
    ],
)
def test_two_listeners_at_one_address_are_refused_however_it_is_spelled(
    tmp_path: Path, one: str, other: str
) -> None:
    path = file_with(tmp_path, BROKER)
    sets = (f"listeners=a=grpc://{one},b=grpc://{other}", "advertised.listeners=")
    said = f"a=grpc://{one} and b=grpc://{other} are one address"
    assert said in refused(BrokerConfig, path, sets=sets)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "listeners=" + ",".join(f"l{number}=grpc://127.0.0.1:0" for number in range(17)),
            "listeners: 17 are given; a node has 16 at most",
        ),
        (
            f"advertised.listeners={'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 60}.{'e' * 20}:1",
            "has a HOST:PORT of 266 characters; at most 255 are allowed",
        ),
    ],
)
def test_what_the_controller_would_not_register_is_refused_at_the_start(
    tmp_path: Path, setting: str, said: str
) -> None:
    assert said in refused(BrokerConfig, file_with(tmp_path, BROKER), sets=(setting,))


def test_a_directory_without_a_name_is_refused(tmp_path: Path) -> None:
    text = BROKER.replace("log.dirs = [", 'log.dirs = ["", ')
    assert text != BROKER
    said = refused(BrokerConfig, file_with(tmp_path, text))
    assert "none may be empty; it names '', '" in said


def test_a_directory_that_is_named_twice_by_a_link_or_a_relative_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real"
    (real / "inside").mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    monkeypatch.chdir(tmp_path)
    path = file_with(tmp_path, BROKER)
    for other in ("link", "real/", f"{tmp_path}/link/../real"):
        said = refused(BrokerConfig, path, sets=(f"log.dirs={real},{other}",))
        assert f"names a directory twice: {real} and {other} are both {real}" in said
    said = refused(BrokerConfig, path, sets=(f"log.dirs={real},link/inside",))
    assert f"log.dirs names link/inside, which is inside {real}" in said


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "[0:0::0]", "[::ffff:0.0.0.0]"])
def test_every_address_of_a_machine_is_no_address_to_advertise(tmp_path: Path, host: str) -> None:
    sets = (f"advertised.listeners={host}:1",)
    said = refused(BrokerConfig, file_with(tmp_path, BROKER), sets=sets)
    assert "is no address that others can dial: set advertised.listeners" in said


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
