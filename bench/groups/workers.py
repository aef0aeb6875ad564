"""The processes of members, as the bench sees them."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from typing import Any

from bench.groups.notes import Notes


class Worker:
    """One process of members, or of the load."""

    def __init__(
        self,
        target: Any,
        client: str,
        topic: str,
        group: str,
        session_ms: int,
        *,
        commits_reads: bool,
    ) -> None:
        arguments = argparse.Namespace(
            client=client,
            bootstrap_servers=target.bootstrap_servers,
            topic=topic,
            group=group,
            session_timeout_ms=session_ms,
            commits_reads=int(commits_reads),
        )
        named = [f"--{key.replace('_', '-')}={value}" for key, value in vars(arguments).items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.groups.worker", *named],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> None:
        """Wait until the process has imported its modules."""
        self._answer()

    def tell(self, do: str, **arguments: Any) -> None:
        """Give a command, and do not wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()

    def dump(self, notes: Notes) -> None:
        """Add what the process has noticed since the last call."""
        self.tell("dump")
        notes.add(self._answer())

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def pause(self) -> None:
        """Let the process hang."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End the process at once. It is safe to call this twice."""
        self._process.kill()
        self._process.wait()


def pin(pid: int, cpus: set[int]) -> None:
    """Let all threads of a process run only on these CPUs."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), cpus)
