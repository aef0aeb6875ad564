"""librdkafka's test suite, from the npm package that bundles its sources."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count, groupby
from pathlib import Path

from tests.compat import jars, kafka_tools
from tests.compat.results import Case
from tests.compat.servers import BROKERS, Servers, Setup

PACKAGE = "@confluentinc/kafka-javascript"
VERSION = "1.10.1"
ARCHIVE = f"confluentinc-kafka-javascript-{VERSION}.tgz"
HOME = jars.BUILD / f"librdkafka-{VERSION}"
SOURCES = HOME / "package" / "deps" / "librdkafka"
TESTS = SOURCES / "tests"
CONFIGURE = ("--disable-gssapi", "--disable-curl", "--disable-lz4-ext")
BRING_S = 1800
TEST_S = 600
ENDLESS = "it did not end within"
#: As many as run at a time: most of them wait most of the time.
PARALLEL = 4
SCENARIO = "auto.create.topics.enable"


def _setup(*, creates_topics: bool) -> Setup:
    settings = {
        SCENARIO: str(creates_topics).lower(),
        "num.partitions": "4",
        "default.replication.factor": str(BROKERS),
    }
    return Setup(settings, racks=True)


#: What the suite's own clusters have, in its two scenarios.
SETUPS = (_setup(creates_topics=True), _setup(creates_topics=False))
#: A busy machine is slow: each wait of a test may last as many times as long.
PATIENCE = 2
#: What each of these needs, and neither cluster of this suite has.
LEAVES_OUT = {
    "0097_ssl_verify": "TLS",
    "0098_consumer_txn": "transactions",
    "0103_transactions": "transactions",
    "0109_auto_create_topics": "ACLs",
    "0115_producer_auth": "ACLs",
    "0119_consumer_auth": "ACLs",
    "0126_oauthbearer_oidc": "OAuth",
    "0129_fetch_aborted_msgs": "transactions",
    "0135_sasl_credentials": "SASL",
    "0142_reauthentication": "SASL",
    "0081_admin: CreateAcls": "ACLs",
    "0081_admin: DescribeAcls": "ACLs",
    "0081_admin: DeleteAcls": "ACLs",
    "0081_admin: DescribeConsumerGroups_with_authorized_ops": "SASL and ACLs",
}
SHARE = re.compile(r"_share_consumer_")
#: Tests that need no broker, are started by hand, need a library that is not built, or are known
#: to fail.
NO_BROKER = re.compile(r"F_(LOCAL|MANUAL|SOCKEM|KNOWN_ISSUE\b)")
#: A test, and what follows until the next line that is not indented further.
DECLARED = re.compile(r"^ {4}_TEST\((\d{4}_\w+),(.*?)(?=^ {4}\S|^#|^$)", re.MULTILINE | re.DOTALL)
NO_AUTOCREATE = '.scenario = "noautocreate"'
COLOUR = re.compile(r"\x1b\[[\d;]*m")
#: These are many tests each: the functions that another function calls are cases of their own.
MANY = {
    "0081_admin": ("0081-admin.c", "do_test_apis"),
    "0113_cooperative_rebalance": (
        "0113-cooperative_rebalance.cpp",
        "main_0113_cooperative_rebalance",
    ),
}
PREFIX = "do_test_"
CALLED = re.compile(rf"^\s+((?:{PREFIX}|[a-z]_)\w+)\(", re.MULTILINE)


def run(servers: Servers, folder: Path, only: list[str]) -> Iterator[Case]:
    """Run the tests that need a broker: those of one number in a process of their own.

    Those that fail run again, alone: many have limits of time, which a busy machine breaks.
    """
    _bring()
    creates_topics = servers.setup.settings[SCENARIO] == "true"
    runner = _Runner(servers, folder, "default" if creates_topics else "noautocreate")
    names = _names(creates_topics=creates_topics)
    groups = [list(these) for _, these in groupby(names, _number_of)]
    groups += [[one] for name in (MANY if creates_topics else ()) for one in _parts(name)]
    chosen = [
        these
        for these in groups
        if not only or any(name.startswith(one) for name in these for one in only)
    ]
    failed = []
    with ThreadPoolExecutor(PARALLEL) as pool:
        for these, cases in zip(chosen, pool.map(runner.run, chosen), strict=True):
            if any(case.outcome == "failed" for case in cases):
                failed.append((these, cases))
            else:
                yield from cases
    for these, before in failed:
        yield from (_second(*both) for both in zip(before, runner.run(these), strict=True))


def _second(first: Case, second: Case) -> Case:
    """Return a case that ran twice: its note says why it failed at first."""
    if first.outcome != "failed":
        return first
    if second.outcome == "passed":
        return replace(second, note=f"at the second attempt; at the first: {first.note}")
    return second


def _number_of(name: str) -> str:
    return name[:4]


def _names(*, creates_topics: bool) -> list[str]:
    """Return the tests of a scenario that need a broker, in the order of their declaration."""
    declared = DECLARED.findall((TESTS / "test.c").read_text())
    return [
        name
        for name, flags in declared
        if name not in MANY and not NO_BROKER.search(flags)
        if (NO_AUTOCREATE not in flags) == creates_topics
    ]


def _parts(name: str) -> list[str]:
    """Return the cases of a test that is many."""
    source, caller = MANY[name]
    body = (TESTS / source).read_text().partition(f" {caller}(")[2].partition("\n}")[0]
    return [f"{name}: {one.removeprefix(PREFIX)}" for one in dict.fromkeys(CALLED.findall(body))]


class _Runner:
    """Runs the tests, with what they ask their environment for."""

    def __init__(self, servers: Servers, folder: Path, scenario: str) -> None:
        self._folder = folder
        self._runs = count(1)
        (folder / "test.conf").write_text(
            f"bootstrap.servers={servers.bootstrap}\ntest.timeout.multiplier={PATIENCE}\n"
        )
        self._environment = {
            **os.environ,
            "TEST_SCENARIO": scenario,
            "RDKAFKA_TEST_CONF": str(folder / "test.conf"),
            "TEST_KAFKA_VERSION": jars.version(),
            "BROKERS": servers.bootstrap,
            "KAFKA_PATH": str(_kafka_path(folder / "kafka")),
            "LD_LIBRARY_PATH": f"{SOURCES / 'src'}:{SOURCES / 'src-cpp'}",
        }

    def run(self, names: list[str]) -> list[Case]:
        """Run the tests of one number, because the program cannot run fewer; or a part of one."""
        reasons = {n: "share groups" if SHARE.search(n) else LEAVES_OUT.get(n) for n in names}
        left_out = [Case(n, "skipped", f"needs {why}") for n, why in reasons.items() if why]
        if left_out:
            assert len(left_out) == len(names), names
            return left_out
        test, _, part = names[0].partition(": ")
        wanted = {"TESTS": _number_of(test)}
        if part:
            # The name of a sub-test begins with that of its function, and a colon.
            wanted["SUBTESTS"] = f"{part}:"
        title = f"{test}-{part}-{next(self._runs)}" if part else f"{test}-{next(self._runs)}"
        text = self._output(title, wanted, TEST_S * len(names))
        if part and (skipped := re.search(rf"^\[.*\[ \w*{part}:.*SKIP: (.*)", text, re.MULTILINE)):
            return [Case(names[0], "skipped", skipped[1])]
        return [_case(name, text) for name in names]

    def _output(self, title: str, environment: Mapping[str, str], limit_s: float) -> str:
        """Return what the program prints. It is ended at its time limit.

        Paths of this machine are left out, because notes of cases go into the results.
        """
        log = self._folder / f"{title}.log"
        with log.open("wb") as output:
            try:
                subprocess.run(
                    ["./test-runner", "-p1", "-E", "-L"],
                    cwd=TESTS,
                    env={**self._environment, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    timeout=limit_s,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                output.write(f"\n{ENDLESS} {limit_s} s\n".encode())
        return COLOUR.sub("", log.read_text(errors="replace")).replace(str(self._folder), "")


def _kafka_path(home: Path) -> Path:
    """Make a folder with the one program of Apache Kafka that the tests start."""
    script = home / "bin" / "kafka-topics.sh"
    script.parent.mkdir(parents=True)
    script.write_text(f'#!/bin/sh\nexec {shlex.join(jars.java(kafka_tools.TOPICS))} "$@"\n')
    script.chmod(0o755)
    return home


def _case(named: str, text: str) -> Case:
    """Return what became of a test. The summary at the end is lost if the program aborts."""
    name = named.partition(":")[0]
    failed = re.search(
        rf'^### Test "{name}\b.* failed at (\S+) at .*: ###\n(.*)', text, re.MULTILINE
    )
    if failed:
        return Case(named, "failed", f"{failed[1]}: {failed[2]}"[:600])
    skipped = re.search(rf"^\[{name} .*SKIPPING TEST: (.*)", text, re.MULTILINE)
    if skipped:
        return Case(named, "skipped", skipped[1])
    if f"= Test {name} PASSED =" in text:
        return Case(named, "passed")
    why = text[text.find(ENDLESS) :] if ENDLESS in text else text[-300:]
    return Case(named, "failed", why.strip())


def _bring() -> None:
    """Bring and build the sources, if they are not there."""
    if (TESTS / "test-runner").exists():
        return
    jars.need("npm", "Node.js of 18 or newer")
    jars.need("g++", "a C++ compiler and make")
    HOME.mkdir(parents=True, exist_ok=True)
    pack = ["npm", "pack", "-s", f"{PACKAGE}@{VERSION}"]
    subprocess.run(pack, cwd=HOME, check=True, timeout=BRING_S)
    shutil.unpack_archive(HOME / ARCHIVE, HOME, "gztar")
    for command in (
        ["./configure", *CONFIGURE],
        ["make", "-s", "-j2", "libs"],
        ["make", "-s", "-j2", "-C", "tests", "test-runner"],
    ):
        with (HOME / "build.log").open("ab") as output:
            subprocess.run(
                command, cwd=SOURCES, check=True, timeout=BRING_S, stdout=output, stderr=output
            )
