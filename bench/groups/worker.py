"""`python -m bench.groups.worker`: one process of members, of the load, or of both.

It reads commands from its input, a line of JSON each, and writes a line for each that has an
answer. It ends when its input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any, Protocol

from bench.groups.notes import Notes


class Members(Protocol):
    """The members of one client library in this process."""

    async def join(self, names: list[str]) -> None:
        """Let these members join; do not wait for their partitions."""

    async def leave(self, names: list[str]) -> None:
        """Let these members leave, and wait until they are gone."""

    async def commit(self, per_second: float, seconds: float) -> None:
        """Let each member commit at this rate (0: one after another) for its first partition."""

    async def load(self, per_second: float, partitions: int) -> None:
        """Write records to all partitions in turn until the process ends."""


def members_of(options: argparse.Namespace, notes: Notes) -> Members:
    """Return the members of the client library that was asked for."""
    if options.client == "confluent":
        from bench.groups.confluent_members import ConfluentMembers

        return ConfluentMembers(options, notes)
    if options.client == "light":
        from bench.groups.light_members import LightMembers

        return LightMembers(options, notes)
    from bench.groups.members import QuorateMembers

    return QuorateMembers(options, notes)


async def carry_out(options: argparse.Namespace) -> None:
    """Carry out the commands, each in a task of its own."""
    notes = Notes()
    members = members_of(options, notes)
    tasks: set[asyncio.Task[None]] = set()
    print(json.dumps({"ready": True}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command: dict[str, Any] = json.loads(line)
        name = command.pop("do")
        if name == "dump":
            print(json.dumps(notes.taken()), flush=True)
            continue
        task = asyncio.create_task(_noted(getattr(members, name)(**command), name, notes))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def _noted(work: Any, name: str, notes: Notes) -> None:
    try:
        await work
    except Exception as error:
        notes.failures.append(f"{name}: {error!r}")


def main() -> None:
    """Run until the input ends."""
    parser = argparse.ArgumentParser(prog="python -m bench.groups.worker", description=__doc__)
    parser.add_argument("--client", default="quorate")
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--session-timeout-ms", type=int, default=45_000)
    parser.add_argument("--commits-reads", type=int, default=1, help="0: no automatic commits")
    try:
        import uvloop
    except ImportError:
        asyncio.run(carry_out(parser.parse_args()))
    else:
        uvloop.run(carry_out(parser.parse_args()))


if __name__ == "__main__":
    main()
