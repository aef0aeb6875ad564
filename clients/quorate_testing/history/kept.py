"""What a log may lack for a good reason: retention, deletion of records, compaction."""

from __future__ import annotations

from dataclasses import dataclass

from quorate_testing.history.operations import Name


@dataclass(frozen=True, slots=True)
class Kept:
    """What of a key must still have been there for every reader.

    A topic that is deleted and made again is no matter of this class: give its partitions new
    keys, with partition_name(..., incarnation=1).
    """

    #: Records below this offset may have been deleted: where the log began at the end.
    log_start: int = 0
    #: Of each record key only the last record must be there. Sends then need a `record_key`.
    compacted: bool = False
    #: Values that may be missing for another reason, for example tombstones.
    may_lack: frozenset[Name] = frozenset()


#: Nothing may be missing.
ALL = Kept()
