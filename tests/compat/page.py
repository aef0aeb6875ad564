"""Writes docs/compatibility.md from the results of the suites: `make docs`."""

from __future__ import annotations

from pathlib import Path

from tests.compat.differences import DIFFERENCES
from tests.compat.results import KAFKA, QUORATE, Case, Result, load

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
WHAT = {
    "kafka-tools": "the command-line tools of Apache Kafka: what each `kafka-*.sh` starts",
    "streams": "Kafka Streams counts words, at least once; a restart, and a broker killed",
    "connect": "Kafka Connect, distributed: file to topic to file; a worker killed",
    "kafka-python": "the integration tests of kafka-python 3.0.12, without TLS, SASL and ACLs",
    "clients": "small programs with kafka-go, franz-go, sarama, KafkaJS, and kcat",
    "documented": "the programs of [kafka-clients.md](kafka-clients.md) in Java, Go and JavaScript",
    "ui": "the Kafka pages of Quarkus' Dev UI 3.33.2, by the calls that the pages make",
    "librdkafka": "the tests of librdkafka 2.15.1 that need a broker",
}
BEGIN, END = "<!-- results -->\n", "<!-- end of results -->\n"
HEAD = """\
| suite | what it is | passed on Apache Kafka | of these on Quorate |
|---|---|---|---|
"""


def page() -> str:
    """Return the page, with what the results say in it."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{_results()}{END}{after}"


def _results() -> str:
    pairs = [(load(suite, KAFKA), load(suite, QUORATE)) for suite in WHAT]
    whole = [(kafka, ours) for kafka, ours in pairs if kafka and ours]
    rows = [_row(kafka, ours) for kafka, ours in whole]
    return HEAD + "".join(rows) + "".join(_details(kafka, ours) for kafka, ours in whole)


def unexplained() -> list[str]:
    """Return the cases that pass on Apache Kafka alone and have no reason, and idle reasons."""
    found = []
    for suite in WHAT:
        kafka, ours = load(suite, KAFKA), load(suite, QUORATE)
        named = set(DIFFERENCES.get(suite, {}))
        differing = kafka.named("passed") - ours.named("passed") if kafka and ours else set()
        found += [f"{suite}: {name} has no reason" for name in sorted(differing - named)]
        found += [f"{suite}: {name} does not differ" for name in sorted(named - differing)]
    return found


def _row(kafka: Result, ours: Result) -> str:
    measure = kafka.named("passed")
    both = len(measure & ours.named("passed"))
    what = f"| {kafka.suite} | {WHAT[kafka.suite]} |"
    return f"{what} {len(measure)} ({kafka.version}) | {both} ({100 * both // len(measure)} %) |\n"


def _details(kafka: Result, ours: Result) -> str:
    passed, found = kafka.named("passed"), {case.name: case for case in ours.cases}
    lines = [f"\n## {kafka.suite}\n\n"]
    differing = [case for case in kafka.cases if case.name in passed - ours.named("passed")]
    if differing:
        lines.append("| passes on Apache Kafka alone | why |\n|---|---|\n")
        lines += [f"| `{one.name}` | {_why(kafka.suite, one)} |\n" for one in differing]
    else:
        lines.append("All that pass on Apache Kafka pass on Quorate.\n")
    for outcome, title in (("failed", "Fail"), ("skipped", "Are skipped")):
        names = sorted(kafka.named("failed" if outcome == "failed" else "skipped"))
        if names:
            lines.append(f"\n{title} on Apache Kafka too: {', '.join(f'`{n}`' for n in names)}.\n")
    more = [name for name in sorted(kafka.named("failed")) if found[name].outcome == "passed"]
    if more:
        lines.append(f"\nOf these pass on Quorate: {', '.join(f'`{n}`' for n in more)}.\n")
    return "".join(lines)


def _why(suite: str, case: Case) -> str:
    return DIFFERENCES.get(suite, {}).get(case.name, "not explained yet")


if __name__ == "__main__":
    PAGE.write_text(page())
