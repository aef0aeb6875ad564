"""Every configuration of topics, of running brokers and of the cluster.

Each is declared once, as a field of TopicConfig, ThrottleConfig or ClusterConfig, with its default,
the allowed values, its meaning, and when it takes effect.

Everything else is derived from the three classes: the table CONFIGS, its checks, warnings and
refusals. Names are Kafka's; a field has underscores where the name has dots. A topic's own value
beats the cluster's, and the cluster's beats the default.

The node's own configuration imports this module and refuses these names. If a value is set, the
controller checks it, the image holds it, and the brokers apply it.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from quorate.errors import InvalidConfigError
from quorate.record import compression
from quorate_quorum.config_kinds import (
    LONG_MAX,
    POLICY,
    SHARE,
    THROTTLED,
    YES_OR_NO,
    Kind,
    level_of,
    one_of,
    whole,
)

DAY_MS = 24 * 60 * 60 * 1000
MIB = 1024 * 1024
#: The value of `max.compaction.lag.ms` that stands for no limit.
NO_LAG = LONG_MAX
#: The value of `flush.ms` that stands for no syncs by time.
NEVER_MS = LONG_MAX
#: The value of a rate in bytes a second that stands for no limit.
NO_RATE = LONG_MAX
#: The most partitions of one topic.
PARTITIONS_MAX = 10_000

T = TypeVar("T")
Value = int | float | bool | str
Scope = Literal["topic", "created", "broker", "cluster"]


def setting(default: T, kind: Kind[T], doc: str, *, fixed: str = "") -> T:
    """Declare a setting, as the default of a field. ConfigSpec explains the sentences."""
    about = {"kind": kind, "doc": doc, "fixed": fixed}
    return dataclasses.field(default=default, metadata=about)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicConfig:
    """Every setting of one topic. Each may be set on a topic, and on the cluster as a default.

    A change takes effect at once, on open logs and running replicas. One exception: a `fixed`
    setting can't be changed on an existing topic.
    """

    cleanup_policy: str = setting(
        "delete",
        POLICY,
        "What happens to old records: deleted by time and size, or the last of each key kept.",
    )
    compression_gzip_level: int = setting(
        compression.LEVELS[compression.GZIP].default,
        level_of(compression.GZIP),
        "Level of compression.type=gzip; -1: zlib's own, 6.",
    )
    compression_lz4_level: int = setting(
        compression.LEVELS[compression.LZ4].default,
        level_of(compression.LZ4),
        "Level of compression.type=lz4; 9 is the fast compressor, every other the strong one.",
    )
    compression_type: str = setting(
        "producer",
        one_of("producer", "uncompressed", *compression.NAMES[1:]),
        "Codec of the batches in the log: the producer's, or one to which leaders recompress.",
    )
    compression_zstd_level: int = setting(
        compression.LEVELS[compression.ZSTD].default,
        level_of(compression.ZSTD),
        "Level of compression.type=zstd.",
    )
    delete_retention_ms: int = setting(
        DAY_MS,
        whole(0),
        "How long tombstones stay after the first compaction that saw them.",
    )
    flush_ms: int = setting(
        NEVER_MS,
        whole(0),
        "How long a record stays unsynced at most, while the disk keeps up;"
        f" {NEVER_MS}: as long as log.flush.offset.checkpoint.interval.ms of the node allows.",
    )
    flush_on_ack: bool = setting(
        False,
        YES_OR_NO,
        "A record is synced to disk before it counts as written.",
        fixed="what was written under one value cannot be trusted under the other",
    )
    follower_replication_throttled_replicas: str = setting(
        "",
        THROTTLED,
        "Replicas whose brokers take them at follower.replication.throttled.rate while they are out"
        " of sync.",
    )
    leader_replication_throttled_replicas: str = setting(
        "",
        THROTTLED,
        "Replicas whose brokers, as leaders, send to followers that are out of sync at"
        " leader.replication.throttled.rate.",
    )
    max_compaction_lag_ms: int = setting(
        NO_LAG, whole(1), f"How long a record stays uncompacted at most; {NO_LAG}: without a limit."
    )
    max_message_bytes: int = setting(
        # Kafka's own default: 1 MiB and the 12 bytes that a batch's length does not count
        MIB + 12,
        whole(1024, 64 * MIB),
        "Largest batch of records, in bytes.",
    )
    message_timestamp_after_max_ms: int = setting(
        60 * 60 * 1000, whole(0), "How far in the future a record's timestamp may lie."
    )
    message_timestamp_type: str = setting(
        "CreateTime",
        one_of("CreateTime", "LogAppendTime"),
        "Whose clock stamps records: the producer's, or the leader's at append.",
    )
    min_cleanable_dirty_ratio: float = setting(
        0.5, SHARE, "Share of uncompacted bytes that compacts."
    )
    min_compaction_lag_ms: int = setting(
        0, whole(0), "How long a record stays uncompacted at least."
    )
    min_insync_replicas: int = setting(
        2,
        whole(1, 1000),
        "Replicas that must hold a record before it is committed. A value above the number of a"
        " partition's replicas counts as that number.",
    )
    retention_bytes: int = setting(-1, whole(-1), "Bytes kept per partition; -1: any.")
    retention_ms: int = setting(7 * DAY_MS, whole(-1), "How long to keep; -1: always.")
    segment_bytes: int = setting(1024 * MIB, whole(MIB, 2048 * MIB - 1), "Bytes of one segment.")
    segment_ms: int = setting(
        7 * DAY_MS, whole(1), "Age of a segment's first record at which the next segment begins."
    )
    unclean_leader_election_enable: bool = setting(
        False,
        YES_OR_NO,
        "Prefer a leader that may have lost acknowledged records to no leader.",
    )

    @property
    def codec(self) -> int | None:
        """The codec of the batches in the log; None: each batch has its producer's codec."""
        if self.compression_type == "producer":
            return None
        if self.compression_type == "uncompressed":
            return compression.NONE
        return compression.CODECS[self.compression_type]

    @property
    def codec_level(self) -> int | None:
        """The level of `codec`; None if the codec has no levels."""
        return {
            compression.GZIP: self.compression_gzip_level,
            compression.LZ4: self.compression_lz4_level,
            compression.ZSTD: self.compression_zstd_level,
        }.get(self.codec or compression.NONE)

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
        return cls(**_values(cls, own, cluster))


#: Replicas of a topic if neither it nor the cluster says, and there are enough brokers.
DEFAULT_REPLICATION_MAX: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleConfig:
    """Every setting of a broker that changes while it runs.

    Each may be set on one broker, and on the cluster as the default of all. A change takes effect
    at once. Replicas in the ISR are never throttled.
    """

    follower_replication_throttled_rate: int = setting(
        NO_RATE,
        whole(1),
        "Bytes a second that a broker takes for follower.replication.throttled.replicas that are"
        f" out of sync; {NO_RATE}: any.",
    )
    leader_replication_throttled_rate: int = setting(
        NO_RATE,
        whole(1),
        "Bytes a second that a broker sends of leader.replication.throttled.replicas to followers"
        f" that are out of sync; {NO_RATE}: any.",
    )

    @classmethod
    def of(cls, own: Mapping[str, str], cluster: Mapping[str, str]) -> ThrottleConfig:
        """Return the settings of a broker with these own values, over the cluster's defaults."""
        return cls(**_values(cls, own, cluster))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Every setting that only the cluster has. A change applies to topics created afterwards."""

    auto_create_topics_enable: bool = setting(
        True,
        YES_OR_NO,
        "Kafka clients create a topic by asking for it; Quorate's own clients do not.",
    )
    default_replication_factor: int = setting(
        -1,
        whole(1, 1000, or_else=-1),
        "Replicas of a topic that does not say; -1: the lesser of 3 and the brokers.",
    )
    num_partitions: int = setting(
        1, whole(1, PARTITIONS_MAX), "Partitions of a topic that does not say."
    )
    offsets_topic_num_partitions: int = setting(
        16,
        whole(1, 1000),
        "Partitions of __consumer_offsets, which is made when a consumer group is first used.",
    )
    offsets_topic_replication_factor: int = setting(
        3,
        whole(1, 1000),
        "Replicas of __consumer_offsets. While there are fewer brokers, it has one on each.",
    )
    offsets_topic_segment_bytes: int = setting(
        100 * MIB,
        whole(MIB, 2048 * MIB - 1),
        "Bytes of one segment of __consumer_offsets when it is made.",
    )

    def replication_factor(self, registered: int) -> int:
        """Return the replicas of a topic that does not say, with so many registered brokers.

        If it is configured, it may be more than there are brokers.

        >>> [ClusterConfig().replication_factor(brokers) for brokers in (1, 2, 5)]
        [1, 2, 3]
        """
        configured = self.default_replication_factor
        return configured if configured > 0 else min(DEFAULT_REPLICATION_MAX, registered)

    @classmethod
    def of(cls, cluster: Mapping[str, str]) -> ClusterConfig:
        """Return the settings of a cluster with these values."""
        return cls(**_values(cls, {}, cluster))


@dataclass(frozen=True, slots=True)
class ConfigSpec:
    """One row of the table CONFIGS: a setting.

    Scopes:
    "topic": may be set on a topic or on the cluster;
    "created": the same, but a topic takes the value when it is created, and keeps it;
    "broker": may be set on one broker or on the cluster;
    "cluster": may be set on the cluster only.
    """

    name: str
    default: Value
    kind: Kind[Value]
    doc: str
    scope: Scope
    #: The reason why the setting can't change on an existing topic; empty: it can, at once.
    fixed: str

    @property
    def is_of_topics(self) -> bool:
        """Whether a topic may have a value of its own."""
        return self.scope in ("topic", "created")

    def parsed(self, text: str) -> Value:
        """Return the typed value. InvalidConfigError says what was given and what is allowed."""
        try:
            return self.kind.parse(text)
        except ValueError:
            is_too_big = text.isdecimal() and int(text[:100]) > LONG_MAX
            most = f" and at most {LONG_MAX}" if is_too_big else ""
            raise InvalidConfigError(
                f"{self.name} must be {self.kind.allowed}{most}, not {text[:100]!r}"
            ) from None

    def shown(self, value: Value) -> str:
        """Return a value as it is written in the log and shown to users."""
        return str(value).lower() if isinstance(value, bool) else str(value)


Settings = TopicConfig | ThrottleConfig | ClusterConfig


def _rows(settings: type[Settings]) -> Iterator[ConfigSpec]:
    for one in dataclasses.fields(settings):
        of_topic: Scope = "created" if one.metadata["fixed"] else "topic"
        others: Scope = "broker" if settings is ThrottleConfig else "cluster"
        scope = of_topic if settings is TopicConfig else others
        default: Any = one.default
        yield ConfigSpec(_name_of(one), default, scope=scope, **one.metadata)


def _values(
    settings: type[Settings], own: Mapping[str, str], cluster: Mapping[str, str]
) -> dict[str, Any]:
    """Return the value of each field of `settings`, by the field's name."""
    return {one.name: typed(_name_of(one), own, cluster) for one in dataclasses.fields(settings)}


def _name_of(one: dataclasses.Field[Any]) -> str:
    return one.name.replace("_", ".")


#: Every setting by its name.
CONFIGS: Mapping[str, ConfigSpec] = {
    row.name: row
    for settings in (TopicConfig, ThrottleConfig, ClusterConfig)
    for row in _rows(settings)
}
DEFAULT_TOPIC_CONFIG = TopicConfig()


def effective_min_isr(configured: int, replicas: int) -> int:
    """Return how many in-sync replicas a commit needs, which is never more than `replicas`.

    `replicas` is the number of assigned replicas, without those that are still being added. The
    controller and the leaders share this function, because they must agree on when the high
    watermark may move.

    >>> effective_min_isr(2, 3), effective_min_isr(2, 1)
    (2, 1)
    """
    return min(configured, replicas)


def min_isr_warnings(own: Mapping[str, str], replicas: int) -> list[str]:
    """Return a sentence if a topic's own min.insync.replicas is above the number of its replicas.

    >>> min_isr_warnings({"min.insync.replicas": "2"}, 3), min_isr_warnings({}, 1)
    ([], [])
    """
    name = "min.insync.replicas"
    if name not in own or int(own[name]) <= replicas:
        return []
    return [f"{name}={own[name]} is above the number of replicas, and counts as {replicas}"]


def spec_of(name: str, *, of_topic: bool) -> ConfigSpec:
    """Return the row of a name. InvalidConfigError suggests the nearest known name."""
    spec = CONFIGS.get(name)
    if spec is None:
        near = difflib.get_close_matches(name[:100], list(CONFIGS), n=1, cutoff=0.5)
        known = [row.name for row in CONFIGS.values() if not of_topic or row.is_of_topics]
        hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
        raise InvalidConfigError(f"no configuration is named {name[:100]!r}{hint}")
    if of_topic and not spec.is_of_topics:
        raise InvalidConfigError(f"{name} belongs to the cluster and cannot be set on a topic")
    return spec


def check_config(name: str, text: str, *, of_topic: bool) -> str:
    """Check one setting, and return its value in canonical form. Raises InvalidConfigError."""
    spec = spec_of(name, of_topic=of_topic)
    return spec.shown(spec.parsed(text))


def spec_of_broker(name: str) -> ConfigSpec:
    """Return the row of a setting that may be set on one broker. Raises InvalidConfigError."""
    spec = spec_of(name, of_topic=False)
    if spec.scope != "broker":
        known = [row.name for row in CONFIGS.values() if row.scope == "broker"]
        raise InvalidConfigError(
            f"{name} can't be set on one broker while it runs; {', '.join(known)} can"
        )
    return spec


def fixed_at_creation(cluster: Mapping[str, str]) -> dict[str, str]:
    """Return the cluster's values that a new topic takes and then keeps for good.

    >>> fixed_at_creation({"flush.on.ack": "true", "retention.ms": "5"})
    {'flush.on.ack': 'true'}
    """
    return {name: cluster[name] for name, row in CONFIGS.items() if row.fixed and name in cluster}


def refusal_of(before: Mapping[str, str], after: Mapping[str, str | None]) -> str:
    """Return why a topic's own values can't be changed in this way; "" if they can.

    `after` has each value that is set, and None for each name that is removed.

    >>> refusal_of({"flush.on.ack": "true"}, {"flush.on.ack": None, "retention.ms": "5"})[:31]
    'flush.on.ack is fixed when a to'
    >>> refusal_of({}, {"flush.on.ack": "false"})
    ''
    """
    for name, text in after.items():
        row = CONFIGS[name]
        own = {} if text is None else {name: text}
        if row.fixed and typed(name, own, {}) != typed(name, before, {}):
            return f"{name} is fixed when a topic is created: {row.fixed}"
    return ""


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


def typed(name: str, own: Mapping[str, str], cluster: Mapping[str, str]) -> Value:
    """Return the typed value of a topic's setting; if `own` is empty, of the cluster's.

    A "created" setting is never read from the cluster. Otherwise a later change on the cluster
    would change flush.on.ack of an existing topic, and this setting decides whether a replica can
    lose records.
    """
    spec = CONFIGS[name]
    text = own.get(name)
    if text is None and spec.scope != "created":
        text = cluster.get(name)
    return spec.default if text is None else spec.parsed(text)
