"""Every command says how it is used."""

from __future__ import annotations

import pytest

from tests.cluster.support import run_here

COMMANDS = [
    [], ["up"], ["demo"], ["top"], ["completion"],
    ["topic"], ["topic", "create"], ["topic", "list"], ["topic", "describe"], ["topic", "alter"],
    ["topic", "delete"], ["topic", "produce"], ["topic", "consume"],
    ["topic", "tail"], ["topic", "copy"], ["topic", "trim"],
    ["partition"], ["partition", "elect"],
    ["cluster"], ["cluster", "info"], ["cluster", "health"], ["cluster", "config"],
    ["cluster", "features"], ["cluster", "unregister"],
    ["quorum"], ["quorum", "describe"], ["quorum", "transfer"], ["quorum", "add-voter"],
    ["quorum", "remove-voter"], ["quorum", "recover"], ["quorum", "shell"],
    ["storage"], ["storage", "format"], ["storage", "dump"], ["storage", "verify"],
    ["bench"], ["bench", "produce"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_a_short_help_option(
    command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    said = run_here([*command, "-h"], capfd, b"")
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("Usage: ")
