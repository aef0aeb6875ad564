"""Wrong input: one sentence that says what is wrong, and what to do next."""

from __future__ import annotations

import re

import pytest

from tests.cluster.support import run_here
from tests.unit.quorate_cli.commands import Quorate

TOPICS = "`quorate topic list` show"
GROUPS = "`quorate group list` shows all groups"
BROKERS = "`quorate cluster info` lists the brokers"
SETTINGS = "`quorate cluster config` shows all settings"

#: The command, its exit status, and what its only line says. TOPIC stands for a topic of 3.
WRONG: list[tuple[str, int, tuple[str, ...]]] = [
    ("topic create bad/name", 1, ("'bad/name' has '/'",)),
    ("topic create new -p 0", 1, ("--partitions must be 1 to 10000 (-1: ", "not 0")),
    ("topic create new -r 9", 1, ("--replication-factor 9 is more than", BROKERS)),
    ("topic create new -c retention.m=1", 1, ("'retention.m'", "retention.ms", SETTINGS)),
    ("topic create new -c retention.ms=soon", 1, ("must be a whole number", "not 'soon'")),
    ("topic create new -c retention.ms", 2, ("--config takes NAME=VALUE",)),
    ("topic create TOPIC", 1, ("exists already: choose another name",)),
    ("topic describe missing", 1, ("'missing'", TOPICS)),
    ("topic describe TOPIC -o xml", 2, ("--output must be text or json, not 'xml'",)),
    ("topic alter missing -c retention.ms=1", 1, ("'missing'", TOPICS)),
    ("topic alter TOPIC -p 1", 1, ("the number can only grow; ask for 4 to 10000",)),
    ("topic delete missing", 1, ("'missing'", TOPICS)),
    ("topic produce missing", 1, ("'missing'", TOPICS)),
    ("topic consume missing", 1, ("'missing'", TOPICS)),
    ("topic consume TOPIC --partition 9", 1, ("has partitions 0 to 2, and no 9",)),
    (
        "topic consume TOPIC --offset 3 --partition 0",
        1,
        ("begins at offset 0 and ends before 0", "`quorate topic describe` shows what each"),
    ),
    ("topic tail missing", 1, ("'missing'", TOPICS)),
    ("topic tail TOPIC --partition 9", 1, ("has partitions 0 to 2, and no 9",)),
    ("topic trim missing --before end", 1, ("'missing'", TOPICS)),
    ("topic trim TOPIC --before 4", 2, ("name it (--partition 0 to 2)",)),
    ("group describe missing", 1, ("'missing'", GROUPS)),
    ("group delete missing", 1, ("'missing'", GROUPS)),
    ("group seek missing --to-earliest", 1, ("name the topics (--topic)",)),
    ("cluster unregister 77", 1, ("broker 77 is not registered", BROKERS)),
    ("cluster config --topic missing", 1, ("'missing'", TOPICS)),
    ("partition elect missing", 1, ("'missing'", TOPICS)),
    ("quorum transfer 77", 1, ("77 is not the id of a voter: voters are [100]",)),
    ("top --once --timeout 0", 2, ("--timeout must be 0.001 to 86400 s, not 0",)),
]


@pytest.mark.parametrize(("command", "status", "parts"), WRONG, ids=[one[0] for one in WRONG])
def test_wrong_input_is_told_in_one_line(
    quorate: Quorate, command: str, status: int, parts: tuple[str, ...]
) -> None:
    topic = quorate.topic(3) if "TOPIC" in command else ""
    said = quorate(*(topic if word == "TOPIC" else word for word in command.split()))
    assert (said.status, said.out) == (status, "")
    assert said.err.startswith("quorate: ")
    assert len(said.err.splitlines()) == 1
    assert [part for part in parts if part not in said.err] == []
    assert not re.search("[a-z]_[a-z]", said.err), "a name of the library"


def test_an_address_that_is_none_names_the_option(capfd: pytest.CaptureFixture[str]) -> None:
    for command in (["topic", "list"], ["bench", "consume"]):
        said = run_here([*command, "--bootstrap", "nohost"], capfd, b"")
        assert (said.status, said.out) == (2, "")
        assert said.err.startswith('quorate: --bootstrap must be "HOST:PORT"')


def test_the_port_of_kafka_clients_is_told_from_a_cluster_that_is_down(quorate: Quorate) -> None:
    kafka = quorate.cluster.kafka_bootstrap_servers
    said = quorate("topic", "list", "--timeout", "3600", bootstrap=kafka)  # it is not waited for
    assert (said.status, said.out) == (1, "")
    assert f"{kafka} speaks the Kafka protocol, and Quorate's clients use another" in said.err
    assert "`quorate cluster info` lists" in said.err
