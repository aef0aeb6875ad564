"""Every command says how it is used."""

from __future__ import annotations

import pytest

from tests.cluster.support import run_here
from tests.house.commands_page import commands


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_a_short_help_option(
    command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    said = run_here([*command, "-h"], capfd, b"")
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("Usage: ")
