"""The pages of the Python API have every public name, once."""

from __future__ import annotations

import inspect
from collections import Counter

import pytest

from tests.docs.api_pages import MODULES, PAGES, page


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


@pytest.mark.parametrize("place", PAGES)
def test_a_page_shows_no_rule_of_an_argument(place: str) -> None:
    assert "Annotated[" not in page(place)
    assert "ForwardRef(" not in page(place)
