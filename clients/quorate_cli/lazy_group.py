"""A group of commands, each of which is imported when it is used.

A command imports much: the client library, gRPC, for some the servers. `quorate --version` and
`quorate --help` need none of it, and `quorate topic list` not what `quorate storage dump` needs.
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

#: Help is plain text where it is piped, and so are errors. None: standard error is closed.
MARKUP: Final[Literal["rich"] | None] = (
    "rich" if sys.stderr is not None and sys.stderr.isatty() else None
)


@dataclass(frozen=True, slots=True)
class Later:
    """A command that is not imported yet."""

    #: "module:name" of a command's function or a group's Typer; the module is one of this package.
    path: str
    #: What the command says of itself. Empty: its docstring, so the help of the group imports it.
    help: str = ""
    #: More keywords for Typer.command.
    settings: Mapping[str, Any] = field(default_factory=dict)

    def load(self, name: str) -> Any:
        """Import the command, and return it as Typer runs it."""
        module, _, attribute = self.path.partition(":")
        found = getattr(importlib.import_module(f"quorate_cli.{module}"), attribute)
        send_server_logs_to_stderr()
        # Typer hands its settings down from a parent, so the command needs one to be built.
        parent = typer.Typer(rich_markup_mode=MARKUP)
        parent.callback()(lambda: None)
        if isinstance(found, typer.Typer):
            parent.add_typer(found, name=name, help=self.help)
        else:
            parent.command(name, help=self.help or None, **self.settings)(found)
        group: Any = typer.main.get_command(parent)
        return group.commands[name]


def lazy_group(lazy: Mapping[str, Later]) -> type[TyperGroup]:
    """Return the class of a group that has these commands, before those that Typer gives it."""

    class LazyGroup(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            described = {name: TyperCommand(name, help=one.help) for name, one in lazy.items()}
            self.commands = {**described, **self.commands}

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            """Return a command for the help of this group: imported only if it must be."""
            if cmd_name in lazy and not lazy[cmd_name].help:
                return lazy[cmd_name].load(cmd_name)
            return super().get_command(ctx, cmd_name)

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            """Return a command that is about to run."""
            name, command, rest = super().resolve_command(ctx, args)
            if name is not None and name in lazy and lazy[name].help:
                command = lazy[name].load(name)
            return name, command, rest

    return LazyGroup


def send_server_logs_to_stderr() -> None:
    """Let code of the servers, if a command has imported any, log warnings to standard error.

    Standard output is for answers. The client library logs with `logging`, the servers with
    structlog, which takes as long to import as a small command runs.
    """
    if "structlog" not in sys.modules:
        return
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
