"""The principal: the identity of a caller, as a type and a name. Kafka has the same form."""

from __future__ import annotations

from dataclasses import dataclass

from quorate.errors import InvalidRequestError

#: Longest text of a principal. Otherwise a caller could fill a request or a log line with it.
TEXT_CHARS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Principal:
    """The identity of a caller. The listener determines it. A broker forwards it to the controller.

    >>> str(Principal("User", "alice"))
    'User:alice'
    """

    type: str
    name: str

    def __str__(self) -> str:
        return f"{self.type}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> Principal:
        """Parse type:name. Raise InvalidRequestError for any other text.

        The name may contain a colon.

        >>> Principal.parse("User:CN=alice")
        Principal(type='User', name='CN=alice')
        """
        kind, colon, name = text.partition(":")
        if not (kind and colon and name) or len(text) > TEXT_CHARS_MAX:
            raise InvalidRequestError(
                f"a principal must be type:name of at most {TEXT_CHARS_MAX} characters, "
                f"not {text[:100]!r}"
            )
        return cls(kind, name)


#: The principal of a caller that is not authenticated. No listener authenticates yet.
ANONYMOUS = Principal("User", "ANONYMOUS")
