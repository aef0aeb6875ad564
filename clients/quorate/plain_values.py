"""What of a value can be sent: a whole number, a text."""

from __future__ import annotations

import math
import operator
from typing import Any, Final

#: The allowed texts in words, for errors. Names of files that are not UTF-8 have lone surrogates in
#: Python. No message can carry these.
UTF8_TEXT: Final = "text that has a form in UTF-8 (without lone surrogates)"


def has_utf8(text: str) -> bool:
    r"""Return whether a text can be sent.

    >>> has_utf8("caf\u00e9"), has_utf8("\ud800")
    (True, False)
    """
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def whole_number(given: Any) -> int | None:
    """Return `given` as an int; None if it is no whole number. It may be a numpy integer.

    >>> whole_number(5.0), whole_number(5.5), whole_number(True), whole_number(float("inf"))
    (5, None, None, None)
    """
    if isinstance(given, bool):
        return None
    if isinstance(given, float):
        return int(given) if math.isfinite(given) and given.is_integer() else None
    try:
        return operator.index(given)
    except TypeError:
        return None
