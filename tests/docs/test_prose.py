"""What the prose of the documentation names exists: settings, errors, calls, targets, files.

Names stand between backticks. Commands, and blocks of code, have tests in test_blocks.py.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import quorate
from quorate import errors
from quorate_testing import ClusterClock, ClusterFaults, ClusterNetwork, SimulatedCluster
from tests.docs.blocks import PAGES, ROOT

SPAN = re.compile(r"`([^`\n]+)`")
FENCED = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)
SETTING = re.compile(r"([a-z]+(?:\.[a-z]+)+)(?:=\S*)?")
ERROR = re.compile(r"\b[A-Z][A-Za-z]*Error\b")
CALL = re.compile(r"(Producer|Consumer|Admin|SchemaRegistry)\.([a-z]\w*)")
TARGET = re.compile(r"make ([a-z][a-z-]*[a-z])(?![\w-])")
FILE = re.compile(r"[\w/]+/\w+\.py")
#: Names with dots that are no settings: of Kafka, of Python, and of files.
OTHERS = {
    *("bootstrap.servers", "client.rack", "group.protocol", "group.version", "log.retention.ms"),
    *("metadata.version", "replica.selector.class", "security.protocol", "file.delete.delay.ms"),
    *("asyncio.run", "asyncio.to_thread"),
    *("meta.properties", "partition.metadata", "call.request", "call.client", "call.version"),
    *("asyncio.wait", "asyncio.gather", "producer.undelivered", "quorate.producer.delivery"),
    *("quorate.sync", "quorate.errors", "quorate.serializers", "asyncio.sleep", "asyncio.timeout"),
}
#: How docs/testing.md names a simulated cluster and its parts.
PARTS = {
    "cluster": SimulatedCluster,
    "clock": ClusterClock,
    "faults": ClusterFaults,
    "network": ClusterNetwork,
}
ENDINGS = (".md", ".txt", ".yaml", ".yml", ".toml", ".json", ".proto", ".sh", ".html", ".py")
#: The names of errors of Python, asyncio and simulated clusters.
PYTHONS = {*dir(builtins), "InvalidStateError", "SimulationError"}
#: The pages that compare with other libraries have a test of their own.
CHECKED = [one for one in PAGES if not one.name.startswith("porting-")]
ROOTS = [
    ROOT / one
    for one in (
        "", "clients", "clients/quorate", "broker", "broker/quorate_broker", "quorum",
        "quorum/quorate_quorum", "tests", "broker/quorate_broker/groups",
    )
]  # fmt: skip


def spans(page: Path) -> Iterator[str]:
    yield from SPAN.findall(FENCED.sub("", page.read_text()))


def settings() -> set[str]:
    text = (ROOT / "docs/configuration.md").read_text()
    return set(re.findall(r"^\| `([a-z.]+)` \|", text, re.MULTILINE))


def targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    suites = re.findall(r"^SUITES\s*:?=(.*)", text, re.MULTILINE)[0].split()
    return {*re.findall(r"^([a-z-]+):", text, re.MULTILINE), *(f"compat-{one}" for one in suites)}


def strays(text: str) -> Iterator[str]:
    """Yield each name in one span that looks like a name of Quorate and is none."""
    setting = SETTING.fullmatch(text)
    part, _, attribute = text.partition(".")
    if part in PARTS and hasattr(PARTS[part], attribute):
        return
    if setting and not (setting[1] in OTHERS | settings() or setting[1].endswith(ENDINGS)):
        yield f"{text}: no setting and no config"
    for name in ERROR.findall(text):
        if not hasattr(errors, name) and name not in PYTHONS:
            yield f"{text}: no error"
    for kind, name in CALL.findall(text):
        if not hasattr(getattr(quorate, kind), name):
            yield f"{text}: no call"
    target = TARGET.match(text)
    if target and target[1] not in targets():
        yield f"{text}: no target of make"
    file = FILE.match(text)
    if file and not any((root / file[0]).is_file() for root in ROOTS):
        yield f"{text}: no file"


@pytest.mark.parametrize("page", CHECKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_exists(page: Path) -> None:
    assert [stray for text in spans(page) for stray in strays(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "min.insync.replica",
        "TopicMissingError",
        "Consumer.seek_to_noon",
        "make everything",
        "quorate/nothing.py",
    ],
)
def test_the_check_sees_a_name_that_does_not_exist(text: str) -> None:
    assert list(strays(text))
