"""What the topic of schemas says: which schemas each subject has, in which order.

Programs register schemas at the same time, and none of them leads. The log decides. Each record is
a *proposal*: a schema or a rule for a subject, or versions of it to delete, and the offset of the
last change that its writer had seen (`after`). A proposal is accepted if no other change of the
subject, or of the rule for all subjects, was accepted since. So a schema is accepted only next to
the very versions, and under the very rule, that it was checked against; and all programs that read
the log accept the same.

A value has the fingerprint of its schema with it, and no more. So a schema is never accepted if its
fingerprint stands for a schema with other logical types, in any subject and under any rule.

Compaction must not change this order. Each proposal has a key of its own, and an accepted one is
never deleted. A proposal that lost changes nothing, so its writer deletes it. A version that is
deleted is none of its subject any more, but its schema stays: records that were written with it
must be read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from quorate.errors import IncompatibleSchemaError, InvalidSchemaError
from quorate.serializers.avro.compatibility import (
    Compatibility,
    check_fingerprint,
    incompatibilities,
)
from quorate.serializers.avro.schema import AvroSchema

#: The form of a record. A program passes over forms that it does not know.
FORM: Final = 1
#: The subject's rule as long as none is set.
DEFAULT_RULE: Final = Compatibility.BACKWARD
#: `after`, as long as nothing has changed.
NEVER: Final = -1


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """A schema of a subject. Versions count from 1."""

    subject: str
    version: int
    schema: AvroSchema

    @property
    def fingerprint(self) -> int:
        """CRC-64-AVRO of the schema, which travels with each value."""
        return self.schema.fingerprint


@dataclass(frozen=True, slots=True)
class Proposal:
    """A record to write. It is accepted if `Catalog.apply` says so at its offset."""

    key: bytes
    value: bytes


@dataclass(slots=True)
class Subject:
    """What is accepted for one subject."""

    versions: list[SchemaVersion] = field(default_factory=list)
    #: The number of the last version. It is not given again if that version is deleted.
    last: int = 0
    #: None: the rule for all subjects.
    rule: Compatibility | None = None
    #: The offset of the last change.
    changed: int = NEVER


class Catalog:
    """The accepted proposals, up to an offset.

    Other threads may call `find` at any time: it looks into one dict.
    """

    def __init__(self) -> None:
        self._subjects: dict[str, Subject] = {}
        #: The first is what `find` returns. The others write the same values.
        self._by_fingerprint: dict[int, list[AvroSchema]] = {}
        self._rule = DEFAULT_RULE
        self._rule_changed = NEVER

    # -- asking --------------------------------------------------------------------------------

    def find(self, fingerprint: int) -> AvroSchema | None:
        """Return the first schema that was accepted with this fingerprint, or None."""
        found = self._by_fingerprint.get(fingerprint)
        return found[0] if found else None

    def schemas(self) -> list[AvroSchema]:
        """Return one schema for each fingerprint."""
        return [found[0] for found in self._by_fingerprint.values()]

    def subjects(self) -> list[str]:
        """Return the names of the subjects that have a schema, sorted."""
        return sorted(name for name, one in self._subjects.items() if one.versions)

    def versions(self, subject: str) -> list[SchemaVersion]:
        """Return the schemas of a subject, the oldest first; an empty list: it has none."""
        return list(self._subject(subject).versions)

    def rule(self, subject: str | None) -> Compatibility:
        """Return the rule for a subject; None: for all that have none of their own."""
        return (None if subject is None else self._subject(subject).rule) or self._rule

    def problems(self, subject: str, schema: AvroSchema) -> tuple[str, ...]:
        """Return why the subject must not have the schema; empty: it may.

        The rule may forbid it, or a schema with its fingerprint and other logical types.
        """
        clashes = tuple(one for known in self._same(schema) for one in known.clashes_with(schema))
        if clashes:
            return clashes
        before = [one.schema for one in self._subject(subject).versions]
        return incompatibilities(schema, before, self.rule(subject))

    # -- proposing -----------------------------------------------------------------------------

    def propose_schema(
        self, subject: str, schema: AvroSchema, proposal_id: str
    ) -> SchemaVersion | Proposal:
        """Return the version that the subject has already, or what to write for a new one.

        Raises IncompatibleSchemaError.
        """
        found = self._subject(subject)
        for one in found.versions:
            if one.schema == schema:
                return one
        said = f"the subject {subject!r} can't have the schema as version {found.last + 1}"
        check_fingerprint(schema, self._same(schema), said)
        problems = self.problems(subject, schema)
        if problems:
            rule = self.rule(subject)
            listed = "".join(f"\n* {one}" for one in problems)
            raise IncompatibleSchemaError(
                f"the rule {rule.value} of the subject {subject!r} does not allow the schema as "
                f"version {found.last + 1}:{listed}",
                problems,
            )
        key = {
            "subject": subject,
            "version": found.last + 1,
            "fingerprint": f"{schema.fingerprint:016x}",
            "id": proposal_id,
        }
        return self._proposal(subject, key, {"schema": schema.text})

    def propose_rule(
        self, subject: str | None, rule: Compatibility, proposal_id: str
    ) -> Proposal | None:
        """Return what to write to set a rule; None: it is set."""
        now = self._rule if subject is None else self._subject(subject).rule
        if now is rule:
            return None
        key = {"subject": subject, "id": proposal_id}
        return self._proposal(subject, key, {"compatibility": rule.value})

    def propose_deletion(self, subject: str, versions: Sequence[int], proposal_id: str) -> Proposal:
        """Return what to write to delete versions of a subject."""
        key = {"subject": subject, "id": proposal_id}
        return self._proposal(subject, key, {"deleted": list(versions)})

    def _proposal(
        self, subject: str | None, key: Mapping[str, Any], value: Mapping[str, Any]
    ) -> Proposal:
        written = {"form": FORM, "after": self._last_change(subject), **value}
        return Proposal(_json(key), _json(written))

    # -- deciding ------------------------------------------------------------------------------

    def apply(self, offset: int, key: bytes | None, value: bytes | None) -> bool:
        """Take one record of the log, in the order of the offsets. Return whether it is accepted.

        Raises ValueError if the record is no proposal. It changes nothing then.
        """
        if value is None:
            return False  # a proposal that lost was deleted
        place, change = _decoded("key", key), _decoded("value", value)
        subject = place.get("subject")
        if not (isinstance(subject, str) or subject is None) or change.get("form") != FORM:
            raise ValueError(f"the record has the form {change.get('form')!r}, not {FORM}")
        if change.get("after") != self._last_change(subject):
            return False
        if "compatibility" in change:
            self._set_rule(offset, subject, Compatibility(change["compatibility"]))
            return True
        if subject is None:
            raise ValueError("the record has a schema for no subject")
        if "deleted" in change:
            self._delete(offset, subject, change["deleted"])
            return True
        return self._add(offset, subject, place, change.get("schema"))

    def _set_rule(self, offset: int, subject: str | None, rule: Compatibility) -> None:
        if subject is None:
            self._rule, self._rule_changed = rule, offset
            return
        changed = self._subjects.setdefault(subject, Subject())
        changed.rule, changed.changed = rule, offset

    def _delete(self, offset: int, subject: str, versions: Any) -> None:
        if not isinstance(versions, list):
            raise ValueError("the record deletes no list of versions")
        changed = self._subjects.setdefault(subject, Subject())
        changed.versions = [one for one in changed.versions if one.version not in versions]
        changed.changed = offset

    def _add(self, offset: int, subject: str, place: Mapping[str, Any], text: Any) -> bool:
        if not isinstance(text, str):
            raise ValueError("the record has no schema, and no rule")
        try:
            schema = AvroSchema(text)
        except InvalidSchemaError as error:
            raise ValueError(f"the record has no schema of Avro: {error}") from None
        if place.get("fingerprint") != f"{schema.fingerprint:016x}":
            raise ValueError(f"the fingerprint is {schema.fingerprint:016x}, not as the key says")
        if any(one.clashes_with(schema) for one in self._same(schema)):
            return False  # another subject got one with this fingerprint meanwhile
        changed = self._subjects.setdefault(subject, Subject())
        changed.last += 1
        changed.versions.append(SchemaVersion(subject, changed.last, schema))
        changed.changed = offset
        known = self._by_fingerprint.setdefault(schema.fingerprint, [])
        if schema not in known:
            known.append(schema)
        return True

    def _same(self, schema: AvroSchema) -> list[AvroSchema]:
        return self._by_fingerprint.get(schema.fingerprint, [])

    def _subject(self, name: str) -> Subject:
        return self._subjects.get(name) or Subject()

    def _last_change(self, subject: str | None) -> int:
        """Return the offset of the last change that concerns a subject.

        The rule for all may change beside the subjects; a subject that has the rule for all must
        not pass over its change.
        """
        own = NEVER if subject is None else self._subject(subject).changed
        return max(own, self._rule_changed)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _decoded(what: str, data: bytes | None) -> dict[str, Any]:
    found = json.loads(data) if data else None
    if not isinstance(found, dict):
        raise ValueError(f"the {what} of the record is no JSON object")
    return found
