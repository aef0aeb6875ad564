"""The site of the documentation builds: no dead link or anchor, no page that the menu forgets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.site_pages import LINK, lines_of

ROOT = Path(__file__).parents[2]
#: What a browser would load from another machine while it shows a page.
LOADED = re.compile(r'(?:src="|<link [^>]*href="|url\()(?:https?:)?//[^"\s)]*')


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_it_builds_without_a_warning(built: Path) -> None:
    assert (built / "index.html").is_file()


def test_a_page_loads_nothing_from_elsewhere(built: Path) -> None:
    found = {
        f"{page.relative_to(built)}: {loaded}"
        for page in built.rglob("*")
        if page.suffix in (".html", ".css")
        for loaded in LOADED.findall(page.read_text())
    }
    assert found == set()


def test_a_table_shows_a_bar_without_the_backslash_before_it(built: Path) -> None:
    assert "<code>-o, --output text|json</code>" in (built / "commands.html").read_text()


def links(page: Path) -> Iterator[str]:
    for line, fenced in lines_of(page.read_text()):
        yield from () if fenced else (link["target"] for link in LINK.finditer(line))


def test_the_readme_which_is_not_in_the_site_links_to_what_is_there() -> None:
    found = list(links(ROOT / "README.md"))
    assert len(found) > 10
    assert [one for one in found if "://" not in one and not (ROOT / one).exists()] == []
