"""A command imports what it needs, and no more: that is why it starts fast."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import contextlib, json, sys
from quorate_cli.app import main
with contextlib.suppress(SystemExit):
    main()
sys.stderr.write(json.dumps(list(sys.modules)))
"""
#: Packages and modules that take long to import, or that only some commands use.
SERVERS = ("quorate_broker", "quorate_quorum.raft", "quorate_quorum.log", "structlog")
LIBRARY = ("grpc", "google.protobuf", "asyncio", "quorate.errors", "quorate.model", "quorate.admin")
OTHER_COMMANDS = ("quorate.producer.producer", "quorate.consumer.consumer", "quorate_cli.local")


@pytest.mark.parametrize(
    ("command", "unused"),
    [
        ("--version", (*SERVERS, *LIBRARY, *OTHER_COMMANDS, "rich")),
        ("--help", (*SERVERS, *LIBRARY, *OTHER_COMMANDS, "rich")),
        ("topic list --help", (*SERVERS, *OTHER_COMMANDS, "rich", "quorate_quorum.node.config")),
        ("topic produce --help", (*SERVERS, "quorate_cli.topic_consume", "rich")),
        ("cluster info --help", (*SERVERS, *OTHER_COMMANDS, "rich")),
    ],
)
def test_a_command_imports_nothing_of_another(command: str, unused: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command.split()],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout
    imported = json.loads(done.stderr)
    assert [
        one for one in imported if any(one == name or one.startswith(f"{name}.") for name in unused)
    ] == []


def test_a_command_that_uses_server_code_keeps_its_logs_off_standard_output() -> None:
    program = (
        "from quorate_cli.app import COMMANDS; import structlog; "
        "COMMANDS['up'].load('up'); structlog.get_logger().warning('of a server')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    assert "of a server" in done.stderr
