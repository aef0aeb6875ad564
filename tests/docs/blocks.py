"""The blocks of code in the documentation, and how each is tested.

A comment of HTML before a block says how; readers of the page do not see it. Each page has a
cluster of three brokers, and its blocks run on it from the top down. `localhost:7092` and
`localhost:9092` in a block stand for that cluster.

    <!-- test: setup COMMANDS -->     bash that runs before the block: topics that the page presumes
    <!-- test: continues -->          Python: one program with the Python block before it
    <!-- test: prelude CODE -->       Python: lines before the block that the page does not show
    <!-- test: arguments WORDS -->    Python: arguments of the program
    <!-- test: pytest -->             Python: a module of tests, run by pytest
    <!-- test: by FILE -->            another test runs the block: the name of its file
    <!-- test: not run: REASON -->    the block is only parsed, for this reason

Several comments may stand before a block, one a line. Without a comment a Python block is a program
of its own, which must end with status 0; `await` may stand outside of a function.

Of a bash block, each command line of `quorate` is parsed by the command's own parser; what can
run runs (tests/docs/shell.py says which).

`python -m tests.docs.blocks` lists all blocks and what is done with them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "deploy").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
OPENS = re.compile(r"^( *)```(\S*)")
MARK = re.compile(r"^ *<!-- test: (.+?) -->$")
MISPLACED = "a mark stands right before its block"
KINDS = ("setup", "continues", "prelude", "arguments", "pytest", "by", "not run:")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of code."""

    page: Path
    line: int
    language: str
    text: str
    marks: tuple[tuple[str, str], ...]

    @property
    def place(self) -> str:
        """Where it stands: docs/groups.md:28."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def all(self, kind: str) -> list[str]:
        """Return what all marks of a kind say."""
        return [said for one, said in self.marks if one == kind]

    def has(self, kind: str) -> bool:
        """Return whether there is a mark of this kind."""
        return any(one == kind for one, _ in self.marks)


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, from the top down."""
    return list(_blocks(page, page.read_text().splitlines()))


def _blocks(page: Path, lines: list[str]) -> Iterator[Block]:
    marks: list[tuple[str, str]] = []
    number = 0
    while number < len(lines):
        opened, mark = OPENS.match(lines[number]), MARK.match(lines[number])
        if mark:
            marks.append(_mark(page, number + 1, mark[1]))
        elif opened:
            indent, language = opened.groups()
            closed = f"{indent}```"
            if closed not in lines[number + 1 :]:
                raise ValueError(f"{page.name}: the block of line {number + 1} has no end")
            end = lines.index(closed, number + 1)
            text = "".join(f"{line.removeprefix(indent)}\n" for line in lines[number + 1 : end])
            yield Block(page, number + 1, language, text, tuple(marks))
            number, marks = end, []
        elif lines[number].strip() and marks:
            raise ValueError(f"{page.name}:{number + 1}: {MISPLACED}")
        number += 1
    if marks:
        raise ValueError(f"{page.name}: {MISPLACED}")


def _mark(page: Path, line: int, text: str) -> tuple[str, str]:
    for kind in KINDS:
        if text == kind or text.startswith(f"{kind} "):
            return kind, text.removeprefix(kind).strip()
    allowed = ", ".join(KINDS)
    raise ValueError(f"{page.name}:{line}: the mark {text!r} is none of: {allowed}")


def treatment(block: Block) -> str:
    """Return what the tests do with a block, in words."""
    if block.has("not run:"):
        return f"only parsed: {block.all('not run:')[0]}"
    if block.has("by"):
        return f"run by {block.all('by')[0]}"
    if block.language == "python":
        return "run by pytest" if block.has("pytest") else "run"
    if block.language in ("bash", "console"):
        return "what can run is run, the rest is parsed"
    return "text"


if __name__ == "__main__":
    for one in (block for page in PAGES for block in blocks(page)):
        sys.stdout.write(f"{one.place:40} {one.language:9} {treatment(one)}\n")
