"""How a command asks a cluster: the address, the timeout, and the exit status of each error."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from quorate import Admin, TopicDescription, errors
from quorate.v1.common_pb2 import ErrorCode
from quorate_cli.completion import config_names, config_words, group_names, topic_names
from quorate_cli.output import (
    NO_ANSWER,
    SAID_NO,
    Output,
    check_output,
    fail,
    no_more_output,
    os_reason,
    print_json,
    usage_error,
)

T = TypeVar("T")

Bootstrap = Annotated[
    str,
    typer.Option(
        "--bootstrap",
        envvar="QUORATE_BOOTSTRAP",
        metavar="HOST:PORT[,...]",
        help="Brokers to ask first.",
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for an answer.")]

Name = Annotated[str, typer.Argument(metavar="NAME", help="The topic.", autocompletion=topic_names)]

Group = Annotated[
    str,
    typer.Argument(metavar="GROUP", help="The consumer group.", autocompletion=group_names),
]

Configs = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        "-c",
        metavar="NAME=VALUE",
        help="A setting; may be repeated.",
        autocompletion=config_words,
    ),
]

Remove = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Set this one back to its default.",
        autocompletion=config_names,
    ),
]

#: What to do about an error, in commands. Its class advises programs, in calls of the library.
NEXT_STEPS: Mapping[type[errors.QuorateError], str] = {
    errors.UnknownTopicError: "`quorate topic list` shows all topics",
    errors.GroupNotFoundError: "`quorate group list` shows all groups",
    errors.UnknownSchemaError: "`quorate schema list` shows all subjects",
    errors.UnknownBrokerError: "`quorate cluster info` lists the brokers",
    errors.InvalidConfigError: "`quorate cluster config` shows all settings",
    errors.InvalidReplicationFactorError: "`quorate cluster info` lists the brokers",
    errors.OffsetOutOfRangeError: "`quorate topic describe` shows what each partition holds",
    errors.NotEnoughReplicasError: "`quorate cluster health` tells what is wrong",
}
#: Names of arguments of the library -> the options that give them.
OPTIONS = {
    "Admin: bootstrap_servers": "--bootstrap",
    "num_partitions": "--partitions",
    "replication_factor": "--replication-factor",
    "list_topics() and ": "",
}

#: Extra time beyond --timeout: the client itself ends at --timeout, and its error has a reason.
TIMEOUT_SLACK_S = 0.5
TIMEOUT_MAX_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Session:
    """The options of all commands about a cluster, and the way to ask it."""

    bootstrap: str
    timeout: float
    as_json: bool

    def admin(self) -> Admin:
        """Return an Admin for the cluster. It is not started."""
        timeout_ms = milliseconds(self.timeout)
        return Admin(bootstrap_servers=self.bootstrap, request_timeout_ms=timeout_ms)

    def ask(self, question: Callable[[Admin], Awaitable[T]]) -> T:
        """Ask the cluster, and return its answer. Errors are handled as in `run`."""

        async def main() -> T:
            async with self.admin() as admin:
                return await question(admin)

        return run(main, timeout=self.timeout)

    async def must_exist(self, name: str) -> TopicDescription:
        """Return a topic.

        Raise UnknownTopicError at once if it does not exist: clients would wait.
        """
        async with asyncio.timeout(self.timeout + TIMEOUT_SLACK_S), self.admin() as admin:
            return (await admin.describe_topics([name]))[name]

    def answer(self, document: object, text: str) -> None:
        """Print an answer: the document with -o json, else the text."""
        if self.as_json:
            print_json(document)
        else:
            sys.stdout.write(text)


def in_session(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a session. Its first argument becomes the Session."""
    shared = inspect.signature(_session, eval_str=True).parameters
    _, *own = inspect.signature(command, eval_str=True).parameters.values()

    @functools.wraps(command)
    def run_in_session(**given: Any) -> None:
        command(_session(**{name: given.pop(name) for name in shared}), **given)

    # Set the new signature, because Typer takes a command's options from it.
    signature = inspect.Signature([*own, *shared.values()])
    run_in_session.__signature__ = signature  # type: ignore[attr-defined]
    return run_in_session


def _session(
    bootstrap: Bootstrap = "localhost:7092", output: Output = "text", timeout: Timeout = 10.0
) -> Session:
    return Session(bootstrap, timeout, check_output(output))


def parse_configs(configs: list[str] | None) -> dict[str, str]:
    """Return NAME=VALUE pairs as a dict. Wrong usage: a pair without "=", or a name twice."""
    parsed = {}
    for one in configs or []:
        name, equals, value = one.partition("=")
        if not equals or not name:
            usage_error(f"--config takes NAME=VALUE, not {one!r}")
        if name in parsed:
            usage_error(f"--config gives {name} twice: give it once")
        parsed[name] = value
    return parsed


def milliseconds(timeout: float) -> int:
    """Return --timeout in milliseconds. Raise ValueError if it is out of range.

    >>> milliseconds(2.5)
    2500
    """
    if not 0.001 <= timeout <= TIMEOUT_MAX_S:
        raise ValueError(f"--timeout must be 0.001 to {TIMEOUT_MAX_S} s, not {timeout:g}")
    return int(timeout * 1000)


def run(main: Callable[[], Coroutine[Any, Any, T]], *, timeout: float, bounded: bool = True) -> T:
    """Run a command's coroutine. Errors become a message and an exit status.

    `bounded=False`: the coroutine may run longer than `timeout`. It raises TimeoutError itself if
    one of its waits is too long.
    """
    try:
        return asyncio.run(_bounded(main, milliseconds(timeout), bounded=bounded))
    except (TimeoutError, errors.DeadlineExceededError) as error:
        fail(
            f"no answer within {timeout:g} s (--timeout)"
            + (f": {error}" if str(error) else "")
            + "; `quorate cluster health` tells what is wrong",
            NO_ANSWER,
        )
    except (errors.QuorumUnavailableError, errors.RequestTimedOutError) as error:
        fail(by_options(str(error)), NO_ANSWER)
    except errors.PeerError as error:
        fail(str(error), SAID_NO)
    except errors.NetworkError as error:
        fail(str(error), NO_ANSWER)
    except errors.QuorateError as error:
        fail(refusal(error), SAID_NO)
    except BrokenPipeError:
        no_more_output()
    except OSError as error:
        usage_error(os_reason(error))
    except ValueError as error:
        usage_error(by_options(str(error)))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def refusal(error: errors.QuorateError) -> str:
    """Return an error's text and code, and what to do about it unless the text says that.

    >>> refusal(errors.GroupNotFoundError("there is no group 'g'"))
    "there is no group 'g' [GROUP_NOT_FOUND]; `quorate group list` shows all groups"
    """
    text = f"{by_options(str(error))} [{code_name(error)}]"
    step = next((step for kind, step in NEXT_STEPS.items() if isinstance(error, kind)), None)
    return text if step is None or "`quorate " in text else f"{text}; {step}"


def not_acknowledged(error: errors.QuorateError) -> str:
    """Return why a record was not acknowledged, and what to do: in the words of a command.

    >>> not_acknowledged(errors.RecordTooLargeError("2 MB"))
    '2 MB [RECORD_TOO_LARGE]. Send less in one record, or raise the limit that the message names.'
    """
    if not isinstance(error, errors.DeliveryTimeoutError):
        return f"{error} [{code_name(error)}]. {error.advice}".rstrip()
    if error.may_be_written:
        return f"{error} [{code_name(error)}]. Look whether it is there before you send it again."
    return f"{error}. Nothing was written; send it again."


def by_options(text: str) -> str:
    """Return a text of the library with the names of options in place of those of arguments.

    >>> by_options("num_partitions must be 1 to 10000")
    '--partitions must be 1 to 10000'
    """
    for name, option in OPTIONS.items():
        text = text.replace(name, option)
    return text


def code_name(error: errors.QuorateError) -> str:
    """Return the error's code, by its name in the protocol.

    >>> from quorate.errors import TopicExistsError
    >>> code_name(TopicExistsError("there"))
    'TOPIC_EXISTS'
    """
    return ErrorCode.Name(error.code).removeprefix("ERROR_CODE_")


async def _bounded(
    main: Callable[[], Coroutine[Any, Any, T]], timeout_ms: int, *, bounded: bool
) -> T:
    if not bounded:
        return await main()
    async with asyncio.timeout(timeout_ms / 1000 + TIMEOUT_SLACK_S):
        return await main()
