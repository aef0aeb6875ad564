"""Writes docs/configuration.md from the declarations of all settings: `make docs`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from quorate_quorum.configs import CONFIGS, ConfigSpec
from quorate_quorum.node.config import BrokerConfig, NodeConfig, QuorumConfig
from quorate_quorum.node.config_sources import allowed_values
from tests.house.field_comments import field_comments

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
INTRODUCTION = """\
# Configuration

This page is made from the declarations of the settings (`make docs`). There are two kinds: the
settings of a **node**, which it reads when it starts, and the configs of **topics and the
cluster**, which the cluster keeps, and which change while it runs.

## Settings of a node

They stand in a file in TOML (`quorate-broker --config broker.toml`, `quorate-quorum --config
voter.toml`), in the environment (`broker.rack` as `QUORATE_BROKER_RACK`) or on the command line
(`--set broker.rack=R1`). The command line beats the environment, the environment beats the file,
and the file beats the default. A change takes effect when the node is started again. A wrong
setting stops the node before it changes anything, with exit status 78. The first line of a node's
log has all values in force.
"""
OF_TOPICS = """\
## Configs of topics

Each may be set on a topic (`quorate topic create NAME -c retention.ms=3600000`, `quorate topic
alter NAME -c ...`), and on the cluster as the default of all topics without a value of their own
(`quorate cluster config -c ...`). `--remove NAME` takes a value back. A topic's own value beats the
cluster's, and the cluster's beats the default.

`quorate cluster config --topic NAME` shows the values in force, and the **source** of each:
`topic`, `cluster` or `default`. When a cluster is formatted, the defaults of that release are
written into it, so that a later release with other defaults does not change it. This is why a new
cluster shows the source `cluster` for values that were never altered.
"""
OF_BROKERS = """\
## Throttles of brokers

They are set with `quorate cluster config -c NAME=VALUE` for all brokers. Kafka's clients set them
for one broker, too, whose own value beats the cluster's. What they do:
[operations.md](operations.md#throttling-the-copies).
"""
OF_THE_CLUSTER = """\
## Configs of the cluster

They are set with `quorate cluster config -c NAME=VALUE`, and cannot be set on a topic.
"""
NODES: Sequence[tuple[str, type[NodeConfig]]] = (
    ("### Of every node", NodeConfig),
    ("### Of a voter", QuorumConfig),
    ("### Of a broker", BrokerConfig),
)
UNITS = {
    "bytes": ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")),
    "ms": ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")),
}


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION]
    for title, kind in NODES:
        parts.append(
            f"{title}\n\n{_table(('setting', 'allowed', 'default', 'meaning'), _of(kind))}"
        )
    header = "config", "allowed", "default", "meaning", "a change takes effect"
    topic = [_row(one) for one in CONFIGS.values() if one.is_of_topics]
    broker = [_row(one) for one in CONFIGS.values() if one.scope == "broker"]
    cluster = [_row(one) for one in CONFIGS.values() if one.scope == "cluster"]
    parts += [
        f"{OF_TOPICS}\n{_table(header, topic)}",
        f"{OF_BROKERS}\n{_table(header, broker)}",
        f"{OF_THE_CLUSTER}\n{_table(header, cluster)}",
    ]
    return "\n".join(parts)


def _of(kind: type[NodeConfig]) -> Iterator[Sequence[str]]:
    """Yield the row of each setting that this kind of node declares itself."""
    meanings = _comments(kind)
    for field in msgspec.structs.fields(kind):
        if field.name in meanings:
            name = field.name.replace("_", ".")
            default = "must be given" if field.required else _shown(name, field.default)
            yield f"`{name}`", allowed_values(field.type), default, meanings[field.name]


def _comments(kind: type) -> dict[str, str]:
    """Return the comment above each field of a class, by the field's name."""
    found = field_comments(kind)
    for name, comment in found.items():
        assert comment, f"{name} has no comment that says what it means"
    return found


def _row(spec: ConfigSpec) -> Sequence[str]:
    changes = {
        "topic": "at once",
        "created": f"never: {spec.fixed}; on the cluster, for topics that are created afterwards",
        "broker": "at once",
        "cluster": "for topics that are created afterwards",
    }
    default = _shown(spec.name, spec.default)
    return f"`{spec.name}`", spec.kind.allowed, default, spec.doc, changes[spec.scope]


def _shown(name: str, value: object) -> str:
    """Return a default as text, with its unit if that is easier to read.

    >>> _shown("retention.ms", 604800000), _shown("segment.bytes", -1), _shown("x", True)
    ('604800000 (7 d)', '-1', 'true')
    """
    if value in ("", ()):
        return "empty"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    unit = "bytes" if "buffer.size" in name else name.rpartition(".")[2]
    if isinstance(value, int) and "per.second" not in name:
        for size, word in UNITS.get(unit, UNITS["bytes"] if ".bytes" in name else ()):
            if 0 < size <= value and value % size == 0:
                return f"{text} ({value // size} {word})"
    return text


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


if __name__ == "__main__":
    sys.stdout.write(page())
