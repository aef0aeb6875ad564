"""The `quorate` command: quorate NOUN VERB."""

from __future__ import annotations

import logging
import sys

import structlog
import typer

from quorate import __version__
from quorate_cli import bench, cluster, demo, quorum, storage, topic, up
from quorate_quorum.node.streams import open_standard_streams

app = typer.Typer(
    name="quorate",
    help="A Kafka-style replicated commit log: start clusters, administer them, look inside.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},  # every command below has them too
    add_completion=False,
    pretty_exceptions_enable=False,
    # Piped, plain: errors too. None: it is closed.
    rich_markup_mode="rich" if sys.stderr is not None and sys.stderr.isatty() else None,
)
app.command("up")(up.up)
app.command("demo")(demo.demo)
app.add_typer(topic.app, name="topic")
app.add_typer(cluster.app, name="cluster")
app.add_typer(quorum.app, name="quorum")
app.add_typer(storage.app, name="storage")
app.add_typer(bench.app, name="bench")


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
    """Start clusters, administer them, look inside."""
    # What the client library warns of goes where diagnostics go: standard output is for answers.
    logging.basicConfig(level=logging.WARNING, format="quorate: %(message)s", stream=sys.stderr)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def main() -> None:
    """Run the command; the entry point of the package."""
    open_standard_streams()
    app()
