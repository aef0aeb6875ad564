"""One node as one process: exit status, signals, logs, and what is done before the first import."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from quorate import __version__
from quorate_quorum.node import process
from quorate_quorum.node.config import ConfigError, QuorumConfig
from quorate_quorum.node.process import configure, run
from quorate_quorum.node.resources import (
    LOOK_AT_ALL_S,
    OPEN_FILES_MAX,
    GarbagePasses,
    collect_garbage_in_parts,
    keep_freed_memory,
    raise_open_files,
)
from quorate_quorum.node.server import NodeFailed
from quorate_quorum.node.stall_watch import StallWatch

Life = Callable[["FakeServer"], Coroutine[Any, Any, None]]


class FakeServer:
    """A server that, once started, does what the test says."""

    def __init__(self, life: Life | None = None) -> None:
        self.calls: list[str] = []
        self._life = life
        self._done: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> FakeServer:
        self._done = asyncio.get_running_loop().create_future()
        if self._life is not None:
            self._task = asyncio.create_task(self._life(self))
        return self

    async def stop(self) -> None:
        self.calls.append("stop")
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def fail(self, reason: str) -> None:
        self.calls.append(f"fail: {reason}")
        if self._done is not None and not self._done.done():
            self._done.set_exception(NodeFailed(reason))

    async def stopped(self) -> None:
        assert self._done is not None
        await asyncio.shield(self._done)


def starting(error: Exception) -> Callable[[], Awaitable[FakeServer]]:
    async def start() -> FakeServer:
        raise error

    return start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_node_cleanly(number: signal.Signals) -> None:
    async def life(server: FakeServer) -> None:
        os.kill(os.getpid(), number)

    server = FakeServer(life)
    assert run(server.start) == 0
    assert server.calls == ["stop"]


def test_a_node_that_stops_by_itself_is_clean() -> None:
    async def life(server: FakeServer) -> None:
        await server.stop()

    assert run(FakeServer(life).start) == 0


def test_a_second_signal_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SIGNALS_APART_S", 0.0)

    class Slow(FakeServer):
        async def stop(self) -> None:
            self.calls.append("stop")
            os.kill(os.getpid(), signal.SIGTERM)

    async def life(server: FakeServer) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    server = Slow(life)
    assert run(server.start) == 70
    assert server.calls == ["stop", "fail: told to stop again before a clean stop was done"]


def test_two_signals_at_once_are_one_order() -> None:
    async def life(server: FakeServer) -> None:
        os.kill(os.getpid(), signal.SIGINT)  # of the terminal
        os.kill(os.getpid(), signal.SIGTERM)  # of the parent process

    server = FakeServer(life)
    assert run(server.start) == 0
    assert server.calls == ["stop"]


def test_a_signal_while_starting_gives_up_the_start() -> None:
    ended = []

    async def start() -> FakeServer:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)
        raise AssertionError

    assert run(start) == 0
    assert ended == [True]


def test_a_node_that_fails_says_why() -> None:
    async def life(server: FakeServer) -> None:
        server.fail("the disk is gone")

    with capture_logs() as logs:
        assert run(FakeServer(life).start) == 70
    assert logs[-1]["event"] == "the node failed"
    assert logs[-1]["reason"] == "the disk is gone"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("data is not formatted"), 78),
        (NodeFailed("the disk is gone"), 70),
        (AssertionError("an invariant"), 70),
        (OSError(5, "Input/output error"), 70),
    ],
)
def test_a_start_that_fails_gives_its_status(error: Exception, status: int) -> None:
    with capture_logs() as logs:
        assert run(starting(error)) == status
    is_ours = isinstance(error, AssertionError)  # where in our program says something
    assert ("exc_info" in logs[-1] or "exception" in logs[-1]) == is_ours
    assert is_ours or str(error) in logs[-1]["reason"] or "disk is gone" in logs[-1]["reason"]


def test_an_error_in_a_callback_fails_the_node() -> None:
    async def life(server: FakeServer) -> None:
        asyncio.get_running_loop().call_soon(lambda: {"somebody": 1}["nobody"])

    server = FakeServer(life)
    with capture_logs():
        assert run(server.start) == 70
    (call,) = server.calls
    assert call.startswith("fail: ")
    assert call.endswith("KeyError: 'nobody'")


def test_a_task_that_died_unseen_fails_the_node() -> None:
    async def life(server: FakeServer) -> None:
        async def dies() -> None:
            raise RuntimeError("unseen")

        task = asyncio.create_task(dies())
        await asyncio.wait((task,))
        del task

    server = FakeServer(life)
    with capture_logs():
        assert run(server.start) == 70
    assert "RuntimeError: unseen" in server.calls[0]


def test_an_error_while_starting_fails_the_node() -> None:
    async def start() -> FakeServer:
        asyncio.get_running_loop().call_soon(lambda: {"somebody": 1}["nobody"])
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    with capture_logs() as logs:
        assert run(start) == 70
    assert "KeyError: 'nobody'" in logs[-1]["reason"]


def test_noise_of_the_wires_library_does_not_fail_the_node() -> None:
    """A peer that breaks off must not be able to stop a node."""
    noise: list[Exception] = [
        BlockingIOError(11, "nothing to read"),
        type("ExecuteBatchError", (Exception,), {"__module__": "grpc._cython.cygrpc"})(
            "the peer is gone"
        ),
    ]

    async def life(server: FakeServer) -> None:
        for error in noise:
            context = {"message": "Task exception was never retrieved", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
        await server.stop()

    server = FakeServer(life)
    with capture_logs() as logs:
        assert run(server.start) == 0
    assert server.calls == ["stop"]
    assert [entry["log_level"] for entry in logs[:2]] == ["warning", "warning"]


class SlowClock(asyncio.SelectorEventLoop):
    """A loop whose clock jumps when told: a stall, without waiting for one."""

    jumped_s = 0.0

    def time(self) -> float:
        return super().time() + self.jumped_s


def test_a_stall_is_counted_and_logged_at_most_once_a_minute() -> None:
    async def watch() -> StallWatch:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SlowClock)
        stalls = StallWatch()
        task = asyncio.create_task(stalls.run())
        for seen in (1, 2):
            await asyncio.sleep(0)
            loop.jumped_s += 0.3
            while stalls.count < seen:  # noqa: ASYNC110 - the watch has no event to wait for
                await asyncio.sleep(0)
        task.cancel()
        return stalls

    with capture_logs() as logs, asyncio.Runner(loop_factory=SlowClock) as runner:
        stalls = runner.run(watch())
    assert stalls.count == 2
    assert stalls.longest_ms > 250
    assert [entry["event"] for entry in logs] == ["the event loop stalled"]


def test_freed_memory_is_kept_where_there_is_glibc() -> None:
    assert keep_freed_memory() is True or not sys.platform.startswith("linux")


def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
        allowed = raise_open_files()
        assert allowed == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert allowed == hard or allowed >= OPEN_FILES_MAX
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_survived_a_full_pass_of_the_garbage_collector_is_set_aside() -> None:
    now = 0.0
    passes = GarbagePasses(lambda: now)
    try:
        kept = [[] for _ in range(1000)]  # type: ignore[var-annotated]
        passes("stop", {"generation": 1})
        assert gc.get_freeze_count() == 0
        passes("start", {"generation": 2})
        passes("stop", {"generation": 2})
        assert gc.get_freeze_count() > len(kept)
        passes("start", {"generation": 2})
        assert gc.get_freeze_count() > len(kept), "the next pass looks at newer objects only"
        now = LOOK_AT_ALL_S
        passes("start", {"generation": 2})
        assert gc.get_freeze_count() == 0, "once in a while a pass looks at all"
        passes("stop", {"generation": 2})
        now += LOOK_AT_ALL_S
        passes("start", {"generation": 2})
        assert gc.get_freeze_count() > 0, "there is little garbage if there are no more objects"
        passes("stop", {"generation": 2})
        kept += [[] for _ in range(gc.get_freeze_count() // 2)]
        passes("start", {"generation": 2})
        passes("stop", {"generation": 2})
        now += LOOK_AT_ALL_S
        passes("start", {"generation": 2})
        assert gc.get_freeze_count() == 0, "there may be garbage among more objects"
    finally:
        gc.unfreeze()


def test_a_full_pass_of_the_garbage_collector_comes_after_few_new_objects() -> None:
    before = gc.get_threshold(), list(gc.callbacks)
    end = collect_garbage_in_parts()
    young, middle, old = gc.get_threshold()
    assert young * (middle + 1) * (old + 1) <= 10_000, "a full pass is a turn of the loop"
    gc.collect()
    assert gc.get_freeze_count() > 0
    end()
    assert (gc.get_threshold(), list(gc.callbacks)) == before
    assert gc.get_freeze_count() == 0


def test_arguments_name_a_file_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text('node.id = 1\nlisteners = ["127.0.0.1:0"]\nlog.dirs = ["/a"]\n')
    arguments = ["--config", str(path), "--set", "node.id=2", "--set", "log.level=debug"]
    config = configure(QuorumConfig, arguments, {})
    assert (config.node_id, config.log_level) == (2, "debug")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--confg", "x"], "unrecognized arguments: --confg x"),
        (["--config"], "expected one argument"),
    ],
)
def test_a_wrong_usage_is_a_wrong_configuration(arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        configure(QuorumConfig, arguments, {})


NODE = """
import asyncio, os, signal, sys, threading
from quorate_quorum.node import process
from quorate_quorum.node.config import QuorumConfig

class Server:
    async def stop(self): self.done.set()
    def fail(self, reason): raise AssertionError(reason)
    async def stopped(self): await self.done.wait()

async def start(config):
    process.log.info("started", verbosity=os.environ["GRPC_VERBOSITY"], grpc="grpc" in sys.modules,
                     loop=type(asyncio.get_running_loop()).__module__)
    server = Server()
    server.done = asyncio.Event()
    if config.node_id == 70:  # a disk that hangs, then fails
        threading.Thread(target=threading.Event().wait).start()
        raise OSError(5, "Input/output error")
    os.kill(os.getpid(), signal.SIGTERM)
    return server

process.leave(process.main(QuorumConfig, start))
"""
SETTINGS = ["--set", "node.id=1", "--set", "listeners=127.0.0.1:0", "--set", "log.dirs=/nowhere"]


def node(*arguments: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("QUORATE_")}
    env.pop("GRPC_VERBOSITY", None)
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [sys.executable, *python, "-c", NODE, *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_process_logs_json_to_standard_error_and_exits_cleanly() -> None:
    found = node(*SETTINGS)
    assert (found.returncode, found.stdout) == (0, ""), found.stderr
    lines = [json.loads(line) for line in found.stderr.splitlines()]
    assert [line["event"] for line in lines] == [
        "starting",
        "started",
        "told to stop",
        "stopped cleanly",
    ]
    starting = lines.pop(0)
    assert starting["version"] == __version__
    assert starting["settings"]["listeners"] == ["127.0.0.1:0"]
    assert lines[0]["level"] == "info"
    assert lines[0]["verbosity"] == "NONE"
    assert lines[0]["grpc"] is False
    assert lines[0]["loop"].startswith("uvloop")
    assert "timestamp" in lines[0]


def test_a_process_says_aloud_that_nothing_is_encrypted() -> None:
    found = node(
        *SETTINGS,
        "--set",
        "listeners=0.0.0.0:0",
        "--set",
        "advertised.listeners=localhost:1",
        "--set",
        "allow.insecure.listeners=true",
    )
    warning = json.loads(found.stderr.splitlines()[1])
    assert warning["level"] == "warning"
    assert warning["listeners"] == ["0.0.0.0:0"]


@pytest.mark.parametrize("program", ["quorate_broker", "quorate_quorum"])
def test_a_program_says_its_version(program: str) -> None:
    asked = [sys.executable, "-m", program, "--version"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    said = f"{program.replace('_', '-')} {__version__}\n"
    assert (found.returncode, found.stdout, found.stderr) == (0, said, "")


def test_a_wrong_configuration_exits_with_78() -> None:
    found = node(*SETTINGS, "--set", "node.id=x")
    assert found.returncode == 78
    assert found.stderr.startswith("wrong configuration: --set node.id=x: node.id must be ")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "a" * 70])
def test_a_name_that_cannot_be_resolved_is_refused(host: str) -> None:
    found = node(*SETTINGS, "--set", f"advertised.listeners=grpc://{host}:1")
    assert found.returncode == 78
    said = f"wrong configuration: advertised.listeners: grpc://{host}:1 has a host that cannot be "
    assert found.stderr.startswith(said + "resolved here (")


@pytest.mark.parametrize("host", ["0x0", "0x00000000"])
def test_a_name_for_every_address_of_the_machine_is_refused(host: str) -> None:
    found = node(*SETTINGS, "--set", f"advertised.listeners=grpc://{host}:1")
    assert found.returncode == 78
    said = f"wrong configuration: advertised.listeners: grpc://{host}:1 has a host that resolves to"
    assert found.stderr.startswith(f"{said} 0.0.0.0, which is no address that others can dial")


def test_a_failed_process_ends_although_a_thread_hangs() -> None:
    found = node(*SETTINGS, "--set", "node.id=70")
    assert found.returncode == 70
    last = json.loads(found.stderr.splitlines()[-1])
    assert last["event"] == "the node failed"
    assert "Input/output error" in last["reason"]


def test_a_process_without_assertions_is_refused() -> None:
    found = node(*SETTINGS, python=("-O",))
    assert found.returncode == 78
    assert "python -O" in found.stderr
