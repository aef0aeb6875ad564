"""What the tests of the documentation's blocks would notice, and what they never run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import Block, blocks, treatment
from tests.docs.shell import lines, refusal, unknown, why_not

PROGRAM = "```python\nprint(1)\n```\n"


def page(folder: Path, text: str) -> Path:
    file = folder / "page.md"
    file.write_text(text)
    return file


def only(folder: Path, text: str) -> Block:
    (block,) = blocks(page(folder, text))
    return block


def test_marks_belong_to_the_next_block_alone(tmp_path: Path) -> None:
    marked = f"<!-- test: setup a -->\n<!-- test: setup b -->\n{PROGRAM}"
    first, second = blocks(page(tmp_path, marked + PROGRAM))
    assert (first.all("setup"), second.all("setup")) == (["a", "b"], [])
    assert (first.line, first.text) == (3, "print(1)\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"<!-- test: skip -->\n{PROGRAM}", "the mark 'skip' is none of: setup, continues"),
        (f"<!-- test: pytest -->\nwords\n{PROGRAM}", "a mark stands right before its block"),
        ("<!-- test: pytest -->\n", "a mark stands right before its block"),
        ("```python\nprint(1)\n", "the block of line 1 has no end"),
    ],
)
def test_a_mark_or_a_block_that_is_wrong_is_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        blocks(page(tmp_path, text))


def test_a_block_that_does_not_run_tells_why(tmp_path: Path) -> None:
    block = only(tmp_path, f"<!-- test: not run: it shows a shape -->\n{PROGRAM}")
    assert treatment(block) == "only parsed: it shows a shape"


def test_a_block_in_a_list_is_read_without_its_indent(tmp_path: Path) -> None:
    assert only(tmp_path, "* so:\n\n  ```python\n  print(1)\n  ```\n").text == "print(1)\n"


@pytest.mark.parametrize(
    "wrong",
    [
        ["topic", "create"],
        ["topic", "create", "events", "--no-such-option"],
        ["topic", "make", "events"],
        ["topic", "create", "events", "-p", "many"],
        ["make"],
    ],
    ids=" ".join,
)
def test_a_command_that_the_parser_refuses_is_noticed(wrong: list[str]) -> None:
    assert refusal(wrong)


@pytest.mark.parametrize(
    ("span", "found"),
    [("quorate topic list --all", "--all"), ("quorate node list", "node"), ("quorate up", None)],
)
def test_a_mention_of_what_no_command_has_is_noticed(span: str, found: str | None) -> None:
    assert unknown(span) == found


@pytest.mark.parametrize(
    "line",
    [
        "kill -9 4711",
        "rm -r data; quorate topic list",
        "quorate topic list && sudo reboot",
        "quorate cluster info -o json | xargs kill",
        "quorate storage format --config broker.toml --cluster-id x",
        "quorate up",
        "quorate topic describe NAME",
        "pip install .",
    ],
)
def test_a_line_that_touches_more_than_the_cluster_of_the_test_does_not_run(line: str) -> None:
    assert why_not(line)


@pytest.mark.parametrize(
    "line", ["seq 3 | quorate topic produce events", "quorate topic list -o json   # all"]
)
def test_a_line_for_the_cluster_of_the_test_runs(line: str) -> None:
    assert why_not(line) is None


def test_of_a_console_only_what_was_typed_is_a_command() -> None:
    assert list(lines("$ quorate topic list\nevents\n", "console")) == ["quorate topic list"]
