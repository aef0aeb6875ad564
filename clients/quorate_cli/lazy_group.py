"""A group of commands that imports each command at its first use.

Commands import large modules: the client library, gRPC, and some of them the servers. `quorate
--version` and `quorate --help` need none of these modules. `quorate topic list` does not need those
of `quorate storage dump`.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import typer
from typer.core import TyperCommand, TyperGroup

#: "rich": help and errors have colours and boxes. None: help and errors are plain text, because
#: standard error is piped or closed.
MARKUP: Final[Literal["rich"] | None] = (
    "rich" if sys.stderr is not None and sys.stderr.isatty() else None
)


@dataclass(frozen=True, slots=True)
class Later:
    """A command that is imported later, at its first use."""

    #: "module:name" of the command's function or the group's Typer. The module is in this package.
    path: str
    #: The help text. If it is empty, the command's docstring is the help, and the help of the group
    #: imports the command.
    help: str = ""
    #: More keywords for Typer.command.
    settings: Mapping[str, Any] = field(default_factory=dict)

    def load(self, name: str) -> Any:
        """Import the command, and return it in the form that Typer runs."""
        module, _, attribute = self.path.partition(":")
        found = getattr(importlib.import_module(f"quorate_cli.{module}"), attribute)
        send_server_logs_to_stderr()
        # Give the command a parent, because it takes some of Typer's settings from there.
        parent = typer.Typer(rich_markup_mode=MARKUP)
        parent.callback()(lambda: None)
        if isinstance(found, typer.Typer):
            parent.add_typer(found, name=name, help=self.help)
        else:
            parent.command(name, help=self.help or None, **self.settings)(found)
        group: Any = typer.main.get_command(parent)
        return group.commands[name]


def lazy_group(lazy: Mapping[str, Later]) -> type[TyperGroup]:
    """Return the class of a group that has these commands before those registered with Typer."""

    class LazyGroup(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            described = {name: TyperCommand(name, help=one.help) for name, one in lazy.items()}
            self.commands = {**described, **self.commands}

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            """Return a command for the help of this group. Import it only if its help is empty."""
            if cmd_name in lazy and not lazy[cmd_name].help:
                return lazy[cmd_name].load(cmd_name)
            return super().get_command(ctx, cmd_name)

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            """Return the command that is about to run, after importing it."""
            name, command, rest = super().resolve_command(ctx, args)
            if name is not None and name in lazy and lazy[name].help:
                command = lazy[name].load(name)
            return name, command, rest

    return LazyGroup


def send_server_logs_to_stderr() -> None:
    """Send warnings of server code to standard error, if a command has imported server code.

    Standard output is for answers. The client library logs with `logging`, the servers with
    structlog. This function does not import structlog, because the import takes as long as a small
    command.
    """
    if "structlog" not in sys.modules:
        return
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
