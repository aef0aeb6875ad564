"""The pages of the Python API have every public name, once."""

from __future__ import annotations

import inspect
import re
from collections import Counter

import pytest

from tests.docs.api_pages import MODULES, PAGES, page
from tests.docs.blocks import ROOT


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_on_one_page(module: str) -> None:
    shown = Counter(
        name for content in PAGES.values() if content.module == module for name in content.names
    )
    public = {*MODULES[module].__all__, *getattr(MODULES[module], "_HOMES", {})}
    assert shown == Counter(public - {"__version__", "QuorateError"})


@pytest.mark.parametrize("place", PAGES)
def test_every_public_method_is_on_the_page(place: str) -> None:
    text, content = page(place), PAGES[place]
    for name in content.names:
        assert f"\n## {name}\n" in text
        found = getattr(MODULES[content.module], name)
        for member, value in vars(found).items() if inspect.isclass(found) else ():
            if inspect.isfunction(value) and not member.startswith("_") and inspect.getdoc(value):
                assert f"\n### {name}.{member}\n" in text


def test_the_calls_and_results_that_the_operations_page_names_are_on_the_page_of_the_admin() -> (
    None
):
    """A client's calls are in its base classes, too."""
    operations = (ROOT / "docs" / "operations.md").read_text()
    table = operations.partition("## The same from Python\n")[2].partition("\n## ")[0]
    calls, results = re.findall(r"`(\w+)\(\)`", table), re.findall(r"`([A-Z]\w+)`", table)
    assert len(calls) == 7
    text = page("api/admin.md")
    for name in calls:
        assert f"\n### Admin.{name}\n" in text
    for name in results:
        assert f"\n## {name}\n" in text


@pytest.mark.parametrize("place", PAGES)
def test_a_page_shows_no_rule_of_an_argument(place: str) -> None:
    assert "Annotated[" not in page(place)
    assert "ForwardRef(" not in page(place)
