"""TOPIC/PARTITION in a command's arguments, and TOPIC for all partitions of a topic."""

from __future__ import annotations

from collections.abc import Iterable

from quorate import Admin, TopicPartition
from quorate_cli.output import usage_error


async def every_partition(admin: Admin, named: Iterable[str]) -> list[TopicPartition]:
    """Return the partitions that the arguments name, in their order. Each is there once.

    Raises UnknownTopicError if a topic that is named as a whole does not exist.
    """
    chosen = [parsed(one) for one in named]
    whole = [topic for topic, number in chosen if number is None]
    described = await admin.describe_topics(whole) if whole else {}
    partitions = [
        TopicPartition(topic, index)
        for topic, number in chosen
        for index in (range(len(described[topic].partitions)) if number is None else (number,))
    ]
    return list(dict.fromkeys(partitions))


def parsed(text: str) -> tuple[str, int | None]:
    """Return the topic, and the number of the partition if there is one.

    >>> parsed("orders/3"), parsed("orders")
    (('orders', 3), ('orders', None))
    """
    topic, slash, number = text.partition("/")
    if not topic or (slash and not (number.isascii() and number.isdigit() and len(number) < 10)):
        usage_error(f"a partition is TOPIC/NUMBER, and all of a topic's are TOPIC; not {text!r}")
    return topic, int(number) if slash else None
