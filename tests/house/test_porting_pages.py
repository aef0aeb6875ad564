"""The tables of docs/porting-*.md name what the other libraries and Quorate really have.

The first two cells of a table's header name an object of the other library and one of Quorate. In
the rows below, `name` is an attribute of it, `name=` an argument of its constructor,
`name(argument=)` an argument of its method, and `Other.name` an attribute of another object of the
same library.
"""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import confluent_kafka
import confluent_kafka.admin
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of how kafka-python reads its own files
    import kafka

import quorate
from quorate.argument_names import ELSEWHERE

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("porting-aiokafka.md", "porting-kafka-python.md", "porting-confluent-kafka.md")
#: The methods of these must all stand in their page, and the arguments of their constructors too.
#: kafka-python and confluent-kafka take arguments and settings that only tune their sockets.
WHOLE = (
    "aiokafka.AIOKafkaProducer",
    "aiokafka.AIOKafkaConsumer",
    "aiokafka.admin.AIOKafkaAdminClient",
    "kafka.KafkaProducer",
    "kafka.KafkaConsumer",
    "kafka.KafkaAdminClient",
    "confluent_kafka.Producer",
    "confluent_kafka.Consumer",
    "confluent_kafka.admin.AdminClient",
    "confluent_kafka.Message",
)
SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Table:
    """One table: the two objects of its header, and the names of each row, with its remark."""

    page: str
    theirs: str
    ours: str
    rows: tuple[tuple[list[str], list[str], str], ...]

    def __str__(self) -> str:
        return f"{self.page.removesuffix('.md')}-{self.theirs}"


def tables() -> Iterator[Table]:
    """Return the tables of all pages whose header names an object of each side."""
    for page in PAGES:
        for block in re.findall(r"(?:^\|.*\n)+", (DOCS / page).read_text(), re.MULTILINE):
            lines = [[one.strip() for one in line.split("|")[1:-1]] for line in block.splitlines()]
            heads = [SPAN.fullmatch(one) for one in lines[0][:2]]
            if heads[0] is None or heads[1] is None:
                continue
            rows = tuple((SPAN.findall(a), SPAN.findall(b), remark) for a, b, remark in lines[2:])
            yield Table(page, heads[0][1], heads[1][1], rows)


TABLES = list(tables())


def found(path: str) -> Any:
    """Return the object with a dotted path, which begins with a module."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            value = getattr(value, part)
        return value
    raise AttributeError(path)


def has_argument(call: Any, name: str) -> bool:
    """Return whether a class or a function takes an argument."""
    if call in (kafka.KafkaProducer, kafka.KafkaConsumer, kafka.KafkaAdminClient):
        return name in call.DEFAULT_CONFIG
    if call in (confluent_kafka.Producer, confluent_kafka.Consumer):
        return is_setting_of_librdkafka(call, name)
    try:
        return name in inspect.signature(call).parameters
    except ValueError:  # a function in C: its first line of text is its signature
        return re.search(rf"[\[( ]{name}\b", call.__doc__.strip().splitlines()[0]) is not None


def is_setting_of_librdkafka(kind: Any, name: str) -> bool:
    """Return whether librdkafka knows a setting, whatever it says of the value."""
    try:
        kind({"group.id": "g", name: "?"}).close()
    except (confluent_kafka.KafkaException, TypeError, ValueError) as error:
        return "No such configuration property" not in str(error)
    return True


def exists(owner: str, name: str) -> bool:
    """Return whether an object has what a cell of its column names."""
    argument = re.fullmatch(r"(?:([\w.]+)\()?([\w.]+)=\)?", name)
    if argument:
        method = f"{owner}.{argument[1]}" if argument[1] else owner
        return has_argument(found(method), argument[2])
    for path in (f"{owner}.{name}", f"{owner.split('.')[0]}.{name}"):
        try:
            found(path)
        except AttributeError:
            continue
        return True
    return name in getattr(found(owner), "__annotations__", {})


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_each_name_exists(table: Table) -> None:
    missing = [
        f"{owner}: {name}"
        for theirs, ours, _ in table.rows
        for owner, names in ((table.theirs, theirs), (table.ours, ours))
        for name in names
        if not exists(owner, name)
    ]
    assert missing == []


def test_the_check_sees_names_that_do_not_exist() -> None:
    for owner, name in (
        ("aiokafka.AIOKafkaProducer", "sendd"),
        ("aiokafka.AIOKafkaProducer", "lingers="),
        ("kafka.KafkaConsumer", "lingers="),
        ("confluent_kafka.Producer", "linger.mss="),
        ("confluent_kafka.Producer", "produce(keys=)"),
        ("quorate.Producer", "send(time=)"),
        ("quorate.errors", "NoSuchError"),
    ):
        assert not exists(owner, name), (owner, name)


@pytest.mark.parametrize("owner", WHOLE)
def test_each_name_of_the_other_library_has_its_row(owner: str) -> None:
    told = {
        name
        for table in TABLES
        if table.theirs == owner
        for row, _, _ in table.rows
        for name in row
    }
    kind = found(owner)
    wanted = {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}
    if owner.startswith("aiokafka"):
        arguments = [name for name in inspect.signature(kind).parameters if name != "topics"]
        wanted |= {f"{name}=" for name in arguments}
    assert wanted - told == set()


def default(owner: str, argument: str) -> Any:
    """Return the default of an argument of a constructor."""
    kind = found(owner.replace("quorate.sync.", "quorate."))
    if kind in (kafka.KafkaProducer, kafka.KafkaConsumer, kafka.KafkaAdminClient):
        return kind.DEFAULT_CONFIG[argument]
    return inspect.signature(kind).parameters[argument].default


@pytest.mark.parametrize(
    "table", [one for one in TABLES if not one.theirs.startswith("confluent")], ids=str
)
def test_a_number_that_is_another_by_default_is_told(table: Table) -> None:
    untold = []
    for theirs, ours, remark in table.rows:
        for name in {one for one in theirs if re.fullmatch(r"\w+=", one)} & set(ours):
            there, here = default(table.theirs, name[:-1]), default(table.ours, name[:-1])
            if isinstance(here, int) and there != here and "default" not in remark:
                untold.append(f"{name} {there}, here {here}")
    assert untold == []


#: The constructors of clients, in whose tables a row tells of a setting.
CLIENT = re.compile(r"quorate(\.sync)?\.(Producer|Consumer|Admin)\Z")


def settings_without_a_twin() -> Iterator[tuple[str, list[str]]]:
    """Yield each setting that has another name here, or none, with the names of its row."""
    for table in TABLES:
        for theirs, ours, _ in table.rows if CLIENT.match(table.ours) else ():
            for name in theirs:
                here = name.removesuffix("=").replace(".", "_")
                if re.fullmatch(r"[\w.]+=", name) and f"{here}=" not in ours:
                    yield here, ours


def test_an_error_tells_of_a_setting_what_its_row_tells() -> None:
    told = list(settings_without_a_twin())
    assert set(ELSEWHERE) == {name for name, _ in told}
    for name, ours in told:
        if name in ("retry_backoff_ms", "api_version", "loop"):
            continue  # the rows of the producer and of the consumer differ
        for one in ours:
            assert one.removesuffix("=").removesuffix("=)") in ELSEWHERE[name], (name, one)
        if not ours:
            used = re.match(r"use (\w+)", ELSEWHERE[name])
            assert used is None or used[1] not in settings_of_ours(), name


def settings_of_ours() -> set[str]:
    kinds = (quorate.Producer, quorate.Consumer, quorate.Admin)
    return {name for kind in kinds for name in inspect.signature(kind).parameters}
