"""The coordinator is killed: what do its members notice?"""

from __future__ import annotations

import time
from typing import Any

from bench.groups.bench import Bench, dump
from bench.groups.notes import Notes, spread

NEVER = float("inf")
#: How often each member commits, and how long before the kill it begins.
COMMITS_PER_SECOND = 20
BEFORE_S = 2.0


def fail_over(bench: Bench) -> None:
    """The coordinator is killed while 10 members commit."""
    options = bench.options
    commits_s: list[float] = []
    beats_s: list[float] = []
    session_ms = options.session_timeout_ms
    for number in range(options.rounds):
        with bench.group(load=False, session_ms=session_ms) as (notes, workers, _):
            dump(workers, notes)
            notes.events.clear()
            # Members that lost their session are seen, too.
            seconds = BEFORE_S + session_ms / 1000 + options.window
            for one in workers:
                one.tell("commit", per_second=COMMITS_PER_SECOND, seconds=seconds)
            time.sleep(BEFORE_S)
            at = bench.target.kill_coordinator(bench.group_id)
            time.sleep(seconds - BEFORE_S + 1)
            dump(workers, notes)
            lost = _lost(notes, bench.target.committed(bench.group_id))
            names = sorted({one.member for one in notes.commits})
            commits = [_first(notes.commits, name, at) for name in names]
            states = [one for one in notes.events if one.what == "state"]
            beats = [_first(states, name, at) for name in names]
            commits_s += commits
            beats_s += beats
            bench.print(
                "fail-over",
                {
                    "round": number,
                    "members": len(names),
                    "commits": len(notes.commits),
                    "first_commit_ms": spread(commits),
                    "first_heartbeat_ms": spread(beats),
                    "rebalances": len(notes.events) - len(states),
                    "lost_offsets": lost,
                    "failures": notes.failures[:3],
                },
            )
            bench.target.recover()
    bench.print(
        "fail-over: all",
        {"first_commit_ms": spread(commits_s), "first_heartbeat_ms": spread(beats_s)},
    )


def _lost(notes: Notes, committed: dict[int, int]) -> int:
    """Return how many partitions have an older offset than the last one that was acknowledged."""
    acked: dict[int, int] = {}
    for one in notes.commits:
        acked[one.partition] = max(acked.get(one.partition, 0), one.offset)
    return sum(committed.get(number, 0) < offset for number, offset in acked.items())


def _first(found: list[Any], member: str, since: float) -> float:
    """Return how long after `since` a member was answered first."""
    times = [one.at for one in found if one.member == member and one.at > since]
    return min(times, default=NEVER) - since
