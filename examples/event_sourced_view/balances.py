"""The balances of accounts, as a view of the payments in a topic.

    python balances.py create payments
    python balances.py pay payments alice 950
    python balances.py follow payments
    python balances.py show payments [--since TIME] [--until TIME] [--from-scratch]

The topic is the truth: the balances can be built again from it at any time, for any time. `follow`
keeps snapshots of them in a second, compacted topic, so that a start need not read all payments.
The programs take --bootstrap HOST:PORT. A TIME is as 2026-01-31T12:00+00:00; one without a zone is
local.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import ChainMap, Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from quorate import NewTopic, Record, TopicPartition
from quorate.sync import Admin, Consumer, Producer

#: Where the cluster is, unless --bootstrap says otherwise.
SERVERS = os.environ.get("QUORATE_BOOTSTRAP", "localhost:7092")

SNAPSHOT_EVERY = 1000


@dataclass
class View:
    """The balances of the accounts in one partition, and the place up to which it has payments.

    A key is always in the same partition, so no two views have the same account.
    """

    balances: dict[str, int] = field(default_factory=dict)
    next_offset: int = 0
    #: Of the last payment in it, -1 if there is none. By it the cluster finds out whether the topic
    #: has lost payments that are in this view.
    leader_epoch: int = -1

    def apply(self, payment: Record[bytes, bytes]) -> None:
        """Add a payment: its key is the account, its value the cents."""
        assert payment.key is not None
        assert payment.value is not None
        account = payment.key.decode()
        self.balances[account] = self.balances.get(account, 0) + int(payment.value)
        self.next_offset = payment.offset + 1
        self.leader_epoch = payment.leader_epoch

    def to_bytes(self) -> bytes:
        """Return the view as JSON."""
        return json.dumps(vars(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the view that to_bytes() made into `data`."""
        return cls(**json.loads(data))


Views = dict[TopicPartition, View]


def total(views: Views) -> int:
    """Return the sum of all balances."""
    return sum(sum(view.balances.values()) for view in views.values())


def snapshots_of(topic: str) -> str:
    """Return the name of the topic that has the snapshots."""
    return f"{topic}-snapshots"


def create(servers: str, topic: str, partitions: int) -> None:
    """Create a topic of payments that are kept for ever, and one of snapshots.

    Compaction keeps the last snapshot of each partition, because its key is the partition.
    """
    with Admin(bootstrap_servers=servers) as admin:
        admin.create_topics(
            [
                NewTopic(
                    name=topic,
                    num_partitions=partitions,
                    # The leader stamps the payments: then later ones never have an earlier time.
                    configs={"retention.ms": -1, "message.timestamp.type": "LogAppendTime"},
                ),
                NewTopic(
                    name=snapshots_of(topic),
                    num_partitions=1,
                    configs={"cleanup.policy": "compact"},
                ),
            ]
        )


def read_to(
    consumer: Consumer[bytes, bytes], ends: Mapping[TopicPartition, int]
) -> Iterator[Record[bytes, bytes]]:
    """Read assigned partitions up to these offsets."""
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        for partition, records in consumer.getmany(timeout_ms=1000).items():
            yield from (one for one in records if one.offset < ends[partition])


def load_snapshots(servers: str, topic: str) -> Views:
    """Return the newest snapshot of each partition that has one."""
    snapshots: Views = {}
    name = snapshots_of(topic)
    with Consumer(bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        partitions = [TopicPartition(name, number) for number in consumer.partitions_for(name)]
        consumer.assign(partitions)
        for record in read_to(consumer, consumer.end_offsets(partitions)):
            assert record.key is not None
            assert record.value is not None
            partition, view = TopicPartition(topic, int(record.key)), View.from_bytes(record.value)
            # Two programs may write snapshots: the one that is behind may write last.
            if partition not in snapshots or snapshots[partition].next_offset <= view.next_offset:
                snapshots[partition] = view
    return snapshots


def open_at(servers: str, views: Views) -> Consumer[bytes, bytes]:
    """Return a started consumer that reads on after these views.

    Its reads raise OffsetOutOfRangeError if payments behind a view are not in the topic any more,
    and LogTruncatedError if the topic has lost payments that are in a view: "none" forbids to go on
    elsewhere, which would be a wrong balance.
    """
    consumer = Consumer(bootstrap_servers=servers, auto_offset_reset="none")
    consumer.assign(list(views))
    consumer.start()
    for partition, view in views.items():
        epoch = None if view.leader_epoch < 0 else view.leader_epoch
        consumer.seek(partition, view.next_offset, epoch)
    return consumer


@dataclass(frozen=True)
class Build:
    """A view of all partitions, and what it cost."""

    views: Views
    #: Number of payments that were read from each partition, because no snapshot had them.
    replayed: Counter[TopicPartition]

    @property
    def balances(self) -> dict[str, int]:
        """The balances of all accounts."""
        return dict(ChainMap(*(view.balances for view in self.views.values())))


def build(
    servers: str,
    topic: str,
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    from_scratch: bool = False,
) -> Build:
    """Build the balances from snapshots and the payments after them.

    With `since_ms`, count the payments alone from the first one at or after this time on (ms since
    1970). With `until_ms`, return the balances of that time: without the first payment at or after
    it, and those behind this one. `from_scratch` reads all payments, and no snapshot.
    """
    snapshots = {} if from_scratch or since_ms is not None else load_snapshots(servers, topic)
    with Consumer(bootstrap_servers=servers) as asking:
        partitions = [TopicPartition(topic, number) for number in asking.partitions_for(topic)]
        ends = asking.end_offsets(partitions)
        if until_ms is not None:
            ends |= _at(asking, partitions, until_ms)
        views = {key: View() for key in partitions}
        if since_ms is not None:
            views = {key: View(next_offset=end) for key, end in ends.items()}
            views |= {
                key: View(next_offset=offset)
                for key, offset in _at(asking, partitions, since_ms).items()
            }
    # a snapshot of a later time is of no use
    views |= {key: one for key, one in snapshots.items() if one.next_offset <= ends[key]}
    replayed: Counter[TopicPartition] = Counter()
    with open_at(servers, views) as consumer:
        for payment in read_to(consumer, ends):
            partition = TopicPartition(payment.topic, payment.partition)
            views[partition].apply(payment)
            replayed[partition] += 1
    return Build(views, replayed)


def _at(
    consumer: Consumer, partitions: Sequence[TopicPartition], time_ms: int
) -> dict[TopicPartition, int]:
    """Return the first offset at or after a time, of partitions that have such a record."""
    found = consumer.offsets_for_times(dict.fromkeys(partitions, time_ms))
    return {key: first.offset for key, first in found.items() if first is not None}


def follow(servers: str, topic: str, *, snapshot_every: int = SNAPSHOT_EVERY) -> None:
    """Keep the view up to date, and snapshots of it, until Ctrl-C.

    The program may be killed at any time: the next start replays what came after its last snapshot.
    """
    built = build(servers, topic)
    views, fresh = built.views, built.replayed
    print(f"built: {total(views)} cents, {fresh.total()} payments replayed", flush=True)
    with open_at(servers, views) as consumer, Producer(bootstrap_servers=servers) as producer:
        while True:
            for partition in [key for key, count in fresh.items() if count >= snapshot_every]:
                save(producer, partition, views[partition])
                del fresh[partition]
            for partition, payments in consumer.getmany(timeout_ms=10_000).items():
                for payment in payments:
                    views[partition].apply(payment)
                fresh[partition] += len(payments)
            print(f"now: {total(views)} cents", flush=True)


def save(producer: Producer, partition: TopicPartition, view: View) -> None:
    """Write a snapshot. It is acknowledged when the call returns."""
    # One record has all accounts of a partition: it is there as a whole, or not at all. It must fit
    # into max.message.bytes of the topic, 1 MiB by default.
    key = str(partition.partition).encode()
    producer.send_and_wait(snapshots_of(partition.topic), view.to_bytes(), key=key)
    print(f"snapshot: {partition.topic}-{partition.partition} at {view.next_offset}", flush=True)


def _show(options: argparse.Namespace) -> None:
    built = build(
        options.bootstrap,
        options.topic,
        since_ms=options.since,
        until_ms=options.until,
        from_scratch=options.from_scratch,
    )
    for account, cents in sorted(built.balances.items()):
        print(f"{account:20} {cents / 100:12.2f}")
    print(f"{built.replayed.total()} payments replayed", file=sys.stderr)


def _time(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def main() -> None:
    """Run the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("topic")
    common.add_argument("--bootstrap", default=SERVERS, help="HOST:PORT[,HOST:PORT]")
    parser = argparse.ArgumentParser(description="Balances, as a view of payments.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("create", parents=[common]).add_argument("--partitions", type=int, default=3)
    pay = verbs.add_parser("pay", parents=[common])
    pay.add_argument("account")
    pay.add_argument("cents", type=int)
    show = verbs.add_parser("show", parents=[common])
    show.add_argument("--since", type=_time, metavar="TIME")
    show.add_argument("--until", type=_time, metavar="TIME")
    show.add_argument("--from-scratch", action="store_true")
    following = verbs.add_parser("follow", parents=[common])
    following.add_argument("--snapshot-every", type=int, default=SNAPSHOT_EVERY)
    options = parser.parse_args()
    match options.verb:
        case "create":
            create(options.bootstrap, options.topic, options.partitions)
        case "pay":
            with Producer(bootstrap_servers=options.bootstrap) as producer:
                value, key = str(options.cents).encode(), options.account.encode()
                print(producer.send_and_wait(options.topic, value, key=key))
        case "show":
            _show(options)
        case "follow":
            try:
                follow(options.bootstrap, options.topic, snapshot_every=options.snapshot_every)
            except KeyboardInterrupt:
                print("stopped")


if __name__ == "__main__":
    main()
