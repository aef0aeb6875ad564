"""The configuration of a log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from quorate_quorum.config_kinds import LONG_MAX
from quorate_quorum.configs import DEFAULT_TOPIC_CONFIG, TopicConfig
from quorate_quorum.log.segment import RELATIVE_MAX

#: The fields of LogConfig that are fixed while a log is open. Log.configure changes all others.
AT_OPEN: Final = (
    "index_interval_bytes",
    "track_synced",
    "verify_all",
    "snapshot_batches",
    "snapshot_bytes",
    "salvage",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """How a log is stored and opened. Log.configure changes an open log, except for AT_OPEN."""

    #: A segment is closed before it would become larger than this; at most 2 GiB - 1.
    segment_bytes: int = DEFAULT_TOPIC_CONFIG.segment_bytes
    #: A segment is closed when its first record is as old as this.
    segment_ms: int = LONG_MAX
    #: The least bytes between two entries of the offset index.
    index_interval_bytes: int = 4096
    #: Whether acknowledgements wait for syncs (the metadata log, flush.on.ack). If so, an open
    #: writes the log's tail again and syncs it before use.
    track_synced: bool = False
    #: Whether an open checks every batch, not only those that may not have been synced.
    verify_all: bool = False
    #: The state of the log's Observer is saved after this many batches, or this many bytes of them.
    #: At a cut or an open, the Observer is shown about as many again.
    snapshot_batches: int = 20_000
    snapshot_bytes: int = 64 << 20
    #: Whether to keep the good batches of a log that is corrupt below its synced end, and report it
    #: as damaged. Set verify_all, too.
    salvage: bool = False

    @classmethod
    def of(cls, topic: TopicConfig) -> LogConfig:
        """Return how the logs of a topic are kept."""
        return cls(
            segment_bytes=topic.segment_bytes,
            segment_ms=topic.segment_ms,
            track_synced=topic.flush_on_ack,
        )

    def __post_init__(self) -> None:
        if not 1 <= self.segment_bytes <= RELATIVE_MAX:
            raise ValueError(f"segment_bytes must be 1 to {RELATIVE_MAX}, not {self.segment_bytes}")
        if self.index_interval_bytes < 0:
            raise ValueError(
                f"index_interval_bytes must be 0 or more, not {self.index_interval_bytes}"
            )
