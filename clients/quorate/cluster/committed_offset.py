"""The rule for an offset that is to be committed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quorate.model import CommittedOffset, OffsetAndMetadata
from quorate.settings import INT32_MAX, OFFSET, Text, Whole, refused

EPOCH = Whole(-1, INT32_MAX, "of the record before")
METADATA = Text("a text of the application", chars_max=1 << 20, may_be_empty=True)


@dataclass(frozen=True, slots=True)
class CommittedOffsetRule:
    """An offset, a pair of an offset and a text, an OffsetAndMetadata or a CommittedOffset."""

    or_none: bool = False

    def check(self, call: str, name: str, given: Any) -> OffsetAndMetadata | None:
        """Return the offset as an OffsetAndMetadata."""
        if given is None and self.or_none:
            return None
        match given:
            case CommittedOffset(offset, metadata, epoch, _):
                return OffsetAndMetadata(offset, metadata, epoch)
            case tuple():
                if not 2 <= len(given) <= 3:
                    said = "an offset or an OffsetAndMetadata"
                    raise TypeError(refused(call, name, said, given))
                epoch = EPOCH.check(call, name, given[2]) if len(given) == 3 else -1
                return OffsetAndMetadata(
                    OFFSET.check(call, name, given[0]),
                    METADATA.check(call, name, given[1]),
                    epoch,
                )
        return OffsetAndMetadata(OFFSET.check(call, name, given))
