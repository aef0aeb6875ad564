"""The names that topics may have."""

from __future__ import annotations

import re
from typing import Final

from quorate.errors import InvalidTopicError
from quorate_quorum.log.identity import METADATA_LOG
from quorate_quorum.metadata.topics import INTERNAL_TOPICS

NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")
NAME_LENGTH_MAX: Final = 249


def check_name(name: str, *, internal: bool = False) -> None:
    """Raise InvalidTopicError if a new topic can't have this name. The error says what is wrong."""
    if not name:
        raise InvalidTopicError("a topic needs a name")
    if len(name) > NAME_LENGTH_MAX:
        raise InvalidTopicError(
            f"a topic's name has at most {NAME_LENGTH_MAX} characters; {name[:20]}... has"
            f" {len(name)}"
        )
    if name in (".", ".."):
        raise InvalidTopicError(f"a topic cannot be named {name!r}: it names a directory")
    if not NAME.fullmatch(name):
        wrong = next(c for c in name if not NAME.fullmatch(c))
        raise InvalidTopicError(
            f"a topic's name has only a-z A-Z 0-9 . _ and -; {name!r} has {wrong!r}"
        )
    if name == METADATA_LOG or (name in INTERNAL_TOPICS and not internal):
        own = ", ".join(sorted({METADATA_LOG, *INTERNAL_TOPICS}))
        raise InvalidTopicError(f"{name!r} is one of the names that are Quorate's own: {own}")
