"""No page calls missing what exists, and each row of users' words leads to a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from quorate import Admin, Consumer, Producer
from quorate.settings import SECURITY, NotThereYet
from quorate_quorum.node.config import QuorumConfig
from tests.docs.blocks import PAGES, ROOT
from tests.docs.shell import unknown

#: What a sentence may call missing -> whether it exists.
FEATURES = {
    r"mov(?:e|ing)\b.*\b(?:replica|partition)": hasattr(Admin, "reassign_partitions"),
    r"(?:[Rr]eplica|[Pp]artition).*\bmoved": hasattr(Admin, "reassign_partitions"),
    r"reassign": hasattr(Admin, "reassign_partitions"),
    r"drain": hasattr(Admin, "drain_broker"),
    r"balanc\w+ of leaders|leaders?\b.*\bbalanc": hasattr(
        QuorumConfig, "auto_leader_rebalance_enable"
    ),
    r"balance of (?:replicas|partitions|brokers)": unknown("quorate cluster rebalance") is None,
    r"create_batch|send_batch|batches that the program makes": hasattr(Producer, "create_batch"),
    r"seek_to_time": hasattr(Consumer, "seek_to_time"),
    r"transactions?\b": hasattr(Producer, "begin_transaction"),
    r"\bTLS\b": not isinstance(SECURITY, NotThereYet),
}
MISSING_PARTS = ("What it does not do", "What is not there yet", "What is missing")
DENIES = re.compile(r"\b(?:cannot|can't|not|no)\b.*\byet\b|\| none \|")
HOW_DO_I = ROOT / "docs/how-do-i.md"
#: Words with which users search.
WORDS = (
    *("monitoring", "Prometheus", "consumer lag", "performance", "backup", "ordering"),
    *("log level", "Windows", "macOS", "Jupyter", "Flask", "FastAPI", "gunicorn", "celery"),
    *("asyncio.run", "exactly once", "TLS", "transactions", "retention", "rack", "upgrade"),
)


def denials(text: str) -> Iterator[str]:
    """Yield each sentence, bullet or row that says that something is missing."""
    part = ""
    for paragraph in re.split(r"\n\n|\n(?=[|*#])", text):
        one = " ".join(paragraph.split())
        if one.startswith("#"):
            part = one.strip("# ")
        elif part in MISSING_PARTS:
            # the words in bold are the denial, if there are any
            yield from re.findall(r"\*\*(.*?)\*\*", one) or re.split(r"[;,]", one)
        else:
            yield from (said for said in re.split(r"(?<=[.;:]) ", one) if DENIES.search(said))


def wrong(text: str) -> list[str]:
    return [
        said
        for said in denials(text)
        for feature, exists in FEATURES.items()
        if exists and re.search(feature, said)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_does_not_call_missing_what_exists(page: Path) -> None:
    assert wrong(page.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "Replicas cannot be moved yet, so delete them.",
        "## What is not there yet\n\nAutomatic balancing of leaders; moving partitions.\n",
        "## What it does not do\n\n* **No draining of brokers** yet.\n",
        "## What it does not do\n\n* **No automatic balance of replicas.** Move them.\n",
        "| `alter_partition_reassignments` | none | in a later release |",
    ],
)
def test_the_check_sees_a_denial_of_what_exists(text: str) -> None:
    assert wrong(text)


def test_each_row_of_how_do_i_leads_to_a_page() -> None:
    rows = re.findall(r"^\| (?!you look for)(.+?) \| (.+) \|$", HOW_DO_I.read_text(), re.MULTILINE)
    assert [asked for asked, answer in rows if not re.search(r"\]\([^)]+\.md", answer)] == []
    asked = " ".join(asked for asked, _ in rows)
    assert [word for word in WORDS if word not in asked] == []
