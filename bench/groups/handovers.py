"""Partitions that go from member to member: how long does each stand still?"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from bench.groups.bench import Bench, dump
from bench.groups.costs import shares_of
from bench.groups.notes import Move, Notes, moves, pauses, spread, within
from bench.groups.workers import Worker

VICTIM = "victim"


@dataclass(slots=True)
class Pauses:
    """How long partitions stood still, in seconds, over all rounds."""

    moved: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    quiet: list[float] = field(default_factory=list)


def join_and_leave(bench: Bench) -> None:
    """10 members and a steady load; one more joins, then leaves."""
    options, found = bench.options, Pauses()
    with bench.group(load=True) as (notes, workers, spare):
        for number in range(options.rounds):
            name = f"extra-{number}"
            quiet_from = time.monotonic()
            time.sleep(options.window)
            join_at = time.monotonic()
            spare.tell("join", names=[name])
            time.sleep(options.window)
            leave_at = time.monotonic()
            spare.tell("leave", names=[name])
            time.sleep(options.window)
            until = time.monotonic()
            dump([*workers, spare], notes)
            found.quiet += pauses(within(notes.reads, quiet_from, join_at)).values()
            row: dict[str, Any] = {"round": number}
            row["join"] = _change(bench, notes, (join_at, leave_at), found)
            row["leave"] = _change(bench, notes, (leave_at, until), found)
            bench.print("join/leave", row)
            notes.reads.clear()
            notes.events.clear()
        bench.print(
            "join/leave: all",
            {
                "gap_of_moved_ms": spread(found.moved),
                "longest_pause_of_kept_ms": spread(found.kept),
                "longest_pause_without_rebalance_ms": spread(found.quiet),
                "failures": notes.failures[:3],
            },
        )


def _change(
    bench: Bench, notes: Notes, time_of: tuple[float, float], found: Pauses
) -> dict[str, Any]:
    """Return what one join or leave did to the partitions, and add it to `found`."""
    since, until = time_of
    moved = [one for one in moves(notes.reads) if since <= one.at < until]
    numbers = {one.partition for one in moved}
    told = [one for one in notes.events if since <= one.at < until]
    stopped = {
        number for one in told if one.what in ("revoked", "lost") for number in one.partitions
    }
    still = pauses(within(notes.reads, since, until))
    kept = [pause for number, pause in still.items() if number not in numbers]
    found.moved += [one.gap_s for one in moved]
    found.kept += kept
    if bench.options.trace:
        _trace(notes, moved, since)
    return {
        "moved": len(moved),
        "stopped_but_not_moved": len(stopped - numbers),
        "gaps_ms": sorted(round(one.gap_s * 1000) for one in moved),
        "settled_ms": round(max((one.at - since for one in moved), default=0) * 1000),
        "longest_pause_of_kept_ms": round(max(kept, default=0) * 1000),
    }


def _trace(notes: Notes, moved: list[Move], since: float) -> None:
    """Print when a move was told to the members, in ms since the change began."""
    for one in moved:
        told = [
            (event.what, event.member, round((event.at - since) * 1000))
            for event in sorted(notes.events)
            if one.partition in event.partitions and event.at >= since
        ]
        began, ended = (round((at - since) * 1000) for at in (one.at - one.gap_s, one.at))
        print(f"    partition {one.partition}: last read {began}, {told}, first read {ended}")


def die_and_hang(bench: Bench) -> None:
    """A member is killed; a member hangs. When do others read its partitions?"""
    session_ms = bench.options.session_timeout_ms
    for what in ("killed", "hung"):
        gaps: list[float] = []
        with bench.group(load=True, session_ms=session_ms) as (notes, workers, victim):
            for _ in range(bench.options.rounds):
                gaps += _end_one(bench, what, notes, workers, victim)
                victim.kill()
                victim = bench.worker()
                victim.ready()
            victim.kill()
        bench.print(f"{what}: all", {"read_again_ms": spread(gaps)})


def _end_one(
    bench: Bench, what: str, notes: Notes, workers: list[Worker], victim: Worker
) -> list[float]:
    """Let a member join, and kill or stop it. Return when its partitions were read again."""
    options = bench.options
    victim.tell("join", names=[VICTIM])
    time.sleep(options.window)
    victim.dump(notes)
    owned = shares_of(notes.events)[0].get(VICTIM, set())
    at = time.monotonic()
    if what == "killed":
        victim.kill()
        time.sleep(options.window)
    else:
        victim.pause()
        time.sleep(options.session_timeout_ms / 1000 + options.window)
    dump(workers, notes)
    first: dict[int, float] = {}
    for read in sorted(notes.reads):
        if read.at > at and read.partition in owned:
            first.setdefault(read.partition, read.at - at)
    bench.print(
        what,
        {
            "partitions": len(owned),
            "read_again_ms": sorted(round(one * 1000) for one in first.values()),
        },
    )
    notes.reads.clear()
    notes.events.clear()
    return list(first.values())
