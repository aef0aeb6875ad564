"""A program whose standard streams are closed: nothing else takes their places."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CLOSED = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-", "all": "<&- >&- 2>&-"}
PLACES = """
import os, sys
from quorate_quorum.node.streams import open_standard_streams
open_standard_streams()
path = sys.argv[1]
with open(path, "w") as file:
    print("out", flush=True)
    print("err", file=sys.stderr, flush=True)
    os.write(1, b"out") and os.write(2, b"err")
    file.write(f"{file.fileno() > 2} {sys.stdin.read()!r}")
"""
NODE = """
import sys
from quorate_quorum.node import process
from quorate_quorum.node.config import BrokerConfig
async def start(config):
    with open(sys.argv[1], "w") as file:
        file.write(f"{file.fileno() > 2}")
    raise OSError("enough")
sys.exit(process.main(BrokerConfig, start, sys.argv[2:]))
"""
SETTINGS = ("node.id=1", "listeners=127.0.0.1:0", "quorum.bootstrap.servers=127.0.0.1:1")
COMMAND = "from quorate_cli.app import main; main()"


def run(closed: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {CLOSED[closed]}', "sh", sys.executable, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("closed", CLOSED)
def test_no_file_takes_the_place_of_a_closed_stream(closed: str, tmp_path: Path) -> None:
    found = run(closed, PLACES, str(tmp_path / "file"))
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "file").read_text() == "True ''"


@pytest.mark.parametrize("closed", CLOSED)
def test_a_node_starts_with_closed_streams(closed: str, tmp_path: Path) -> None:
    settings = [word for one in SETTINGS for word in ("--set", one)]
    run(closed, NODE, str(tmp_path / "file"), *settings, "--set", f"log.dirs={tmp_path}")
    assert (tmp_path / "file").read_text() == "True"


@pytest.mark.parametrize("closed", CLOSED)
def test_the_command_runs_with_closed_streams(closed: str) -> None:
    found = run(closed, COMMAND, "--version")
    assert (found.returncode, found.stderr) == (0, "")
