"""A plan of `quorate cluster rebalance` as JSON: how it is written, read, and compared again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quorate import ClusterDescription, Reassignment, TopicDescription, TopicPartition
from quorate.errors import QuorateError
from quorate_cli.output import os_reason, usage_error
from quorate_cli.rebalance_plan import Plan, Share, skew
from quorate_cli.session import code_name


def document(
    cluster: ClusterDescription,
    topics: Mapping[str, TopicDescription],
    plan: Plan,
    results: Mapping[TopicPartition, QuorateError | None],
) -> dict[str, object]:
    """Return a plan and what became of its moves."""
    where = {one.id: one for one in cluster.brokers}
    return {
        "image_offset": cluster.image_offset,
        "brokers": [
            {
                "id": b,
                "rack": where[b].rack if b in where else "",
                "host": where[b].host if b in where else "",
                "before": asdict(plan.before[b]),
                "after": asdict(plan.after[b]),
            }
            for b in plan.before
        ],
        "topic_ids": {key.topic: topics[key.topic].topic_id for key in plan.targets},
        "partitions": [
            {
                "topic": key.topic,
                "partition": key.partition,
                "replicas": target,
                "expected": plan.expected[key],
                "begun": key in results and results[key] is None,
                "error": None if (error := results.get(key)) is None else code_name(error),
            }
            for key, target in plan.targets.items()
        ],
        "moved_replicas": plan.moved_replicas,
        "moved_bytes": plan.moved_bytes,
        "moved_of_unknown_size": plan.moved_of_unknown_size,
        "kept_on_drained": plan.kept,
        "skew": {
            name: {"before": _skew(plan, plan.before, name), "after": _skew(plan, plan.after, name)}
            for name in ("replicas", "preferred_leaders", "size")
        },
    }


def _skew(plan: Plan, shares: Mapping[int, Share], name: str) -> dict[str, int | None]:
    fewest, most = skew(plan.takers, shares, name)
    return {"min": fewest, "max": most}


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """The targets of a plan that was made earlier, and what they were made from."""

    image_offset: int
    targets: dict[TopicPartition, list[int]]
    expected: dict[TopicPartition, list[int]]
    topic_ids: dict[str, str]
    #: By broker: rack and host.
    places: dict[int, tuple[str, str]]

    def is_carried_out(self, topics: Mapping[str, TopicDescription]) -> bool:
        """Return whether each partition has the replicas that the plan gives it, and no other."""
        for key, target in self.targets.items():
            topic = topics.get(key.topic)
            if topic is None or topic.topic_id != self.topic_ids[key.topic]:
                return False
            here = [one for one in topic.partitions if one.partition == key.partition]
            if not here or here[0].adding or list(here[0].replicas) != target:
                return False
        return True

    def changes(
        self,
        cluster: ClusterDescription,
        topics: Mapping[str, TopicDescription],
        moving: Mapping[TopicPartition, Reassignment],
    ) -> Iterator[str]:
        """Yield a sentence for each change of the cluster on which the plan depends.

        It depends on the partitions that it changes, and on the brokers of their targets. Other
        topics and brokers, leaders, ISRs, sizes and settings do not matter. A partition that has
        its target, or is moving there, is no change: a part of the plan was begun before.
        """
        for name, topic_id in sorted(self.topic_ids.items()):
            if name not in topics:
                yield f"topic {name!r} was deleted"
            elif topics[name].topic_id != topic_id:
                yield f"topic {name!r} was deleted and made again"
        for key, expected in sorted(self.expected.items()):
            topic = topics.get(key.topic)
            if topic is None or topic.topic_id != self.topic_ids[key.topic]:
                continue
            if key.partition >= len(topic.partitions):
                yield f"topic {key.topic!r} has no partition {key.partition}"
                continue
            now = topic.partitions[key.partition].replicas
            if key in moving:
                target = list(moving[key].target)
                if target != self.targets[key]:
                    yield f"{key.topic}/{key.partition} is being moved to {target}"
            elif list(now) == self.targets[key]:
                continue
            elif list(now) != expected:
                yield f"{key.topic}/{key.partition} has the replicas {list(now)}, not {expected}"
        yield from self._changes_of_brokers(cluster)

    def _changes_of_brokers(self, cluster: ClusterDescription) -> Iterator[str]:
        brokers = {one.id: one for one in cluster.brokers}
        added = {b for key, ids in self.targets.items() for b in ids if b not in self.expected[key]}
        for broker_id in sorted({b for ids in self.targets.values() for b in ids}):
            broker = brokers.get(broker_id)
            if broker is None:
                yield f"broker {broker_id} was unregistered"
            elif (broker.rack, broker.host) != self.places[broker_id]:
                rack, host = self.places[broker_id]
                yield (
                    f"broker {broker_id} is in rack {broker.rack!r} on host {broker.host!r}, not in"
                    f" {rack!r} on {host!r}"
                )
            elif broker_id in added and (broker.fenced or broker.drained):
                yield f"broker {broker_id} is {'drained' if broker.drained else 'not alive'}"


def read(path: Path) -> SavedPlan:
    """Return the plan that `quorate cluster rebalance -o json` has printed into a file.

    Ends the command with wrong usage if the file is none.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        usage_error(f"the plan {str(path)!r} can't be read: {os_reason(error)}")
    except ValueError as error:
        usage_error(f"the plan {str(path)!r} is no JSON: {error}")
    try:
        return _parsed(found)
    except (KeyError, TypeError, ValueError):
        usage_error(
            f"the plan {str(path)!r} is none of `quorate cluster rebalance -o json`: write one into"
            " a file, and give that (`quorate partition move --plan` takes plans of Kafka's tools)"
        )


def _parsed(found: Any) -> SavedPlan:
    targets, expected = {}, {}
    for one in found["partitions"]:
        key = TopicPartition(_text(one["topic"]), _number(one["partition"]))
        targets[key] = [_number(b) for b in one["replicas"]]
        expected[key] = [_number(b) for b in one["expected"]]
    plan = SavedPlan(
        _number(found["image_offset"]),
        targets,
        expected,
        {_text(name): _text(topic_id) for name, topic_id in found["topic_ids"].items()},
        {_number(b["id"]): (_text(b["rack"]), _text(b["host"])) for b in found["brokers"]},
    )
    if {key.topic for key in targets} != plan.topic_ids.keys():
        raise ValueError("ids of other topics")
    if not {b for ids in targets.values() for b in ids} <= plan.places.keys():
        raise ValueError("brokers of which nothing is known")
    return plan


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("no number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value
