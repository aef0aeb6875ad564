"""Where the time of one commit goes: stages from the marks of traced voters and of the asker.

One caller asks one thing after the other, so whatever was marked between the beginning and the end
of a call belongs to it. A stage is the time from one mark to the next on the way that ended last:
leader -> the follower that was first -> leader -> asker.
"""

from __future__ import annotations

import json
import statistics
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.traced_voter import TRACE
from bench.voters import Voters, ask, door, running, set_once
from quorate_cli.local_nodes import Node
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.client.forward_stream import ForwardStream

Figures = dict[str, list[float]]
Marks = Sequence[tuple[float, str]]

CALLS = 1000
WARM_UP = 200
TRANSPORT = "gRPC streams, TCP"

#: The stages of a commit, in their order.
STAGES = (
    "asker encodes and sends, leader decodes",
    "leader decides and appends",
    "to the first follower",
    "follower writes and syncs",
    "follower's fetch acknowledges",
    "leader commits and applies",
    "answer reaches the asker",
    "Watch brings it to the asker's image",
    "asker goes on",
)
LEADER_SYNC = "(leader's own sync, meanwhile)"


class TracedVoters(Voters):
    """Voters that record the time at which messages enter and leave."""

    def _program(self, node: Node) -> list[str]:
        return ["bench.traced_voter", "--config", str(node.folder / "config.toml")]

    def marks(self) -> dict[int, Marks]:
        """The marks that each voter has written; call it after stop()."""
        return {
            voter.id: [(when, what) for when, what in json.loads(read(voter.folder / TRACE))]
            for voter in self.voters
        }


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


class Call(NamedTuple):
    """One call as its asker saw it; seconds of the common clock."""

    began: float
    answered: float
    applied: float
    ended: float


def stages() -> Figures:
    """The median of each stage, in milliseconds, and their sum."""
    with running(TracedVoters) as cluster:
        calls, leader_id = ask(_calls(cluster))
        cluster.stop()
        marks = cluster.marks()
    leader = _Trace(marks.pop(leader_id))
    followers = [_Trace(each) for each in marks.values()]
    rows = [row for call in calls if (row := _row(call, leader, followers)) is not None]
    if len(rows) < CALLS // 2:
        raise OSError(f"only {len(rows)} of {len(calls)} calls could be followed through")
    names = (*STAGES, LEADER_SYNC)
    medians = [statistics.median(row[i] for row in rows) * 1000 for i in range(len(names))]
    figures = {f"  {name}, ms": [ms] for name, ms in zip(names, medians, strict=True)}
    whole = statistics.median(call.ended - call.began for call in calls) * 1000
    return {f"a commit by stage, whole, ms ({TRANSPORT})": [whole]} | figures


async def _calls(cluster: Voters) -> tuple[list[Call], int]:
    async with door(cluster) as client:
        seen: dict[str, float] = {}
        _watch_asker(client, seen)
        for number in range(WARM_UP):
            await set_once(client, number)
        calls = []
        for number in range(CALLS):
            seen.clear()
            began = time.monotonic()
            await set_once(client, WARM_UP + number)
            ended = time.monotonic()
            calls.append(Call(began, seen["answered"], seen["applied"], ended))
        return calls, client.leader_id


def _watch_asker(client: QuorumClient, seen: dict[str, float]) -> None:
    """Note when the answer and the image come."""
    take = ForwardStream._take

    def taken(stream: ForwardStream, message: object) -> None:
        seen["answered"] = time.monotonic()
        take(stream, message)  # type: ignore[arg-type]

    ForwardStream._take = taken  # type: ignore[assignment,method-assign]

    class Applied:
        def image_changed(self, delta: object, image: object) -> None:
            seen["applied"] = time.monotonic()

    client.subscribe(Applied())


class _Trace:
    """The marks of one voter, by kind."""

    def __init__(self, marks: Marks) -> None:
        self._times: dict[str, list[float]] = {}
        for when, what in marks:
            self._times.setdefault(what, []).append(when)

    def first(self, what: str, after: float, before: float) -> float | None:
        """The time of the first such mark in a span of time."""
        times = self._times.get(what, [])
        index = bisect_left(times, after)
        return times[index] if index < len(times) and times[index] <= before else None

    def last(self, what: str, after: float, before: float) -> float | None:
        """The time of the last such mark in a span of time."""
        times = self._times.get(what, [])
        index = bisect_right(times, before) - 1
        return times[index] if index >= 0 and times[index] >= after else None


def _row(call: Call, leader: _Trace, followers: Sequence[_Trace]) -> list[float] | None:
    """Return the seconds of each stage, or None if a mark is missing: an election, a timer."""
    arrived = leader.first("arrived", call.began, call.ended)
    if arrived is None:
        return None
    written = leader.first("written", arrived, call.ended)
    committed = leader.first("committed", arrived, call.ended)
    if written is None or committed is None:
        return None
    synced = leader.first("synced", written, call.ended) or committed
    ways = []
    for follower in followers:
        came = follower.first("replicated", written, call.ended)
        durable = None if came is None else follower.first("synced", came, call.ended)
        if came is not None and durable is not None:
            ways.append((durable, came))
    if not ways:
        return None
    durable, came = min(ways)
    heard = leader.last("fetch", min(durable, committed), committed) or min(durable, committed)
    answered = max(call.answered, committed)
    applied = max(call.applied, answered)
    return [
        arrived - call.began,
        written - arrived,
        came - written,
        durable - came,
        max(0.0, heard - durable),
        committed - max(heard, durable),
        answered - committed,
        applied - answered,
        call.ended - applied,
        synced - written,
    ]
