"""`quorate top`: a document or plain tables in a pipe, a screen on a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable

import pytest

from quorate_cli.top_screen import ROWS_MIN, TABLE_LINES, rows_that_fit
from quorate_testing import EmbeddedCluster
from tests.cluster.support import PATIENCE_S, run_here
from tests.unit.quorate_cli.commands import Quorate

RUN = (sys.executable, "-c", "from quorate_cli.app import main; main()")
FIELDS = [
    "cluster_id", "controller", "seconds", "brokers", "topics", "groups", "troubled", "missing",
]  # fmt: skip


def test_once_prints_one_document(quorate: Quorate) -> None:
    topic = quorate.topic(2)
    quorate.write(topic, [{"value": b"x" * 100, "partition": 1}] * 3)
    read = ("--from-beginning", "--count", "2", "--group", f"g-{topic}")
    assert quorate("topic", "consume", topic, *read).status == 0
    said = quorate("top", "--once", "--interval", "0.1", "-o", "json")
    assert (said.status, said.err) == (0, "")
    assert list(said.json) == FIELDS
    assert said.json["seconds"] >= 0.1
    (row,) = [one for one in said.json["topics"] if one["topic"] == topic]
    assert row["records"] == 3
    assert row["size"] > 300
    assert (row["records_per_s"], row["bytes_per_s"]) == (0.0, 0.0)
    (group,) = [one for one in said.json["groups"] if one["group"] == f"g-{topic}"]
    assert group["lag"] == 1
    (broker,) = said.json["brokers"]
    assert broker["leaders"] == broker["in_sync"] == broker["replicas"] > 2
    assert said.json["troubled"] == said.json["missing"] == []


def test_once_prints_plain_tables(quorate: Quorate) -> None:
    topic = quorate.topic(1)
    said = quorate("top", "--once", "--interval", "0.1")
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].startswith("cluster ")
    assert lines[0].endswith("; 0 under-replicated, 0 offline")
    assert {"Brokers", "Topics"} <= set(lines)
    assert any(line.split()[:2] == [topic, "1"] for line in lines)
    assert "__consumer_offsets" not in said.out
    assert "__consumer_offsets" in quorate("top", "--once", "-i", "0.1", "--internal").out


def test_a_broker_that_is_down_is_seen(capfd: pytest.CaptureFixture[str]) -> None:
    with EmbeddedCluster(brokers=2) as cluster:
        cluster.create_topic("t", 2)
        cluster.stop_broker(1)
        said = Quorate(cluster, capfd)("top", "--once", "-i", "0.1", "-o", "json")
        assert said.status == 0
        assert [one["fenced"] for one in said.json["brokers"]] == [False, True]
        assert [one["in_sync"] for one in said.json["brokers"]] == [2, 0]
        assert [(one["topic"], one["isr"]) for one in said.json["troubled"]] == [("t", [0])] * 2


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_pipe_gets_plain_text_until_control_c(quorate: Quorate, output: str) -> None:
    options = ("--bootstrap", quorate.servers, "-i", "0.1", "-o", output)
    with subprocess.Popen(
        [*RUN, "top", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            heads = 0
            while heads < 2:
                line = process.stdout.readline()
                assert "\x1b" not in line
                if output == "json":
                    assert list(json.loads(line)) == FIELDS
                    heads += 1
                heads += line.startswith("cluster ")
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            assert (process.wait(PATIENCE_S), process.stderr.read()) == (0, "")
        finally:
            process.kill()


def press_q(process: subprocess.Popen[bytes], keyboard: int) -> None:
    os.write(keyboard, b"q")


def press_control_c(process: subprocess.Popen[bytes], keyboard: int) -> None:
    process.send_signal(signal.SIGINT)


def terminate(process: subprocess.Popen[bytes], keyboard: int) -> None:
    process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("end", [press_q, press_control_c, terminate])
def test_a_terminal_gets_a_screen_and_is_left_as_it_was(
    quorate: Quorate, end: Callable[[subprocess.Popen[bytes], int], None]
) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with subprocess.Popen(
        [*RUN, "top", "--bootstrap", quorate.servers, "-i", "0.1"],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
    ) as process:
        try:
            seen = b""
            while seen.count(b"q ends") < 2:
                seen += os.read(ours, 65536)
            end(process, ours)
            while b"\x1b[?1049l" not in seen:  # the screen that was there before
                seen += os.read(ours, 65536)
            assert process.wait(PATIENCE_S) == 0
            assert process.stderr is not None
            assert process.stderr.read() == b""
            assert b"under-replicated" in seen
            assert termios.tcgetattr(theirs) == before
        finally:
            process.kill()
            os.close(ours)
            os.close(theirs)


def test_a_cluster_that_does_not_answer_is_an_error_at_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    nobody = ("--bootstrap", "127.0.0.1:1", "--timeout", "0.3")
    said = run_here(["top", *nobody], capfd, b"")
    assert (said.status, said.out) == (3, "")
    assert "127.0.0.1:1" in said.err


@pytest.mark.parametrize("lines", [0, 24, 60, 200])
@pytest.mark.parametrize("rows", [[1], [3, 100, 100], [3, 1, 40, 500], [100, 100, 100, 100]])
def test_the_screen_shows_as_many_rows_as_it_has_lines(rows: list[int], lines: int) -> None:
    shown = rows_that_fit(rows, lines)
    assert all(min(ROWS_MIN, one) <= count <= one for one, count in zip(rows, shown, strict=True))
    if lines >= (TABLE_LINES + ROWS_MIN) * len(rows):
        assert sum(shown) + TABLE_LINES * len(rows) <= lines
