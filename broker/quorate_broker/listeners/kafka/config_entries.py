"""The configs of topics and brokers as Kafka tells them: name, type, value, source, synonyms.

A topic has every config that Kafka 4.3 knows. Where Quorate has none of that name, it acts as Kafka
does by default. So only Kafka's default value is taken, and this value is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from quorate.errors import InvalidConfigError, InvalidRequestError
from quorate_broker.operations.metadata import ConfigFound
from quorate_quorum.configs import CONFIGS, ConfigSpec
from quorate_quorum.node.config import BrokerConfig

#: Kafka's numbers of types.
BOOLEAN: Final = 1
STRING: Final = 2
INT: Final = 3
LONG: Final = 5
DOUBLE: Final = 6
LIST: Final = 7
#: Kafka's numbers of sources.
OF_TOPIC: Final = 1
OF_BROKER: Final = 2
OF_CLUSTER: Final = 3
OF_NODE: Final = 4
DEFAULT: Final = 5

#: The config that is told as what it comes to, because -1 means nothing to Kafka's clients.
REPLICATION_FACTOR: Final = "default.replication.factor"

_LONG_MAX: Final = str((1 << 63) - 1)


class TopicConfigRow(NamedTuple):
    """A config that Kafka knows of topics."""

    kind: int
    #: The name under which Kafka's brokers have the default of this config; empty: none has.
    of_brokers: str
    #: Kafka's default, of a config that Quorate does not have; None: Quorate has it.
    only: str | None = None


#: Every config of a topic that Kafka 4.3 knows, by name.
TOPIC_CONFIGS: Final[Mapping[str, TopicConfigRow]] = {
    "cleanup.policy": TopicConfigRow(LIST, "log.cleanup.policy"),
    "compression.gzip.level": TopicConfigRow(INT, "compression.gzip.level"),
    "compression.lz4.level": TopicConfigRow(INT, "compression.lz4.level"),
    "compression.type": TopicConfigRow(STRING, "compression.type"),
    "compression.zstd.level": TopicConfigRow(INT, "compression.zstd.level"),
    "delete.retention.ms": TopicConfigRow(LONG, "log.cleaner.delete.retention.ms"),
    "file.delete.delay.ms": TopicConfigRow(LONG, "log.segment.delete.delay.ms", "60000"),
    "flush.messages": TopicConfigRow(LONG, "log.flush.interval.messages", _LONG_MAX),
    "flush.ms": TopicConfigRow(LONG, "log.flush.interval.ms"),
    "follower.replication.throttled.replicas": TopicConfigRow(LIST, ""),
    "index.interval.bytes": TopicConfigRow(INT, "log.index.interval.bytes", "4096"),
    "leader.replication.throttled.replicas": TopicConfigRow(LIST, ""),
    "local.retention.bytes": TopicConfigRow(LONG, "log.local.retention.bytes", "-2"),
    "local.retention.ms": TopicConfigRow(LONG, "log.local.retention.ms", "-2"),
    "max.compaction.lag.ms": TopicConfigRow(LONG, "log.cleaner.max.compaction.lag.ms"),
    "max.message.bytes": TopicConfigRow(INT, "message.max.bytes"),
    "message.timestamp.after.max.ms": TopicConfigRow(LONG, "log.message.timestamp.after.max.ms"),
    "message.timestamp.before.max.ms": TopicConfigRow(
        LONG, "log.message.timestamp.before.max.ms", _LONG_MAX
    ),
    "message.timestamp.type": TopicConfigRow(STRING, "log.message.timestamp.type"),
    "min.cleanable.dirty.ratio": TopicConfigRow(DOUBLE, "log.cleaner.min.cleanable.ratio"),
    "min.compaction.lag.ms": TopicConfigRow(LONG, "log.cleaner.min.compaction.lag.ms"),
    "min.insync.replicas": TopicConfigRow(INT, "min.insync.replicas"),
    "preallocate": TopicConfigRow(BOOLEAN, "log.preallocate", "false"),
    "remote.log.copy.disable": TopicConfigRow(BOOLEAN, "", "false"),
    "remote.log.delete.on.disable": TopicConfigRow(BOOLEAN, "", "false"),
    "remote.storage.enable": TopicConfigRow(BOOLEAN, "", "false"),
    "retention.bytes": TopicConfigRow(LONG, "log.retention.bytes"),
    "retention.ms": TopicConfigRow(LONG, "log.retention.ms"),
    "segment.bytes": TopicConfigRow(INT, "log.segment.bytes"),
    "segment.index.bytes": TopicConfigRow(INT, "log.index.size.max.bytes", "10485760"),
    "segment.jitter.ms": TopicConfigRow(LONG, "log.roll.jitter.ms", "0"),
    "segment.ms": TopicConfigRow(LONG, "log.roll.ms"),
    "unclean.leader.election.enable": TopicConfigRow(BOOLEAN, "unclean.leader.election.enable"),
}
#: The configs of a group, for the consumer protocol. A broker's have `group.` before the name.
GROUP_CONFIGS: Final = (
    "consumer.assignment.interval.ms",
    "consumer.heartbeat.interval.ms",
    "consumer.session.timeout.ms",
)
_GROUP: Final = "group."
#: What tools look for among a broker's configs, and what is so at every broker of Quorate.
_FACTS: Final[Mapping[str, str]] = {
    "delete.topic.enable": "true",
}


class Synonym(NamedTuple):
    """One of the values that a config has in the order in which they count."""

    name: str
    value: str
    source: int


class Entry(NamedTuple):
    """One config: the value in force, which is that of the first synonym."""

    name: str
    value: str
    kind: int
    source: int
    doc: str
    synonyms: tuple[Synonym, ...]


def is_list(name: str) -> bool:
    """Return whether the value of a topic's config is a list."""
    row = TOPIC_CONFIGS.get(name)
    return row is not None and row.kind == LIST


def value_of(name: str, value: str | None) -> str:
    """Return the value to which a request sets a config. Raises InvalidConfigError for null."""
    if value is None:
        raise InvalidConfigError(f"{name[:100]} needs a value, not null")
    return value


def is_ours(name: str, value: str | None) -> bool:
    """Return whether the controller must be asked to set a topic's config; None: to remove it.

    It need not if only Kafka has the config, and the value is Kafka's default. Raises
    InvalidConfigError for any other value.

    >>> is_ours("retention.ms", "1"), is_ours("preallocate", "False"), is_ours("preallocate", None)
    (True, False, False)
    """
    row = TOPIC_CONFIGS.get(name)
    if row is None or row.only is None:
        return True
    if value is not None and value.strip().lower() != row.only:
        raise InvalidConfigError(
            f"{name} must be {row.only!r}, not {value[:100]!r}: Quorate has no such setting, and"
            " acts as Kafka does by default"
        )
    return False


def of_topic(found: Iterable[ConfigFound], cluster: Mapping[str, str]) -> list[Entry]:
    """Return every config of a topic. `found` are those that Quorate has."""
    entries = [_of_topic(one, cluster) for one in found]
    for name, row in TOPIC_CONFIGS.items():
        if row.only is not None:
            synonym = Synonym(row.of_brokers or name, row.only, DEFAULT)
            entries.append(Entry(name, row.only, row.kind, DEFAULT, "", (synonym,)))
    return sorted(entries)


def _of_topic(found: ConfigFound, cluster: Mapping[str, str]) -> Entry:
    name, spec = found.name, CONFIGS[found.name]
    row = TOPIC_CONFIGS.get(name)
    of_brokers = name if row is None else row.of_brokers or name
    default = spec.shown(spec.default)
    synonyms = [Synonym(of_brokers, default, DEFAULT)]
    if cluster.get(name, default) != default and spec.scope != "created":
        synonyms.insert(0, Synonym(of_brokers, cluster[name], OF_CLUSTER))
    # A topic takes a fixed config when it is created. Tools that know only Kafka's configs must not
    # take its default for a change.
    if found.source == "topic" and (found.value != default or not spec.fixed):
        synonyms.insert(0, Synonym(name, found.value, OF_TOPIC))
    return _entry(name, spec, synonyms)


def _entry(name: str, spec: ConfigSpec, synonyms: Sequence[Synonym]) -> Entry:
    row = TOPIC_CONFIGS.get(spec.name)
    kind = _kind_of(spec.default) if row is None else row.kind
    first = synonyms[0]
    return Entry(name, first.value, kind, first.source, spec.doc, tuple(synonyms))


def of_broker(
    config: BrokerConfig,
    found: Iterable[ConfigFound],
    replication_factor: int,
    altered: Iterable[tuple[str, str]],
) -> list[Entry]:
    """Return the configs of a broker: its own, and those of the cluster, which are `found`.

    `altered`: the own values of those that change while it runs.

    `replication_factor`: what a topic that names none would get now. Kafka has no -1 there.
    """
    own = dict(_own(config))
    facts = {
        name: Entry(name, value, BOOLEAN, DEFAULT, "", (Synonym(name, value, DEFAULT),))
        for name, value in _FACTS.items()
    }
    shared = {one.name: one for one in map(_of_cluster, found)}
    for name, value in altered:
        rest = shared[name]
        synonyms = (Synonym(name, value, OF_BROKER), *rest.synonyms)
        shared[name] = rest._replace(value=value, source=OF_BROKER, synonyms=synonyms)
    told = shared.get(REPLICATION_FACTOR)
    if told is not None and told.source == DEFAULT:
        value = str(replication_factor)
        synonyms = (Synonym(REPLICATION_FACTOR, value, DEFAULT),)
        shared[REPLICATION_FACTOR] = told._replace(value=value, synonyms=synonyms)
    return sorted({**facts, **shared, **own}.values())


def of_group(config: BrokerConfig) -> list[Entry]:
    """Return the configs that a broker gives to every group, by their names as a group's."""
    own = dict(_own(config))
    return [own[f"{_GROUP}{name}"]._replace(name=name) for name in GROUP_CONFIGS]


def of_all_brokers(found: Iterable[ConfigFound]) -> list[Entry]:
    """Return the configs that were set for all brokers at once."""
    entries = map(_of_cluster, found)
    return sorted(one for one in entries if one.source == OF_CLUSTER)


def _of_cluster(found: ConfigFound) -> Entry:
    """Return a config of the cluster under the name that Kafka's brokers have for it.

    A new cluster sets its configs to their defaults. These count as defaults here.
    """
    spec, row = CONFIGS[found.name], TOPIC_CONFIGS.get(found.name)
    name = found.name if row is None else row.of_brokers or found.name
    default = spec.shown(spec.default)
    synonyms = [Synonym(name, default, DEFAULT)]
    if found.value != default:
        synonyms.insert(0, Synonym(name, found.value, OF_CLUSTER))
    return _entry(name, spec, synonyms)


def _own(config: BrokerConfig) -> Iterator[tuple[str, Entry]]:
    for one in msgspec.structs.fields(BrokerConfig):
        name, value = one.name.replace("_", "."), getattr(config, one.name)
        text, source = _shown(value), OF_NODE
        synonyms = [Synonym(name, text, OF_NODE)]
        if value == one.default:
            source, synonyms = DEFAULT, [Synonym(name, text, DEFAULT)]
        elif one.default is not msgspec.NODEFAULT:
            synonyms.append(Synonym(name, _shown(one.default), DEFAULT))
        yield name, Entry(name, text, _kind_of(value), source, "", tuple(synonyms))


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind_of(value: Any) -> int:
    """Return the type of a setting that Kafka does not have, by its value."""
    kinds = ((bool, BOOLEAN), (int, LONG), (float, DOUBLE), (tuple, LIST))
    return next((kind for of, kind in kinds if isinstance(value, of)), STRING)


def appended(now: str, more: str) -> str:
    """Return a list with further items, as far as it lacks them.

    >>> appended("delete", "compact,delete"), appended("", "delete")
    ('delete,compact', 'delete')
    """
    return ",".join(dict.fromkeys((*_items(now), *_items(more))))


def subtracted(now: str, less: str) -> str:
    """Return a list without some items.

    >>> subtracted("delete,compact", "delete,none")
    'compact'
    """
    gone = _items(less)
    return ",".join(one for one in _items(now) if one not in gone)


def _items(text: str) -> list[str]:
    return [item for part in text.split(",") if (item := part.strip())]


def refuse_repeated(names: Iterable[str], what: str) -> None:
    """Raise InvalidRequestError if a name occurs twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidRequestError(f"the request names {what} {name[:249]!r} twice")
        seen.add(name)
