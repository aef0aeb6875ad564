"""The configuration of topics: one table of names, with type, default, bounds and meaning.

A topic's own value wins over the cluster's default, which wins over the table's. Names are
Kafka's. Stands at the bottom of the metadata room: the image reads it, and so do the controller
(which checks what is set) and the brokers (which obey it).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from quorate.errors import InvalidConfigError

DAY_MS = 24 * 60 * 60 * 1000
MIB = 1024 * 1024
LONG_MAX = (1 << 63) - 1

Value = int | float | bool | str
Scope = Literal["topic", "created", "cluster"]


@dataclass(frozen=True, slots=True)
class ConfigSpec:
    """One setting.

    Its scope: "topic" may be set on a topic or on the cluster; "created" too, but a topic takes
    it when it is created and keeps it; "cluster" only on the cluster.
    """

    name: str
    default: Value
    parse: Callable[[str], Value]
    allowed: str
    doc: str
    scope: Scope = "topic"
    #: What does not happen yet although the setting is kept; empty: it is acted on.
    not_yet: str = ""

    def parsed(self, text: str) -> Value:
        """Return the typed value; InvalidConfigError names what was given and what is allowed."""
        try:
            return self.parse(text)
        except ValueError:
            raise InvalidConfigError(
                f"{self.name} must be {self.allowed}, not {text[:100]!r}"
            ) from None

    def shown(self, value: Value) -> str:
        """Return a value as it is written in the log and shown to users."""
        return str(value).lower() if isinstance(value, bool) else str(value)


def _whole(name: str, default: int, low: int, high: int, doc: str, scope: Scope) -> ConfigSpec:
    def parse(text: str) -> Value:
        # int() would take "1_000" and " 1 "; what is stored must read the same everywhere
        if not text.removeprefix("-").isdecimal() or not text.isascii() or len(text) > 20:
            raise ValueError(text)
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    bound = f"at most {high}" if high < LONG_MAX else "more"
    allowed = f"a whole number, {low} or {bound}" if bound == "more" else f"{low} to {high}"
    return ConfigSpec(name, default, parse, allowed, doc, scope)


def _yes_no(name: str, default: bool, doc: str, scope: Scope = "topic") -> ConfigSpec:
    def parse(text: str) -> Value:
        return {"true": True, "false": False}[text.strip().lower()]

    def checked(text: str) -> Value:
        try:
            return parse(text)
        except KeyError:
            raise ValueError(text) from None

    return ConfigSpec(name, default, checked, "true or false", doc, scope)


def _one_of(name: str, default: str, choices: tuple[str, ...], doc: str) -> ConfigSpec:
    def parse(text: str) -> Value:
        if text not in choices:
            raise ValueError(text)
        return text

    return ConfigSpec(name, default, parse, "one of " + ", ".join(map(repr, choices)), doc)


def _cleanup_policy() -> ConfigSpec:
    def parse(text: str) -> Value:
        parts = sorted({part.strip() for part in text.split(",") if part.strip()})
        if not set(parts) <= {"compact", "delete"}:
            raise ValueError(text)
        return ",".join(parts)

    return ConfigSpec(
        "cleanup.policy",
        "delete",
        parse,
        "'delete', 'compact', 'compact,delete', or '' to keep everything",
        "What happens to old records: deleted by time and size, or the last of each key kept.",
    )


def _ratio(name: str, default: float, doc: str) -> ConfigSpec:
    def parse(text: str) -> Value:
        value = float(text)
        if not 0.0 <= value <= 1.0:  # NaN fails too
            raise ValueError(text)
        return value

    return ConfigSpec(name, default, parse, "a number, 0 to 1", doc)


#: What the settings say that are kept, and that nothing acts on yet. One is taken out of here when
#: the program acts on it.
_NOT_YET: Mapping[str, str] = {
    **dict.fromkeys(
        ("cleanup.policy", "retention.bytes", "retention.ms"), "old records are not deleted"
    ),
    **dict.fromkeys(
        ("delete.retention.ms", "min.cleanable.dirty.ratio", "min.compaction.lag.ms"),
        "topics are not compacted",
    ),
    "segment.ms": "segments roll by size alone",
}

CONFIGS: Mapping[str, ConfigSpec] = {
    spec.name: replace(spec, not_yet=_NOT_YET.get(spec.name, ""))
    for spec in (
        _cleanup_policy(),
        _one_of(
            "compression.type",
            "producer",
            ("producer",),
            "Brokers move batches as they came: the producer chooses the codec.",
        ),
        _whole(
            "delete.retention.ms",
            DAY_MS,
            0,
            LONG_MAX,
            "How long tombstones stay after the first compaction that saw them.",
            "topic",
        ),
        _yes_no(
            "flush.on.ack",
            False,
            "A record is synced to disk before it counts as written. Fixed at creation.",
            "created",
        ),
        _whole(
            "max.message.bytes", MIB, 1024, 64 * MIB, "Largest batch of records, in bytes.", "topic"
        ),
        _whole(
            "message.timestamp.after.max.ms",
            60 * 60 * 1000,
            0,
            LONG_MAX,
            "How far in the future a record's timestamp may lie.",
            "topic",
        ),
        _one_of(
            "message.timestamp.type",
            "CreateTime",
            ("CreateTime", "LogAppendTime"),
            "Whose clock stamps records: the producer's, or the leader's at append.",
        ),
        _ratio("min.cleanable.dirty.ratio", 0.5, "Share of uncompacted bytes that compacts."),
        _whole(
            "min.compaction.lag.ms",
            0,
            0,
            LONG_MAX,
            "How long a record stays uncompacted at least.",
            "topic",
        ),
        _whole(
            "min.insync.replicas",
            2,
            1,
            1000,
            "Replicas that must hold a record before it is committed; never more than there are.",
            "topic",
        ),
        _whole("retention.bytes", -1, -1, LONG_MAX, "Bytes kept per partition; -1: any.", "topic"),
        _whole("retention.ms", 7 * DAY_MS, -1, LONG_MAX, "How long to keep; -1: always.", "topic"),
        _whole(
            "segment.bytes", 1024 * MIB, MIB, 2 * 1024 * MIB - 1, "Bytes of one segment.", "topic"
        ),
        _whole("segment.ms", 7 * DAY_MS, 1, LONG_MAX, "Age at which a segment rolls.", "topic"),
        _yes_no(
            "unclean.leader.election.enable",
            False,
            "Prefer a leader that may have lost acknowledged records to no leader.",
        ),
        _whole(
            "default.replication.factor",
            -1,
            -1,
            1000,
            "Replicas of a topic that does not say; -1: the lesser of 3 and the brokers.",
            "cluster",
        ),
        _whole(
            "num.partitions", 1, 1, 10_000, "Partitions of a topic that does not say.", "cluster"
        ),
    )
}


def effective_min_isr(configured: int, replicas: int) -> int:
    """Return how many in-sync replicas a commit needs: no more than are assigned.

    `replicas` counts those assigned for good, not those still being added. One function for the
    controller and for leaders, for they must agree on when the high watermark may move.

    >>> effective_min_isr(2, 3), effective_min_isr(2, 1)
    (2, 1)
    """
    return min(configured, replicas)


def spec_of(name: str, *, of_topic: bool) -> ConfigSpec:
    """Return the row of a name; InvalidConfigError names the nearest known one."""
    spec = CONFIGS.get(name)
    if spec is None:
        near = difflib.get_close_matches(name[:100], list(CONFIGS), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(CONFIGS)}"
        raise InvalidConfigError(f"no configuration is named {name[:100]!r}{hint}")
    if of_topic and spec.scope == "cluster":
        raise InvalidConfigError(f"{name} belongs to the cluster and cannot be set on a topic")
    return spec


def check_config(name: str, text: str, *, of_topic: bool) -> str:
    """Check one setting; return its value in canonical form. Raises InvalidConfigError."""
    spec = spec_of(name, of_topic=of_topic)
    return spec.shown(spec.parsed(text))


def warnings_of(names: Iterable[str]) -> list[str]:
    """Return a sentence for each of these settings that is kept and has no effect yet.

    >>> warnings_of(["segment.ms", "max.message.bytes"])
    ['segment.ms is kept, and has no effect in this release: segments roll by size alone']
    """
    return [
        f"{name} is kept, and has no effect in this release: {CONFIGS[name].not_yet}"
        for name in sorted(names)
        if name in CONFIGS and CONFIGS[name].not_yet
    ]


def effective(
    name: str, own: Mapping[str, str] | None, cluster: Mapping[str, str]
) -> tuple[str, str]:
    """Return the value of a setting and its source: "topic", "cluster" or "default".

    `own`: the topic's own values, or None for the cluster's view.
    """
    spec = CONFIGS[name]
    if own is not None and name in own:
        return own[name], "topic"
    if name in cluster and (own is None or spec.scope != "created"):
        return cluster[name], "cluster"
    return spec.shown(spec.default), "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicConfig:
    """Every setting of one topic, typed; names are Kafka's with underscores."""

    cleanup_policy: str
    compression_type: str
    delete_retention_ms: int
    flush_on_ack: bool
    max_message_bytes: int
    message_timestamp_after_max_ms: int
    message_timestamp_type: str
    min_cleanable_dirty_ratio: float
    min_compaction_lag_ms: int
    min_insync_replicas: int
    retention_bytes: int
    retention_ms: int
    segment_bytes: int
    segment_ms: int
    unclean_leader_election_enable: bool

    @property
    def compacts(self) -> bool:
        """Whether the last record of each key is kept."""
        return "compact" in self.cleanup_policy

    @property
    def deletes(self) -> bool:
        """Whether old segments are deleted by time and size."""
        return "delete" in self.cleanup_policy

    @classmethod
    def of(cls, own: Mapping[str, str], cluster: Mapping[str, str]) -> TopicConfig:
        """Return the settings of a topic with these own values, over the cluster's defaults."""
        values: dict[str, Value] = {}
        for spec in CONFIGS.values():
            if spec.scope == "cluster":
                continue
            values[spec.name.replace(".", "_")] = typed(spec.name, own, cluster)
        return cls(**values)  # type: ignore[arg-type]  # the table and the fields are one list


def typed(name: str, own: Mapping[str, str], cluster: Mapping[str, str]) -> Value:
    """Return the typed value of a setting of a topic, or (own empty) of the cluster.

    What a topic takes at creation ("created") it never takes from the cluster later: whether a
    replica was lossless must not change behind its back.
    """
    spec = CONFIGS[name]
    text = own.get(name)
    if text is None and spec.scope != "created":
        text = cluster.get(name)
    return spec.default if text is None else spec.parsed(text)


DEFAULT_TOPIC_CONFIG = TopicConfig.of({}, {})
