"""Every block of code in the documentation works. tests/docs/blocks.py says how each is tested."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from quorate_testing import EmbeddedCluster
from tests.docs.blocks import PAGES, ROOT, Block, blocks
from tests.docs.shell import lines, of_quorate, refusal, unknown, why_not

BIN = Path(sys.executable).parent
RUN_S = 60
#: Runs a program with `await` outside of a function.
AWAITS = """\
import ast, asyncio, sys
file = sys.argv.pop(1)
code = compile(open(file).read(), file, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
asyncio.run(eval(code, {"__name__": "__main__"}))
"""
PYTEST = [
    *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"),
    *("-o", "asyncio_default_fixture_loop_scope=function"),
]
WITH_CODE = [page for page in PAGES if any(one.language for one in blocks(page))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def of_language(*languages: str) -> list[Block]:
    return [one for page in WITH_CODE for one in blocks(page) if one.language in languages]


@dataclass(frozen=True, slots=True)
class Reader:
    """Someone who does what a page says, on a cluster."""

    cluster: EmbeddedCluster
    folder: Path

    def run(self, words: Sequence[str], what: str) -> None:
        done = subprocess.run(
            words,
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "QUORATE_BOOTSTRAP": self.cluster.bootstrap_servers,
            },
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=RUN_S, check=False,
        )  # fmt: skip
        printed = done.stdout + done.stderr
        assert done.returncode == 0, f"{what}: status {done.returncode}\n{printed}"

    def bash(self, script: str, what: str) -> None:
        self.run(["bash", "-euo", "pipefail", "-c", self.here(script)], what)

    def python(self, program: Sequence[Block]) -> None:
        """Run a program of one block, and of those that continue it."""
        first, *_ = program
        parts = [(*one.all("prelude"), one.text) for one in program]
        text = self.here("\n".join(line for part in parts for line in part))
        name = "test_page.py" if first.has("pytest") else "page.py"
        (self.folder / name).write_text(text)
        python = [sys.executable, "-W", "error"]
        arguments = [word for one in first.all("arguments") for word in shlex.split(self.here(one))]
        if first.has("pytest"):
            self.run([sys.executable, *PYTEST, name], first.place)
        elif awaits(text):
            self.run([*python, "-c", AWAITS, name, *arguments], first.place)
        else:
            self.run([*python, name, *arguments], first.place)

    def here(self, text: str) -> str:
        """Return the text with the addresses of this cluster."""
        text = text.replace("localhost:7092", self.cluster.bootstrap_servers)
        return text.replace("localhost:9092", self.cluster.kafka_bootstrap_servers)


def awaits(text: str) -> bool:
    try:
        compile(text, "page.py", "exec")
    except SyntaxError:
        compile(text, "page.py", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return True
    return False


def is_run_here(block: Block) -> bool:
    return not block.has("not run:") and not block.has("by")


def steps(page: Path) -> Iterator[list[Block]]:
    """Yield what a reader runs at once: a bash block, or a Python block and those that go on."""
    program: list[Block] = []
    for block in blocks(page):
        if not is_run_here(block):
            continue
        if block.language == "python":
            if program and not block.has("continues"):
                yield program
                program = []
            program.append(block)
        elif block.language in ("bash", "console"):
            if program:
                yield program
                program = []
            yield [block]
    if program:
        yield program


def has_something_to_run(page: Path) -> bool:
    return any(
        one.language == "python" or any(not why_not(line) for line in lines(one.text, one.language))
        for step in steps(page)
        for one in step
    )


RUN = [page for page in WITH_CODE if has_something_to_run(page)]


@pytest.mark.timeout(400)  # a page has up to a dozen processes, one after the other
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    with EmbeddedCluster(brokers=3) as cluster:
        reader = Reader(cluster, tmp_path)
        for step in steps(page):
            for block in step:
                for setup in block.all("setup"):
                    reader.bash(setup, f"the setup of {block.place}")
            if step[0].language == "python":
                reader.python(step)
            else:
                (block,) = step
                found = lines(block.text, block.language)
                reader.bash("\n".join(one for one in found if not why_not(one)), block.place)


@pytest.mark.parametrize("block", of_language("python"), ids=lambda block: block.place)
def test_a_python_block_is_python(block: Block) -> None:
    assert awaits(block.text) in (True, False)


@pytest.mark.parametrize("block", of_language("bash", "console"), ids=lambda block: block.place)
def test_the_commands_of_a_bash_block_exist_and_have_these_options(block: Block) -> None:
    checked = subprocess.run(
        ["bash", "-n", "-c", "\n".join(lines(block.text, block.language))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.stderr == ""
    said = [
        f"{line}: {refused}"
        for line in lines(block.text, block.language)
        for arguments in of_quorate(line)
        if (refused := refusal(arguments))
    ]
    assert said == []


@pytest.mark.parametrize(
    "block", [one for page in WITH_CODE for one in blocks(page)], ids=lambda block: block.place
)
def test_what_is_not_run_here_has_a_reason_or_a_test_that_runs_it(block: Block) -> None:
    assert all(len(reason.split()) >= 3 for reason in block.all("not run:"))
    for file in block.all("by"):
        assert block.page.name in (ROOT / file).read_text(), f"{file} does not read this page"


@pytest.mark.parametrize("block", of_language("", "text"), ids=lambda block: block.place)
def test_a_block_without_a_language_has_no_command(block: Block) -> None:
    if block.page.name != "commands.md":  # which has the usage of each command
        assert re.findall(r"^(?:\$ .*|quorate .*)", block.text, re.MULTILINE) == []


def mentions(page: Path) -> list[str]:
    """The spans of code in sentences and tables that begin with the command."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(one.split()) for one in re.findall(r"`(quorate [^`]+)`", text)]


@pytest.mark.parametrize("page", [one for one in PAGES if mentions(one)], ids=name_of)
def test_the_commands_that_a_page_mentions_exist_and_have_these_options(page: Path) -> None:
    assert {one: unknown(one) for one in mentions(page) if unknown(one)} == {}
