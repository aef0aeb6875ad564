"""The command against a cluster: shapes of JSON, exit statuses, where diagnostics go."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import free_port
from tests.cluster.support import Answer, create, create_on, run_process, write

Command = Callable[..., Answer]
README = Path(__file__).parents[2] / "README.md"


def test_the_first_program_of_the_readme_runs_as_printed(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    program = next(
        block
        for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
        if "asyncio.run(main())" in block
    )
    assert program.count('"localhost:7092"') == 3
    first = cluster.brokers[0].endpoint.replace("127.0.0.1", "localhost")
    file = tmp_path / "first.py"
    file.write_text(program.replace("localhost:7092", first))
    for _ in range(2):  # the second time the topic is there already
        done = subprocess.run(
            [sys.executable, str(file)], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert re.fullmatch(r"invoice \d 0 b'customer-42' b'9\.50'\n", done.stdout)


def test_topic_describe_has_the_shape_of_the_reference(quorate: Command) -> None:
    assert quorate("topic", "create", "shape", "-p", "2", "-c", "retention.ms=5000").status == 0
    found = quorate("topic", "describe", "shape", "-o", "json").json
    assert list(found) == ["name", "topic_id", "partitions", "configs"]
    assert found["name"] == "shape"
    assert re.fullmatch(r"[0-9a-f]{32}", found["topic_id"])
    assert found["configs"]["retention.ms"] == "5000"
    assert [one["partition"] for one in found["partitions"]] == [0, 1]
    for one in found["partitions"]:
        assert list(one) == [
            "partition", "leader", "leader_epoch", "replicas", "isr", "elr", "offline",
            "adding", "out_of_sync", "log_start_offset", "log_end_offset", "size",
        ]  # fmt: skip
        assert sorted(one["replicas"]) == sorted(one["isr"]) == [0, 1, 2]
        assert one["leader"] == one["replicas"][0]
        assert one["elr"] == []


def test_cluster_info_has_the_shape_of_the_reference(
    quorate: Command, cluster: LocalCluster
) -> None:
    found = quorate("cluster", "info", "-o", "json").json
    assert list(found) == ["cluster_id", "controller", "brokers"]
    assert found["cluster_id"] == cluster.cluster_id
    assert found["controller"] in [voter.id for voter in cluster.voters]
    assert [list(one) for one in found["brokers"]] == [
        [
            "id", "rack", "host", "endpoint", "fenced", "broker_epoch",
            "log_dirs", "failed_log_dirs", "drained", "pid",
        ]
    ] * 3  # fmt: skip
    for one, node in zip(found["brokers"], cluster.brokers, strict=True):
        assert (one["id"], one["rack"], one["endpoint"]) == (node.id, node.rack, node.endpoint)
        assert one["fenced"] is False
        assert (one["log_dirs"], one["failed_log_dirs"]) == (1, 0)
        assert one["pid"] == cluster.processes[node.id].pid


def test_quorum_describe_has_the_shape_of_the_reference(
    quorate: Command, cluster: LocalCluster
) -> None:
    found = quorate("quorum", "describe", "-o", "json").json
    assert list(found) == [
        "leader", "epoch", "quorum_generation", "high_watermark", "voters", "observers",
    ]  # fmt: skip
    assert found["observers"] == []
    assert found["leader"] in [one["id"] for one in found["voters"]]
    for one, node in zip(found["voters"], cluster.voters, strict=True):
        assert list(one) == [
            "id", "directory_id", "endpoint", "log_end_offset", "lag", "last_caught_up_ms", "pid",
        ]  # fmt: skip
        assert (one["id"], one["endpoint"]) == (node.id, node.endpoint)
        assert one["pid"] == cluster.processes[node.id].pid


def test_quorum_transfer_moves_the_leader_and_says_so_when_repeated(
    quorate: Command, cluster: LocalCluster
) -> None:
    """The rule transfer, end to end. Each answer comes from the leader that made way."""

    def leader() -> int:
        found: int = quorate("quorum", "describe", "-o", "json").json["leader"]
        return found

    for voter in [*(one.id for one in cluster.voters), cluster.voters[0].id]:
        was = leader()
        moved = quorate("quorum", "transfer", str(voter), "-o", "json")
        assert (moved.status, moved.json) == (0, {"leader": voter, "already": voter == was})
        assert leader() == voter
        again = quorate("quorum", "transfer", str(voter))
        assert (again.status, again.out) == (0, f"voter {voter} leads already\n")
    any_other = quorate("quorum", "transfer", "-o", "json")
    assert any_other.status == 0
    assert any_other.json["leader"] == leader() != cluster.voters[0].id
    assert quorate("topic", "create", "afterwards", "-p", "1").status == 0


def test_topic_produce_counts_and_consume_prints_a_line_a_record(quorate: Command) -> None:
    quorate("topic", "create", "lines", "-p", "1")
    produced = quorate(
        "topic", "produce", "lines", "--key-separator", ":", "-o", "json", stdin=b"a:1\nb:2\n3\n"
    )
    assert (produced.status, produced.json) == (0, {"acked": 3, "failed": 0})
    consumed = quorate("topic", "consume", "lines", "--from-beginning", "--until-end", "-o", "json")
    assert [list(line) for line in consumed.lines] == [
        ["partition", "offset", "timestamp_ms", "key", "value", "headers"]
    ] * 3
    assert [(line["offset"], line["key"], line["value"]) for line in consumed.lines] == [
        (0, "a", "1"), (1, "b", "2"), (2, None, "3"),
    ]  # fmt: skip
    counted = quorate("topic", "consume", "lines", "--from-beginning", "--count", "2")
    assert (counted.status, len(counted.out.splitlines())) == (0, 2)


def test_topic_produce_says_once_why_a_record_failed_and_what_to_do(quorate: Command) -> None:
    quorate("topic", "create", "small", "-p", "1", "-c", "max.message.bytes=2000")
    lines = b"x" * 5000 + b"\n" + b"y\n" * 3
    said = quorate("topic", "produce", "small", "-o", "json", stdin=lines)
    assert (said.status, said.json["failed"]) == (1, 1)
    assert said.err.count("max.message.bytes is 2000") == len(said.err.splitlines()) == 1
    assert said.err.startswith("quorate: topic small: ")
    assert said.err.endswith(
        "[RECORD_TOO_LARGE]. Send less in one record, or raise the limit that the message names.\n"
    )


def test_topic_create_takes_the_clusters_number_of_partitions(quorate: Command) -> None:
    assert quorate("cluster", "config", "-c", "num.partitions=3").status == 0
    assert quorate("topic", "create", "many").status == 0
    assert quorate("cluster", "config", "--remove", "num.partitions").status == 0
    assert len(quorate("topic", "describe", "many", "-o", "json").json["partitions"]) == 3


def test_topic_consume_starts_where_it_is_told(quorate: Command, cluster: LocalCluster) -> None:
    asyncio.run(create(cluster, "from", 2))
    before = time.time_ns() // 1_000_000
    for partition in (0, 1):
        asyncio.run(write(cluster, "from", [b"%d" % n for n in range(3)], partition=partition))

    def read(*where: str) -> list[str]:
        said = quorate("topic", "consume", "from", "--until-end", "--format", FORMAT, *where)
        assert (said.status, said.err) == (0, "")
        return sorted(said.out.splitlines())

    every = ["0/0=0", "0/1=1", "0/2=2", "1/0=0", "1/1=1", "1/2=2"]
    assert read("--from-beginning") == read("--from-time", str(before)) == every
    assert read("--from-time", "2999-01-01") == []
    assert read("--offset", "2", "--partition", "1") == ["1/2=2"]
    assert read("--offset", "1", "--partition", "0", "--partition", "1") == [
        "0/1=1", "0/2=2", "1/1=1", "1/2=2",
    ]  # fmt: skip
    assert read("--partition", "1", "--from-beginning") == every[3:]
    assert read("--offset", "3", "--partition", "1") == []


FORMAT = "{partition}/{offset}={value}"


def test_a_topic_is_listed_altered_and_deleted(quorate: Command) -> None:
    quorate("topic", "create", "brief")
    assert "brief" in quorate("topic", "list", "-o", "json").json
    assert quorate("topic", "alter", "brief", "-c", "max.message.bytes=2000").err == ""
    assert quorate("topic", "alter", "brief", "-c", "retention.ms=1").status == 0
    described = quorate("topic", "describe", "brief", "-o", "json").json
    assert described["configs"]["max.message.bytes"] == "2000"
    assert quorate("topic", "delete", "brief").status == 0
    assert "brief" not in quorate("topic", "list").out.splitlines()


def test_a_topic_gets_more_partitions(quorate: Command) -> None:
    quorate("topic", "create", "growing", "-p", "2", "-r", "3")
    said = quorate("topic", "alter", "growing", "-p", "5", "-c", "retention.ms=1", "-o", "json")
    assert (said.status, said.json) == (0, {"altered": "growing", "partitions": 5})
    described = quorate("topic", "describe", "growing", "-o", "json").json
    assert [len(one["isr"]) for one in described["partitions"]] == [3] * 5
    assert described["configs"]["retention.ms"] == "1"
    for count, asked in (("5", "and 5"), ("3", "and 3"), ("0", "and 0"), ("10001", "and 10001")):
        said = quorate("topic", "alter", "growing", "-p", count, "-c", "retention.ms=7")
        assert (said.status, said.out) == (1, "")
        assert f"has 5 partitions, {asked} were asked for" in said.err
        assert "ask for 6 to 10000 [INVALID_PARTITIONS]" in said.err
    again = quorate("topic", "describe", "growing", "-o", "json").json
    assert len(again["partitions"]) == 5
    assert again["configs"]["retention.ms"] == "1", "a refused number changes no setting"


def test_health_is_status_0_when_nothing_is_wrong(quorate: Command) -> None:
    healthy = quorate("cluster", "health", "-o", "json")
    assert (healthy.status, healthy.json["healthy"]) == (0, True)


def test_what_is_piped_is_plain_and_diagnostics_are_apart(cluster: LocalCluster) -> None:
    """As a process of its own, with no terminal anywhere."""
    asyncio.run(create(cluster, "plain", 1))
    said = run_process(
        "topic", "describe", "plain", env={"QUORATE_BOOTSTRAP": cluster.bootstrap_servers}
    )
    assert (said.status, said.err) == (0, "")
    header, row, *_ = said.out.splitlines()
    assert header.split()[:2] == ["partition", "leader"]
    assert sorted(row[header.index("replicas") :][:5].split(",")) == ["0", "1", "2"]
    assert "\x1b" not in said.out
    no = run_process("topic", "describe", "nope", "--bootstrap", cluster.bootstrap_servers)
    assert (no.status, no.out) == (1, "")
    assert "nope" in no.err
    assert no.err.endswith("[UNKNOWN_TOPIC]\n")


SAID_NO = {
    "topic with a slash": (["topic", "create", "a/b"], "'a/b' has '/' [INVALID_TOPIC]"),
    "topic of 250 letters": (["topic", "create", "x" * 250], "1 to 249 characters"),
    "topic without a name": (["topic", "create", ""], "[INVALID_TOPIC]"),
    "topic named .": (["topic", "create", "."], "'.'"),
    "topic named ..": (["topic", "create", ".."], "'..'"),
    "no partitions": (["topic", "create", "p", "-p", "0"], "not 0 [INVALID_PARTITIONS]"),
    "-5 partitions": (["topic", "create", "p", "-p", "-5"], "not -5 [INVALID_PARTITIONS]"),
    "2e9 partitions": (["topic", "create", "p", "-p", "2000000000"], "[INVALID_PARTITIONS]"),
    "1e11 partitions": (["topic", "create", "p", "-p", "99999999999"], "[INVALID_PARTITIONS]"),
    "four replicas on three brokers": (
        ["topic", "create", "p", "-r", "4"],
        "--replication-factor 4 is more than the 3 registered brokers",
    ),
    "1e11 replicas": (["topic", "create", "p", "-r", "99999999999"], "not 99999999999 [INVALID_R"),
    "misspelt config": (["topic", "create", "p", "-c", "retention.mss=3"], "retention.ms?"),
    "bad value": (["topic", "create", "p", "-c", "retention.ms=abc"], "not 'abc'"),
    "out of range": (["topic", "create", "p", "-c", "min.insync.replicas=0"], "1 to 1000, not '0'"),
    "retention.ms below -1": (
        ["topic", "create", "p", "-c", "retention.ms=-2"],
        "retention.ms must be a whole number, -1 or more, not '-2'",
    ),
    "retention.bytes below -1": (
        ["topic", "alter", "shared", "-c", "retention.bytes=-2"],
        "retention.bytes must be a whole number, -1 or more, not '-2'",
    ),
    "policy that does not exist": (
        ["topic", "alter", "shared", "-c", "cleanup.policy=shred"],
        "cleanup.policy must be 'delete', 'compact', 'compact,delete', or '' to keep everything,"
        " not 'shred'",
    ),
    "trim above the high watermark": (
        ["topic", "trim", "shared", "--before", "5"],
        "the high watermark is 0",
    ),
    "bad config of the cluster": (["cluster", "config", "-c", "segment.byte=1"], "segment.bytes"),
    "unknown topic described": (["topic", "describe", "no"], "'no'"),
    "unknown topic deleted": (["topic", "delete", "no"], "'no'"),
    "unknown topic altered": (["topic", "alter", "no", "-c", "retention.ms=1"], "'no'"),
    "unknown topic grown": (["topic", "alter", "no", "-p", "3"], "'no'"),
    "partitions taken away": (["topic", "alter", "shared", "-p", "-1"], "and -1 were asked for"),
    "unknown topic written": (["topic", "produce", "no"], "'no'"),
    "unknown topic read": (["topic", "consume", "no", "--until-end"], "'no'"),
    "leadership to nobody": (["quorum", "transfer", "7"], "7 is not the id of a voter"),
    "partition that is not there": (
        ["topic", "consume", "shared", "--partition", "7"],
        "topic 'shared' has partitions 0 to 0, and no 7",
    ),
    "offset above the end": (
        ["topic", "consume", "shared", "--partition", "0", "--offset", "5"],
        "shared/0 begins at offset 0 and ends before 0; --offset 5 is outside",
    ),
    "living broker unregistered": (["cluster", "unregister", "0"], "runs: stop it first"),
    "unknown broker unregistered": (["cluster", "unregister", "9"], "[UNKNOWN_BROKER]"),
}


@pytest.mark.parametrize("case", SAID_NO)
def test_status_1_the_cluster_says_no_and_why(quorate: Command, case: str) -> None:
    arguments, words = SAID_NO[case]
    if "shared" in arguments:
        quorate("topic", "create", "shared")
    said = quorate(*arguments)
    assert (said.status, said.out) == (1, "")
    assert words in said.err
    assert said.err.startswith("quorate: ")
    assert len(said.err.splitlines()) == 1


WRONG_USAGE = {
    "unknown verb": (["topic", "frob"], "frob"),
    "unknown option": (["topic", "list", "--frob"], "--frob"),
    "no name": (["topic", "create"], "NAME"),
    "no number": (["topic", "create", "p", "-p", "many"], "--partitions"),
    "output": (["cluster", "info", "-o", "xml"], "text or json, not 'xml'"),
    "config without =": (["topic", "create", "p", "-c", "retention.ms"], "NAME=VALUE"),
    "no voter's id": (["quorum", "transfer", "one"], "[ID]"),
    "acks": (["topic", "produce", "p", "--acks", "2"], "all, 1 or 0, not '2'"),
    "timeout of nothing": (["topic", "list", "--timeout", "0"], "--timeout"),
    "timeout that is no number": (["topic", "list", "--timeout", "nan"], "--timeout"),
    "nothing to alter": (["topic", "alter", "p"], "at least one"),
    "two places to start": (
        ["topic", "consume", "p", "--from-beginning", "--from-time", "0"],
        "exclude each other",
    ),
    "offset of every partition": (["topic", "consume", "p", "--offset", "0"], "--partition"),
    "format of JSON": (["topic", "consume", "p", "--format", "{key}", "-o", "json"], "--format"),
    "unknown field": (["topic", "consume", "p", "--format", "{foo}"], "{timestamp_ms}"),
    "no time": (["topic", "consume", "p", "--from-time", "soon"], "'soon'"),
    "time before 1970": (
        ["topic", "consume", "p", "--from-time", "1960-01-01"],
        "since 1970, not '1960-01-01'",
    ),
    "negative time": (["topic", "consume", "p", "--from-time", "-5"], "since 1970, not '-5'"),
    "trim to a negative offset": (["topic", "trim", "p", "--before", "-5"], "not '-5'"),
    "trim to a time before 1970": (
        ["topic", "trim", "p", "--before", "1960-01-01"],
        "a time since 1970 as 2026-01-31T12:00:00, or 'end', not '1960-01-01'",
    ),
    "no records": (["topic", "consume", "p", "--count", "0"], "--count"),
    "negative wait": (["cluster", "health", "--wait", "-1"], "--wait"),
    "missing file": (["topic", "produce", "shared2", "--file", "/no/such"], "/no/such"),
}


@pytest.mark.parametrize("case", WRONG_USAGE)
def test_status_2_wrong_usage(quorate: Command, case: str) -> None:
    arguments, words = WRONG_USAGE[case]
    if "shared2" in arguments:
        quorate("topic", "create", "shared2")
    said = quorate(*arguments)
    assert (said.status, said.out) == (2, "")
    assert words in said.err


@pytest.mark.parametrize("servers", ["localhost", "localhost:0", "localhost:99999", ":7092", ","])
def test_status_2_an_address_that_is_none(quorate: Command, servers: str) -> None:
    said = quorate("topic", "list", bootstrap=servers)
    assert (said.status, said.out) == (2, "")
    assert "bootstrap" in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["cluster", "info"],
        ["cluster", "health"],
        ["cluster", "health", "--wait", "0.1"],
        ["cluster", "unregister", "0"],
        ["topic", "list"],
        ["topic", "produce", "t"],
        ["topic", "consume", "t"],
        ["quorum", "describe"],
        ["quorum", "transfer"],
        ["quorum", "transfer", "101"],
    ],
    ids=" ".join,
)
def test_status_3_nobody_answers(quorate: Command, arguments: list[str]) -> None:
    nobody = f"127.0.0.1:{free_port(1)}"
    said = quorate(*arguments, "--timeout", "0.2", bootstrap=nobody)
    assert (said.status, said.out) == (3, "")
    assert nobody in said.err


def test_a_key_and_headers_that_are_no_text_are_printed_escaped(
    quorate: Command, cluster: LocalCluster
) -> None:
    asyncio.run(create(cluster, "bytes", 1))
    asyncio.run(write(cluster, "bytes", [b"\xff\x00\n"]))
    consumed = quorate(
        "topic", "consume", "bytes", "--from-beginning", "--count", "1", "-o", "json"
    )
    assert json.loads(consumed.out)["value"] == "\\xff\x00\n"


def test_a_reader_that_has_enough_ends_the_command_without_a_word(
    quorate: Command, cluster: LocalCluster
) -> None:
    assert quorate("topic", "create", "head").status == 0
    asyncio.run(write(cluster, "head", [b"%d" % number for number in range(20_000)]))
    program = "from quorate_cli.app import main; main()"
    command = [sys.executable, "-c", program, "topic", "consume", "head", "--from-beginning"]
    with subprocess.Popen(
        [*command, "--bootstrap", cluster.bootstrap_servers],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\t0\t0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_what_a_silent_leader_does_not_answer_ends_at_the_timeout_with_status_3(
    quorate: Command, cluster: LocalCluster
) -> None:
    """Records that it does not acknowledge, and records that it holds and does not give."""
    asyncio.run(create_on(cluster, "silent", 2))
    assert quorate("topic", "produce", "silent", stdin=b"one\n").status == 0
    cluster.signal(2, signal.SIGSTOP)
    try:
        others = ",".join(one.endpoint for one in cluster.brokers[:2])
        for arguments in (
            ["topic", "produce", "silent", "-o", "json"],
            ["topic", "consume", "silent", "--from-beginning", "--until-end"],
        ):
            said = quorate(*arguments, "--timeout", "2", bootstrap=others, stdin=b"two\nthree\n")
            assert said.status == 3, said
            assert said.err.startswith("quorate: ")
            assert "Traceback" not in said.err
    finally:
        cluster.signal(2, signal.SIGCONT)
        assert quorate("cluster", "health", "--wait", "30").status == 0
