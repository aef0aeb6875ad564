"""What the measures share: one target, groups of members on it, and lines of JSON."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.groups.notes import Notes
from bench.groups.targets import Target
from bench.groups.workers import Worker

SESSION_MS = 45_000


class Bench:
    """The target of all measures. Each measure uses topics and groups of its own."""

    def __init__(self, target: Target, options: argparse.Namespace) -> None:
        self.target = target
        self.options = options
        self._serial = itertools.count(int(time.time()) % 100_000 * 100)
        self.topic = self.group_id = ""
        self._session_ms = SESSION_MS
        self._commits_reads = False

    def new_group(
        self,
        partitions: int,
        replicas: int,
        *,
        session_ms: int = SESSION_MS,
        commits_reads: bool = False,
    ) -> None:
        """Make a topic for a new group. The workers that are made next belong to this group.

        With `commits_reads`, its members commit what they have read by themselves. They would undo
        the commits of a measure.
        """
        serial = next(self._serial)
        self.topic, self.group_id = f"topic-{serial}", f"group-{serial}"
        self._session_ms = session_ms
        self._commits_reads = commits_reads
        self.target.create_topic(self.topic, partitions, replicas)

    def worker(self, client: str = "") -> Worker:
        """Start a process without members."""
        return Worker(
            self.target,
            client or self.target.client,
            self.topic,
            self.group_id,
            self._session_ms,
            commits_reads=self._commits_reads,
        )

    def workers(self, client: str) -> list[Worker]:
        """Start the processes of the members, and wait until they are ready."""
        found = [self.worker(client) for _ in range(self.options.processes)]
        for one in found:
            one.ready()
        return found

    def join(self, workers: list[Worker], members: int) -> None:
        """Let members join, spread over the processes."""
        names = [f"m-{number}" for number in range(members)]
        for index, one in enumerate(workers):
            one.tell("join", names=names[index :: len(workers)])

    @contextmanager
    def group(
        self, *, load: bool, session_ms: int = SESSION_MS
    ) -> Iterator[tuple[Notes, list[Worker], Worker]]:
        """Run members of a new group, which have their partitions, and a process without members.

        With `load`, records are written to all partitions at a steady rate.
        """
        options = self.options
        replicas = 1 if load else options.brokers
        self.new_group(options.partitions, replicas, session_ms=session_ms, commits_reads=load)
        workers = self.workers("")
        spare, loader = self.worker(), self.worker()
        try:
            spare.ready()
            loader.ready()
            self.join(workers, options.members)
            if load:
                loader.tell("load", per_second=options.load, partitions=options.partitions)
            time.sleep(options.join_wait)
            yield Notes(), workers, spare
        finally:
            for one in (*workers, spare, loader):
                one.kill()

    def print(self, measure: str, row: dict[str, Any]) -> None:
        print(json.dumps({"measure": measure, **row}), flush=True)


def dump(workers: list[Worker], notes: Notes) -> Notes:
    """Add what these processes have noticed since the last call, and return all."""
    for one in workers:
        one.dump(notes)
    return notes
