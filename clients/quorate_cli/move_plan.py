"""A plan of moves in a file: the JSON that kafka-reassign-partitions reads and writes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeGuard

from quorate import LogDirDescription, TopicPartition
from quorate_cli.output import os_reason, usage_error

#: The only version of the form, and the log directory that leaves the choice to the controller.
VERSION: Final = 1
ANY_DIRECTORY: Final = "any"
FORM: Final = '{"partitions": [{"topic": NAME, "partition": NUMBER, "replicas": [ID, ...]}]}'


Brokers = dict[TopicPartition, list[int]]


@dataclass(frozen=True, slots=True)
class MovePlan:
    """What a file asks for. `directories`: by partition and broker, the directories it names.

    `expected`: the replicas from which the plan was made, where it says so, as `quorate cluster
    rebalance -o json` prints it.
    """

    targets: Brokers = field(default_factory=dict)
    expected: Brokers = field(default_factory=dict)
    directories: dict[tuple[TopicPartition, int], str] = field(default_factory=dict)

    def check_directories(self, found: Iterable[LogDirDescription]) -> None:
        """Refuse a directory that a move would have to choose: the controller chooses it.

        Kafka's tool prints the directories of the replicas before a move, so that a plan can go
        back. A directory may be named that has the replica, or that is the only one of a broker
        without the replica.
        """
        paths: dict[int, set[str]] = {}
        places: dict[tuple[TopicPartition, int], str] = {}
        for one in found:
            paths.setdefault(one.broker_id, set()).add(one.path)
            for replica in one.replicas:
                key = TopicPartition(replica.topic, replica.partition)
                places[key, one.broker_id] = one.path
        for (key, broker_id), path in self.directories.items():
            has = places.get((key, broker_id))
            there = paths.get(broker_id, set())
            if path != has and (has is not None or there != {path}):
                now = f"the replica is in {has!r}" if has else f"the broker has {sorted(there)}"
                usage_error(
                    f"the plan puts the replica of {key.topic}/{key.partition} on broker"
                    f" {broker_id} into the log directory {path[:200]!r}, and {now}: a move can't"
                    f' choose the directory. Write "{ANY_DIRECTORY}", and the controller chooses'
                    " the one with the most room"
                )


def read_plan(path: Path) -> MovePlan:
    """Return what a plan asks for. Anything else is wrong usage."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        usage_error(f"the plan {str(path)!r} can't be read: {os_reason(error)}")
    except ValueError as error:
        usage_error(f"the plan {str(path)!r} is no JSON: {error}")
    if isinstance(document, dict):
        _check_version(path, document.get("version", VERSION))
    plan = MovePlan()
    parts = document.get("partitions") if isinstance(document, dict) else None
    for part in parts if isinstance(parts, list) else [None]:
        match part:
            case {
                "topic": str(topic),
                "partition": int(number),
                "replicas": list(replicas),
                **others,
            } if _are_ids(replicas) and _are_ids(replaced := others.get("expected", [])):
                key = TopicPartition(topic, number)
                if key in plan.targets:
                    usage_error(f"the plan {str(path)!r} names {topic}/{number} twice")
                directories = _directories(path, key, others.get("log_dirs"), len(replicas))
                for broker_id, directory in zip(replicas, directories, strict=False):
                    if directory != ANY_DIRECTORY:
                        plan.directories[key, broker_id] = directory
                plan.targets[key] = replicas
                if replaced:
                    plan.expected[key] = replaced
            case _:
                usage_error(
                    f"the plan {str(path)!r} must be {FORM}"
                    f"; found {json.dumps(document if part is None else part)[:200]}"
                )
    return plan


def _are_ids(found: object) -> TypeGuard[list[int]]:
    return isinstance(found, list) and all(isinstance(one, int) for one in found)


def _check_version(path: Path, version: object) -> None:
    if version != VERSION or isinstance(version, bool):
        usage_error(
            f"the plan {str(path)!r} has version {json.dumps(version)[:100]}, and only version"
            f" {VERSION} is known"
        )


def _directories(path: Path, key: TopicPartition, given: object, replicas: int) -> list[str]:
    """Return the log directories that a plan names; none is a list without any."""
    if given is None:
        return []
    if (
        isinstance(given, list)
        and len(given) == replicas
        and all(isinstance(one, str) for one in given)
    ):
        return given
    usage_error(
        f"the plan {str(path)!r} must name one log directory for each of the {replicas}"
        f" replicas of {key.topic}/{key.partition}, or none; found {json.dumps(given)[:200]}"
    )
