"""The pages about the Python API, made from signatures and docstrings while the site is built.

They are not files: so no change of a docstring leaves a page behind. `python -m
tests.docs.api_pages` prints them.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ForwardRef, NamedTuple

import quorate
import quorate.sync
import quorate_testing
from quorate import errors, serializers
from quorate.settings import Rule, settings_of
from quorate_testing import history, pytest_plugin
from tests.house.field_comments import field_comments

LINE_MAX = 88
STARS: Mapping[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}


class Content(NamedTuple):
    """What one page documents."""

    title: str
    module: str
    names: Sequence[str]
    introduction: str = ""


OF_PRODUCERS = ("Producer", "Delivery", "RecordMetadata", "RoundRobinPartitioner")
OF_CONSUMERS = (
    *("Consumer", "Record", "TopicPartition", "OffsetAndMetadata", "OffsetAndTimestamp"),
    "AssignorMember",
)
OF_SCHEMAS = ("SchemaRegistry", "SchemaVersion")
ELSEWHERE = {*OF_PRODUCERS, *OF_CONSUMERS, *OF_SCHEMAS, "QuorateError", "__version__"}
FIXTURES = ("quorate_cluster", "quorate_topic", "quorate_simulation")
SYNC = """\
The clients for programs without an event loop: the same names and arguments as in `quorate`, with
`with` for `async with`, and no `await`. All blocking clients of a process share one background
thread. Any thread may use a client. A child that was forked after its parent has used any client
can't use one: see [Processes](../producing.md#processes).
"""
#: Page in the site -> what is on it.
PAGES: Mapping[str, Content] = {
    "api/producer.md": Content("Producer", "quorate", OF_PRODUCERS),
    "api/consumer.md": Content("Consumer", "quorate", OF_CONSUMERS),
    "api/admin.md": Content(
        "Admin",
        "quorate",
        ["Admin", *(one for one in quorate.__all__ if one not in {*ELSEWHERE, "Admin"})],
    ),
    "api/schemas.md": Content("Schema registry", "quorate", OF_SCHEMAS),
    "api/serializers.md": Content(
        "Serializers",
        "quorate.serializers",
        sorted({*serializers.__all__, *serializers._HOMES}),
        serializers.__doc__ or "",
    ),
    "api/sync.md": Content("Blocking clients", "quorate.sync", quorate.sync.__all__, SYNC),
    "api/testing.md": Content("Clusters in tests", "quorate_testing", quorate_testing.__all__),
    "api/history.md": Content("Histories", "quorate_testing.history", history.__all__),
}
MODULES: Mapping[str, Any] = {
    "quorate": quorate,
    "quorate.serializers": serializers,
    "quorate.sync": quorate.sync,
    "quorate_testing": quorate_testing,
    "quorate_testing.history": history,
}
#: Where each documented class stands. A class of `quorate` goes first: others have its name.
HOMES = {
    name: f"{place.removeprefix('api/')}#{name.lower()}"
    for place, content in reversed(list(PAGES.items()))
    for name in content.names
}


def page(place: str) -> str:
    """Return a whole page."""
    content = PAGES[place]
    parts = [f"# {content.title}\n\n{content.introduction}\n"]
    for name in content.names:
        found = getattr(MODULES[content.module], name)
        parts.append(f"## {name}\n\n```python\nfrom {content.module} import {name}\n```\n")
        parts += _of_class(found) if inspect.isclass(found) else _of_value(name, found)
    if place == "api/testing.md":
        parts += _fixtures()
    return _linked("\n".join(parts), place)


def _of_class(kind: type) -> Iterator[str]:
    yield prose(inspect.getdoc(kind) or "")
    fields = _fields(kind)
    if fields:
        yield fields
    elif "__init__" in vars(kind) or hasattr(kind, "__signature__"):
        yield f"```python\n{signature(kind.__name__, kind)}\n```\n"
        yield _arguments(kind)
    for name, member in _members(kind):
        yield f"### {kind.__name__}.{name}\n"
        if isinstance(member, property):
            shown = f"{name}: {_type(member.fget)}"
        else:
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            shown = signature(name, function, is_method=not isinstance(member, staticmethod))
        yield f"```python\n{shown}\n```\n"
        yield prose(inspect.getdoc(member) or "")


def _of_value(name: str, found: Any) -> Iterator[str]:
    """Describe a function, or a name for a type."""
    if inspect.isfunction(found):
        yield f"```python\n{signature(name, found)}\n```\n"
        yield prose(inspect.getdoc(found) or "")
    else:
        said = re.sub(r"[\w.]+\.(\w+)", r"\1", str(found))
        yield f"```python\n{name} = {said}\n```\n"


def _fixtures() -> Iterator[str]:
    yield "## Fixtures of pytest\n\npytest has them where `quorate` is installed.\n"
    for name in FIXTURES:
        fixture = getattr(pytest_plugin, name)
        yield f"### {name}\n\n{prose(inspect.getdoc(fixture) or '')}"


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties, those of the class itself first."""
    seen: set[str] = set()
    is_tuple = issubclass(kind, tuple)
    for base in kind.__mro__:
        if not base.__module__.startswith("quorate"):
            continue
        for name, member in vars(base).items():
            is_call = inspect.isfunction(member) or isinstance(
                member, property | classmethod | staticmethod
            )
            if name.startswith("_") or name in seen or not is_call:
                continue
            seen.add(name)
            if not (is_tuple and name in tuple.__dict__) and inspect.getdoc(member):
                yield name, member


def signature(name: str, call: Any, *, is_method: bool = False) -> str:
    """Return how a call is declared, without the rules for its arguments."""
    declared = inspect.signature(call)
    parameters = list(declared.parameters.values())[1 if is_method else 0 :]
    parts: list[str] = []
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and "*" not in parts and not _has_star(parts):
            parts.append("*")
        parts.append(_parameter(one))
    returned = declared.return_annotation
    end = (
        ""
        if inspect.isclass(call) or returned is inspect.Signature.empty
        else f" -> {plain(returned)}"
    )
    start = "async def " if inspect.iscoroutinefunction(inspect.unwrap(call)) else "def "
    start = "" if inspect.isclass(call) else start
    line = f"{start}{name}({', '.join(parts)}){end}"
    if len(line) <= LINE_MAX:
        return line
    return f"{start}{name}(\n" + "".join(f"    {one},\n" for one in parts) + f"){end}"


def _has_star(parts: Sequence[str]) -> bool:
    return any(one.startswith("*") for one in parts)


def _parameter(one: inspect.Parameter) -> str:
    text = f"{STARS.get(one.kind, '')}{one.name}"
    typed = one.annotation is not one.empty
    if typed:
        text += f": {plain(one.annotation)}"
    if one.default is one.empty:
        return text
    return f"{text} = {one.default!r}" if typed else f"{text}={one.default!r}"


def plain(annotation: object) -> str:
    """Return an annotation without the rule for its values.

    >>> plain("Annotated[str | None, Text('a name')]"), plain("Iterable[Header]")
    ('str | None', 'Iterable[Header]')
    """
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if not isinstance(annotation, str):
        return getattr(annotation, "__name__", None) or str(annotation)
    if annotation.startswith("*"):
        return annotation
    parsed = ast.parse(annotation, mode="eval").body
    if isinstance(parsed, ast.Subscript) and ast.unparse(parsed.value) == "Annotated":
        assert isinstance(parsed.slice, ast.Tuple)
        parsed = parsed.slice.elts[0]
    return ast.unparse(parsed)


def _type(getter: Any) -> str:
    return plain(inspect.signature(getter).return_annotation)


def _arguments(kind: type) -> str:
    """Return a table of what a constructor allows, in the words of its errors."""
    constructor: Any = _constructor(kind)
    rules = settings_of(constructor)
    rows = [f"| `{name}` | {_allowed(rule)} |\n" for name, (rule, _) in rules.items()]
    return "| argument | must be |\n|---|---|\n" + "".join(rows) if rows else ""


def _constructor(kind: Any) -> Any:
    """Return the constructor that checks the arguments: a blocking client has the other's."""
    other = getattr(quorate, kind.__name__, kind) if "sync" in kind.__module__ else kind
    return other.__init__


def _allowed(rule: Rule) -> str:
    class Refused:
        def __repr__(self) -> str:
            return "REFUSED"

    try:
        rule.check("", "x", Refused())
    except (TypeError, ValueError, errors.QuorateError) as error:
        said = str(error).partition("x must be ")[2].partition(", not REFUSED")[0]
        return escaped(said) if said else escaped(str(error).partition(": x ")[2] or str(error))
    return "anything"


def _fields(kind: Any) -> str:
    """Return a table of the fields of a value."""
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        defaults = kind._field_defaults
    elif dataclasses.is_dataclass(kind):
        defaults = {
            one.name: one.default
            for one in dataclasses.fields(kind)
            if one.default is not dataclasses.MISSING
        }
    else:
        return ""
    comments = field_comments(kind)
    is_told = any(comments.values())
    lines = ["| field | type | default |" + (" meaning |" if is_told else "")]
    lines.append("|---|---|---|" + ("---|" if is_told else ""))
    for name, annotation in kind.__annotations__.items():
        default = f"`{defaults[name]!r}`" if name in defaults else ""
        row = f"| `{name}` | `{escaped(plain(annotation))}` | {default} |"
        lines.append(row + (f" {escaped(comments.get(name, ''))} |" if is_told else ""))
    return "\n".join(lines) + "\n"


def prose(docstring: str) -> str:
    """Return a docstring as Markdown: an example that is indented becomes a block of Python.

    >>> prose("Sends ``x``:\\n\\n    send(x)")
    'Sends `x`:\\n\\n```python\\nsend(x)\\n```\\n'
    """
    parts = []
    for part in re.split(r"\n\n(?=\S)|\n\n(?=    )(?<!    )", docstring):
        if part.startswith("    "):
            parts.append(f"```python\n{textwrap.dedent(part)}\n```")
        else:
            parts.append(re.sub(r"``(.+?)``", r"`\1`", part))
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Return a text for a cell of a table."""
    return " ".join(text.replace("|", "\\|").split())


def _linked(text: str, place: str) -> str:
    """Let names of errors and of documented classes in the prose lead to where they stand."""
    own = place.removeprefix("api/")
    lines, fenced = [], False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if not fenced and not line.startswith(("```", "#", "|")):
            line = re.sub(r"\bdocs/([\w-]+\.md)", r"[\g<0>](../\1)", line)
            line = re.sub(r"`[^`]*`|\b[A-Z]\w+\b", lambda found: _link(found[0], own), line)
        lines.append(line)
    return "\n".join(lines) + "\n"


def _link(word: str, own: str) -> str:
    name = word.strip("`")
    if name.endswith("Error") and hasattr(errors, name):
        return f"[{word}](../errors.md#{name.lower()})"
    home = HOMES.get(name)
    if home is None or home.startswith(own) or not word.startswith("`"):
        return word
    return f"[{word}]({home})"


if __name__ == "__main__":
    for one in PAGES:
        sys.stdout.write(page(one))
