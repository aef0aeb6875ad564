"""The catalog: the log alone decides which schema a subject has, for every program alike."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from quorate import SchemaVersion
from quorate.errors import IncompatibleSchemaError
from quorate.schema_registry.catalog import Catalog, Proposal
from quorate.serializers import AvroSchema, Compatibility

INT, LONG, TEXT = AvroSchema("int"), AvroSchema("long"), AvroSchema("string")
S = "orders-value"


@dataclass
class Log:
    """A log, and the programs that read it."""

    records: list[tuple[int, bytes, bytes | None]] = field(default_factory=list)
    end: int = 0
    ids: int = 0

    def write(self, key: bytes, value: bytes | None) -> int:
        self.records.append((self.end, key, value))
        self.end += 1
        return self.end - 1

    def new_id(self) -> str:
        self.ids += 1
        return f"{self.ids}"

    def read(self, upto: int | None = None) -> Catalog:
        catalog = Catalog()
        for offset, key, value in self.records:
            if upto is None or offset < upto:
                catalog.apply(offset, key, value)
        return catalog

    def register(self, subject: str, schema: AvroSchema) -> bool:
        """Register by one program that is alone. Return whether the log accepted it."""
        catalog = self.read()
        proposal = catalog.propose_schema(subject, schema, self.new_id())
        assert isinstance(proposal, Proposal)
        offset = self.write(proposal.key, proposal.value)
        return catalog.apply(offset, proposal.key, proposal.value)

    def set_rule(self, subject: str | None, rule: Compatibility) -> None:
        proposal = self.read().propose_rule(subject, rule, self.new_id())
        assert proposal is not None
        self.write(proposal.key, proposal.value)

    def delete(self, subject: str, versions: list[int]) -> None:
        proposal = self.read().propose_deletion(subject, versions, self.new_id())
        self.write(proposal.key, proposal.value)


def numbered(catalog: Catalog, subject: str = S) -> list[tuple[int, AvroSchema]]:
    return [(one.version, one.schema) for one in catalog.versions(subject)]


def test_versions_count_from_one_and_a_schema_that_is_there_keeps_its_version() -> None:
    log = Log()
    assert log.register(S, INT)
    assert log.register(S, LONG)
    catalog = log.read()
    assert numbered(catalog) == [(1, INT), (2, LONG)]
    assert catalog.propose_schema(S, INT, "x") == SchemaVersion(S, 1, INT)
    assert catalog.subjects() == [S]
    assert catalog.versions("other") == []
    assert catalog.find(LONG.fingerprint) == LONG
    assert catalog.find(TEXT.fingerprint) is None


MILLIS = AvroSchema({"type": "long", "logicalType": "timestamp-millis"})
MICROS = AvroSchema({"type": "long", "logicalType": "timestamp-micros"})


@pytest.mark.parametrize("subject", [S, "other"])
def test_one_fingerprint_never_stands_for_other_logical_types(subject: str) -> None:
    """No rule allows it, NONE neither: a value has no more than the fingerprint with it."""
    log = Log()
    log.set_rule(None, Compatibility.NONE)
    log.register(S, LONG)
    before = log.read()
    log.register(S, MILLIS)
    catalog = log.read()
    with pytest.raises(IncompatibleSchemaError) as raised:
        catalog.propose_schema(subject, MICROS, "x")
    clash = (
        "the writer's timestamp-millis can't be read as timestamp-micros: logical types must be "
        "equal, or one of the two must have none"
    )
    assert raised.value.problems == catalog.problems(subject, MICROS) == (clash,)
    number = 3 if subject == S else 1
    assert str(raised.value) == (
        f"the subject '{subject}' can't have the schema as version {number}: a known schema has "
        f"the same fingerprint, {LONG.fingerprint:016x}, and other logical types, so no reader "
        "could tell by which of the two a value was written; no rule allows that. Give the changed "
        f"field (or the record) another name:\n* {clash}"
    )
    # a program that had not seen MILLIS proposed it for another subject
    late = before.propose_schema("other", MICROS, "y")
    assert isinstance(late, Proposal)
    assert not log.read().apply(log.end, late.key, late.value)
    log.delete(S, [2])
    assert log.read().problems(subject, MICROS) == (clash,)  # its values are still read


def test_a_schema_that_the_rule_forbids_is_refused_with_rule_version_and_reason() -> None:
    log = Log()
    log.register(S, LONG)
    with pytest.raises(IncompatibleSchemaError) as raised:
        log.read().propose_schema(S, INT, "x")
    assert str(raised.value) == (
        "the rule BACKWARD of the subject 'orders-value' does not allow the schema as version 2:\n"
        "* the new schema can't read data of version 1: the writer's long can't be read as int"
    )
    assert len(raised.value.problems) == 1
    log.set_rule(S, Compatibility.FORWARD)
    assert log.register(S, INT)


def test_a_subject_has_the_rule_for_all_until_it_has_its_own() -> None:
    log = Log()
    log.set_rule(None, Compatibility.NONE)
    log.set_rule(S, Compatibility.FULL)
    log.set_rule(None, Compatibility.FORWARD)
    catalog = log.read()
    rules = [catalog.rule(one) for one in (None, S, "other")]
    assert rules == [Compatibility.FORWARD, Compatibility.FULL, Compatibility.FORWARD]
    assert catalog.propose_rule(S, Compatibility.FULL, "x") is None


def test_deleted_versions_no_longer_count_and_their_numbers_are_not_given_again() -> None:
    log = Log()
    log.register(S, INT)
    log.register(S, LONG)
    log.delete(S, [2])
    assert numbered(log.read()) == [(1, INT)]
    assert log.read().find(LONG.fingerprint) == LONG  # values that have it are still read
    log.register(S, AvroSchema("double"))
    log.delete(S, [1, 3])
    catalog = log.read()
    assert (catalog.versions(S), catalog.subjects()) == ([], [])
    assert log.register(S, TEXT)
    assert numbered(log.read()) == [(4, TEXT)]


def test_a_schema_that_was_checked_before_a_deletion_loses_and_the_other_way_round() -> None:
    log = Log()
    log.register(S, INT)
    wider = log.read().propose_schema(S, LONG, "a")
    deletion = log.read().propose_deletion(S, [1], "b")
    assert isinstance(wider, Proposal)
    other = Log([*log.records], log.end)
    log.write(deletion.key, deletion.value)
    log.write(wider.key, wider.value)
    assert numbered(log.read()) == []
    other.write(wider.key, wider.value)
    other.write(deletion.key, deletion.value)
    assert numbered(other.read()) == [(1, INT), (2, LONG)]


def test_of_two_proposals_on_the_same_state_the_first_in_the_log_wins() -> None:
    log = Log()
    log.register(S, INT)
    one = log.read().propose_schema(S, LONG, "a")
    other = log.read().propose_schema(S, AvroSchema("double"), "b")
    assert isinstance(one, Proposal)
    assert isinstance(other, Proposal)
    log.write(one.key, one.value)
    log.write(other.key, other.value)
    assert numbered(log.read()) == [(1, INT), (2, LONG)]


@pytest.mark.parametrize("subject", [S, None])
def test_a_schema_that_was_checked_under_an_older_rule_loses(subject: str | None) -> None:
    log = Log()
    log.register(S, INT)
    wider = log.read().propose_schema(S, LONG, "a")
    assert isinstance(wider, Proposal)
    log.set_rule(subject, Compatibility.FULL)
    log.write(wider.key, wider.value)
    assert numbered(log.read()) == [(1, INT)]


def test_a_change_of_one_subject_does_not_hold_up_another() -> None:
    log = Log()
    proposal = log.read().propose_schema("other", INT, "a")
    assert isinstance(proposal, Proposal)
    log.register(S, INT)
    log.write(proposal.key, proposal.value)
    assert numbered(log.read(), "other") == [(1, INT)]


def test_keys_name_the_subject_the_version_and_the_fingerprint() -> None:
    proposal = Catalog().propose_schema(S, INT, "a")
    assert isinstance(proposal, Proposal)
    assert json.loads(proposal.key) == {
        "subject": S,
        "version": 1,
        "fingerprint": "7275d51a3f395c8f",
        "id": "a",
    }


KEY = b'{"subject": "s", "version": 1, "fingerprint": "7275d51a3f395c8f", "id": "a"}'


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (None, b"{}", "the key of the record is no JSON object"),
        (b"[]", b"{}", "the key of the record is no JSON object"),
        (b"{", b"{}", "Expecting"),
        (KEY, b"7", "the value of the record is no JSON object"),
        (KEY, b"{}", "the form None, not 1"),
        (KEY, b'{"form": 2, "after": -1, "schema": "int"}', "the form 2, not 1"),
        (b'{"subject": 7}', b'{"form": 1}', "the form"),
        (KEY, b'{"form": 1, "after": -1}', "no schema, and no rule"),
        (KEY, b'{"form": 1, "after": -1, "schema": "integer"}', "no schema of Avro: .*'integer'"),
        (KEY, b'{"form": 1, "after": -1, "schema": "long"}', "fingerprint is d054e14493f41db7"),
        (KEY, b'{"form": 1, "after": -1, "compatibility": "SOME"}', "SOME"),
        (b'{"subject": null}', b'{"form": 1, "after": -1, "schema": "int"}', "for no subject"),
    ],
)
def test_a_record_that_is_no_proposal_changes_nothing(
    key: bytes | None, value: bytes, said: str
) -> None:
    catalog = Catalog()
    with pytest.raises(ValueError, match=said):
        catalog.apply(0, key, value)
    assert catalog.subjects() == []
    assert catalog.apply(1, KEY, b'{"form": 1, "after": -1, "schema": "int"}')


def compacted(log: Log, chance: random.Random) -> None:
    """Remove a part of what compaction may remove: older records of a key, and tombstones."""
    last = {key: offset for offset, key, _ in log.records}
    log.records = [
        (offset, key, value)
        for offset, key, value in log.records
        if (last[key] == offset and value is not None) or chance.random() < 0.5
    ]


def state(catalog: Catalog) -> Any:
    rules = [catalog.rule(one) for one in (None, "a", "b")]
    return rules, [numbered(catalog, one) for one in ("a", "b")]


@pytest.mark.parametrize("seed", range(60))
def test_programs_that_change_subjects_at_once_agree_and_compaction_changes_nothing(
    seed: int,
) -> None:
    """Each accepted schema follows the rule at its place; no accepted one is ever lost."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    schemas = [AvroSchema(one) for one in ("int", "long", "float", "double", "string", "bytes")]
    log, under_way = Log(), list[Proposal]()
    accepted: dict[str, list[tuple[int, AvroSchema]]] = {"a": [], "b": []}
    for _ in range(60):
        roll = chance.random()
        if roll < 0.5:
            # a program that has read up to some offset decides, and its record is on its way
            catalog = log.read(chance.randint(max(0, log.end - 3), log.end))
            subject = chance.choice("ab")
            try:
                found: Any = catalog.propose_schema(subject, chance.choice(schemas), log.new_id())
                if chance.random() < 0.2:
                    rule = chance.choice(list(Compatibility))
                    found = catalog.propose_rule(chance.choice([subject, None]), rule, log.new_id())
            except IncompatibleSchemaError:
                continue
            if isinstance(found, Proposal):
                under_way.append(found)
        elif under_way:
            proposal = under_way.pop(chance.randrange(len(under_way)))
            before = log.read()
            offset = log.write(proposal.key, proposal.value)
            after = log.read(offset)
            is_accepted = after.apply(offset, proposal.key, proposal.value)
            if not is_accepted and chance.random() < 0.7:
                log.write(proposal.key, None)
            for subject, versions in accepted.items():
                now = numbered(after, subject)
                assert now[: len(versions)] == versions, offset
                for _, schema in now[len(versions) :]:
                    assert before.problems(subject, schema) == ()
                accepted[subject] = now
        if chance.random() < 0.2:
            told = state(log.read())
            compacted(log, chance)
            assert state(log.read()) == told
    assert sum(map(len, accepted.values())) > 0
