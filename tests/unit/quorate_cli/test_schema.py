"""`quorate schema`: the schemas of a cluster, from files and for files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster.support import Answer
from tests.unit.quorate_cli.commands import Quorate

S = "orders-value"
ORDER = {"type": "record", "name": "Order", "fields": [{"name": "customer", "type": "int"}]}
NOTE = {"name": "note", "type": "string"}
WRONG_ORDER = {**ORDER, "fields": [*ORDER["fields"], NOTE]}
NEW_ORDER = {**ORDER, "fields": [*ORDER["fields"], {**NOTE, "default": ""}]}


class Schemas:
    """The command with a topic of schemas of its own, and a folder for files."""

    def __init__(self, quorate: Quorate, folder: Path) -> None:
        self.quorate = quorate
        self.topic = f"{folder.name}-schemas"
        self.folder = folder

    def __call__(self, *words: str, stdin: bytes = b"") -> Answer:
        return self.quorate("schema", *words, "--topic", self.topic, stdin=stdin)

    def file(self, schema: object) -> str:
        path = self.folder / "schema.avsc"
        path.write_text(json.dumps(schema))
        return str(path)


@pytest.fixture
def schemas(quorate: Quorate, tmp_path: Path) -> Schemas:
    return Schemas(quorate, tmp_path)


def test_a_cluster_without_schemas_has_none_and_a_question_makes_no_topic(schemas: Schemas) -> None:
    assert schemas("list", "-o", "json").json == []
    said = schemas("show", S)
    assert (said.status, said.out) == (1, "")
    assert f"it has no topic '{schemas.topic}'; `quorate schema register` makes it" in said.err
    listed = schemas.quorate("topic", "list", "--internal", "-o", "json").json
    assert schemas.topic not in listed


def test_schemas_are_registered_and_shown(schemas: Schemas) -> None:
    said = schemas("register", S, schemas.file(ORDER))
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith(f"{S} version 1, ")
    piped = schemas("register", S, "-", "-o", "json", stdin=json.dumps(NEW_ORDER).encode())
    assert (piped.json["version"], piped.json["schema"]) == (2, NEW_ORDER)
    assert schemas("register", S, schemas.file(ORDER), "-o", "json").json["version"] == 1
    assert json.loads(schemas("show", S).out) == NEW_ORDER
    assert json.loads(schemas("show", S, "--version", "1").out) == ORDER
    assert schemas("list", "-o", "json").json == [
        {"subject": S, "versions": [1, 2], "compatibility": "BACKWARD"}
    ]
    assert schemas("list").out.splitlines()[1].split() == [S, "2", "2", "BACKWARD"]
    assert [one["version"] for one in schemas("list", S, "-o", "json").json] == [1, 2]
    assert schemas("list", S).out.splitlines()[2].startswith("2        ")
    missing = schemas("show", S, "--version", "3")
    assert (missing.status, missing.out) == (1, "")
    assert f"the subject '{S}' has no version 3; `quorate schema list {S}` shows" in missing.err
    assert "those that it has: 1, 2" in missing.err


def test_a_check_registers_nothing_and_its_status_is_the_answer(schemas: Schemas) -> None:
    schemas("register", S, schemas.file(ORDER))
    allowed = schemas("check", S, schemas.file(NEW_ORDER))
    assert (allowed.status, allowed.out) == (0, f"the rule BACKWARD of {S} allows the schema\n")
    refused = schemas("check", S, schemas.file(WRONG_ORDER), "-o", "json")
    assert refused.status == 1
    assert (refused.json["allowed"], len(refused.json["problems"])) == (False, 1)
    assert "no default is set" in refused.err
    assert schemas("list", "-o", "json").json[0]["versions"] == [1]
    assert schemas("register", S, schemas.file(WRONG_ORDER)).status == 1
    said = schemas("set-compatibility", "forward", S)
    assert (said.status, said.out) == (0, f"the rule of {S} is now FORWARD\n")
    assert schemas("register", S, schemas.file(WRONG_ORDER)).status == 0


def test_the_rule_for_all_is_set_without_a_subject(schemas: Schemas) -> None:
    document = {"subject": None, "compatibility": "NONE"}
    assert schemas("set-compatibility", "NONE", "-o", "json").json == document
    schemas("register", S, schemas.file(ORDER))
    assert schemas("list", "-o", "json").json[0]["compatibility"] == "NONE"
    said = schemas("set-compatibility", "SOME")
    assert (said.status, said.out) == (2, "")
    assert "RULE must be one of NONE, BACKWARD" in said.err


def test_versions_and_subjects_are_deleted(schemas: Schemas) -> None:
    for one in (ORDER, NEW_ORDER):
        schemas("register", S, schemas.file(one))
    deleted = schemas("delete", S, "--version", "1", "-o", "json")
    assert deleted.json == {"subject": S, "deleted": [1]}
    assert schemas("delete", S, "--version", "1").status == 1
    assert schemas("delete", S, "-o", "json").json == {"subject": S, "deleted": [2]}
    assert schemas("list", "-o", "json").json == []
    again = schemas("delete", S)
    assert (again.status, again.out) == (1, "")
    assert f"the subject '{S}' has no schema" in again.err
    assert "`quorate schema list` shows all subjects" in again.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "the schema is not JSON"),
        ('{"type": "integer"}', "the type 'integer' is not defined"),
        (None, "No such file or directory"),
    ],
)
def test_what_is_no_schema_is_wrong_usage(
    schemas: Schemas, tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "schema.avsc"
    if content is not None:
        path.write_text(content)
    for command in ("register", "check"):
        answer = schemas(command, S, str(path))
        assert (answer.status, answer.out) == (2, "")
        assert said in answer.err
        assert str(path) in answer.err
