"""What all errors share: the flags, the codes, and their form as messages."""

from __future__ import annotations

import re
from typing import ClassVar, Final

from quorate.v1 import common_pb2
from quorate.v1.common_pb2 import ErrorCode

#: The module from which programs import the errors.
PUBLIC: Final = "quorate.errors"


class QuorateError(Exception):
    """The base class of all errors that Quorate raises on purpose."""

    #: The code with the class's name: TopicExistsError has ERROR_CODE_TOPIC_EXISTS. If there is no
    #: such code, the class has the code of its base class.
    code: ClassVar[ErrorCode.ValueType] = ErrorCode.ERROR_CODE_UNKNOWN
    retriable: ClassVar[bool] = False
    stale_metadata: ClassVar[bool] = False
    #: What the user can do. Tracebacks show it as a note below the message.
    advice: ClassVar[str] = ""

    #: Of a refused batch: the indexes of the records that are the reason, in their order, or of the
    #: first of them if they are many; empty: no single records are.
    refused_records: tuple[int, ...] = ()

    def __init_subclass__(cls) -> None:
        # Tracebacks name an error as programs import it.
        cls.__module__ = PUBLIC if cls.__module__.startswith(f"{PUBLIC}.") else cls.__module__
        words = re.findall("[A-Z][a-z]+", cls.__name__.removesuffix("Error"))
        name = "_".join(("ERROR_CODE", *words)).upper()
        if name in ErrorCode.DESCRIPTOR.values_by_name:
            cls.code = ErrorCode.Value(name)
            BY_CODE.setdefault(cls.code, cls)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        if self.advice:
            self.add_note(self.advice)


QuorateError.__module__ = PUBLIC
BY_CODE: dict[ErrorCode.ValueType, type[QuorateError]] = {}


class UnknownServerError(QuorateError):
    """The server failed with an unexpected error. The server's log says more."""

    advice = "Look into the server's log, and report it."


class InvalidRequestError(QuorateError):
    """A field has an impossible value. The message names the field and what is allowed."""

    advice = "Correct what the message names; the same call fails again."


class AuthorizationError(QuorateError):
    """The principal is not allowed to do this."""

    advice = "Have the principal allowed to do this."


def to_wire(error: Exception) -> common_pb2.Error:
    """Return an error as a message. Its code is UNKNOWN if it is no QuorateError."""
    if isinstance(error, QuorateError):
        return common_pb2.Error(
            code=error.code, message=str(error), refused_records=error.refused_records
        )
    text = f"{type(error).__name__}: {error}"
    return common_pb2.Error(code=ErrorCode.ERROR_CODE_UNKNOWN, message=text)


def from_wire(error: common_pb2.Error) -> QuorateError:
    """Return the error that a peer sent; UnknownServerError for an unknown code."""
    found = BY_CODE.get(error.code, UnknownServerError)(error.message)
    if error.refused_records:
        found.refused_records = tuple(error.refused_records)
    return found


def raise_if_error(error: common_pb2.Error) -> None:
    """Raise the error that a peer sent, if it sent one."""
    if error.code != ErrorCode.ERROR_CODE_NONE:
        raise from_wire(error)
