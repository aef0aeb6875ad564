"""What an operator reads in the controller's log: one line for each committed change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from quorate_quorum.metadata.delta import CLUSTER, MetadataDelta
from quorate_quorum.metadata.image import BrokerImage, MetadataImage, VoterImage

#: Lines for one batch of the metadata log; a last line then says how many changes are not shown.
LINES_MAX: Final = 100

Line = tuple[str, dict[str, Any]]


def lines(delta: MetadataDelta, image: MetadataImage) -> list[Line]:
    """Return (event, fields) for each change of topics, configs, brokers, voters and features.

    Partitions are left out: the brokers log every change of a role and of an ISR. Costs as much
    as the delta is long, up to the bound.
    """
    found = _lines(delta, image)
    shown = list(islice(found, LINES_MAX))
    more = sum(1 for _ in found)
    return [*shown, ("changes_not_shown", {"count": more})] if more else shown


def _lines(delta: MetadataDelta, image: MetadataImage) -> Iterator[Line]:
    old = delta.image
    for topic in delta.removed_topics:
        if topic.name:
            yield "topic_deleted", {"topic": topic.name, "topic_id": topic.id.hex()}
    for topic_id in delta.changed_topics:
        topic_now = image.topics.get(topic_id)
        if topic_now is not None and topic_id not in old.topics:
            yield (
                "topic_created",
                {
                    "topic": topic_now.name,
                    "topic_id": topic_id.hex(),
                    "partitions": len(topic_now.partitions),
                    "replication_factor": len(topic_now.partitions[0].replicas),
                    "configs": _plain(topic_now.configs),
                },
            )
    for topic_id in delta.changed_configs:
        yield from _config_lines(topic_id, old, image)
    for broker_id in delta.changed_brokers:
        yield from _broker_lines(broker_id, old.brokers.get(broker_id), image)
    if old.voters != image.voters and old.voters:
        before, now = _voters(old.voters), _voters(image.voters)
        yield "voters_changed", {"before": before, "voters": now}
    if old.features != image.features:
        for name, level in sorted(image.features.items()):
            if old.features.get(name) != level:
                yield "feature_changed", {"feature": name, "level": level}


def _config_lines(topic_id: bytes, old: MetadataImage, image: MetadataImage) -> Iterator[Line]:
    if topic_id == CLUSTER:
        changed = _changed(old.configs, image.configs)
        if changed:
            yield "cluster_config_altered", {"changed": changed}
        return
    before, now = old.topics.get(topic_id), image.topics.get(topic_id)
    if before is not None and now is not None:
        changed = _changed(before.configs, now.configs)
        if changed:
            yield "topic_config_altered", {"topic": now.name, "changed": changed}


def _broker_lines(
    broker_id: int, before: BrokerImage | None, image: MetadataImage
) -> Iterator[Line]:
    now = image.brokers.get(broker_id)
    if now is None:
        yield "broker_unregistered", {"broker": broker_id}
    elif before is None or before.epoch != now.epoch:
        fields = {"broker": broker_id, "broker_epoch": now.epoch, "rack": now.rack}
        yield "broker_registered", {**fields, "endpoint": now.endpoint}


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return name -> "old -> new"; "default" stands for a config that is not set."""
    return {
        name: f"{before.get(name, 'default')} -> {now.get(name, 'default')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    }


def _voters(voters: tuple[VoterImage, ...]) -> list[str]:
    return [f"{voter.id}@{voter.endpoint}" for voter in voters]


def _plain(configs: Mapping[str, str]) -> dict[str, str]:
    return {name: configs[name] for name in sorted(configs)}
