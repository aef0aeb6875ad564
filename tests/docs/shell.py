"""The command lines in a bash block: which run on the cluster of a test, and why others do not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from typer.exceptions import TyperException

from quorate.serializers import Compatibility
from quorate_cli.app import app

#: Programs beside `quorate` that a line may have and still run.
HARMLESS = {"seq", "echo", "printf", "cat", "head", "wc", "sort"}
#: Commands that do not run, and why. The longest that fits counts.
NOT_RUN = {
    "up": "it runs until Ctrl-C; tests/cluster/test_up.py runs it",
    "demo": "it takes a minute; tests/cluster runs it",
    "top": "a live screen",
    "topic tail": "it does not end",
    "bench": "it measures for seconds",
    "quorum transfer": "the cluster of these tests has one voter",
    "quorum add-voter": "the cluster of these tests has one voter",
    "quorum remove-voter": "the cluster of these tests has one voter",
    "quorum recover": "it needs the disks of stopped nodes",
    "quorum shell": "it needs the disk of a voter",
    "storage": "it needs the disk of a node",
}
#: A command that goes on until one of its options ends it.
ENDED_BY = {
    "topic consume": {"--until-end", "--count"},
    "topic copy": {"--until-end"},
    "top": {"--once"},
}
#: Words in capitals that a command takes as they are.
VALUES = {one.value for one in Compatibility}
PLACEHOLDER = re.compile(r"(?<![A-Za-z])[A-Z]{2,}(?![a-z0-9])")
SUBSTITUTED = re.compile(r"\$\((quorate [^()]*)\)")
NEXT_COMMAND = {"|", "||", "&&", ";", "&"}


def lines(text: str, language: str) -> Iterator[str]:
    """Yield the command lines of a block, each continued line as one.

    >>> list(lines("$ a \\\\\\n  b\\nprinted\\n", "console"))
    ['a    b']
    """
    for line in text.replace("\\\n", " ").splitlines():
        if language == "console":
            if line.startswith("$ "):
                yield line[2:]
        elif line.strip() and not line.lstrip().startswith("#"):
            yield line


def commands(line: str) -> list[list[str]]:
    """Return the words of each command of a line.

    >>> commands("seq 3 | quorate topic produce events   # three")
    [['seq', '3'], ['quorate', 'topic', 'produce', 'events']]
    """
    split = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    split.whitespace_split = True
    split.commenters = "#"
    found: list[list[str]] = [[]]
    for word in split:
        if word in NEXT_COMMAND:
            found.append([])
        else:
            found[-1].append(word)
            found[:0] = [shlex.split(inner) for inner in SUBSTITUTED.findall(word)]
    return [words for words in found if words]


def of_quorate(line: str) -> list[list[str]]:
    """Return the arguments of each `quorate` in a line."""
    return [_arguments(words) for words in commands(line) if words[0] == "quorate"]


def why_not(line: str) -> str | None:
    """Return why a line does not run; None if it does.

    >>> why_not("quorate topic list"), why_not("quorate topic consume events")
    (None, 'it does not end without --count or --until-end')
    """
    found = commands(line)
    if not any(words[0] == "quorate" for words in found):
        return "it has no command of quorate"
    others = {words[0] for words in found} - HARMLESS - {"quorate"}
    if others:
        return f"{sorted(others)[0]} does not run in these tests"
    reasons = (_why_not(_arguments(words)) for words in found if words[0] == "quorate")
    return next((one for one in reasons if one), None)


def _why_not(arguments: Sequence[str]) -> str | None:
    text = " ".join(arguments)
    open_values = [one for one in PLACEHOLDER.findall(text) if one not in VALUES]
    if open_values:
        return f"{open_values[0]} stands for a value of the reader's"
    for command, options in ENDED_BY.items():
        if f"{text} ".startswith(f"{command} "):
            if options & {word.partition("=")[0] for word in arguments}:
                return None
            return f"it does not end without {' or '.join(sorted(options))}"
    fits = [reason for command, reason in NOT_RUN.items() if f"{text} ".startswith(f"{command} ")]
    return fits[0] if fits else None


def _arguments(words: Sequence[str]) -> list[str]:
    """Return the arguments of a command, without redirections."""
    kept, skip = [], False
    for word in words[1:]:
        redirects = re.fullmatch(r"\d?[<>]{1,2}(&\d)?", word)
        if not redirects and not skip:
            kept.append(word)
        skip = bool(redirects) and "&" not in word
    return kept


def refusal(arguments: Sequence[str]) -> str | None:
    """Return what the command's own parser says against the arguments; None: it takes them.

    >>> refusal(["topic", "list"]), refusal(["topic", "list", "--none"])
    (None, 'No such option: --none')
    """
    try:
        _parse(arguments)
    except typer.Exit:
        return None  # --help, --version
    except TyperException as error:
        return error.format_message() if hasattr(error, "format_message") else str(error)
    return None


def _parse(arguments: Sequence[str]) -> None:
    command: Any = typer.main.get_command(app)
    context = command.make_context("quorate", list(arguments))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


def unknown(span: str) -> str | None:
    """Return what a mention of a command in a sentence has that no command has; None: nothing.

    Arguments may be missing or have placeholders: only the names of commands and options count.

    >>> unknown("quorate topic create NAME -c a=b ..."), unknown("quorate topic make")
    (None, 'topic make')
    """
    command: Any = typer.main.get_command(app)
    context = command.make_context("quorate", [], resilient_parsing=True)
    words = span.split()[1:]
    for number, word in enumerate(words):
        if not hasattr(command, "resolve_command") or not re.fullmatch(r"[a-z-]+", word):
            break
        if command.get_command(context, word) is None:
            return " ".join(words[: number + 1])
        _, command, _ = command.resolve_command(context, [word])
        context = command.make_context(word, [], parent=context, resilient_parsing=True)
    known = {"-h", "--help", "--version", "--timeout", "--bootstrap", "-o"}
    known |= {one for parameter in command.params for one in parameter.opts}
    asked = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return next((one for one in asked if one not in known), None)
