"""Sentences about the causes of a partition's changes, and about the changes.

One table says each cause. A sentence about a change compares the state before with the state after,
so it needs no text in the metadata log.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from quorate.durations import duration
from quorate_quorum.metadata.history import Cause, PastChange
from quorate_quorum.metadata.partitions import NO_LEADER
from quorate_quorum.v1 import events_pb2 as ev

#: What is said of a cause: `it` stands for the broker, `time` for a duration, `records` for a
#: number of records.
CLAUSES: Final = {
    ev.CAUSE_KIND_UNSPECIFIED: "the cause was not recorded",
    ev.CAUSE_KIND_TOPIC_CREATED: "the topic was created",
    ev.CAUSE_KIND_TOPIC_GROWN: "the topic was given more partitions",
    ev.CAUSE_KIND_BROKER_SILENT: "{it} was fenced: no heartbeat for {time}",
    ev.CAUSE_KIND_BROKER_GONE: "{it} was fenced: its connection broke, and its port refuses",
    ev.CAUSE_KIND_BROKER_REPLACED: (
        "{it} was fenced: its connection broke, and another run of it answers"
    ),
    ev.CAUSE_KIND_BROKER_UNREACHABLE: (
        "{it} was fenced: its connection broke, and nothing answered for {time}"
    ),
    ev.CAUSE_KIND_BROKER_VANISHED: "{it} was fenced: its process went while it came back",
    ev.CAUSE_KIND_BROKER_STOPPED: "{it} stopped, as it had asked to",
    ev.CAUSE_KIND_BROKER_RESTARTED: "{it} was restarted",
    ev.CAUSE_KIND_SHUTTING_DOWN: "{it} asked to shut down",
    ev.CAUSE_KIND_BROKER_RETURNED: "{it} was unfenced again",
    ev.CAUSE_KIND_DIRECTORY_FAILED: "the log directory of the replica failed on {it}",
    ev.CAUSE_KIND_DIRECTORY_MISSING: (
        "{it} came back without the log directory of the replica, as after a disk was wiped"
    ),
    ev.CAUSE_KIND_TAIL_LOST: (
        "{it} came back after a run that did not end well, and may have lost the end of its log"
    ),
    ev.CAUSE_KIND_REPLICA_LOSSY: (
        "{it} reported that its replica has lost records, or cannot be read"
    ),
    ev.CAUSE_KIND_PREFERRED_ASKED: "an operator asked for the preferred leader, {it}",
    ev.CAUSE_KIND_PREFERRED_BALANCE: (
        "{it} is the preferred leader (auto.leader.rebalance.enable)"
    ),
    ev.CAUSE_KIND_BROKER_DRAINED: "{it} is drained",
    ev.CAUSE_KIND_ELECTION_ASKED: "an operator asked for an election, and {it} has all records",
    ev.CAUSE_KIND_LOSSY_TOLD: (
        "no replica was sure to have all records; all told where their logs end, and {it} had most"
    ),
    ev.CAUSE_KIND_LOSSY_WAITED: (
        "no replica was sure to have all records; {it} had most of those that came back within"
        " unclean.recovery.wait.ms"
    ),
    ev.CAUSE_KIND_LOSSY_ALLOWED: (
        "no replica that had all records was alive, and unclean.leader.election.enable is true;"
        " {it} had most"
    ),
    ev.CAUSE_KIND_LOSSY_ASKED: (
        "an operator asked for an unclean election, and {it} had most records"
    ),
    ev.CAUSE_KIND_REASSIGNMENT_ASKED: "an operator asked for other replicas",
    ev.CAUSE_KIND_REASSIGNMENT_REPLACED: (
        "an operator asked for other replicas while a reassignment was under way"
    ),
    ev.CAUSE_KIND_REASSIGNMENT_CANCELLED: "an operator cancelled the reassignment",
    ev.CAUSE_KIND_REASSIGNMENT_COMPLETED: "every target replica is in the ISR",
    ev.CAUSE_KIND_REPLICAS_DRAINED: "{it} is drained, and its replicas go to other brokers",
    ev.CAUSE_KIND_INTERNAL_TOPIC_RAISED: (
        "the internal topic had fewer replicas than are configured"
    ),
    ev.CAUSE_KIND_FELL_BEHIND: (
        "{it} lagged for {time}, over replica.lag.time.max.ms, and was {records} behind"
    ),
    ev.CAUSE_KIND_NOT_FETCHING: (
        "{it} did not fetch for {time}, over replica.lag.time.max.ms, and was {records} behind"
    ),
    ev.CAUSE_KIND_REPLICA_LEFT: "{it} no longer fetched this partition: its replica is offline",
    ev.CAUSE_KIND_LOST_RECORDS: (
        "{it} has lost records: its log ended {records} below the high watermark"
    ),
    ev.CAUSE_KIND_CAUGHT_UP: "{it} has caught up",
    ev.CAUSE_KIND_LEADER_DAMAGED: "the leader, {it}, found its log damaged",
    ev.CAUSE_KIND_LEADER_OFFLINE: "the replica of the leader, {it}, is offline",
    ev.CAUSE_KIND_LEADER_FULL: "the disk of the leader, {it}, is full",
    ev.CAUSE_KIND_MIN_ISR_CHANGED: (
        "a config was changed, and the ISR now has min.insync.replicas members"
    ),
}
#: Causes of elections that may lose records. Brokers that they do not name leave the ISR, too.
_LOSSY: Final = (
    ev.CAUSE_KIND_LOSSY_TOLD,
    ev.CAUSE_KIND_LOSSY_WAITED,
    ev.CAUSE_KIND_LOSSY_ALLOWED,
    ev.CAUSE_KIND_LOSSY_ASKED,
)
UNKNOWN: Final = "of a cause that this release does not know"


@dataclass(frozen=True, slots=True)
class OutOfSync:
    """A replica that is not in the ISR, and why."""

    broker_id: int
    #: When it left the ISR, or was added; in milliseconds since 1970. 0: the history does not say.
    since_ms: int
    #: The end of a sentence "it is out of the ISR, because ..."
    reason: str
    #: Whether it is out because its broker was away. Then the broker may be back by now.
    was_away: bool = False

    def for_ms(self, now_ms: int) -> int:
        """Return how long the replica is out; -1: not known. A clock that is behind counts as 0."""
        return max(now_ms - self.since_ms, 0) if self.since_ms else -1


def clause(cause: Cause, it: str = "") -> str:
    """Return a cause as a clause. `it` stands for its broker; else its id does.

    >>> clause(Cause(ev.CAUSE_KIND_BROKER_SILENT, 1, ms=9_230))
    'broker 1 was fenced: no heartbeat for 9.2 s'
    """
    records = "1 record" if cause.records == 1 else f"{cause.records:,} records"
    return CLAUSES.get(cause.kind, UNKNOWN).format(
        it=it or f"broker {cause.broker_id}", time=duration(cause.ms), records=records
    )


def sentence(before: PastChange | None, change: PastChange) -> str:
    """Return what the controller did by a change, and why, without a full stop.

    `before` is the change before it; None: that one is not kept, or the partition was created.
    """
    if before is None:
        done = "created the partition, with" if change.is_creation else "changed the partition:"
        done = f"{done} {_leader(change)}, ISR {_ids(change.isr)}"
        if change.elr:
            done += f", ELR {_ids(change.elr)}"
        done += f" and replicas {_ids(change.replicas)}"
    elif _is_throttled_anew(before, change):
        return (
            "the controller changed the throttle of the reassignment, because an operator asked"
            " for the same replicas with another throttle"
        )
    else:
        steps = list(_steps(before, change))
        done = _listed(steps) if steps else "changed the state of the partition"
    causes = change.causes or (Cause(ev.CAUSE_KIND_UNSPECIFIED),)
    if all(cause.kind == ev.CAUSE_KIND_UNSPECIFIED for cause in causes):
        return f"the controller {done}; {CLAUSES[ev.CAUSE_KIND_UNSPECIFIED]}"
    told = list(dict.fromkeys(map(clause, causes)))
    loss = any(cause.kind in _LOSSY for cause in causes)
    warning = ": ACKNOWLEDGED RECORDS MAY BE LOST" if loss else ""
    return f"the controller {done}, because {_listed(told)}{warning}"


def _steps(before: PastChange, change: PastChange) -> Iterator[str]:
    """Yield what differs between two states: leader, ISR, ELR, replicas."""
    epoch = f"leader epoch {change.leader_epoch}"
    if change.leader != before.leader:
        if change.leader == NO_LEADER:
            yield f"left the partition without a leader in {epoch}"
        else:
            yield f"elected broker {change.leader} in {epoch}"
    elif change.leader_epoch != before.leader_epoch:
        yield f"began {epoch}, with the same leader"
    if left := _without(before.isr, change.isr):
        yield f"took {_brokers(left)} out of the ISR"
    if joined := _without(change.isr, before.isr):
        yield f"took {_brokers(joined)} into the ISR"
    if entered := _without(change.elr, before.elr):
        yield f"put {_brokers(entered)} into the ELR"
    if dropped := _without(_without(before.elr, change.elr), change.isr):
        yield f"took {_brokers(dropped)} out of the ELR"
    yield from _replica_steps(before, change)


def _replica_steps(before: PastChange, change: PastChange) -> Iterator[str]:
    """Yield what a reassignment changed between two states."""
    sizes = [len(_target(one)) for one in (before, change)]
    if sizes[0] != sizes[1]:
        yield f"gave the partition {sizes[1]} replicas instead of {sizes[0]}"
    if added := _without(change.replicas, before.replicas):
        yield f"began to add replicas on {_brokers(added)}"
    if removing := _without(change.removing, before.removing):
        yield f"marked the replicas on {_brokers(removing)} for removal"
    if removed := _without(before.replicas, change.replicas):
        yield f"removed the replicas on {_brokers(removed)}"
    is_over = (before.adding or before.removing) and not (change.adding or change.removing)
    if is_over:
        yield f"ended the reassignment, with replicas {_ids(change.replicas)}"
    elif change.replicas != before.replicas and set(change.replicas) == set(before.replicas):
        yield f"changed the order of the replicas to {_ids(change.replicas)}"


def _is_throttled_anew(before: PastChange, change: PastChange) -> bool:
    """Return whether a new request for the same replicas changed the throttle of a reassignment.

    The throttle is not in the history. But no other change replaces a reassignment by an equal one.
    """
    like = replace(before, offset=change.offset, time_ms=change.time_ms, causes=change.causes)
    return like == change and [one.kind for one in change.causes] == [
        ev.CAUSE_KIND_REASSIGNMENT_REPLACED
    ]


def _target(change: PastChange) -> list[int]:
    return _without(change.replicas, change.removing)


def out_of_sync(
    newest_first: Iterable[PastChange], replicas: Sequence[int], isr: Collection[int]
) -> list[OutOfSync]:
    """Return each replica that is not in the ISR: since when, and why.

    Of the changes, only those from now to the one that explains the last replica are looked at.
    """
    absent = [b for b in replicas if b not in isr]
    found: dict[int, OutOfSync] = {}
    changes = iter(newest_first)
    change = next(changes, None)
    while change is not None and len(found) < len(absent):
        before = next(changes, None)
        for broker_id in absent:
            reason = None if broker_id in found else _why_out(before, change, broker_id)
            if reason is not None:
                away = before is None or _was_away(change, broker_id)
                found[broker_id] = OutOfSync(broker_id, change.time_ms, reason, away)
        change = before
    not_kept = "the event that took it out is not kept"
    return [found.get(b) or OutOfSync(b, 0, not_kept) for b in absent]


def _why_out(before: PastChange | None, change: PastChange, broker_id: int) -> str | None:
    """Return why a replica is out of the ISR since this change; None if it is not since then."""
    if before is None:
        is_first = change.is_creation
        return "its broker was not alive when the partition was created" if is_first else None
    if broker_id in before.isr and broker_id not in change.isr:
        return _why_left(change, broker_id)
    if broker_id in change.replicas and broker_id not in before.replicas:
        return "its replica was added, and has not caught up yet"
    return None


def _why_left(change: PastChange, broker_id: int) -> str:
    own = [cause for cause in change.causes if cause.broker_id == broker_id]
    others = [cause for cause in change.causes if cause.kind in _LOSSY]
    if not (own or others):
        return CLAUSES[ev.CAUSE_KIND_UNSPECIFIED]
    return _listed([clause(one, "it") for one in own] or [clause(one) for one in others])


def _was_away(change: PastChange, broker_id: int) -> bool:
    return any(one.broker_id == broker_id and one.kind in _AWAY for one in change.causes)


#: Causes that a broker was away.
_AWAY: Final = (
    ev.CAUSE_KIND_BROKER_SILENT,
    ev.CAUSE_KIND_BROKER_GONE,
    ev.CAUSE_KIND_BROKER_REPLACED,
    ev.CAUSE_KIND_BROKER_UNREACHABLE,
    ev.CAUSE_KIND_BROKER_VANISHED,
    ev.CAUSE_KIND_BROKER_STOPPED,
    ev.CAUSE_KIND_BROKER_RESTARTED,
    ev.CAUSE_KIND_SHUTTING_DOWN,
)


def _leader(change: PastChange) -> str:
    if change.leader == NO_LEADER:
        return "no leader"
    return f"leader {change.leader} in leader epoch {change.leader_epoch}"


def _without(members: Sequence[int], others: Collection[int]) -> list[int]:
    return [b for b in members if b not in others]


def _ids(members: Sequence[int]) -> str:
    return f"[{', '.join(map(str, members))}]"


def _brokers(members: Sequence[int]) -> str:
    return ("broker " if len(members) == 1 else "brokers ") + _listed([str(b) for b in members])


def _listed(parts: Sequence[str]) -> str:
    """Return parts as one list.

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
