"""The sources of a node's settings: a file in TOML, the environment, the command line.

A variable of the environment is QUORATE_ and the name of the setting in capitals, with underscores
(QUORATE_BROKER_RACK). The command line beats the environment, the environment beats the file, and
the file beats the default. A wrong setting stops the node before it changes the disk. The error
names the source and the setting, the given value and the allowed ones.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec

from quorate_quorum.configs import CONFIGS
from quorate_quorum.node.config import BrokerConfig, ConfigError, NodeConfig, QuorumConfig
from quorate_quorum.node.contradictions import contradictions

_ENVIRONMENT: Final = "QUORATE_"
#: Variables that are not settings of a node: the variable of the command `quorate`, and those that
#: Kubernetes sets for a service named `quorate`.
_NOT_OURS: Final = re.compile(
    r"QUORATE_(BOOTSTRAP|.*SERVICE_(HOST|PORT)(_.*)?|(.*_)?PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?)"
)
_CLUSTERS: Final = (
    "it is a default of topics, and those are the cluster's, not a node's: "
    "seeded when the cluster is formatted, changed with `quorate cluster config`"
)
#: Kafka's names for defaults of topics that are in no config of this release. A node of Kafka knows
#: most configs of topics by their name behind `log.`, too.
_KAFKAS_TOPIC_DEFAULTS: Final = frozenset(
    (
        "file.delete.delay.ms",
        "flush.messages",
        "flush.ms",
        "index.interval.bytes",
        "log.cleaner.delete.retention.ms",
        "log.cleaner.max.compaction.lag.ms",
        "log.cleaner.min.cleanable.ratio",
        "log.cleaner.min.compaction.lag.ms",
        "log.flush.interval.messages",
        "log.flush.interval.ms",
        "log.index.interval.bytes",
        "log.index.size.max.bytes",
        "log.preallocate",
        "log.retention.hours",
        "log.retention.minutes",
        "log.roll.hours",
        "log.roll.jitter.hours",
        "log.roll.jitter.ms",
        "log.roll.ms",
        "log.segment.delete.delay.ms",
        "message.max.bytes",
        "message.timestamp.before.max.ms",
        "segment.index.bytes",
        "segment.jitter.ms",
    )
)
#: Settings of Kafka whose names resemble none of ours -> what to tell the operator who uses one.
_KAFKAS_NODE_SETTINGS: Final = {
    "broker.id": "it is node.id here",
    "controller.quorum.bootstrap.servers": "it is quorum.bootstrap.servers here",
    "controller.quorum.voters": (
        "there is none: `quorate storage format` writes the first voters into the metadata log,"
        " and quorum.bootstrap.servers names those that a node asks first"
    ),
    "host.name": "it is a part of listeners here",
    "metadata.log.dir": "there is none: a voter has its metadata log in the first of log.dirs",
    "port": "it is a part of listeners here",
    "process.roles": "there is none: quorate-quorum runs a voter, and quorate-broker a broker",
    "zookeeper.connect": (
        "there is none: voters keep the metadata, and quorum.bootstrap.servers names some of them"
    ),
}
#: How like a known name a wrong one must be to be taken for a typing error of it (difflib's ratio).
_NEAR: Final = 0.75
_PAGE: Final = "docs/configuration.md"


C = TypeVar("C", bound=NodeConfig)


@dataclass(frozen=True, slots=True)
class _Given:
    """A value and its source. A value from a file is typed; any other value is text."""

    source: str
    value: object
    is_text: bool = True


def load(kind: type[C], path: str | None, env: Mapping[str, str], sets: Sequence[str] = ()) -> C:
    """Return the configuration of a node of this kind.

    `path`: a TOML file, or None. `env`: the environment. `sets`: the "name=value" of each --set on
    the command line. Raises ConfigError if a setting is unknown, missing or invalid.
    """
    given: dict[str, _Given] = {}
    if path is not None:
        given.update(_from_file(path))
    given.update(_from_environment(env, _names(kind)))
    given.update(_from_sets(sets))
    return _made(kind, given, path or "no file given")


def from_values(kind: type[C], values: Mapping[str, object], source: str) -> C:
    """Return the configuration of a node of this kind, from values by dotted name.

    `source` names where the values stand. Raises ConfigError as load() does.
    """
    return _made(
        kind, {name: _Given(source, one, is_text=False) for name, one in values.items()}, source
    )


def _made(kind: type[C], given: Mapping[str, _Given], place: str) -> C:
    fields = {_dotted(field.name): field for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for name, one in given.items():
        if name not in fields:
            raise ConfigError(_unknown(kind, name, one, fields))
        values[fields[name].name] = _convert(name, one, fields[name].type)
    for name, field in fields.items():
        if field.required and name not in given:
            raise ConfigError(
                f"{place}: {name} is missing; it must be "
                f"{allowed_values(field.type)}, in the file, as {_variable(name)} in the "
                f"environment, or as --set {name}=..."
            )
    config = kind(**values)
    for reason, *names in contradictions(config):
        sources = sorted({given[name].source for name in names if name in given})
        raise ConfigError(f"{', '.join(sources) or 'defaults'}: {reason}")
    return config


def settings(config: NodeConfig) -> dict[str, Any]:
    """Return the value in force of every setting of a node, by dotted name."""
    return {name.replace("_", "."): value for name, value in msgspec.structs.asdict(config).items()}


def allowed_values(kind: Any) -> str:
    """Return in words what a field of this type may be."""
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


def _dotted(field: str) -> str:
    return field.replace("_", ".")


def _variable(name: str) -> str:
    return _ENVIRONMENT + name.replace(".", "_").upper()


def _from_file(path: str) -> dict[str, _Given]:
    try:
        with open(path, "rb") as file:
            tree = tomllib.loads(file.read().decode("utf-8-sig"))  # "-sig" skips a byte order mark
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    found: dict[str, _Given] = {}
    for name, value in _flat("", tree):
        if name in found:
            raise ConfigError(f"{path}: {name} is given twice, once in quotes and once without")
        found[name] = _Given(path, value, is_text=False)
    return found


def _flat(prefix: str, tree: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    """Yield dotted names and values: TOML reads `a.b = 1` as a table in a table.

    An empty table counts as a value, except if it is a heading of settings: all settings below a
    heading may be commented out.
    """
    for key, value in tree.items():
        if isinstance(value, dict) and (value or _is_heading(f"{prefix}{key}.")):
            yield from _flat(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value


def _from_environment(env: Mapping[str, str], fields: Iterable[str]) -> dict[str, _Given]:
    """Return the values in the environment.

    A setting of the other kind of node is ignored: a voter and a broker may share an environment.
    """
    mine = {_variable(name): name for name in fields}
    every = mine | {_variable(name): name for name in _names(QuorumConfig) + _names(BrokerConfig)}
    found: dict[str, _Given] = {}
    for variable, value in sorted(env.items()):
        if variable in mine:
            found[mine[variable]] = _Given(f"the environment, {variable}", value)
        elif variable.startswith(_ENVIRONMENT) and not (
            variable in every or _NOT_OURS.fullmatch(variable)
        ):
            name = _dotted(variable.removeprefix(_ENVIRONMENT).lower())
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


def _is_heading(prefix: str) -> bool:
    return any(name.startswith(prefix) for name in _names(QuorumConfig) + _names(BrokerConfig))


def _names(kind: type[NodeConfig]) -> list[str]:
    return [_dotted(name) for name in kind.__struct_fields__]


def _is_topic_config(name: str) -> bool:
    bare = name.removeprefix("log.")
    return bare in CONFIGS or bare in _KAFKAS_TOPIC_DEFAULTS or name in _KAFKAS_TOPIC_DEFAULTS


def _unknown(kind: type[NodeConfig], name: str, given: _Given, known: Iterable[str]) -> str:
    place = f"{given.source}: {name} = {given.value!r}"
    if _is_topic_config(name):
        return f"{place}: {_CLUSTERS}"
    for other, word in ((QuorumConfig, "voter"), (BrokerConfig, "broker")):
        if other is not kind and name in _names(other):
            return f"{place}: it is a setting of a {word}, and this node is none"
    if name in _KAFKAS_NODE_SETTINGS:
        return f"{place}: no setting has that name; {_KAFKAS_NODE_SETTINGS[name]}"
    near = difflib.get_close_matches(name[:100], list(known), n=1, cutoff=_NEAR)
    hint = f"the nearest is {near[0]}" if near else f"{_PAGE} lists all settings"
    return f"{place}: no setting has that name; {hint}"


def _convert(name: str, given: _Given, kind: Any) -> object:
    value = given.value
    try:
        if given.is_text:
            value = _from_text(str(value).strip(), kind)
        value = msgspec.convert(value, kind)
    except (msgspec.ValidationError, ValueError):
        raise ConfigError(
            f"{given.source}: {name} must be {allowed_values(kind)}, not {given.value!r}"
        ) from None
    for text in value if isinstance(value, tuple) else (value,):
        if isinstance(text, str) and text != text.strip():
            raise ConfigError(
                f"{given.source}: {name} must not begin or end with white space, as {text!r} does"
            )
    return value


def _bare(kind: Any) -> Any:
    """Return a field's type without its bounds."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _from_text(text: str, kind: Any) -> object:
    """Convert the text of an environment variable or of --set to the type of a field."""
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
