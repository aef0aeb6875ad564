"""Configs that were set: the own configs of a topic or of the cluster, as texts by name.

Their meaning is declared in quorate_quorum.configs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from rpds import HashTrieMap

from quorate_quorum.metadata.aspect import event_of
from quorate_quorum.v1 import events_pb2 as ev

OwnConfigs: TypeAlias = "HashTrieMap[str, str]"

#: Stands for the cluster in events and maps that name a topic's configs by the topic's id.
CLUSTER: Final = b""


def config_events(topic_id: bytes, configs: OwnConfigs) -> Iterator[ev.MetadataEvent]:
    """Yield the events that set these configs, of a topic or of the CLUSTER."""
    for name in sorted(configs):
        yield event_of(config=ev.Config(topic_id=topic_id, name=name, value=configs[name]))


def configured(configs: OwnConfigs, event: ev.Config) -> OwnConfigs:
    """Return the configs after an event that sets or removes one of them."""
    assert event.name, "a config has a name"
    if event.HasField("value"):
        return configs.insert(event.name, event.value)
    return configs.discard(event.name)


def altered(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return the changes as name -> "old -> new", where "default" stands for a config not set."""
    changed = {name for name, _ in {*before.items()} ^ {*now.items()}}
    return {
        name: f"{before.get(name, 'default')} -> {now.get(name, 'default')}"
        for name in sorted(changed)
    }
