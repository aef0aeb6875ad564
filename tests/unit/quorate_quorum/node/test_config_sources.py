"""Where settings come from: what wins, and what each refusal says."""

from __future__ import annotations

from pathlib import Path

import pytest

from quorate_quorum.configs import CONFIGS
from quorate_quorum.node.config import BrokerConfig, QuorumConfig
from quorate_quorum.node.config_sources import load
from tests.unit.quorate_quorum.node.builders import BROKER, QUORUM, file_with, refused


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
    """Those of the command, of the other kind of node, and of Kubernetes services `quorate...`."""
    env = {
        "QUORATE_BOOTSTRAP": "localhost:7092",
        "QUORATE_QUORUM_FETCH_TIMEOUT_MS": "2000",
        "QUORATE_SERVICE_HOST": "10.0.0.1",
        "QUORATE_SERVICE_PORT_CLIENTS": "7092",
        "QUORATE_PORT": "tcp://10.0.0.1:7092",
        "QUORATE_PORT_7092_TCP_ADDR": "10.0.0.1",
        "QUORATE_BROKER_PORT_7092_TCP": "tcp://10.0.0.1:7092",
        "QUORATE_PORT_7092_SCTP_ADDR": "10.0.0.1",
        "QUORATE_LOG_PORT": "tcp://10.0.0.1:7092",
        "QUORATE_LOG_SERVICE_HOST": "10.0.0.1",
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
    ("name", "nearest"),
    [
        ("log.dir", "log.dirs"),
        ("log.dirz", "log.dirs"),
        ("log.levl", "log.level"),
        ("listener", "listeners"),
        ("log.cleaner.dedupe.buffer.sise", "log.cleaner.dedupe.buffer.size"),
        ("log.retention.check.intervall.ms", "log.retention.check.interval.ms"),
    ],
)
def test_a_mistyped_name_is_no_default_of_topics(tmp_path: Path, name: str, nearest: str) -> None:
    said = refused(BrokerConfig, file_with(tmp_path, BROKER), sets=(f"{name}=1",))
    assert said.endswith(f"{name} = '1': no setting has that name; the nearest is {nearest}")
    variable = "QUORATE_" + name.replace(".", "_").upper()
    said = refused(BrokerConfig, file_with(tmp_path, BROKER), {variable: "1"})
    assert said.endswith(f"no setting has that name; the nearest is {nearest}")


@pytest.mark.parametrize("name", ["super.users", "x", "num.io.threads", "compaction"])
def test_a_name_that_is_like_no_other_is_told_where_all_are_listed(
    tmp_path: Path, name: str
) -> None:
    said = refused(BrokerConfig, file_with(tmp_path, BROKER), sets=(f"{name}=1",))
    assert said.endswith("no setting has that name; docs/configuration.md lists all settings")


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("broker.id", "it is node.id here"),
        ("process.roles", "there is none: quorate-quorum runs a voter"),
        ("zookeeper.connect", "there is none: voters keep the metadata"),
    ],
)
def test_kafkas_name_of_a_node_setting_is_told_what_there_is_instead(
    tmp_path: Path, name: str, instead: str
) -> None:
    said = refused(BrokerConfig, file_with(tmp_path, BROKER), sets=(f"{name}=1",))
    assert f"{name} = '1': no setting has that name; {instead}" in said


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


@pytest.mark.parametrize("space", [" ", "\t", "\r"])
def test_white_space_around_a_value_never_becomes_part_of_it(tmp_path: Path, space: str) -> None:
    """A rack with a space at its end would count as another rack."""
    path = file_with(tmp_path, BROKER)
    for text in (f"R2{space}", f"{space}R2"):
        assert load(BrokerConfig, path, {"QUORATE_BROKER_RACK": text}).broker_rack == "R2"
        assert load(BrokerConfig, path, {}, (f"broker.rack={text}",)).broker_rack == "R2"
        assert load(BrokerConfig, path, {"QUORATE_NODE_ID": text.replace("R", "")}).node_id == 2


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ('"R1"', '"R1 "', "broker.rack"),
        ('"R1"', '"\\tR1"', "broker.rack"),
        ('["/var/lib/quorate"]', '["/var/lib/quorate "]', "log.dirs"),
    ],
)
def test_white_space_around_a_string_in_a_file_is_refused(
    tmp_path: Path, old: str, new: str, name: str
) -> None:
    path = file_with(tmp_path, BROKER.replace(old, new))
    said = refused(BrokerConfig, path)
    assert said.startswith(f"{path}: {name} must not begin or end with white space, as ")


def test_a_name_that_is_given_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    """TOML takes a name in quotes for another one."""
    path = file_with(tmp_path, BROKER + '"broker.rack" = "R2"')
    assert refused(BrokerConfig, path) == (
        f"{path}: broker.rack is given twice, once in quotes and once without"
    )


def test_an_empty_table_is_no_value_and_no_setting(tmp_path: Path) -> None:
    path = file_with(tmp_path, BROKER.replace('broker.rack = "R1"', "broker.rack = {}"))
    assert refused(BrokerConfig, path) == f"{path}: broker.rack must be a string, not {{}}"
    path = file_with(tmp_path, BROKER + "[brokr]")
    assert "brokr = {}: no setting has that name" in refused(BrokerConfig, path)
    path = file_with(tmp_path, BROKER.replace('broker.rack = "R1"', "") + '[broker]\n# rack = "R1"')
    assert load(BrokerConfig, path, {}).broker_rack == ""


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(BROKER.lstrip(), encoding="utf-8-sig")
    assert load(BrokerConfig, str(path), {}).node_id == 1


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
    [
        *sorted(CONFIGS),
        *("log.retention.ms", "log.segment.bytes", "log.retention.hours", "log.roll.ms"),
        *("log.flush.interval.ms", "log.cleanup.policy", "log.cleaner.min.cleanable.ratio"),
    ],
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
