"""`python -m bench.replication`: failovers, handovers, moves, and topics that are created.

    python -m bench.replication create     200 topics x 3 partitions, and 1 x 1,000, until led
    python -m bench.replication failover   kill -9 of a leader, 20 times
    python -m bench.replication leaders    kill -9 of a broker that leads 1,000 partitions
    python -m bench.replication rack       kill -9 of one of three racks
    python -m bench.replication handovers  a clean stop, a drain, a preferred election, under load
    python -m bench.replication move       2 GiB move while a producer runs at half of full rate

Each prints median, spread, worst and the targets. --kafka HOST:PORT: create the same topics at an
Apache Kafka of three brokers of this machine, and through the Kafka listener. Figures of different
machines can not be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from bench.replication import creation, failover, handovers, move
from bench.replication.cluster import Figures, show, show_json
from quorate_quorum.node.logs import set_up_logs

#: Name -> the bench, by its number of runs; and the usual number.
BENCHES: dict[str, tuple[Callable[[argparse.Namespace], Figures], int]] = {
    "create": (lambda options: creation.creation(options.runs, options.kafka), 5),
    "failover": (lambda options: failover.failover(options.runs), 20),
    "leaders": (lambda options: failover.leaders(options.runs), 3),
    "rack": (lambda options: failover.rack(options.runs), 3),
    "handovers": (lambda options: handovers.handovers(options.runs), 9),
    "move": (lambda options: move.move(options.runs, options.move_mb), 1),
}
TARGETS = creation.TARGETS | failover.TARGETS | handovers.TARGETS | move.TARGETS


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.replication",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("benches", nargs="+", choices=list(BENCHES))
    parser.add_argument("--runs", type=int, default=0, help="how often each; 0: the usual number")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="an Apache Kafka of this machine")
    parser.add_argument("--move-mb", type=int, default=2048, help="MiB that are moved")
    parser.add_argument("--json", action="store_true", help="a JSON object for each figure")
    options = parser.parse_args()
    set_up_logs("error")
    asked = options.runs
    for name in options.benches:
        measure, usual = BENCHES[name]
        options.runs = asked or usual
        figures = measure(options)
        if options.json:
            show_json(figures)
        else:
            show(figures, TARGETS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
