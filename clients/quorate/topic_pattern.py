"""The patterns of subscriptions. Their syntax is that of RE2, in the client and at a coordinator.

RE2 matches in a time that is linear in the length of a name: no pattern can stop a coordinator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from quorate.errors import InvalidPatternError
from quorate.settings import refused

#: The most memory of one compiled pattern, the states that it meets included. It also bounds the
#: time of one match: where this memory does not do, RE2 walks the whole program at each letter.
PATTERN_MEMORY_BYTES_MAX: Final = 128 << 10


def compiled(pattern: str) -> Any:
    """Return a compiled pattern, which matches bytes. InvalidPatternError: RE2 refuses it."""
    import re2  # here, because the import is slow, and few programs have a pattern

    options = re2.Options()
    options.max_mem = PATTERN_MEMORY_BYTES_MAX
    options.log_errors = False
    options.never_capture = True
    try:
        return re2.compile(pattern, options=options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0] if error.args else error
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise InvalidPatternError(
            f"the pattern {pattern[:200]!r} does not compile as RE2: {text}"
        ) from None


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression of RE2, as a string."""

    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> str:
        if not isinstance(given, str):
            raise TypeError(refused(call, name, "a regular expression, as a string", given))
        try:
            compiled(given)
        except InvalidPatternError as error:
            raise InvalidPatternError(f"{call}: {error}") from None
        return given
