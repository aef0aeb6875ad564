"""The errors of schemas. The tree of all errors stands in quorate.errors."""

from __future__ import annotations

from concurrent.futures import Future

from quorate.errors.base import InvalidRequestError, QuorateError


class InvalidSchemaError(InvalidRequestError, ValueError):
    """The text is no schema of Avro. The message names the place and what is allowed."""

    advice = "Correct what the message names."


class IncompatibleSchemaError(InvalidRequestError, ValueError):
    """The subject's rule of compatibility does not allow the schema. `problems` say why."""

    advice = (
        "Correct what the message names (a new field needs a default, for example), or change the "
        "rule of the subject."
    )

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class UnknownSchemaError(QuorateError, LookupError):
    """The schema that a value was written with is not known.

    `lookup` is not None while it is looked for: it is done when the schema was found, or not. A
    Consumer waits for it by itself.
    """

    advice = (
        "Have the program that writes register its schema before it writes, or give the schema to "
        "the serializer."
    )

    def __init__(self, message: str, lookup: Future[None] | None = None) -> None:
        super().__init__(message)
        self.lookup = lookup
