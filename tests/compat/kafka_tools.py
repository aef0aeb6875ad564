"""Kafka's own command-line tools: what each `kafka-*.sh` does, by the class that it starts."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.compat import jars
from tests.compat.results import Case
from tests.compat.servers import BROKERS, Servers

TOOLS = "org.apache.kafka.tools"
TOPICS = f"{TOOLS}.TopicCommand"
CONFIGS = "kafka.admin.ConfigCommand"
GROUPS = f"{TOOLS}.consumer.group.ConsumerGroupCommand"
PRODUCE = f"{TOOLS}.ConsoleProducer"
CONSUME = f"{TOOLS}.consumer.ConsoleConsumer"
OFFSETS = f"{TOOLS}.GetOffsetShell"
ELECT = f"{TOOLS}.LeaderElectionCommand"
QUORUM = f"{TOOLS}.MetadataQuorumCommand"
CLUSTER = f"{TOOLS}.ClusterTool"
REASSIGN = f"{TOOLS}.reassign.ReassignPartitionsCommand"
WAIT_S = 90
RECORDS = 100
#: The timestamp of the first record: each has another.
FIRST_MS = 1_790_000_000_000


class Tools:
    """Runs the tools against one cluster, and makes what they work on."""

    def __init__(self, servers: Servers, folder: Path) -> None:
        self.servers = servers
        self.bootstrap = servers.bootstrap
        self._folder = folder
        self._numbers = itertools.count(1)
        self._admin = AdminClient({"bootstrap.servers": self.bootstrap})
        self._host = subprocess.Popen(
            jars.java("ToolHost", heap="512m"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        main: str,
        *arguments: object,
        stdin: str = "",
        status: int = 0,
        server: str = "--bootstrap-server",
    ) -> str:
        """Run a tool; return what it prints. The exit status must be `status`."""
        given = [server, self.bootstrap] if server else []
        asked = {
            "main": main,
            "args": [str(one) for one in (*given, *arguments)],
            "stdin": stdin,
            "seconds": WAIT_S,
        }
        assert self._host.stdin is not None
        assert self._host.stdout is not None
        self._host.stdin.write(json.dumps(asked) + "\n")
        self._host.stdin.flush()
        done = json.loads(self._host.stdout.readline())
        said = str(done["out"])
        assert done["status"] == status, f"status {done['status']}, not {status}: {said}"
        return said

    def run_alone(self, main: str, *arguments: object) -> str:
        """Run a tool that does the last of its work when its JVM ends."""
        done = subprocess.run(
            jars.java(main, "--bootstrap-server", self.bootstrap, *arguments),
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def close(self) -> None:
        """End the JVM that runs the tools."""
        self._host.kill()
        self._host.wait()

    def name(self, kind: str) -> str:
        """Return a name for a topic or group that is not used yet."""
        return f"{kind}-{next(self._numbers)}"

    def file(self, name: str, text: str) -> Path:
        """Write a file, which a tool reads."""
        path = self._folder / name
        path.write_text(text)
        return path

    def topic(self, partitions: int = 3, records: int = 0, **configs: str) -> str:
        """Create a topic with three replicas, write records one by one to its partitions."""
        name = self.name("topic")
        named = {key.replace("_", "."): value for key, value in configs.items()}
        new = NewTopic(name, partitions, BROKERS, config=named)
        self._admin.create_topics([new])[name].result(WAIT_S)
        producer = Producer({"bootstrap.servers": self.bootstrap})
        for number in range(records):
            value = b"value-%d" % number
            producer.produce(
                name, value, key=b"%d" % number, partition=number % partitions,
                timestamp=FIRST_MS + number,
            )  # fmt: skip
        assert producer.flush(WAIT_S) == 0
        return name

    def group(self, topic: str) -> str:
        """Read a topic to its end in a group, which commits; return the group's name."""
        name = self.name("group")
        count = ["--max-messages", RECORDS, "--timeout-ms", 30_000]
        self.run(CONSUME, "--topic", topic, "--group", name, "--from-beginning", *count)
        return name


CASES: dict[str, Callable[[Tools], None]] = {}


def case(name: str) -> Callable[[Callable[[Tools], None]], Callable[[Tools], None]]:
    """Add a case to the suite."""

    def add(function: Callable[[Tools], None]) -> Callable[[Tools], None]:
        CASES[name] = function
        return function

    return add


def run(servers: Servers, folder: Path, only: list[str]) -> Iterator[Case]:
    """Run the cases in their order."""
    tools = Tools(servers, folder)
    chosen = [name for name in CASES if not only or any(name.startswith(one) for one in only)]
    try:
        for name in chosen:
            try:
                CASES[name](tools)
            except Exception as error:  # each case of its own
                yield Case(name, "failed", str(error)[-1500:])
            else:
                yield Case(name, "passed")
    finally:
        tools.close()


def seen(pattern: str, text: str) -> re.Match[str]:
    """Return the match of the pattern in what a tool printed."""
    match = re.search(pattern, text, re.MULTILINE)
    assert match, f"no {pattern!r} in: {text}"
    return match


# -- topics and their configs ------------------------------------------------------------------


@case("kafka-topics --create, --describe, --list")
def _(tools: Tools) -> None:
    name = tools.name("made")
    sizes = ["--partitions", 4, "--replication-factor", 3]
    asked = ["--create", "--topic", name, *sizes, "--config", "retention.ms=3600000"]
    assert f"Created topic {name}." in tools.run(TOPICS, *asked)
    told = tools.run(TOPICS, "--describe", "--topic", name)
    seen(rf"Topic: {name}\s+TopicId: \S{{22}}\s+PartitionCount: 4\s+ReplicationFactor: 3\s", told)
    seen(r"Configs: .*retention\.ms=3600000", told)
    assert len(re.findall(r"Leader: \d+\s+Replicas: \d,\d,\d\s+Isr: \d,\d,\d", told)) == 4, told
    assert name in tools.run(TOPICS, "--list").split()


@case("kafka-topics --create with defaults of the cluster")
def _(tools: Tools) -> None:
    name = tools.name("made")
    tools.run(TOPICS, "--create", "--topic", name)
    seen(r"PartitionCount: [1-9]", tools.run(TOPICS, "--describe", "--topic", name))


@case("kafka-topics --create --replica-assignment")
def _(tools: Tools) -> None:
    name, first = tools.name("made"), tools.servers.first_id
    placed = f"{first}:{first + 1},{first + 2}:{first}"
    tools.run(TOPICS, "--create", "--topic", name, "--replica-assignment", placed)
    told = tools.run(TOPICS, "--describe", "--topic", name)
    seen(rf"Partition: 1\s+Leader: {first + 2}\s+Replicas: {first + 2},{first}\s", told)


@case("kafka-topics --create of a topic that exists")
def _(tools: Tools) -> None:
    name = tools.topic()
    asked = ["--create", "--topic", name]
    assert "exists" in tools.run(TOPICS, *asked, status=1)
    tools.run(TOPICS, *asked, "--if-not-exists")


@case("kafka-topics --create with wrong values")
def _(tools: Tools) -> None:
    wrong = {
        "InvalidReplicationFactorException": ("--replication-factor", "9"),
        "Invalid value often": ("--config", "retention.ms=often"),
    }
    for error, asked in wrong.items():
        said = tools.run(TOPICS, "--create", "--topic", tools.name("made"), *asked, status=1)
        assert error in said, said


@case("kafka-topics --alter --partitions")
def _(tools: Tools) -> None:
    name = tools.topic(partitions=2)
    tools.run(TOPICS, "--alter", "--topic", name, "--partitions", 5)
    seen(r"PartitionCount: 5", tools.run(TOPICS, "--describe", "--topic", name))
    fewer = tools.run(TOPICS, "--alter", "--topic", name, "--partitions", 3, status=1)
    assert "InvalidPartitionsException" in fewer, fewer


@case("kafka-topics --delete")
def _(tools: Tools) -> None:
    name = tools.topic()
    tools.run(TOPICS, "--delete", "--topic", name)
    assert name not in tools.run(TOPICS, "--list").split()
    tools.run(TOPICS, "--delete", "--topic", name, status=1)
    tools.run(TOPICS, "--delete", "--topic", name, "--if-exists")


@case("kafka-topics --describe --topics-with-overrides, --under-replicated-partitions")
def _(tools: Tools) -> None:
    name = tools.topic(retention_ms="1234567")
    assert name in tools.run(TOPICS, "--describe", "--topics-with-overrides")
    assert name not in tools.run(TOPICS, "--describe", "--under-replicated-partitions")
    assert name not in tools.run(TOPICS, "--describe", "--unavailable-partitions")


@case("kafka-configs of topics: --describe, --alter, --delete-config")
def _(tools: Tools) -> None:
    entity = ["--entity-type", "topics", "--entity-name", tools.topic()]
    added = ["--add-config", "retention.ms=86400000,cleanup.policy=[compact,delete]"]
    tools.run(CONFIGS, "--alter", *entity, *added)
    told = tools.run(CONFIGS, "--describe", *entity)
    seen(r"retention\.ms=86400000 .*DYNAMIC_TOPIC_CONFIG:retention\.ms=86400000", told)
    seen(r"cleanup\.policy=compact,delete ", told)
    tools.run(CONFIGS, "--alter", *entity, "--delete-config", "retention.ms")
    assert "retention.ms=86400000" not in tools.run(CONFIGS, "--describe", *entity)
    seen(r"segment\.bytes=\d+", tools.run(CONFIGS, "--describe", *entity, "--all"))


@case("kafka-configs of brokers: --describe --all")
def _(tools: Tools) -> None:
    entity = ["--entity-type", "brokers", "--entity-name", tools.servers.first_id]
    told = tools.run(CONFIGS, "--describe", *entity, "--all")
    seen(r"log\.retention\.ms=", told)
    seen(r"default\.replication\.factor=-?\d", told)


@case("kafka-configs of brokers: --alter")
def _(tools: Tools) -> None:
    entity = ["--entity-type", "brokers", "--entity-default"]
    tools.run(CONFIGS, "--alter", *entity, "--add-config", "log.retention.ms=7200000")
    seen(r"log\.retention\.ms=7200000", tools.run(CONFIGS, "--describe", *entity))
    tools.run(CONFIGS, "--alter", *entity, "--delete-config", "log.retention.ms")


@case("kafka-configs of groups: --describe, --alter")
def _(tools: Tools) -> None:
    entity = ["--entity-type", "groups", "--entity-name", tools.name("group")]
    tools.run(CONFIGS, "--alter", *entity, "--add-config", "consumer.session.timeout.ms=50000")
    seen(r"session\.timeout\.ms=50000", tools.run(CONFIGS, "--describe", *entity))


@case("kafka-configs of clients, users and metrics: --describe")
def _(tools: Tools) -> None:
    for kind in ("clients", "users", "client-metrics"):
        tools.run(CONFIGS, "--describe", "--entity-type", kind)


# -- records -----------------------------------------------------------------------------------


@case("kafka-console-producer and -consumer")
def _(tools: Tools) -> None:
    name = tools.topic()
    lines = [f"key{i}:value {i}" for i in range(RECORDS)]
    parse = ["--property", "parse.key=true", "--property", "key.separator=:"]
    tools.run(PRODUCE, "--topic", name, *parse, stdin="\n".join(lines) + "\n")
    shown = ["--formatter-property", "print.key=true", "--formatter-property", "key.separator=:"]
    end = ["--from-beginning", "--max-messages", RECORDS, "--timeout-ms", 30_000]
    read = tools.run(CONSUME, "--topic", name, *shown, *end).splitlines()
    assert sorted(line for line in read if line.startswith("key")) == sorted(lines), read


@case("kafka-console-producer with each codec")
def _(tools: Tools) -> None:
    name = tools.topic(partitions=1)
    codecs = ("none", "gzip", "snappy", "lz4", "zstd")
    for codec in codecs:
        asked = ["--topic", name, "--compression-codec", codec]
        tools.run(PRODUCE, *asked, stdin=f"by {codec}\n" * 3)
    end = ["--from-beginning", "--max-messages", 3 * len(codecs), "--timeout-ms", 30_000]
    read = tools.run(CONSUME, "--topic", name, *end)
    assert all(read.count(f"by {codec}\n") == 3 for codec in codecs), read


@case("kafka-console-producer with acks=0 and acks=1, headers")
def _(tools: Tools) -> None:
    name = tools.topic(partitions=1)
    parse = ["--property", "parse.headers=true", "--property", "parse.key=false"]
    for acks in ("0", "1"):
        plain = ["--producer-property", f"acks={acks}", "--producer-property"]
        asked = ["--topic", name, *plain, "enable.idempotence=false", *parse]
        tools.run(PRODUCE, *asked, stdin=f"one:1,two:2\twith {acks}\n")
    shown = ["--formatter-property", "print.headers=true"]
    end = ["--from-beginning", "--max-messages", 2, "--timeout-ms", 30_000]
    read = tools.run(CONSUME, "--topic", name, *shown, *end)
    for acks in ("0", "1"):
        assert f"one:1,two:2\twith {acks}" in read, read


@case("kafka-console-consumer --partition --offset")
def _(tools: Tools) -> None:
    name = tools.topic(partitions=1, records=10)
    shown = ["--formatter-property", "print.offset=true"]
    asked = ["--partition", 0, "--offset", 7, "--max-messages", 3, "--timeout-ms", 30_000]
    read = tools.run(CONSUME, "--topic", name, *shown, *asked)
    seen(r"Offset:7\tvalue-7\nOffset:8\tvalue-8\nOffset:9\tvalue-9\n", read)


@case("kafka-console-consumer --include (pattern)")
def _(tools: Tools) -> None:
    name = tools.topic(records=10)
    asked = ["--include", f"no-such|{name}", "--from-beginning", "--max-messages", 10]
    assert "value-9" in tools.run(CONSUME, *asked, "--timeout-ms", 30_000)


@case("kafka-console-consumer with group.protocol=consumer (KIP-848)")
def _(tools: Tools) -> None:
    name = tools.topic(records=10)
    asked = ["--from-beginning", "--max-messages", 10, "--timeout-ms", 30_000]
    told = tools.run(
        CONSUME, "--topic", name, *asked, "--consumer-property", "group.protocol=consumer"
    )
    assert "value-9" in told, told


@case("kafka-console-consumer of __consumer_offsets")
def _(tools: Tools) -> None:
    topic = tools.topic(records=RECORDS)
    group = tools.group(topic)
    formatter = ["--formatter", f"{TOOLS}.consumer.OffsetsMessageFormatter"]
    asked = ["--topic", "__consumer_offsets", "--from-beginning", "--timeout-ms", 10_000]
    told = tools.run(CONSUME, *asked, *formatter)
    pattern = rf'"group":"{group}","topic":"{topic}","partition":(\d)'
    assert set(re.findall(pattern, told)) == {"0", "1", "2"}, told


@case("kafka-producer-perf-test")
def _(tools: Tools) -> None:
    asked = ["--topic", tools.topic(), "--num-records", 20_000, "--record-size", 100]
    asked += ["--throughput", -1, "--producer-props", f"bootstrap.servers={tools.bootstrap}"]
    told = tools.run(f"{TOOLS}.ProducerPerformance", *asked, server="")
    seen(r"^20000 records sent", told)


@case("kafka-consumer-perf-test")
def _(tools: Tools) -> None:
    topic = tools.topic(records=3000)
    asked = ["--topic", topic, "--messages", 3000, "--group", tools.name("group")]
    seen(r", 3000, ", tools.run(f"{TOOLS}.ConsumerPerformance", *asked))


@case("kafka-e2e-latency")
def _(tools: Tools) -> None:
    topic = tools.topic(partitions=1)
    asked = ["--topic", topic, "--num-records", 100, "--producer-acks", "all", "--record-size", 20]
    told = tools.run(f"{TOOLS}.EndToEndLatency", "--bootstrap-server", tools.bootstrap, *asked,
                     server="")  # fmt: skip
    seen(r"Avg latency", told)


@case("kafka-verifiable-producer and -consumer")
def _(tools: Tools) -> None:
    _verifiable(tools, "classic")


@case("kafka-verifiable-consumer with group.protocol=consumer (KIP-848)")
def _(tools: Tools) -> None:
    _verifiable(tools, "consumer")


def _verifiable(tools: Tools, protocol: str) -> None:
    topic = tools.topic()
    asked = ["--topic", topic, "--max-messages", 1000, "--acks", "-1"]
    told = tools.run_alone(f"{TOOLS}.VerifiableProducer", *asked)
    seen(r'"acked":1000', told)
    group = ["--group-id", tools.name("group"), "--group-protocol", protocol]
    end = ["--reset-policy", "earliest", "--max-messages", 1000, "--verbose"]
    told = tools.run_alone(f"{TOOLS}.VerifiableConsumer", "--topic", topic, *group, *end)
    events = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    values = [int(one["value"]) for one in events if one["name"] == "record_data"]
    assert sorted(values) == list(range(1000)), told[-500:]
    commits = [one for one in events if one["name"] == "offsets_committed"]
    assert commits, told[-500:]
    assert all(one["success"] for one in commits), commits


@case("ClientCompatibilityTest")
def _(tools: Tools) -> None:
    told = tools.run(
        f"{TOOLS}.ClientCompatibilityTest", "--topic", tools.topic(partitions=1),
        "--offsets-for-times-supported", "true", "--cluster-id-supported", "true",
        "--expect-record-too-large-exception", "false", "--num-cluster-nodes", BROKERS,
        "--create-topics-supported", "true", "--describe-acls-supported", "true",
        "--describe-configs-supported", "true", "--idempotent-producer-supported", "true",
    )  # fmt: skip
    seen(r"^SUCCESS\.", told)


# -- groups ------------------------------------------------------------------------------------


@case("kafka-consumer-groups --list, --describe")
def _(tools: Tools) -> None:
    topic = tools.topic(records=RECORDS)
    group = tools.group(topic)
    assert group in tools.run(GROUPS, "--list").split()
    seen(rf"^{group}\s.*Empty", tools.run(GROUPS, "--list", "--state"))
    seen(rf"^{group}\s", tools.run(GROUPS, "--list", "--type", "classic"))
    told = tools.run(GROUPS, "--describe", "--group", group)
    ends = re.findall(rf"^{group}\s+{topic}\s+\d\s+(\d+)\s+(\d+)\s+0\s", told, re.MULTILINE)
    assert sorted(ends) == [("33", "33"), ("33", "33"), ("34", "34")], told
    seen(rf"^{group}\s+\S+:\d+\s+\(\d\)\s+.*Empty", tools.run(
        GROUPS, "--describe", "--group", group, "--state"))  # fmt: skip
    tools.run(GROUPS, "--describe", "--group", group, "--members", "--verbose")
    tools.run(GROUPS, "--describe", "--all-groups", "--offsets")


@case("kafka-consumer-groups --describe of a group with members")
def _(tools: Tools) -> None:
    topic, group = tools.topic(), tools.name("group")
    member = Consumer({
        "bootstrap.servers": tools.bootstrap, "group.id": group, "client.id": "reader",
    })  # fmt: skip
    member.subscribe([topic])
    try:
        end = time.monotonic() + WAIT_S
        while not member.assignment():
            assert time.monotonic() < end, "the member got no partitions"
            member.poll(0.1)
        told = tools.run(GROUPS, "--describe", "--group", group, "--members", "--verbose")
        seen(rf"^{group}\s+reader-\S+\s+/?127\.0\.0\.1\s+reader\s+3\s.*{topic}", told)
        state = tools.run(GROUPS, "--describe", "--group", group, "--state")
        seen(r"range\s.*Stable\s.*1\s*$", state)
        said = tools.run(GROUPS, "--delete", "--group", group)
        assert "GroupNotEmptyException" in said, said
    finally:
        member.close()


@case("kafka-consumer-groups --reset-offsets")
def _(tools: Tools) -> None:
    topic = tools.topic(partitions=1, records=RECORDS)
    group = tools.group(topic)
    where = ["--reset-offsets", "--group", group, "--topic", topic]
    resets = {
        "--to-earliest": 0,
        "--to-latest": RECORDS,
        "--to-offset=40": 40,
        "--shift-by=-15": 25,
        "--to-datetime=2020-01-01T00:00:00.000": 0,
        "--by-duration=PT1S": None,
        "--to-current": None,
    }
    for reset, expected in resets.items():
        told = tools.run(GROUPS, *where, *reset.split("="), "--execute")
        offset = int(seen(rf"^{group}\s+{topic}\s+0\s+(\d+)\s*$", told)[1])
        assert expected in (None, offset), told
    tools.run(GROUPS, *where, "--to-earliest", "--dry-run")


@case("kafka-consumer-groups --delete-offsets, --delete")
def _(tools: Tools) -> None:
    topic = tools.topic(records=RECORDS)
    group = tools.group(topic)
    seen("Successful", tools.run(GROUPS, "--delete-offsets", "--group", group, "--topic", topic))
    told = tools.run(GROUPS, "--describe", "--group", group)
    assert topic not in told, told
    seen("was successful", tools.run(GROUPS, "--delete", "--group", group))
    assert group not in tools.run(GROUPS, "--list").split()


@case("kafka-groups --list")
def _(tools: Tools) -> None:
    group = tools.group(tools.topic(records=RECORDS))
    told = tools.run(f"{TOOLS}.GroupsCommand", "--list")
    seen(rf"^{group}\s+Classic\s+consumer", told)


@case("kafka-streams-application-reset")
def _(tools: Tools) -> None:
    topic = tools.topic(records=RECORDS)
    group = tools.group(topic)
    asked = ["--application-id", group, "--input-topics", topic, "--to-offset", 5]
    tools.run(f"{TOOLS}.StreamsResetter", *asked)
    told = tools.run(GROUPS, "--describe", "--group", group)
    assert len(re.findall(rf"{topic}\s+\d\s+5\s", told)) == 3, told


# -- offsets, disks, the cluster -----------------------------------------------------------------


@case("kafka-get-offsets")
def _(tools: Tools) -> None:
    topic = tools.topic(records=RECORDS)
    asked = ["--topic", topic]
    times = {
        "latest": (34, 33, 33),
        "earliest": (0, 0, 0),
        "max-timestamp": (33, 32, 32),
        "earliest-local": (0, 0, 0),
        "1577836800000": (0, 0, 0),
    }
    for when, offsets in times.items():
        told = tools.run(OFFSETS, *asked, "--time", when)
        for index, offset in enumerate(offsets):
            seen(rf"^{topic}:{index}:{offset}$", told)
    told = tools.run(OFFSETS, "--topic-partitions", f"{topic}:1-", "--time", "-1")
    assert f"{topic}:0:" not in told, told


@case("kafka-delete-records")
def _(tools: Tools) -> None:
    topic = tools.topic(records=RECORDS)
    where = [{"topic": topic, "partition": 0, "offset": 10},
             {"topic": topic, "partition": 1, "offset": -1}]  # fmt: skip
    file = tools.file("delete.json", json.dumps({"version": 1, "partitions": where}))
    told = tools.run(f"{TOOLS}.DeleteRecordsCommand", "--offset-json-file", file)
    seen(rf"partition: {topic}-0\s+low_watermark: 10", told)
    seen(rf"partition: {topic}-1\s+low_watermark: 33", told)
    told = tools.run(OFFSETS, "--topic", topic, "--time", "-2")
    seen(rf"^{topic}:0:10$", told)


@case("kafka-log-dirs --describe")
def _(tools: Tools) -> None:
    topic = tools.topic(records=RECORDS)
    told = tools.run(f"{TOOLS}.LogDirsCommand", "--describe", "--topic-list", topic)
    found = json.loads(next(line for line in told.splitlines() if line.startswith("{")))
    assert len(found["brokers"]) == BROKERS
    for broker in found["brokers"]:
        replicas = [one for folder in broker["logDirs"] for one in folder["partitions"]]
        assert {one["partition"] for one in replicas} == {f"{topic}-{i}" for i in range(3)}
        assert all(one["size"] > 0 and one["offsetLag"] == 0 for one in replicas), replicas


@case("kafka-leader-election --election-type preferred")
def _(tools: Tools) -> None:
    _election(tools, "preferred")


@case("kafka-leader-election --election-type unclean")
def _(tools: Tools) -> None:
    _election(tools, "unclean")


def _election(tools: Tools, kind: str) -> None:
    """All partitions have their preferred leader already: nothing is to do."""
    asked = ["--election-type", kind, "--topic", tools.topic(), "--partition", 0]
    told = tools.run(ELECT, *asked)
    seen("Valid replica already elected for partition", told)


@case("kafka-metadata-quorum describe --status, --replication")
def _(tools: Tools) -> None:
    told = tools.run(QUORUM, "describe", "--status")
    seen(r"^ClusterId:\s+\S+", told)
    seen(r"^LeaderId:\s+\d+", told)
    seen(r"^HighWatermark:\s+\d+", told)
    told = tools.run(QUORUM, "describe", "--replication")
    assert len(re.findall(r"\sLeader\s*$", told, re.MULTILINE)) == 1, told
    assert len(re.findall(r"\sFollower\s*$", told, re.MULTILINE)) == 2, told


@case("kafka-broker-api-versions")
def _(tools: Tools) -> None:
    told = tools.run(f"{TOOLS}.BrokerApiVersionsCommand")
    assert told.count("Produce(0): 0 to 13") == BROKERS, told
    assert "ERROR" not in told, told


@case("kafka-cluster cluster-id, list-endpoints")
def _(tools: Tools) -> None:
    told = tools.run(CLUSTER, "cluster-id", "--bootstrap-server", tools.bootstrap, server="")
    seen(r"Cluster ID: \S+", told)
    told = tools.run(CLUSTER, "list-endpoints", "--bootstrap-server", tools.bootstrap, server="")
    assert len(re.findall(r"127\.0\.0\.1\s+\d+", told)) == BROKERS, told


@case("kafka-features describe")
def _(tools: Tools) -> None:
    told = tools.run(f"{TOOLS}.FeatureCommand", "describe")
    seen(r"Feature: metadata\.version", told)


@case("kafka-reassign-partitions --list, --generate")
def _(tools: Tools) -> None:
    topic, first = tools.topic(), tools.servers.first_id
    seen("No partition reassignments found", tools.run(REASSIGN, "--list"))
    topics = tools.file("topics.json", json.dumps({"version": 1, "topics": [{"topic": topic}]}))
    brokers = f"{first},{first + 1}, {first + 2}".replace(" ", "")
    asked = ["--generate", "--topics-to-move-json-file", topics, "--broker-list", brokers]
    seen(rf'"topic":"{topic}","partition":2', tools.run(REASSIGN, *asked))


@case("kafka-reassign-partitions --execute, --verify")
def _(tools: Tools) -> None:
    topic, first = tools.topic(partitions=1, records=10), tools.servers.first_id
    moved = {"topic": topic, "partition": 0, "replicas": [first + 2, first + 1]}
    file = tools.file("move.json", json.dumps({"version": 1, "partitions": [moved]}))
    seen("Successfully started", tools.run(
        REASSIGN, "--execute", "--reassignment-json-file", file))  # fmt: skip
    _verified(tools, file)


@case("kafka-reassign-partitions --throttle, and back by the JSON that it prints")
def _(tools: Tools) -> None:
    topic, first = tools.topic(partitions=1, records=10), tools.servers.first_id
    moved = {"topic": topic, "partition": 0, "replicas": [first + 2, first + 1]}
    file = tools.file("move.json", json.dumps({"version": 1, "partitions": [moved]}))
    limited = ["--execute", "--throttle", 1_000_000, "--reassignment-json-file"]
    told = tools.run(REASSIGN, *limited, file)
    seen("Successfully started", told)
    assert "was set to 1000000 B/s" in told, told
    before = re.search(r"^\{.*\}$", told, re.MULTILINE)
    assert before is not None, told
    described = ["--describe", "--entity-type", "topics", "--entity-name", topic]
    assert "throttled.replicas" in tools.run(CONFIGS, *described)
    _verified(tools, file)
    assert "throttled.replicas" not in tools.run(CONFIGS, *described)
    back = tools.file("back.json", before[0])
    tools.run(REASSIGN, *limited, back)  # it adds a replica
    _verified(tools, back)
    replicas = tools.run(TOPICS, "--describe", "--topic", topic)
    assert re.search(r"Replicas: \d+,\d+,\d+\s", replicas), replicas


def _verified(tools: Tools, file: Path) -> None:
    """Wait for the end of a move. The tool then removes its throttles."""
    end, told = time.monotonic() + WAIT_S, ""
    while "is completed" not in told:
        assert time.monotonic() < end, told
        told = tools.run(REASSIGN, "--verify", "--reassignment-json-file", file)
    seen("Clearing topic-level throttles", told)


@case("kafka-replica-verification")
def _(tools: Tools) -> None:
    topic = tools.topic(records=RECORDS)
    asked = ["--broker-list", tools.bootstrap, "--topics-include", topic]
    command = jars.java(f"{TOOLS}.ReplicaVerificationTool", *asked, "--report-interval-ms", 500)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tool:
        assert tool.stdout is not None
        try:
            told = "".join(itertools.islice(tool.stdout, 3))
        finally:
            tool.kill()
    seen(r"max lag is 0 for partition", told)


@case("kafka-transactions list")
def _(tools: Tools) -> None:
    seen("TransactionalId", tools.run(f"{TOOLS}.TransactionsCommand", "list"))


@case("kafka-acls --list")
def _(tools: Tools) -> None:
    told = tools.run(f"{TOOLS}.AclCommand", "--list", status=1)
    assert "SecurityDisabledException" in told, told


@case("kafka-client-metrics --list")
def _(tools: Tools) -> None:
    tools.run(f"{TOOLS}.ClientMetricsCommand", "--list")
