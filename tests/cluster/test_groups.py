"""Consumer groups with real processes: members and coordinators that die, and the commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from quorate import Admin, Consumer, Producer, TopicPartition
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape, free_port
from tests.cluster.support import PATIENCE_S, Answer, create, run_here, started, until, whole, write

PROGRAM = """
import asyncio, json, sys, time
from quorate import Consumer

def tell(event, **fields):
    print(json.dumps({"event": event, "at": time.time(), **fields}), flush=True)

class Listener:
    def on_partitions_assigned(self, keys):
        tell("assigned", partitions=[key.partition for key in keys])
    async def on_partitions_revoked(self, keys):
        tell("revoked", partitions=[key.partition for key in keys])
    def on_partitions_lost(self, keys):
        tell("lost", partitions=[key.partition for key in keys])

async def main(servers, topic, group, session_timeout_ms):
    consumer = Consumer(bootstrap_servers=servers, group_id=group, auto_offset_reset="earliest",
                        session_timeout_ms=int(session_timeout_ms), auto_commit_interval_ms=100)
    consumer.subscribe([topic], listener=Listener())
    async with consumer:
        async for record in consumer:
            tell("record", partition=record.partition, value=record.value.decode())

asyncio.run(main(*sys.argv[1:]))
"""


class Member:
    """A program that reads as a member of a group, in a process of its own."""

    def __init__(
        self, cluster: LocalCluster, topic: str, group: str, session_timeout_ms: int = 45_000
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", PROGRAM, cluster.bootstrap_servers, topic, group),
                str(session_timeout_ms),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,))
        self._reader.start()

    def _read(self, pipe: IO[str]) -> None:
        self.events.extend(json.loads(line) for line in pipe)

    @property
    def partitions(self) -> set[int]:
        found: set[int] = set()
        for event in list(self.events):
            if event["event"] == "assigned":
                found |= set(event["partitions"])
            elif event["event"] in ("revoked", "lost"):
                found -= set(event["partitions"])
        return found

    @property
    def values(self) -> list[str]:
        return [event["value"] for event in list(self.events) if event["event"] == "record"]

    def has(self, count: int) -> bool:
        return len(self.partitions) == count

    def told(self) -> list[dict[str, Any]]:
        return [event for event in list(self.events) if event["event"] != "record"]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with started(tmp_path_factory.mktemp("groups"), Shape(port=free_port(3))) as cluster:
        yield cluster


@pytest.fixture
def members() -> Iterator[list[Member]]:
    """The members that a test starts; their processes end with the test."""
    found: list[Member] = []
    yield found
    for one in found:
        one.end()


async def numbered(cluster: LocalCluster, topic: str, numbers: range) -> None:
    await write(cluster, topic, [b"%d" % number for number in numbers])


def all_of(*members: Member) -> set[int]:
    return {int(value) for one in members for value in one.values}


async def test_a_killed_member_is_replaced_within_a_second(
    fragile: LocalCluster, members: list[Member]
) -> None:
    await create(fragile, "killed", 6)
    await numbered(fragile, "killed", range(60))
    first, second = Member(fragile, "killed", "killed"), Member(fragile, "killed", "killed")
    members += [first, second]
    await until(lambda: first.has(3) and second.has(3), "both have three partitions")
    await until(lambda: all_of(first, second) == set(range(60)), "all read")
    killed_at = time.time()
    first.signal(signal.SIGKILL)
    await until(lambda: second.has(6), "the other one has all")
    print(f"taken over after {second.told()[-1]['at'] - killed_at:.2f} s")
    await numbered(fragile, "killed", range(60, 120))
    await until(lambda: set(range(60, 120)) <= all_of(second), "all read by the other one")


async def test_a_hung_member_is_replaced_within_its_session(
    fragile: LocalCluster, members: list[Member]
) -> None:
    await create(fragile, "hung", 4)
    first, second = Member(fragile, "hung", "hung", 6000), Member(fragile, "hung", "hung", 6000)
    members += [first, second]
    await until(lambda: first.has(2) and second.has(2), "both have two partitions")
    first.signal(signal.SIGSTOP)
    await until(lambda: second.has(4), "the other one has all")
    first.signal(signal.SIGCONT)
    await until(lambda: first.has(2) and second.has(2), "both have two partitions again")
    assert "lost" in [event["event"] for event in first.told()]


async def test_a_killed_coordinator_moves_nothing_and_loses_no_offset(
    fragile: LocalCluster, members: list[Member]
) -> None:
    await create(fragile, "failover", 4)
    await numbered(fragile, "failover", range(40))
    first, second = Member(fragile, "failover", "f"), Member(fragile, "failover", "f")
    members += [first, second]
    await until(lambda: first.has(2) and second.has(2), "both have two partitions")
    await until(lambda: all_of(first, second) == set(range(40)), "all read")
    told = [first.told(), second.told()]
    async with Admin(bootstrap_servers=fragile.bootstrap_servers) as admin:

        async def is_committed(count: int) -> bool:
            found = await admin.list_group_offsets("f")
            return sum(value.offset for value in found.values()) == count

        await until(lambda: is_committed(40), "all committed")
        coordinator = (await admin.describe_groups(["f"]))["f"].coordinator
        fragile.kill(coordinator)
        killed_at = time.time()
        assert await is_committed(40)
        print(f"offsets were read {time.time() - killed_at:.2f} s after the kill")
        await numbered(fragile, "failover", range(40, 80))
        await until(lambda: all_of(first, second) == set(range(80)), "all read")
        await until(lambda: is_committed(80), "all committed")
        print(f"all was committed {time.time() - killed_at:.2f} s after the kill")
    fragile.died()
    fragile.start([coordinator])
    await fragile.wait_ready(timeout=PATIENCE_S)
    await whole(fragile, "failover")
    assert [first.told(), second.told()] == told
    assert len(first.values + second.values) == 80, "read once"


async def test_a_member_that_joins_stops_only_what_it_gets(
    fragile: LocalCluster, members: list[Member]
) -> None:
    await create(fragile, "moves", 6)
    first, second = Member(fragile, "moves", "moves"), Member(fragile, "moves", "moves")
    members += [first, second]
    await until(lambda: first.has(3) and second.has(3), "both have three partitions")
    before = [first.partitions, second.partitions]
    events = [len(first.told()), len(second.told())]
    third = Member(fragile, "moves", "moves")
    members.append(third)
    await until(lambda: first.has(2) and second.has(2) and third.has(2), "each has two")
    for one, had, count in zip((first, second), before, events, strict=True):
        [revoked] = one.told()[count:]
        assert revoked["event"] == "revoked"
        assert set(revoked["partitions"]) == had - one.partitions
    moved = {event["at"] for one in (first, second) for event in one.told()[-1:]}
    print(f"given {third.told()[-1]['at'] - min(moved):.3f} s after the first was revoked")


# -- the programs of the documentation -------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs/groups.md"
PROGRAMS = [
    block
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    if "asyncio.run(main(" in block
]


@pytest.mark.parametrize("program", PROGRAMS, ids=["at least once", "at most once", "idempotent"])
def test_a_program_of_the_documentation_goes_on_after_it_was_stopped(
    fragile: LocalCluster, tmp_path: Path, program: str
) -> None:
    async def prepare() -> None:
        async with Admin(bootstrap_servers=fragile.bootstrap_servers) as admin:
            if "invoice" not in await admin.list_topics():
                await admin.create_topic("invoice", 3, 3)
                await numbered(fragile, "invoice", range(30))

    asyncio.run(prepare())
    file = tmp_path / "program.py"
    file.write_text(program)
    arguments = [str(tmp_path / "results")] if "sqlite3" in program else []
    printed = []
    for count in (10, 20):
        done = subprocess.run(
            [sys.executable, str(file), fragile.bootstrap_servers, str(count), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        printed += done.stdout.split()
    if arguments:
        with contextlib.closing(sqlite3.connect(arguments[0])) as database:
            printed = [value for (value,) in database.execute("select value from result")]
    assert sorted(map(int, printed)) == list(range(30))


# -- the commands ----------------------------------------------------------------------------------

Command = Callable[..., Answer]


@pytest.fixture
def command(fragile: LocalCluster, capfd: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> Answer:
        return run_here([*arguments, "--bootstrap", fragile.bootstrap_servers], capfd, b"")

    return run


async def _prepare(cluster: LocalCluster, topic: str) -> None:
    await create(cluster, topic, 2)
    async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        for number in range(20):
            await producer.send_and_wait(
                topic, b"%d" % number, partition=number % 2, timestamp_ms=1_000_000 + number
            )


def test_consume_with_a_group_goes_on_where_it_stopped(
    fragile: LocalCluster, command: Command
) -> None:
    asyncio.run(_prepare(fragile, "shared"))
    consume = ("topic", "consume", "shared", "--group", "c", "--from-beginning", "-o", "json")
    first = command(*consume, "--count", "7")
    assert (first.status, len(first.lines)) == (0, 7)
    rest = command(*consume, "--until-end")
    assert (rest.status, len(rest.lines)) == (0, 13)
    found = [line["value"] for line in first.lines + rest.lines]
    assert sorted(found, key=int) == [str(number) for number in range(20)]
    again = command(*consume, "--until-end")
    assert (again.status, again.out) == (0, "")
    refused = command(*consume, "--partition", "0")
    assert refused.status == 2
    assert "leave out --partition" in refused.err


def test_groups_are_listed_described_moved_and_deleted(
    fragile: LocalCluster, command: Command
) -> None:
    asyncio.run(_prepare(fragile, "seeks"))
    consume = ("topic", "consume", "seeks", "--group", "s", "--from-beginning", "-o", "json")
    assert command(*consume, "--until-end").status == 0
    listed = {one["group_id"]: one for one in command("group", "list", "-o", "json").json}
    assert listed["s"]["state"] == "Empty"
    assert listed["s"]["members"] == 0
    assert "s " in command("group", "list").out

    def partitions(group: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = command("group", "describe", group, "-o", "json").json[
            "partitions"
        ]
        return found

    described = command("group", "describe", "s", "-o", "json").json
    assert [
        (one["partition"], one["committed"], one["end"]) for one in described["partitions"]
    ] == [
        (0, 10, 10),
        (1, 10, 10),
    ]
    assert [(one["lag"], one["lag_ms"]) for one in described["partitions"]] == [(0, 0), (0, 0)]

    dry = command("group", "seek", "s", "--to-earliest", "--dry-run", "-o", "json").json
    assert dry == {
        "group": "s",
        "dry_run": True,
        "offsets": [
            {"topic": "seeks", "partition": number, "from": 10, "to": 0} for number in range(2)
        ],
    }

    def offsets() -> list[int]:
        return [one["committed"] for one in partitions("s")]

    assert offsets() == [10, 10]
    steps: list[tuple[tuple[str, ...], list[int]]] = [
        (("--to-time", "1000006"), [3, 3]),
        (("--shift-by", "-2"), [1, 1]),
        (("--shift-by", "100"), [10, 10]),
        (("--topic", "seeks/1", "--to-offset", "4"), [10, 4]),
        (("--topic", "seeks", "--to-earliest"), [0, 0]),
        (("--topic", "seeks/0", "--to-latest"), [10, 0]),
    ]
    for arguments, expected in steps:
        assert command("group", "seek", "s", *arguments).status == 0
        assert offsets() == expected, arguments
    behind = partitions("s")[1]
    assert behind["lag"] == 10
    assert behind["lag_ms"] > 1_000_000_000, "the first record is of 1970"
    assert "seeks/1" in command("group", "describe", "s").out
    assert len(command(*consume, "--until-end").lines) == 10

    assert command("group", "delete", "s", "-o", "json").json == {"deleted": ["s"]}
    gone = command("group", "describe", "s")
    assert gone.status == 1
    assert "GROUP_NOT_FOUND" in gone.err


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("seek", "x"), 2, "takes one of"),
        (("seek", "x", "--to-earliest", "--to-latest"), 2, "takes one of"),
        (("seek", "x", "--to-offset", "3"), 2, "needs --topic"),
        (("seek", "x", "--to-time", "never"), 2, "--to-time takes 2026-01-31T12:00:00"),
        (("seek", "x", "--topic", "a/b/c", "--to-latest"), 2, "NAME/PARTITION"),
        (("seek", "x", "--to-latest"), 1, "has committed nothing"),
        (("seek", "x", "--topic", "bad/9", "--to-latest"), 1, "partitions 0 to 1"),
        (("seek", "x", "--topic", "bad", "--to-offset", "99"), 1, "outside"),
        (("seek", "x", "--topic", "bad", "--shift-by", "1"), 1, "has none"),
        (("seek", "g" * 300, "--to-latest"), 1, "249"),
        (("delete", "nobody"), 1, "GROUP_NOT_FOUND"),
        (("describe", "nobody"), 1, "GROUP_NOT_FOUND"),
    ],
)
def test_a_wrong_command_is_refused_with_a_reason(
    fragile: LocalCluster, command: Command, arguments: tuple[str, ...], status: int, text: str
) -> None:
    async def topic() -> None:
        async with Admin(bootstrap_servers=fragile.bootstrap_servers) as admin:
            if "bad" not in await admin.list_topics():
                await admin.create_topic("bad", 2, 3)

    asyncio.run(topic())
    refused = command("group", *arguments)
    assert (refused.status, refused.out) == (status, "")
    assert text in refused.err


async def test_offsets_of_a_group_with_members_are_not_moved(
    fragile: LocalCluster, tmp_path: Path
) -> None:
    await create(fragile, "active", 2)
    async with (
        Consumer("active", bootstrap_servers=fragile.bootstrap_servers, group_id="active") as c,
        Admin(bootstrap_servers=fragile.bootstrap_servers) as admin,
    ):
        await c.commit({TopicPartition("active", 0): 0})
        for arguments in (("--to-earliest",), ("--to-earliest", "--dry-run")):
            done = await asyncio.to_thread(
                subprocess.run,
                [
                    *(sys.executable, "-c", "from quorate_cli.app import main; main()"),
                    *("group", "seek", "active", *arguments),
                    *("--bootstrap", fragile.bootstrap_servers),
                ],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 1
            assert "NON_EMPTY_GROUP" in done.stderr
        described = (await admin.describe_groups(["active"]))["active"]
        [member] = described.members
        assert (member.client_id, member.topics) == ("quorate-python", ("active",))
        assert "127.0.0.1" in member.client_host
        assert await admin.remove_members("active", all=True) == [member.member_id]
