"""`quorate storage`: random-id, format, dump, verify."""

from __future__ import annotations

import sys
import uuid

import typer

from quorate_cli.lazy_group import Later, lazy_group

app = typer.Typer(
    no_args_is_help=True,
    cls=lazy_group(
        {
            "random-id": Later("storage:random_id"),
            "format": Later("storage_format:format_storage"),
            "dump": Later("storage_dump:dump"),
            "verify": Later("storage_verify:verify"),
        }
    ),
)


def random_id() -> None:
    """Print a new id, for --cluster-id or for a voter's directory id."""
    sys.stdout.write(uuid.uuid4().hex + "\n")
