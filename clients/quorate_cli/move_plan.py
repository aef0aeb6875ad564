"""A plan of moves in a file: the JSON that kafka-reassign-partitions reads and writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, TypeGuard

from quorate import TopicPartition
from quorate_cli.output import os_reason, usage_error

#: The only version of the form, and the only log directory that a plan may name.
VERSION: Final = 1
ANY_DIRECTORY: Final = "any"
FORM: Final = '{"partitions": [{"topic": NAME, "partition": NUMBER, "replicas": [ID, ...]}]}'


Brokers = dict[TopicPartition, list[int]]


def read_plan(path: Path) -> tuple[Brokers, Brokers]:
    """Return the brokers of each partition that a plan names. Anything else is wrong usage.

    The second value has the replicas from which the plan was made, where it says so: "expected",
    as `quorate cluster rebalance -o json` prints it.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        usage_error(f"the plan {str(path)!r} can't be read: {os_reason(error)}")
    except ValueError as error:
        usage_error(f"the plan {str(path)!r} is no JSON: {error}")
    if isinstance(document, dict):
        _check_version(path, document.get("version", VERSION))
    targets: Brokers = {}
    expected: Brokers = {}
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
                if key in targets:
                    usage_error(f"the plan {str(path)!r} names {topic}/{number} twice")
                _check_directories(path, key, others.get("log_dirs"), len(replicas))
                targets[key] = replicas
                if replaced:
                    expected[key] = replaced
            case _:
                usage_error(
                    f"the plan {str(path)!r} must be {FORM}"
                    f"; found {json.dumps(document if part is None else part)[:200]}"
                )
    return targets, expected


def _are_ids(found: object) -> TypeGuard[list[int]]:
    return isinstance(found, list) and all(isinstance(one, int) for one in found)


def _check_version(path: Path, version: object) -> None:
    if version != VERSION or isinstance(version, bool):
        usage_error(
            f"the plan {str(path)!r} has version {json.dumps(version)[:100]}, and only version"
            f" {VERSION} is known"
        )


def _check_directories(path: Path, key: TopicPartition, given: object, replicas: int) -> None:
    """Refuse a log directory: the broker chooses it, and a plan that names one asks for more."""
    if given is None:
        return
    name = f"{key.topic}/{key.partition}"
    if not isinstance(given, list) or len(given) != replicas:
        usage_error(
            f"the plan {str(path)!r} must name one log directory for each of the {replicas}"
            f" replicas of {name}, or none; found {json.dumps(given)[:200]}"
        )
    named = next((one for one in given if one != ANY_DIRECTORY), None)
    if named is not None:
        usage_error(
            f"the plan {str(path)!r} puts a replica of {name} into the log directory"
            f" {json.dumps(named)[:200]}: a move can't choose the directory. Write"
            f' "{ANY_DIRECTORY}", and the controller chooses the one with the most room'
        )
