"""The log of a node: it says what changed, and can neither stop nor slow the node."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
import structlog

from quorate_quorum.node import logs
from quorate_quorum.node.logs import LineWriter, Repeats, event_first, set_up_logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    before: dict[str, Any] = structlog.get_config()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    hooks = threading.excepthook, sys.unraisablehook
    try:
        yield
    finally:
        structlog.configure(**before)
        root.handlers[:] = handlers
        root.setLevel(level)
        threading.excepthook, sys.unraisablehook = hooks
        logging.raiseExceptions = True
        logging.captureWarnings(False)


def test_an_exception_is_logged_on_a_terminal_without_the_values_of_its_frames() -> None:
    stream = Terminal()
    writer = set_up_logs("info", stream)
    with pytest.raises(ValueError, match="a bug"):
        _fail_and_log("a value of some frame")
    assert writer.drain(10)
    assert "ValueError: a bug" in stream.getvalue()
    assert "a value of some frame" not in stream.getvalue()


def _fail_and_log(secret: str) -> None:
    try:
        assert secret
        raise ValueError("a bug")
    except ValueError:
        structlog.get_logger("node").exception("broken")
        raise


def test_a_line_of_json_begins_with_its_event() -> None:
    stream = io.StringIO()
    writer = set_up_logs("info", stream)
    structlog.get_logger("node").info("topic_created", topic="t", partitions=3)
    assert writer.drain(10)
    line = json.loads(stream.getvalue())
    assert list(line) == ["event", "level", "timestamp", "topic", "partitions"]


def test_what_cannot_be_shown_is_named_and_never_raised() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    stream = io.StringIO()
    writer = set_up_logs("info", stream)
    structlog.get_logger("node").info("odd", value=Broken())
    assert writer.drain(10)
    assert json.loads(stream.getvalue()) == {"event": "odd", "unloggable": "RuntimeError"}


def test_the_standard_librarys_logging_and_failed_threads_take_the_same_form() -> None:
    stream = io.StringIO()
    writer = set_up_logs("info", stream)
    logging.getLogger("some.library").warning("careful")
    failing = threading.Thread(target=lambda: 1 // 0, name="worker")
    failing.start()
    failing.join()
    assert writer.drain(10)
    # clients that other tests left in threads of this process may log, too
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [one["level"] for one in lines if one["event"] == "careful"] == ["warning"]
    [second] = [one for one in lines if one.get("thread") == "worker"]
    assert second["event"] == "a thread failed"
    assert "ZeroDivisionError" in second["exception"]


class Stuck:
    """A full pipe without a reader."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        try:
            while True:
                os.write(self.writer, bytes(4096))
        except BlockingIOError:
            pass
        os.set_blocking(self.writer, True)

    def fileno(self) -> int:
        return self.writer

    def isatty(self) -> bool:
        return False

    def read_all(self) -> bytes:
        """Read until the writer's end is closed."""
        with open(self.reader, "rb") as file:
            return file.read()


def test_a_reader_that_stops_reading_blocks_no_caller_and_lines_are_dropped_and_counted() -> None:
    pipe = Stuck()
    writer = LineWriter(cast(Any, pipe), chars_max=1_000)
    writer.write("the first line is in the hands of the blocked thread\n")
    assert not writer.drain(0)
    for _ in range(100):
        writer.write("x" * 99 + "\n")
    assert 90 <= writer.dropped <= 100
    text: list[bytes] = []
    reading = threading.Thread(target=lambda: text.append(pipe.read_all()))
    reading.start()
    assert writer.drain(10)
    os.close(pipe.writer)
    reading.join()
    assert b"the first line" in text[0]
    written = text[0].lstrip(b"\0").splitlines()
    told = [json.loads(line) for line in written if b"were dropped" in line]
    assert [line["count"] for line in told] == [writer.dropped]


def test_a_reader_that_went_away_costs_lines_and_nothing_else() -> None:
    reader, descriptor = os.pipe()
    os.close(reader)
    with open(descriptor, "w", encoding="utf-8") as stream:
        writer = LineWriter(stream)
        for number in range(3):
            writer.write(f"line {number}\n")
            assert writer.drain(10)
        assert writer.dropped == 3


def test_a_non_blocking_descriptor_stays_so_and_is_waited_for() -> None:
    reader, descriptor = os.pipe()
    os.set_blocking(descriptor, False)
    with open(descriptor, "w", encoding="utf-8") as stream:
        writer = LineWriter(stream)
        for _ in range(40):
            writer.write("y" * 9_999 + "\n")
        text: list[bytes] = []
        reading = threading.Thread(target=lambda: text.append(_read(reader)))
        reading.start()
        assert writer.drain(10)
        assert not os.get_blocking(descriptor)
    reading.join()
    assert text[0].count(b"\n") == 40
    assert writer.dropped == 0


def _read(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


def test_a_very_long_line_is_cut() -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)
    writer.write("z" * (logs.LINE_CHARS_MAX + 1) + "\n")
    assert writer.drain(10)
    assert len(stream.getvalue()) < logs.LINE_CHARS_MAX + 100
    assert stream.getvalue().endswith(" characters)\n")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def said(processor: Repeats, **event: Any) -> dict[str, Any] | None:
    try:
        return dict(processor(None, "info", event))
    except structlog.DropEvent:
        return None


def test_a_lasting_state_is_said_once_a_minute_with_the_number_left_out() -> None:
    clock = Clock()
    repeats = Repeats(clock)
    waits = {"event": "waits", "endpoint": "a:1", "repeats": True}
    assert said(repeats, **waits, reason="port 4711") == {
        "event": "waits",
        "endpoint": "a:1",
        "reason": "port 4711",
    }
    for clock.now in (1.0, 30.0, 59.9):
        assert said(repeats, **waits, reason="port 4712") is None
    assert said(repeats, **(waits | {"endpoint": "b:1"}), reason="port 1") is not None
    clock.now = 60.0
    again = said(repeats, **waits, reason="port 1")
    assert again is not None
    assert again["left_out"] == 3
    clock.now = 61.0
    assert said(repeats, **waits, reason="another reason") is not None


def test_a_change_is_said_each_time() -> None:
    repeats = Repeats(Clock())
    for _ in range(3):
        assert said(repeats, event="fenced", broker=1) == {"event": "fenced", "broker": 1}


def test_the_states_that_are_remembered_are_bounded() -> None:
    repeats = Repeats(Clock())
    for number in range(2 * logs.REPEATS_MAX):
        said(repeats, event="waits", endpoint=f"a:{number}", repeats=True)
    assert len(repeats._seen) == logs.REPEATS_MAX


def test_the_event_comes_first() -> None:
    line = event_first(None, "info", {"a": 1, "timestamp": "t", "level": "info", "event": "e"})
    assert list(line) == ["event", "level", "timestamp", "a"]


NODE = """
import asyncio, os, signal, sys, threading, time
from quorate_quorum.node import process
from quorate_quorum.node.config import QuorumConfig

class Server:
    async def stop(self): self.done.set()
    def fail(self, reason): self.done.set()
    async def stopped(self): await self.done.wait()

async def start(config):
    server = Server()
    server.done = asyncio.Event()
    for number in range(10_000):
        process.log.info("a line of the node", number=number)
    print("ready", flush=True)
    return server

process.leave(process.main(QuorumConfig, start))
"""


@pytest.mark.parametrize("reader", ["stops reading", "goes away"])
def test_sigterm_stops_a_node_whose_log_nobody_reads(reader: str) -> None:
    node = subprocess.Popen(
        [sys.executable, "-c", NODE, *_SETTINGS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert node.stdout is not None
    assert node.stderr is not None
    if reader == "goes away":
        node.stderr.close()
    with node.stdout:
        assert node.stdout.readline() == b"ready\n"
        node.terminate()
        assert node.wait(30) == 0
    node.stderr.close()


_SETTINGS = [
    text
    for setting in ("node.id=1", "listeners=127.0.0.1:0", "log.dirs=/nowhere")
    for text in ("--set", setting)
]
