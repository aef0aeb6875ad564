"""A topic to create, and the rules for its arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, cast

from quorate import errors
from quorate.plain_values import UTF8_TEXT, has_utf8, whole_number
from quorate.settings import INT32_MAX, Text, Whole, check_fields, listed, refused
from quorate.v1 import admin_pb2 as wire

ConfigValue = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Configs:
    """Rule: configurations by name. Numbers and booleans become the text that the cluster expects.

    >>> Configs().check("create_topic", "configs", {"retention.ms": 1000, "flush.on.ack": True})
    {'retention.ms': '1000', 'flush.on.ack': 'true'}
    """

    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> dict[str, str]:
        said = 'a mapping of names to values, as {"retention.ms": "60000"}'
        if not isinstance(given, Mapping):
            raise TypeError(refused(call, name, said, given))
        written = {}
        for key, value in given.items():
            if not isinstance(key, str):
                raise TypeError(refused(call, f"a name in {name}", "a string", key))
            if isinstance(value, bool):
                value = "true" if value else "false"
            elif (whole := whole_number(value)) is not None:
                value = str(whole)
            elif isinstance(value, float) and math.isfinite(value):
                value = repr(value)
            if not isinstance(value, str):
                place = f"{name}[{key!r}]"
                raise TypeError(refused(call, place, "a string, a number or True or False", value))
            for text in (key, value):
                if not has_utf8(text):
                    raise ValueError(refused(call, name, UTF8_TEXT, text))
            written[key] = value
        return written


@dataclass(frozen=True, slots=True)
class Assignments:
    """Rule: lists of broker ids, one list for each partition."""

    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> list[list[int]]:
        said = "a list of lists of broker ids, one list a partition"
        lists = [listed(call, name, said, one) for one in listed(call, name, said, given)]
        broker = Whole(0, INT32_MAX)
        return [
            [broker.check(call, f"a broker id in {name}", broker_id) for broker_id in one]
            for one in lists
        ]


#: A new topic's name. The controller checks the characters.
NEW_NAME = Text("a topic's name", chars_max=249, error=errors.InvalidTopicError)
#: These rules allow every number that the wire has, because only the controller knows the bounds.
PARTITIONS = Whole(
    -INT32_MAX,
    INT32_MAX,
    allowed="a whole number, 1 or more (-1: the cluster's default), not above the cluster's bound",
    error=errors.InvalidPartitionsError,
)
COUNT = Whole(
    -INT32_MAX,
    INT32_MAX,
    allowed="a whole number above that of the topic's partitions, not above the cluster's bound",
    error=errors.InvalidPartitionsError,
)
REPLICATION_FACTOR = Whole(
    -INT32_MAX,
    INT32_MAX,
    allowed="a whole number from 1 to the number of brokers (-1: the cluster's default)",
    error=errors.InvalidReplicationFactorError,
)


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to create. A number of -1 means the cluster's default."""

    name: Annotated[str, NEW_NAME]
    num_partitions: Annotated[int, PARTITIONS] = -1
    replication_factor: Annotated[int, REPLICATION_FACTOR] = -1
    _: KW_ONLY
    configs: Annotated[Mapping[str, ConfigValue], Configs()] = field(default_factory=dict)
    #: Explicit placement instead of the two numbers: the broker ids of each partition, with the
    #: preferred leader first.
    assignments: Annotated[Sequence[Sequence[int]], Assignments()] = ()

    def __post_init__(self) -> None:
        check_fields(self)


def to_wire(topic: NewTopic, topic_id: bytes) -> wire.NewTopic:
    """Return the topic as a message."""
    return wire.NewTopic(
        name=topic.name,
        topic_id=topic_id,
        num_partitions=topic.num_partitions,
        replication_factor=topic.replication_factor,
        configs=cast(Mapping[str, str], topic.configs),
        assignments=[wire.ReplicaAssignment(replicas=list(one)) for one in topic.assignments],
    )
