"""The tests that the pages of docs/ name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"
NAMED = re.compile(r"`((?:unit|simulation|cluster|house)/[\w/]+\.py)(?:::(\w+))?`")


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_the_named_tests_exist(page: Path) -> None:
    missing = []
    for file, name in NAMED.findall(page.read_text()):
        path = TESTS / file
        text = path.read_text() if path.is_file() else ""
        if not text or (
            name and not re.search(rf"^\s*(?:async )?def {name}\(", text, re.MULTILINE)
        ):
            missing.append(f"{file}::{name}")
    assert missing == []
