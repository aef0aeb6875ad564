"""`python -m bench.groups`: what consumer groups cost, and how long their partitions stand still.

    python -m bench.groups join-leave die fail-over
    python -m bench.groups many commits --client light

Members are processes of several consumers each (--processes). The cluster has real processes, too.
With --kafka the same is measured at an Apache Kafka that runs already, by confluent-kafka with
group.protocol=consumer; --pids are its processes, the coordinator's first:

    python -m bench.groups join-leave commits --kafka 127.0.0.1:9092 --pids 4711 --window 15
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.groups.bench import Bench
from bench.groups.costs import commits, many
from bench.groups.fail_over import fail_over
from bench.groups.handovers import die_and_hang, join_and_leave
from bench.groups.targets import KafkaTarget, QuorateTarget, Target

MEASURES = {
    "join-leave": join_and_leave,
    "die": die_and_hang,
    "many": many,
    "commits": commits,
    "fail-over": fail_over,
}


def main() -> int:
    """Measure what was asked for, on one cluster."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.groups",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("measures", nargs="+", choices=list(MEASURES))
    parser.add_argument("--brokers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2, help="of members")
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--partitions", type=int, default=30)
    parser.add_argument("--load", type=float, default=300, help="records a second, over all")
    parser.add_argument("--window", type=float, default=3.0, help="seconds to watch a change")
    parser.add_argument(
        "--join-wait", type=float, default=8.0, help="seconds until all have joined"
    )
    parser.add_argument("--session-timeout-ms", type=int, default=3000, help="of die, fail-over")
    parser.add_argument("--many-members", type=int, default=200)
    parser.add_argument("--many-partitions", type=int, default=1000)
    parser.add_argument("--many-wait", type=float, default=15.0, help="seconds")
    parser.add_argument("--commit-members", type=int, default=50)
    parser.add_argument(
        "--rates", type=int, nargs="+", default=[500, 2000, 0], help="commits a second; 0: all"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of one round of commits")
    parser.add_argument("--pin", action="store_true", help="CPU 0 is the coordinator's alone")
    parser.add_argument("--trace", action="store_true", help="show the steps of each move")
    parser.add_argument(
        "--client", choices=["light"], default="", help="members that only speak the protocol"
    )
    parser.add_argument("--kafka", metavar="HOST:PORT", help="measure this Kafka")
    parser.add_argument("--pids", type=int, nargs="*", default=[], help="processes of that Kafka")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(
        prefix="quorate-groups-", ignore_cleanup_errors=True
    ) as folder:
        target: Target = (
            KafkaTarget(options) if options.kafka else QuorateTarget(options, Path(folder))
        )
        try:
            for name in options.measures:
                MEASURES[name](Bench(target, options))
        finally:
            target.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
