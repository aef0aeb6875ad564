"""A bar of progress: on a terminal, on standard error, and gone at the end."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.cluster.support import PATIENCE_S
from tests.unit.quorate_cli.commands import Quorate

RUN = (sys.executable, "-c", "from quorate_cli.app import main; main()")


def on_terminal(*arguments: str) -> tuple[str, str]:
    """Run a command whose standard error is a terminal. Return its answer, and what it showed."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [*RUN, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
        ) as process:
            out, _ = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0
        os.write(theirs, b"THE END")
        shown = b""
        while not shown.endswith(b"THE END"):
            shown += os.read(ours, 65536)
        return out.decode(), shown.decode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_long_work_shows_a_bar_on_a_terminal(quorate: Quorate, tmp_path: Path) -> None:
    source, target = quorate.topic(), quorate.topic()
    file = tmp_path / "lines"
    file.write_bytes(b"line\n" * 100)
    at = ("--bootstrap", quorate.servers)
    out, shown = on_terminal("topic", "produce", source, "--file", str(file), *at)
    assert out == "100 records acknowledged, 0 failed\n"
    assert f"{file} to {source}" in shown
    out, shown = on_terminal("topic", "copy", source, target, "--until-end", *at)
    assert out == "100 records copied, 0 failed\n"
    assert f"{source} to {target}" in shown


def test_a_pipe_gets_no_bar(quorate: Quorate, tmp_path: Path) -> None:
    topic = quorate.topic()
    file = tmp_path / "lines"
    file.write_bytes(b"line\n" * 100)
    said = quorate("topic", "produce", topic, "--file", str(file))
    assert (said.out, said.err) == ("100 records acknowledged, 0 failed\n", "")


def test_lines_from_standard_input_have_no_bar(quorate: Quorate) -> None:
    _, shown = on_terminal("topic", "produce", quorate.topic(), "--bootstrap", quorate.servers)
    assert shown == "THE END"
