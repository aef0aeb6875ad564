"""What a coordinator spends on many members, and on commits."""

from __future__ import annotations

import time

from bench.groups.bench import Bench, dump
from bench.groups.notes import Event, Notes, spread
from bench.groups.targets import cpu_seconds
from bench.groups.workers import Worker, pin


def many(bench: Bench) -> None:
    """200 members join a topic with 1,000 partitions at once."""
    options = bench.options
    for _ in range(options.rounds):
        bench.new_group(options.many_partitions, 1)
        workers = bench.workers(options.client)
        pid = bench.target.coordinator(bench.group_id)
        mine = [one.pid for one in workers]
        before = [cpu_seconds(pids) for pids in ([pid], mine)]
        began = time.monotonic()
        bench.join(workers, options.many_members)
        time.sleep(options.many_wait)
        after = [cpu_seconds(pids) for pids in ([pid], mine)]
        notes = dump(workers, Notes())
        shares, settled = shares_of(notes.events)
        sizes = sorted(len(share) for share in shares.values())
        bench.print(
            "many",
            {
                "client": options.client or bench.target.client,
                "members": len(shares),
                "partitions": sum(sizes),
                "shares": [sizes[0], sizes[-1]] if sizes else [],
                "settled_s": round(settled - began, 2),
                "coordinator_cpu_s": round(after[0] - before[0], 2),
                "clients_cpu_s": round(after[1] - before[1], 2),
                "failures": notes.failures[:3],
            },
        )
        for one in workers:
            one.kill()


def shares_of(events: list[Event]) -> tuple[dict[str, set[int]], float]:
    """Return what each member has after these events, and the time of the last change.

    >>> shares_of([Event(1.0, "a", "assigned", [1, 2]), Event(2.0, "a", "revoked", [2])])
    ({'a': {1}}, 2.0)
    """
    shares: dict[str, set[int]] = {}
    last = 0.0
    for event in sorted(events):
        had, told = shares.get(event.member, set()), set(event.partitions)
        match event.what:
            case "state":
                continue
            case "has":
                shares[event.member] = told
            case "assigned":
                shares[event.member] = had | told
            case _:
                shares[event.member] = had - told
        last = event.at
    return shares, last


def commits(bench: Bench) -> None:
    """50 members commit, each for one partition, each with one commit in flight."""
    options = bench.options
    bench.new_group(options.commit_members, 1)
    workers = bench.workers(options.client)
    pid = bench.target.coordinator(bench.group_id)
    bench.join(workers, options.commit_members)
    time.sleep(options.join_wait)
    if options.pin:
        for broker in bench.target.broker_pids():
            pin(broker, {0} if broker == pid else {1})
        for one in workers:
            pin(one.pid, {1})
    failures = dump(workers, Notes()).failures
    if failures:
        bench.print("commits", {"failures": failures[:3]})
    for rate in options.rates:
        for _ in range(options.rounds):
            _commit(bench, workers, pid, rate)
    for one in workers:
        one.kill()


def _commit(bench: Bench, workers: list[Worker], pid: int, rate: int) -> None:
    options = bench.options
    others = [one for one in bench.target.broker_pids() if one != pid]
    groups = ([pid], others, [one.pid for one in workers])
    before = [cpu_seconds(pids) for pids in groups]
    for one in workers:
        one.tell("commit", per_second=rate / options.commit_members, seconds=options.seconds)
    time.sleep(options.seconds + 0.5)
    used = [cpu_seconds(pids) - old for pids, old in zip(groups, before, strict=True)]
    notes = dump(workers, Notes())
    count = max(len(notes.commits), 1)
    each = [round(one / count * 1000, 3) for one in used]
    bench.print(
        "commits",
        {
            "client": options.client or bench.target.client,
            "asked_per_s": rate or "all",
            "per_s": round(count / options.seconds),
            "coordinator_ms_per_commit": each[0],
            "coordinator_cores": round(used[0] / options.seconds, 2),
            "other_brokers_ms_per_commit": each[1],
            "clients_ms_per_commit": each[2],
            "latency_ms": spread([one.at - one.began for one in notes.commits], digits=1),
            "failures": notes.failures[:3],
        },
    )
