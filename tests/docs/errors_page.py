"""Writes docs/errors.md from the classes of quorate.errors and Kafka's codes: `make docs`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from quorate import errors
from quorate.errors import QuorateError
from quorate.v1.common_pb2 import ErrorCode
from quorate_broker.listeners.kafka import errors as kafka
from quorate_quorum.node.process import EXIT_CONFIG, EXIT_FAILED

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
INTRODUCTION = """\
# Errors

This page is made from the classes of `quorate.errors` (`make docs`). All that Quorate raises on
purpose is a `QuorateError`; a wrong type or range of an argument is a `TypeError` or `ValueError`.
The message says what was asked, what was found and what is allowed. A traceback shows below it what
to do. An `except` for a class catches all classes that stand under it in the tree.

```python
import asyncio

from quorate import Producer
from quorate.errors import OutcomeUnknownError, QuorateError


async def main() -> None:
    async with Producer(bootstrap_servers="localhost:7092") as producer:
        try:
            await producer.send_and_wait("no-such-topic", b"9.50")
        except OutcomeUnknownError as error:
            print("look whether it was written:", error)
        except QuorateError as error:
            print(f"{type(error).__name__}, retriable: {error.retriable}: {error}")


asyncio.run(main())
```

* **retriable**: the same call may succeed later. Producers, consumers and admin clients repeat by
  themselves what is safe to repeat, within `delivery_timeout_ms` or `request_timeout_ms`. A
  retriable error that reaches the program has lasted that long.
* **stale metadata**: the client asks for the leaders again before it repeats the call.
* **code**: what travels between nodes and clients, with its number. The command prints it in
  brackets (`[TOPIC_EXISTS]`). An error without a code of its own has the code of the class above
  it; `UNKNOWN` is the code of those that only a client raises.
* **Kafka's code**: what a client of Kafka gets. Some requests have another code for the same error:
  the last table lists them.

## The tree

"""
PROCESSES = f"""
## Processes

| process | exit status | means |
|---|---|---|
| `quorate-broker`, `quorate-quorum` | 0 | stopped cleanly |
| | {EXIT_CONFIG} | wrong configuration: nothing was changed; another start fails again |
| | {EXIT_FAILED} | a broken invariant or a failed disk: another node takes over |

The statuses of `quorate` are in [commands.md](commands.md).
"""
CATALOGUE = """
## The catalogue
"""
OF_KAFKA = """
## Kafka's codes that depend on the request

A code that is not in this table is the same in all answers.
"""
Codes = Mapping[type[QuorateError], int]
#: Requests -> their table, and the table that it goes on from: what that says is not repeated.
EXCEPTIONS: Mapping[str, tuple[Codes, Codes]] = {
    "Produce": (kafka.OF_PRODUCE, {}),
    "all requests about groups": (kafka.OF_GROUPS, {}),
    "ConsumerGroupHeartbeat": (kafka.OF_CONSUMER_HEARTBEATS, kafka.OF_GROUPS),
    "OffsetFetch, OffsetCommit": (kafka.OF_READS, kafka.OF_GROUPS),
    "OffsetCommit": (kafka.OF_COMMITS, kafka.OF_READS),
    "requests that name topics by their ids": (kafka.BY_ID, {}),
    "requests that place replicas": (kafka.OF_ASSIGNMENT, {}),
}
KAFKA_NAMES = {
    value: name for name, value in vars(kafka).items() if name.isupper() and isinstance(value, int)
}


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION, "```text\n", *_tree(QuorateError, 0), "```\n", CATALOGUE]
    parts += [_section(kind) for kind in classes()]
    rows = [
        f"| `{kind.__name__}` | {request} | {_kafka_name(code)} |\n"
        for request, (table, base) in EXCEPTIONS.items()
        for kind, code in table.items()
        if base.get(kind) != code
    ]
    parts += [
        PROCESSES,
        OF_KAFKA,
        "\n| error | in answers to | Kafka's code |\n|---|---|---|\n",
        *rows,
    ]
    return "".join(parts)


def classes() -> list[type[QuorateError]]:
    """Return every public class of errors, by name."""
    found = [one for one in vars(errors).values() if inspect.isclass(one)]
    return sorted((one for one in found if issubclass(one, QuorateError)), key=_name)


def _name(kind: type[QuorateError]) -> str:
    return kind.__name__


def _tree(kind: type[QuorateError], depth: int) -> Iterator[str]:
    public = set(classes())
    flags = " (retriable)" if kind.retriable else ""
    yield f"{'  ' * depth}{kind.__name__}{flags}\n"
    for below in sorted(set(kind.__subclasses__()) & public, key=_name):
        yield from _tree(below, depth + 1)


def _section(kind: type[QuorateError]) -> str:
    when = "\n\n".join(_paragraphs(inspect.cleandoc(_documentation(kind))))
    above = ", ".join(f"`{one.__name__}`" for one in kind.__bases__ if one is not Exception)
    facts = [
        f"under {above}" if above else "the top of the tree",
        "**retriable**" if kind.retriable else "not retriable",
        *(["stale metadata"] if kind.stale_metadata else []),
        f"code {code_name(kind)}",
        f"Kafka's code {_kafka_name(kafka.code_of(kind.__new__(kind)))}",
    ]
    advice = f"\n**What to do**: {kind.advice}\n" if kind.advice else ""
    return f"\n### {kind.__name__}\n\n{when}\n{advice}\n{'; '.join(facts)}.\n"


def _documentation(kind: type[QuorateError]) -> str:
    assert kind.__doc__, f"{kind.__name__} has no docstring that says when it is raised"
    return kind.__doc__


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        text = re.sub(r"``(.+?)``", r"`\1`", " ".join(paragraph.split()))
        yield re.sub(r"(?<!`)\b__\w+\b(?!`)", r"`\g<0>`", text)


def code_name(kind: type[QuorateError]) -> str:
    """Return the name of a code, as the command prints it.

    >>> code_name(errors.TopicExistsError)
    '`TOPIC_EXISTS` (4)'
    """
    return f"`{ErrorCode.Name(kind.code).removeprefix('ERROR_CODE_')}` ({kind.code})"


def _kafka_name(code: int) -> str:
    return f"`{KAFKA_NAMES[code]}` ({code})"


if __name__ == "__main__":
    sys.stdout.write(page())
