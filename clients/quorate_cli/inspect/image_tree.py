"""A metadata image as a tree of names, like folders and files.

A folder is a Mapping from names to nodes, in the order of output. A leaf is a JSON value. Large
folders make their content on demand. Names are percent-encoded if they do not fit into a path, or
if a terminal would interpret them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any, Union
from urllib.parse import quote

from quorate_cli.inspect.image import Found
from quorate_quorum.metadata.brokers import BrokerImage, DirectoryImage
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.metadata.voters import VoterImage

Leaf = str | int | bool | list[int] | None
Node = Union[Leaf, "Folder"]
Folder = Mapping[str, Node]


class Lazy(Folder):
    """A folder that makes its content on demand, and does not keep it."""

    def __init__(self, keys: Mapping[str, object], make: Callable[[str], Node]) -> None:
        self._keys = keys
        self._make = make

    def __getitem__(self, name: str) -> Node:
        if name not in self._keys:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, name: object) -> bool:
        return name in self._keys


def tree_of(found: Found) -> Folder:
    """Return the root of an image's tree."""
    image = found.image
    by_name = {entry(topic.name): topic for topic in image.sorted_topics()}
    by_id = {topic.id.hex(): topic.name for topic in by_name.values()}
    return {
        "brokers": {str(broker.id): _broker(broker) for broker in image.sorted_brokers()},
        "configs": _settings(image.configs),
        "created": {"partitions": image.partitions_created, "topics": image.topics_created},
        "features": {entry(name): image.features[name] for name in sorted(image.features)},
        "forming": {
            forming.topic.id.hex(): {
                "name": forming.topic.name,
                "partitions": forming.partitions,
                "made": len(forming.topic.partitions),
            }
            for forming in image.sorted_forming()
        },
        "producers": {"next_producer_id": image.next_producer_id},
        "provenance": _provenance(found),
        "topicIds": {id_: by_id[id_] for id_ in sorted(by_id)},
        "topics": Lazy(by_name, lambda name: _topic(by_name[name])),
        "voters": {
            str(voter.id): _fields(voter)
            for voter in sorted(image.voters, key=lambda voter: voter.id)
        },
    }


def entry(name: str) -> str:
    """Return a name in the form that it has in paths.

    >>> entry("orders.v1"), entry("a/b"), entry("..")
    ('orders.v1', 'a%2Fb', '%2E%2E')
    """
    if name in ("", ".", ".."):
        return "".join(f"%{ord(letter):02X}" for letter in name) or "%"
    fits = name.isprintable() and not set(name) & set("/% *?[]'\"\\")
    return name if fits else quote(name, safe="")


def _provenance(found: Found) -> Folder:
    return {
        "cluster_id": found.cluster_id,
        "quorum_generation": found.quorum_generation,
        "offset": found.image.offset,
        "epoch": found.image.epoch,
        "snapshot_offset": None if found.snapshot is None else found.snapshot.offset,
        "snapshot_epoch": None if found.snapshot is None else found.snapshot.epoch,
        "committed": found.committed,
        "path": found.path,
    }


def _settings(configs: Mapping[str, str]) -> Folder:
    return {entry(name): configs[name] for name in sorted(configs)}


def _broker(broker: BrokerImage) -> Folder:
    return {
        "epoch": broker.epoch,
        "incarnation": broker.incarnation.hex(),
        "endpoint": broker.endpoint,
        "listeners": {one.name: str(one) for one in broker.listeners},
        "rack": broker.rack,
        "host": broker.host,
        "fenced": broker.fenced,
        "shutting_down": broker.shutting_down,
        "cordoned": broker.cordoned,
        "configs": _settings(dict(broker.configs)),
        "features": {
            entry(name): [levels.lowest, levels.highest] for name, levels in broker.features
        },
        "directories": {directory.id.hex(): _fields(directory) for directory in broker.directories},
    }


def _topic(topic: TopicImage) -> Folder:
    numbers = {str(number): number for number in range(len(topic.partitions))}
    own: dict[str, Node] = {"id": topic.id.hex(), "configs": _settings(topic.configs)}
    return Lazy(
        {**own, **numbers},
        lambda name: own[name] if name in own else _partition(topic, numbers[name]),
    )


def _partition(topic: TopicImage, number: int) -> Folder:
    partition = topic.partitions[number]
    return {
        **_fields(partition),
        "replicas": list(partition.broker_ids),
        "directories": {
            str(replica.broker_id): replica.directory_id.hex() for replica in partition.replicas
        },
    }


def _fields(image: DirectoryImage | PartitionImage | VoterImage) -> dict[str, Node]:
    """Return the fields of an image except its id, in the order of their declaration."""
    values = {one.name: getattr(image, one.name) for one in fields(image) if one.name != "id"}
    return {name: _leaf(value) for name, value in values.items()}


def _leaf(value: Any) -> Leaf:
    if isinstance(value, bytes):
        return value.hex()
    return list(value) if isinstance(value, tuple) else value
