"""The `quorate` command: quorate NOUN VERB."""

from __future__ import annotations

import logging
import os
import sys

import typer

from quorate import __version__
from quorate_cli import program
from quorate_cli.lazy_group import MARKUP, Later, lazy_group
from quorate_quorum.node.streams import open_standard_streams

COMMANDS = {
    "up": Later("up:up", "Start a local cluster of real processes; Ctrl-C stops it cleanly."),
    "demo": Later(
        "demo:demo", "Kill leaders while real data flows, and show that nothing is lost."
    ),
    "topic": Later("topic:app", "Create, look at, write and read topics."),
    "group": Later("group:app", "Look at consumer groups; set their offsets; delete them."),
    "schema": Later("schema:app", "Look at the schemas of records; register, check, delete them."),
    "partition": Later("partition:app", "Elect leaders of partitions; move their replicas."),
    "explain": Later(
        "explain:explain", "Tell why a partition has its leader, ISR and ELR: the events so far."
    ),
    "cluster": Later("cluster:app", "Look at the cluster as a whole."),
    "top": Later("top:top", "Show rates, lag, leaders and ISR of a cluster, live."),
    "quorum": Later("quorum:app", "Look at the metadata quorum; change its voters and its leader."),
    "storage": Later("storage:app", "Make a node's disk ready; look at what is on it."),
    "bench": Later("bench:app", "Measure a cluster."),
    "completion": Later("completion:completion", "Print the script of completion for a shell."),
}

app = typer.Typer(
    name=program.NAME,
    cls=lazy_group(COMMANDS),
    help="A Kafka-style replicated commit log: start clusters, administer them, look inside.",
    no_args_is_help=True,
    # the commands below inherit these names of the help option
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"quorate {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    _version_asked: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Start clusters, administer them, and look at their data."""
    # The client library's warnings go to standard error. Standard output is for answers.
    logging.basicConfig(level=logging.WARNING, format="quorate: %(message)s", stream=sys.stderr)


def main() -> None:
    """Run the command. This is the entry point of the package."""
    open_standard_streams()
    if program.COMPLETE_VARIABLE in os.environ:
        # import it here, because only a Tab needs it
        from quorate_cli.completion import register

        register()
    # the scripts of shells have this name, however the program was started
    app(prog_name=program.NAME)
