"""The configuration of a node: TOML with Kafka's dotted names, the environment, the command line.

Stands at the bottom of the servers. A dotted name is a field with underscores (`broker.rack` is
`broker_rack`), a variable of the environment is QUORATE_ and the field in capitals
(QUORATE_BROKER_RACK). The command line beats the environment, which beats the file, which beats
the default. Whatever is wrong stops the node before it touches the disk, and says which file,
which name, what was given and what is allowed.

Defaults of topics are not here: they are the cluster's, so that no two nodes can disagree.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta

from quorate_quorum.configs import CONFIGS
from quorate_quorum.node.listeners import (
    FORM,
    ListenerAddress,
    inter_broker,
    is_loopback,
    is_wildcard,
    parse,
    parse_all,
    unsupported,
    wrong_address,
)

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

NodeId = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
Milliseconds = Annotated[int, Meta(ge=1, le=7 * 24 * 3600 * 1000)]
#: 15 minutes to a year.
ExpirationMilliseconds = Annotated[int, Meta(ge=15 * 60 * 1000, le=365 * 24 * 3600 * 1000)]
Bytes = Annotated[int, Meta(ge=KIB, le=64 * GIB)]
#: A single message, so it must fit what both sides of a connection take.
MessageBytes = Annotated[int, Meta(ge=64 * KIB, le=GIB)]
Count = Annotated[int, Meta(ge=1, le=1 << 31)]
LogLevel = Literal["debug", "info", "warning", "error"]

_ENVIRONMENT: Final = "QUORATE_"
#: Variables that are somebody else's: the command's, and Kubernetes' for a service `quorate`.
_NOT_OURS: Final = re.compile(
    r"QUORATE_(BOOTSTRAP|.*SERVICE_(HOST|PORT)(_.*)?|(.*_)?PORT(_\d+_(TCP|UDP)(_.*)?)?)"
)
_CLUSTERS: Final = (
    "it is a default of topics, and those are the cluster's, not a node's: "
    "seeded when the cluster is formatted, changed with `quorate cluster config`"
)
#: Kafka's topic configs that this release does not have. All that begin with `log.` are meant too.
_KAFKAS_TOPIC_CONFIGS: Final = frozenset(
    (
        "file.delete.delay.ms",
        "flush.messages",
        "flush.ms",
        "index.interval.bytes",
        "max.compaction.lag.ms",
        "message.max.bytes",
        "message.timestamp.before.max.ms",
        "segment.index.bytes",
        "segment.jitter.ms",
    )
)


class ConfigError(Exception):
    """What a node was told cannot be; it has touched nothing. The process exits with 78."""


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every node has."""

    #: Unique among brokers and voters alike.
    node_id: NodeId
    #: Where to listen, as [NAME=]PROTOCOL[+tls]://HOST:PORT; a bare HOST:PORT is grpc, NAME
    #: defaults to the protocol, port 0 takes a free one.
    listeners: tuple[str, ...]
    #: What others dial: of the same names as listeners, and these where empty.
    advertised_listeners: tuple[str, ...] = ()
    #: Directories, each made ready by `quorate storage format`.
    log_dirs: tuple[str, ...]
    #: Voters, as host:port; one that answers is enough.
    quorum_bootstrap_servers: tuple[str, ...] = ()
    #: Listen beyond this machine although nothing is encrypted.
    allow_insecure_listeners: bool = False
    log_level: LogLevel = "info"
    #: All nodes are on this machine and of one user: process ids may be told.
    local_cluster: bool = False

    #: The longest silence of a broker on its heartbeat stream.
    broker_heartbeat_interval_ms: Milliseconds = 500
    #: For one call on another node.
    request_timeout_ms: Milliseconds = 2000
    #: Between attempts to reach another node, growing from the first to the second.
    reconnect_backoff_ms: Milliseconds = 20
    reconnect_backoff_max_ms: Milliseconds = 500
    #: The largest message that is taken from the wire.
    socket_request_max_bytes: MessageBytes = 64 * MIB
    #: Open streams of clients and other nodes.
    streams_max: Count = 10_000

    @property
    def listener_addresses(self) -> tuple[ListenerAddress, ...]:
        """Where to listen, in the order given."""
        return parse_all(self.listeners, port_min=0)

    @property
    def advertised_addresses(self) -> tuple[ListenerAddress, ...]:
        """What others dial, in the order of the listeners; a port may be 0 until it is bound."""
        told = {one.name: one for one in parse_all(self.advertised_listeners)}
        return tuple(told.get(one.name, one) for one in self.listener_addresses)

    @property
    def internal(self) -> ListenerAddress:
        """By which other nodes of the cluster reach this one; its port may be 0 until bound."""
        return inter_broker(self.advertised_addresses, "")

    @property
    def advertised(self) -> str:
        """The host:port by which other nodes reach this one."""
        return self.internal.endpoint

    @property
    def is_insecure(self) -> bool:
        """Whether it listens beyond this machine, which nothing encrypts."""
        return any(not is_loopback(one.host) for one in self.listener_addresses if not one.tls)


class QuorumConfig(NodeConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A voter. The first of log_dirs holds the metadata log."""

    #: A follower without a fetch answer for so long, to half as much again, asks for pre-votes.
    quorum_fetch_timeout_ms: Milliseconds = 1000
    #: An election without a result for so long, to twice as much, starts again.
    quorum_election_timeout_ms: Milliseconds = 500
    #: The leader answers a fetch without news after so long; a quarter of the fetch timeout.
    quorum_fetch_wait_max_ms: Milliseconds = 250
    #: Batches in one fetch answer; a single larger one goes alone.
    quorum_fetch_max_bytes: MessageBytes = 1 * MIB
    #: Of a snapshot, in one answer to a voter that downloads it.
    quorum_fetch_snapshot_max_bytes: MessageBytes = 1 * MIB
    #: The largest batch of metadata events.
    quorum_batch_max_bytes: MessageBytes = 8 * MIB
    #: Proposed and not yet committed; more is refused as overload.
    quorum_uncommitted_max_bytes: Bytes = 64 * MIB
    quorum_uncommitted_batches_max: Count = 10_000
    metadata_log_segment_bytes: Bytes = 64 * MIB
    #: A snapshot is taken after so many bytes of the log.
    metadata_log_max_record_bytes_between_snapshots: Bytes = 20 * MIB
    #: And after so long, if anything was committed since the last one.
    metadata_log_max_snapshot_interval_ms: Milliseconds = 3_600_000
    #: Watches, one a broker and some for tools.
    watches_max: Count = 1024
    watch_wait_max_ms: Milliseconds = 250
    #: Requests of brokers and their clients that the controller has not answered.
    controller_requests_max: Count = 10_000

    #: A broker silent for so long is fenced.
    broker_session_timeout_ms: Milliseconds = 3000
    #: A broker whose stream broke, and that does not answer, is fenced after so long.
    broker_disconnect_grace_ms: Milliseconds = 500
    #: How long an election that may lose data waits for the rest of last_isr.
    unclean_recovery_wait_ms: Milliseconds = 60_000
    #: How long a voter holds its own exit while brokers are shutting down.
    shutdown_hold_max_ms: Milliseconds = 2000


class BrokerConfig(NodeConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A broker."""

    #: Replicas of a partition go to different racks first, then to different hosts.
    broker_rack: str = ""
    #: The host of the inter-broker listener where empty.
    broker_host: str = ""
    #: The name of the listener by which brokers and voters reach this broker; the first of grpc
    #: where empty.
    inter_broker_listener_name: str = ""

    #: A follower that has not caught up for so long leaves the ISR.
    replica_lag_time_max_ms: Milliseconds = 10_000
    replica_fetch_max_bytes: MessageBytes = 8 * MIB
    replica_fetch_wait_max_ms: Milliseconds = 250
    #: Bytes fetched from leaders and not yet written, of all streams.
    replica_queued_max_bytes: Bytes = 64 * MIB
    replica_high_watermark_checkpoint_interval_ms: Milliseconds = 5000

    #: Bytes produced and not yet appended: of one stream, and of all. A stream is not read
    #: beyond them.
    stream_queued_max_bytes: Bytes = 16 * MIB
    queued_max_bytes: Bytes = 64 * MIB
    #: Produced batches that wait for their outcome: of one stream, and of one partition.
    stream_waiting_max: Count = 65_536
    partition_waiting_max: Count = 10_000
    #: Results that a client has not taken yet.
    stream_results_max: Count = 8192
    #: Partitions that one request may name.
    request_partitions_max: Count = 10_000
    #: The longest that acks=all may wait.
    produce_timeout_max_ms: Milliseconds = 600_000
    #: A partition forgets a producer that has sent it nothing for so long. None is forgotten
    #: within 15 minutes.
    producer_id_expiration_ms: ExpirationMilliseconds = 24 * 3600 * 1000
    #: Where a partition remembers more producers, those silent for 15 minutes go.
    partition_producers_max: Count = 10_000
    #: Memory for what is remembered of producers: of one partition, and of all. A new producer
    #: that does not fit is refused, and tries again.
    partition_producer_state_max_bytes: Bytes = 8 * MIB
    producer_state_max_bytes: Bytes = 256 * MIB

    #: Of one fetch answer, whatever the client asks for; one larger batch goes alone.
    fetch_max_bytes: MessageBytes = 16 * MIB
    fetch_wait_max_ms: Milliseconds = 60_000
    fetch_session_partitions_max: Count = 10_000
    #: Requests in flight on one fetch stream; the rest waits unread.
    fetch_in_flight_max: Count = 2

    #: A watch silent for so long is opened elsewhere; a voter sends a frame every 250 ms.
    watch_silence_max_ms: Milliseconds = 1000
    #: A watched voter that does not know what the controller's heartbeats tell, for so long, is
    #: left for another.
    watch_lag_max_ms: Milliseconds = 1000
    #: Calls that wait until the image has applied an offset.
    image_waiters_max: Count = 100_000
    #: For one change of ISRs, which takes a round of the quorum.
    alter_partitions_timeout_ms: Milliseconds = 5000
    alter_partitions_in_flight_max: Count = 64
    #: Below what a producer gives one broker (2 s), so that it learns why there are none.
    producer_ids_timeout_ms: Milliseconds = 1_500
    #: Admin calls on their way to the controller, and the bytes of their requests: of one, and of
    #: all. One that is larger than the controller takes would break the stream of all others.
    forward_in_flight_max: Count = 1000
    forward_request_max_bytes: MessageBytes = 32 * MIB
    forward_queued_max_bytes: Bytes = 64 * MIB

    #: Directories that the image does not know are removed after so long.
    stray_delete_delay_ms: Milliseconds = 60_000
    #: A clean stop takes so long at most; so long without a controller that answers.
    controlled_shutdown_timeout_ms: Milliseconds = 3000
    controlled_shutdown_silence_max_ms: Milliseconds = 1000

    @property
    def internal(self) -> ListenerAddress:
        return inter_broker(self.advertised_addresses, self.inter_broker_listener_name)

    @property
    def host(self) -> str:
        """The host that placement counts by."""
        return self.broker_host or self.internal.host


C = TypeVar("C", bound=NodeConfig)


@dataclass(frozen=True, slots=True)
class _Given:
    """One value, and where it came from: a file, or one of those where everything is text."""

    source: str
    value: object
    is_text: bool = True


def load(kind: type[C], path: str | None, env: Mapping[str, str], sets: Sequence[str] = ()) -> C:
    """Return the configuration of a node of that kind.

    `path` is a TOML file, or None; `env` the environment; `sets` are "name=value", as of the
    command line. Raises ConfigError.
    """
    fields = {_dotted(field.name): field for field in msgspec.structs.fields(kind)}
    given: dict[str, _Given] = {}
    if path is not None:
        given.update(_from_file(path))
    given.update(_from_environment(env, fields))
    given.update(_from_sets(sets))
    values: dict[str, Any] = {}
    for name, one in given.items():
        if name not in fields:
            raise ConfigError(_unknown(kind, name, one, fields))
        values[fields[name].name] = _convert(name, one, fields[name].type)
    for name, field in fields.items():
        if field.required and name not in given:
            raise ConfigError(
                f"{path or 'no file given'}: {name} is missing; it must be {_allowed(field.type)}, "
                f"in the file, as {_variable(name)} in the environment, or as --set {name}=..."
            )
    config = kind(**values)
    _check_pairs(config, given)
    return config


def _dotted(field: str) -> str:
    return field.replace("_", ".")


def _variable(name: str) -> str:
    return _ENVIRONMENT + name.replace(".", "_").upper()


def _from_file(path: str) -> dict[str, _Given]:
    try:
        with open(path, "rb") as file:
            tree = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    return {name: _Given(path, value, is_text=False) for name, value in _flat("", tree)}


def _flat(prefix: str, tree: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    """Yield dotted names: TOML reads `a.b = 1` as a table in a table."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value


def _from_environment(env: Mapping[str, str], fields: Iterable[str]) -> dict[str, _Given]:
    """Return what the environment says; voters and brokers may share one, so each reads its own."""
    mine = {_variable(name): name for name in fields}
    every = mine | {_variable(name): name for name in _names(QuorumConfig) + _names(BrokerConfig)}
    found: dict[str, _Given] = {}
    for variable, value in sorted(env.items()):
        if variable in mine:
            found[mine[variable]] = _Given(f"the environment, {variable}", value)
        elif variable.startswith(_ENVIRONMENT) and variable not in every:
            name = _dotted(variable.removeprefix(_ENVIRONMENT).lower())
            if _is_topic_config(name) or not _NOT_OURS.fullmatch(variable):
                found[name] = _Given(f"the environment, {variable}", value)
    return found


def _from_sets(sets: Sequence[str]) -> dict[str, _Given]:
    found: dict[str, _Given] = {}
    for one in sets:
        name, equals, value = one.partition("=")
        if not equals:
            raise ConfigError(f"--set {one}: must be --set name=value")
        found[name.strip()] = _Given(f"--set {one}", value.strip())
    return found


def _names(kind: type[NodeConfig]) -> list[str]:
    return [_dotted(name) for name in kind.__struct_fields__]


def _is_topic_config(name: str) -> bool:
    return name in CONFIGS or name in _KAFKAS_TOPIC_CONFIGS or name.startswith("log.")


def _unknown(kind: type[NodeConfig], name: str, given: _Given, known: Iterable[str]) -> str:
    place = f"{given.source}: {name} = {given.value!r}"
    if _is_topic_config(name):
        return f"{place}: {_CLUSTERS}"
    for other, word in ((QuorumConfig, "voter"), (BrokerConfig, "broker")):
        if other is not kind and name in _names(other):
            return f"{place}: it is a setting of a {word}, and this node is none"
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"{place}: no setting has that name; the nearest is {near[0]}"


def _convert(name: str, given: _Given, kind: Any) -> object:
    value = given.value
    try:
        if given.is_text:
            value = _from_text(str(value), kind)
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, ValueError):
        raise ConfigError(
            f"{given.source}: {name} must be {_allowed(kind)}, not {given.value!r}"
        ) from None


def _bare(kind: Any) -> Any:
    """Return a field's type without its bounds."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _from_text(text: str, kind: Any) -> object:
    """Read what the environment or the command line says, where everything is text."""
    bare = _bare(kind)
    if bare is int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise ValueError(text)
        return int(text)
    if bare is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if get_origin(bare) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _allowed(kind: Any) -> str:
    bare = _bare(kind)
    if bare is int:
        bounds = get_args(kind)[1]
        return f"a whole number from {bounds.ge} to {bounds.le}"
    if bare is bool:
        return "true or false"
    if get_origin(bare) is Literal:
        return "one of " + ", ".join(get_args(bare))
    if get_origin(bare) is tuple:
        return 'a list of strings, ["a", "b"] in a file, a,b elsewhere'
    return "a string"


def _check_pairs(config: NodeConfig, given: Mapping[str, _Given]) -> None:
    """Refuse what is well formed by itself, and impossible together."""
    for reason, *names in _impossible(config):
        sources = sorted({given[name].source for name in names if name in given})
        raise ConfigError(f"{', '.join(sources) or 'defaults'}: {reason}")


def _impossible(config: NodeConfig) -> Iterable[tuple[str, ...]]:
    """Yield (what is impossible and what is allowed, the names that it follows from)."""
    yield from _impossible_addresses(config)
    if not config.log_dirs or not all(config.log_dirs):
        yield "log.dirs must name at least one directory, and none may be empty", "log.dirs"
    if len(set(config.log_dirs)) < len(config.log_dirs):
        yield f"log.dirs names a directory twice: {', '.join(config.log_dirs)}", "log.dirs"
    yield from _not_above(config, "reconnect.backoff.ms", "reconnect.backoff.max.ms")
    if isinstance(config, QuorumConfig):
        yield from _not_above(
            config, "broker.heartbeat.interval.ms", "broker.session.timeout.ms", 2
        )
        yield from _not_above(config, "broker.disconnect.grace.ms", "broker.session.timeout.ms")
        yield from _not_above(config, "quorum.fetch.wait.max.ms", "quorum.fetch.timeout.ms", 2)
        for name in ("quorum.fetch.max.bytes", "quorum.batch.max.bytes"):
            yield from _not_above(config, name, "socket.request.max.bytes")
        yield from _not_above(config, "quorum.batch.max.bytes", "quorum.uncommitted.max.bytes")
    if isinstance(config, BrokerConfig):
        if not config.quorum_bootstrap_servers:
            yield (
                "quorum.bootstrap.servers must name at least one voter, as host:port",
                "quorum.bootstrap.servers",
            )
        if config.advertised in config.quorum_bootstrap_servers:
            yield (
                f"quorum.bootstrap.servers names {config.advertised}, where this broker itself "
                "listens: voters listen there. If this node is a voter, format it with "
                "--initial-voters, --standalone or --new-voter",
                "quorum.bootstrap.servers",
                "advertised.listeners",
                "listeners",
            )
        yield from _not_above(config, "replica.fetch.wait.max.ms", "replica.lag.time.max.ms", 2)
        yield from _not_above(config, "stream.queued.max.bytes", "queued.max.bytes")
        for name in ("fetch.max.bytes", "replica.fetch.max.bytes", "forward.request.max.bytes"):
            yield from _not_above(config, name, "socket.request.max.bytes")


def without_effect(config: NodeConfig) -> list[str]:
    """Return a sentence for each value that is taken and that nothing acts on yet."""
    found = []
    if isinstance(config, QuorumConfig) and len(config.log_dirs) > 1:
        found.append(
            f"log.dirs: a voter uses only the first, {config.log_dirs[0]}; the others are not:"
            f" {', '.join(config.log_dirs[1:])}"
        )
    return found


def settings(config: NodeConfig) -> dict[str, Any]:
    """Return every setting of a node by its dotted name, as it is in force."""
    return {name.replace("_", "."): value for name, value in msgspec.structs.asdict(config).items()}


def _impossible_addresses(config: NodeConfig) -> Iterable[tuple[str, ...]]:
    for address in config.quorum_bootstrap_servers:
        wrong = wrong_address(address, port_min=1)
        if wrong:
            yield f"quorum.bootstrap.servers: {wrong}", "quorum.bootstrap.servers"
    if not config.listeners:
        yield f"listeners must name at least one, as {FORM}", "listeners"
    for name, port_min in (("listeners", 0), ("advertised.listeners", 1)):
        wrong = _wrong_listeners(getattr(config, name.replace(".", "_")), port_min)
        if wrong:
            yield f"{name}: {wrong}", name
    yield from _impossible_listeners(config)
    yield from _impossible_advertised(config)


def _wrong_listeners(texts: Sequence[str], port_min: int) -> str | None:
    """Return what is wrong with one of two lists of listeners, taken for itself."""
    try:
        found = parse_all(texts, port_min=port_min)
    except ValueError as error:
        return str(error)
    return next(filter(None, map(unsupported, found)), None)


def _impossible_listeners(config: NodeConfig) -> Iterable[tuple[str, ...]]:
    found = config.listener_addresses
    bound: dict[str, ListenerAddress] = {}
    for one in found:
        other = bound.setdefault(one.endpoint, one)
        if one.port and other is not one:
            yield f"listeners: {other} and {one} are one address", "listeners"
    if isinstance(config, QuorumConfig) and len(found) > 1:
        yield (
            f"listeners: a voter has one listener, and {len(found)} are given:"
            f" {', '.join(map(str, found))}",
            "listeners",
        )
    if isinstance(config, BrokerConfig):
        try:
            inter_broker(found, config.inter_broker_listener_name)
        except ValueError as error:
            name = "inter.broker.listener.name"
            yield f"{name}: {error}", name, "listeners"
    if config.is_insecure and not config.allow_insecure_listeners:
        yield (
            f"listeners {', '.join(config.listeners)} reach beyond this machine, and nothing is "
            "encrypted: listen on 127.0.0.1, or set allow.insecure.listeners = true",
            "listeners",
            "allow.insecure.listeners",
        )


def _impossible_advertised(config: NodeConfig) -> Iterable[tuple[str, ...]]:
    names = "advertised.listeners", "listeners"
    advertised = [parse(text) for text in config.advertised_listeners]
    if advertised and len(advertised) != len(config.listeners):
        yield (
            f"advertised.listeners has {len(advertised)} addresses, and listeners has "
            f"{len(config.listeners)}: one for each is needed",
            *names,
        )
    known = {one.name for one in config.listener_addresses}
    for one in advertised:
        if one.name not in known:
            yield (
                f"advertised.listeners: {one} is of {one.name!r}, and listeners has"
                f" {', '.join(sorted(known))}: both need the same names",
                *names,
            )
    for one in config.advertised_addresses:
        if is_wildcard(one.host):
            yield (
                f"{one.endpoint} is no address that others can dial: "
                "set advertised.listeners to one that is",
                *names,
            )


def _not_above(
    config: NodeConfig, low: str, high: str, times: int = 1
) -> Iterable[tuple[str, ...]]:
    low_value: int = getattr(config, low.replace(".", "_"))
    high_value: int = getattr(config, high.replace(".", "_"))
    if low_value * times > high_value:
        share = "" if times == 1 else f"1/{times} of "
        yield f"{low} ({low_value}) must not be above {share}{high} ({high_value})", low, high
