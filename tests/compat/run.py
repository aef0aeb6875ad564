"""`make compat-SUITE`: run an outside suite against Apache Kafka, then against Quorate.

What passes on Apache Kafka is the measure. The results are files in tests/compat/results, and
`make docs` makes the page docs/compatibility.md of them. `--only` runs some cases, and replaces
their results alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tests.compat import (
    clients,
    connect,
    documented,
    jars,
    kafka_python,
    kafka_tools,
    librdkafka,
    streams,
    ui,
)
from tests.compat.results import KAFKA, QUORATE, Case, Result
from tests.compat.servers import Servers, Setup, running

#: A suite yields its cases as they end. It gets the cluster, a folder of its own, and the names of
#: the only cases to run (none: all).
Suite = Callable[[Servers, Path, list[str]], Iterator[Case]]
SUITES: dict[str, Suite] = {
    "kafka-tools": kafka_tools.run,
    "streams": streams.run,
    "connect": connect.run,
    "kafka-python": kafka_python.run,
    "clients": clients.run,
    "librdkafka": librdkafka.run,
    "documented": documented.run,
    "ui": ui.run,
}
#: What a suite wants of the clusters, if the defaults are not enough. It runs against each of them.
SETUPS: dict[str, tuple[Setup, ...]] = {
    "kafka-python": kafka_python.SETUPS,
    "librdkafka": librdkafka.SETUPS,
}
#: They start Java programs. The other suites need Java for Apache Kafka alone.
NEED_JARS = frozenset(("kafka-tools", "streams", "connect", "librdkafka", "documented", "ui"))


def run_on(suite: str, server: str, only: list[str]) -> Result:
    """Run a suite against new clusters of one kind."""
    started = time.monotonic()
    result = Result(suite, server, "")
    for setup in SETUPS.get(suite, (Setup(),)):
        folder = Path(tempfile.mkdtemp(prefix=f"compat-{suite}-{server}-"))
        (folder / suite).mkdir()
        with running(server, folder / "servers", setup) as servers:
            result = replace(result, version=servers.version)
            for case in SUITES[suite](servers, folder / suite, only):
                result.cases.append(case)
                note = case.note.partition("\n")[0]
                print(f"{case.outcome:8}{case.name}  {note}", flush=True)
        print(f"logs: {folder}")
    took = time.monotonic() - started
    counts = (len(result.named("passed")), len(result.named("failed")))
    print(f"{suite} on {server} {result.version}: {counts[0]} passed, {counts[1]} failed,")
    print(f"  {len(result.named('skipped'))} skipped, in {took:.0f} s", flush=True)
    return result


def main() -> int:
    """Run the suites on each server that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", choices=sorted(SUITES), nargs="+")
    parser.add_argument("--servers", nargs="+", choices=(KAFKA, QUORATE), default=[KAFKA, QUORATE])
    parser.add_argument("--only", nargs="*", default=[], help="names of the cases to run")
    asked = parser.parse_args()
    if KAFKA in asked.servers or NEED_JARS.intersection(asked.suites):
        jars.bring()
    for server in asked.servers:
        for suite in asked.suites:
            result = run_on(suite, server, asked.only)
            print(f"wrote {result.save(into_the_last=bool(asked.only))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
