"""Completion in a shell: the script that a shell runs once, and names that the cluster knows.

The script makes the shell run `quorate` with the line so far in the environment at each Tab. Typer
answers; this module starts it, and adds the names of topics, partitions, groups, subjects and
settings.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from quorate.settings import SCHEMAS_TOPIC
from quorate_cli import program
from quorate_cli.output import check_word

if TYPE_CHECKING:
    from quorate import Admin

SHELLS: Final = ("bash", "zsh", "fish")
#: The words of --acks.
ACKS: Final = ("all", "1", "0")
#: A cluster that does not answer must not hold up the keyboard.
NAMES_TIMEOUT_MS: Final = 1000


def completion(
    context: typer.Context,
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell.")],
) -> None:
    r"""Print the script that completes this command's words at Tab.

    bash: eval "$(quorate completion bash)" in ~/.bashrc. zsh: the same with zsh in ~/.zshrc, after
    compinit. fish: quorate completion fish > ~/.config/fish/completions/quorate.fish
    """
    check_word("the shell", shell, SHELLS)
    register()
    from typer.completion import shell_complete

    shell_complete(
        context.find_root().command, {}, program.NAME, program.COMPLETE_VARIABLE, f"source_{shell}"
    )


def register() -> None:
    """Let Typer answer the scripts that `completion` prints."""
    from typer.completion import get_completion_inspect_parameters

    # this registers Typer's classes of the shells
    get_completion_inspect_parameters()


def topic_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the topics whose names begin so; none if the cluster does not answer soon."""
    return _names(context, incomplete, _of_admin(lambda admin: admin.list_topics()))


def partition_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the topics whose names begin so, or after a slash the partitions of the topic."""
    topic, slash, _ = incomplete.partition("/")
    if not slash:
        return topic_names(context, incomplete)

    async def listed(admin: Admin) -> list[str]:
        found = (await admin.describe_topics([topic]))[topic]
        return [f"{topic}/{one.partition}" for one in found.partitions]

    return _names(context, incomplete, _of_admin(listed))


def config_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the settings that begin so: of topics, and in `quorate cluster` all."""
    # only a Tab after --config needs it
    from quorate_quorum.configs import CONFIGS

    is_of_cluster = context.parent is not None and context.parent.info_name == "cluster"
    return [
        name
        for name, one in CONFIGS.items()
        if name.startswith(incomplete) and (is_of_cluster or one.is_of_topics)
    ]


def config_words(context: typer.Context, incomplete: str) -> list[str]:
    """Return `name=` for the settings that begin so. The value is for the user to write."""
    return [f"{name}=" for name in config_names(context, incomplete)]


def words(*choices: str) -> Callable[[], list[str]]:
    """Return a function that completes one of some words."""
    return lambda: list(choices)


def group_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the groups whose names begin so; none if the cluster does not answer soon."""

    async def listed(admin: Admin) -> list[str]:
        return [one.group_id for one in await admin.list_groups()]

    return _names(context, incomplete, _of_admin(listed))


def subject_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the subjects of schemas that begin so; none if the cluster does not answer soon."""
    topic: Any = context.params.get("topic") or SCHEMAS_TOPIC

    async def listed(admin: Admin, servers: str) -> list[str]:
        from quorate import SchemaRegistry

        # a registry makes its topic when it starts, and a Tab must change nothing
        if topic not in await admin.list_topics(internal=True):
            return []
        async with SchemaRegistry(bootstrap_servers=servers, topic=topic) as registry:
            return await registry.subjects()

    return _names(context, incomplete, listed)


def _of_admin(
    question: Callable[[Admin], Awaitable[list[str]]],
) -> Callable[[Admin, str], Awaitable[list[str]]]:
    return lambda admin, _servers: question(admin)


def _names(
    context: typer.Context, incomplete: str, question: Callable[[Admin, str], Awaitable[list[str]]]
) -> list[str]:
    # it takes long to import, and only a name of the cluster needs it
    from quorate import Admin
    from quorate.errors import QuorateError

    servers: Any = context.params.get("bootstrap") or "localhost:7092"

    async def main() -> list[str]:
        async with (
            asyncio.timeout(NAMES_TIMEOUT_MS / 1000),
            Admin(bootstrap_servers=servers, request_timeout_ms=NAMES_TIMEOUT_MS) as admin,
        ):
            return await question(admin, servers)

    # a warning would be written into the line that is typed
    logging.disable()
    try:
        return [one for one in asyncio.run(main()) if one.startswith(incomplete)]
    except (QuorateError, TimeoutError, OSError, ValueError):
        return []
    finally:
        logging.disable(logging.NOTSET)
