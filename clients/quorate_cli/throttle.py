"""The option `--throttle`: how many bytes a second moves copy."""

from __future__ import annotations

from typing import Annotated

import typer

from quorate_cli.cluster_disks import byte_size
from quorate_cli.output import usage_error

Throttle = Annotated[
    str,
    typer.Option(
        "--throttle",
        metavar="SIZE",
        help="Copy at most so many bytes a second, as 10MiB.",
    ),
]


def limit(text: str) -> int:
    """Return the bytes a second of --throttle; 0 if it is not given."""
    if not text:
        return 0
    size = byte_size(text.strip().removesuffix("/s"))
    if not size:
        usage_error(
            f"--throttle is a size of 1 byte or more, as 500000, 64KiB or 10MiB; not {text!r}"
        )
    return size
