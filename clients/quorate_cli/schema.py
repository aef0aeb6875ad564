"""`quorate schema`: list, show, register, check, set-compatibility, delete."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from quorate import SchemaRegistry, SchemaVersion
from quorate.errors import InvalidSchemaError, UnknownSchemaError
from quorate.serializers import AvroSchema, Compatibility
from quorate.settings import SCHEMAS_TOPIC
from quorate_cli.completion import subject_names
from quorate_cli.output import SAID_NO, fail, os_reason, print_json, print_table, usage_error
from quorate_cli.session import Session, in_session, milliseconds, run

T = TypeVar("T")

Subject = Annotated[
    str,
    typer.Argument(
        metavar="SUBJECT",
        help="What the schemas are of, for example orders-value.",
        autocompletion=subject_names,
    ),
]
File = Annotated[
    str, typer.Argument(metavar="FILE", help="The schema of Avro, as JSON; -: standard input.")
]
Topic = Annotated[
    str, typer.Option("--topic", metavar="NAME", help="The topic that holds the schemas.")
]

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@in_session
def list_schemas(
    session: Session,
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="SUBJECT",
            help="List the versions of this subject.",
            autocompletion=subject_names,
        ),
    ] = None,
    topic: Topic = SCHEMAS_TOPIC,
) -> None:
    """List the subjects, or the versions of one."""

    async def subjects(registry: SchemaRegistry) -> list[dict[str, Any]]:
        return [
            {
                "subject": name,
                "versions": [one.version for one in await registry.versions(name)],
                "compatibility": (await registry.compatibility(name)).value,
            }
            for name in await registry.subjects()
        ]

    if subject is not None:
        _list_versions(session, topic, subject)
        return
    listed: list[dict[str, Any]] = _ask(session, topic, subjects, default=[])
    if session.as_json:
        print_json(listed)
    else:
        print_table(
            ("subject", "versions", "last", "compatibility"),
            [
                (one["subject"], len(one["versions"]), one["versions"][-1], one["compatibility"])
                for one in listed
            ],
        )


@app.command()
@in_session
def show(
    session: Session,
    subject: Subject,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Which; default: the last.")
    ] = None,
    topic: Topic = SCHEMAS_TOPIC,
) -> None:
    """Print a schema as JSON: the last of a subject, or another version."""

    async def question(registry: SchemaRegistry) -> SchemaVersion:
        found = _of(subject, await registry.versions(subject))
        return found[-1] if version is None else _version(subject, found, version)

    found = _ask(session, topic, question)
    session.answer(_document(found), found.schema.text + "\n")


@app.command()
@in_session
def register(session: Session, subject: Subject, file: File, topic: Topic = SCHEMAS_TOPIC) -> None:
    """Give a subject its next schema; one that it has already keeps its version.

    A schema that the subject's rule of compatibility does not allow is refused, with the reasons.
    The first schema of a cluster makes the topic of schemas.
    """
    schema = _schema(file)
    found = _ask(session, topic, lambda registry: registry.register(subject, schema), makes=True)
    session.answer(
        _document(found), f"{subject} version {found.version}, {found.fingerprint:016x}\n"
    )


@app.command()
@in_session
def check(session: Session, subject: Subject, file: File, topic: Topic = SCHEMAS_TOPIC) -> None:
    """Tell whether a subject's rule allows a schema, and register nothing.

    Exit status 0: it does; 1: it does not, for the reasons that are printed.
    """
    schema = _schema(file)

    async def question(registry: SchemaRegistry) -> tuple[Compatibility, tuple[str, ...]]:
        return await registry.compatibility(subject), await registry.check(subject, schema)

    rule, problems = _ask(session, topic, question)
    if session.as_json:
        document = {"subject": subject, "compatibility": rule.value, "problems": problems}
        print_json({**document, "allowed": not problems})
    elif not problems:
        sys.stdout.write(f"the rule {rule.value} of {subject} allows the schema\n")
    if problems:
        listed = "".join(f"\n* {one}" for one in problems)
        fail(f"the rule {rule.value} of {subject} does not allow the schema:{listed}", SAID_NO)


@app.command("set-compatibility")
@in_session
def set_compatibility(
    session: Session,
    rule: Annotated[
        str,
        typer.Argument(
            metavar="RULE",
            help=f"One of {', '.join(Compatibility)}.",
            autocompletion=lambda: list(Compatibility),
        ),
    ],
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="SUBJECT",
            help="Default: all subjects that have no rule of their own.",
            autocompletion=subject_names,
        ),
    ] = None,
    topic: Topic = SCHEMAS_TOPIC,
) -> None:
    """Set the rule that the next schemas of a subject must keep."""
    wanted = rule.upper()
    if wanted not in list(Compatibility):
        usage_error(f"RULE must be one of {', '.join(Compatibility)}, not {rule!r}")
    _ask(session, topic, lambda one: one.set_compatibility(wanted, subject), makes=True)
    session.answer(
        {"subject": subject, "compatibility": wanted},
        f"the rule of {subject or 'all subjects that have none of their own'} is now {wanted}\n",
    )


@app.command()
@in_session
def delete(
    session: Session,
    subject: Subject,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Which; default: all of the subject.")
    ] = None,
    topic: Topic = SCHEMAS_TOPIC,
) -> None:
    """Delete a subject's schemas, or one version.

    They no longer count for the subject's rule. Records that were written with them are still read.
    """

    async def change(registry: SchemaRegistry) -> list[int]:
        found = _of(subject, await registry.versions(subject))
        if version is not None:
            _version(subject, found, version)
        return await registry.delete(subject, version)

    session.answer({"subject": subject, "deleted": _ask(session, topic, change)}, "")


def _list_versions(session: Session, topic: str, subject: str) -> None:
    async def question(registry: SchemaRegistry) -> list[SchemaVersion]:
        return _of(subject, await registry.versions(subject))

    found = _ask(session, topic, question)
    if session.as_json:
        print_json([_document(one) for one in found])
        return
    print_table(
        ("version", "fingerprint", "schema"),
        [(one.version, f"{one.fingerprint:016x}", one.schema.text) for one in found],
    )


def _ask(
    session: Session,
    topic: str,
    question: Callable[[SchemaRegistry], Awaitable[T]],
    *,
    makes: bool = False,
    default: T | None = None,
) -> T:
    """Ask a registry of schemas, and return its answer. Errors are handled as in `run`.

    A registry makes its topic when it starts. Without `makes` a cluster that has no such topic
    gives `default`, or an error.
    """

    async def main() -> T:
        async with session.admin() as admin:
            if not makes and topic not in await admin.list_topics(internal=True):
                if default is not None:
                    return default
                raise UnknownSchemaError(
                    f"the cluster has no schemas: it has no topic {topic!r}; "
                    "`quorate schema register` makes it"
                )
        async with SchemaRegistry(
            bootstrap_servers=session.bootstrap,
            topic=topic,
            request_timeout_ms=milliseconds(session.timeout),
        ) as registry:
            return await question(registry)

    return run(main, timeout=session.timeout)


def _of(subject: str, versions: list[SchemaVersion]) -> list[SchemaVersion]:
    """Return the versions. Raise UnknownSchemaError if there are none."""
    if not versions:
        raise UnknownSchemaError(f"the subject {subject!r} has no schema")
    return versions


def _version(subject: str, versions: list[SchemaVersion], number: int) -> SchemaVersion:
    for one in versions:
        if one.version == number:
            return one
    there = ", ".join(str(one.version) for one in versions)
    raise UnknownSchemaError(
        f"the subject {subject!r} has no version {number}; `quorate schema list {subject}` shows "
        f"those that it has: {there}"
    )


def _schema(file: str) -> AvroSchema:
    """Read a schema. Wrong usage if it is none."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        return AvroSchema(text)
    except OSError as error:
        usage_error(os_reason(error))
    except (UnicodeDecodeError, InvalidSchemaError) as error:
        usage_error(f"{'standard input' if file == '-' else file}: {error}")


def _document(found: SchemaVersion) -> dict[str, Any]:
    return {
        "subject": found.subject,
        "version": found.version,
        "fingerprint": f"{found.fingerprint:016x}",
        "schema": json.loads(found.schema.text),
    }
