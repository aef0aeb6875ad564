"""The page about all commands says what the commands themselves say."""

from __future__ import annotations

import pytest

from tests.house.commands_page import PAGE, commands, page


def test_the_page_of_all_commands_is_what_the_commands_give() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_has_its_part_of_the_page(words: list[str]) -> None:
    assert not words or f"# {' '.join(['quorate', *words])}\n" in PAGE.read_text()


def test_every_option_has_a_meaning() -> None:
    without = [line for line in page().splitlines() if "` | [" in line or "` | |" in line]
    assert without == []
