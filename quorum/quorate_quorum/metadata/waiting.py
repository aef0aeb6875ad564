"""What a partition without a leader waits for, and what an operator may do, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import NO_LEADER, PartitionImage
from quorate_quorum.metadata.topics import TopicImage

NOT_ALIVE = "is not alive"


def waits_for(image: MetadataImage, topic: TopicImage, number: int) -> str:
    """Return the end of a sentence that begins with the partition; empty if it has a leader."""
    partition = topic.partitions[number]
    if partition.leader != NO_LEADER:
        return ""
    if image.config_value(topic, "unclean.leader.election.enable"):
        return (
            "waits until a replica is alive and has told where its log ends"
            " (unclean.leader.election.enable is true: records may be lost)"
        )
    asked = f"`quorate partition elect {topic.name}/{number} --unclean --accept-loss`"
    complete = tuple(dict.fromkeys((*partition.isr, *partition.elr)))
    if complete:
        return _for_one_of(image, partition, complete, asked)
    return _for_ends(image, partition, asked)


def present_state(image: MetadataImage, partition: PartitionImage, broker_id: int) -> str:
    """Return what is true now of a replica that left the ISR because its broker was away.

    Empty if the broker is still away.
    """
    broker = image.brokers.get(broker_id)
    if broker is None or broker.fenced:
        return ""
    if not image.is_live(partition, broker_id):
        return "it is alive again, without the log directory of its replica"
    if partition.leader != NO_LEADER:
        return "it is alive again, and catches up"
    if broker_id in partition.elr:
        return "it is alive again"
    return "it is alive again, but not sure to have all records"


def _for_one_of(
    image: MetadataImage, partition: PartitionImage, complete: Sequence[int], asked: str
) -> str:
    """Return the sentence about the replicas of which one must come back."""
    ids = " or ".join(map(str, complete))
    verb, them = ("has", "it") if len(complete) == 1 else ("have", "they")
    text = f"waits for broker {ids}, which {verb} all records"
    states = {b: _why_not(image, partition, b) for b in complete}
    able = [b for b, state in states.items() if not state]
    if able:
        return f"{text}; broker {able[0]} is alive, and can lead now"
    if all(state == NOT_ALIVE for state in states.values()):
        none = {1: "it is not", 2: "neither is"}.get(len(complete), "none is")
        found = f"{none} alive: start {'it' if len(complete) == 1 else 'one'}"
    else:
        each = ", ".join(f"broker {b} {state}" for b, state in states.items())
        found = f"{each}: mend {'it' if len(complete) == 1 else 'one'}"
    return f"{text}; {found}, or give up what only {them} {verb} by {asked}"


def _for_ends(image: MetadataImage, partition: PartitionImage, asked: str) -> str:
    """Return the sentence about a partition of which no replica is sure to have all records."""
    states = {b: _why_not(image, partition, b) for b in partition.broker_ids}
    absent = ", ".join(f"broker {b} {state}" for b, state in states.items() if state)
    text = "has no replica that is sure to have all records: waits until"
    if not absent:
        return f"{text} all have told where their logs end"
    return (
        f"{text} all are back ({absent}), or until one with records has been back for"
        f" unclean.recovery.wait.ms; start them, or give up what only they have by {asked}"
    )


def _why_not(image: MetadataImage, partition: PartitionImage, broker_id: int) -> str:
    """Return why a replica can't lead, after the name of its broker; empty if it can."""
    if image.is_eligible(partition, broker_id):
        return ""
    broker = image.brokers.get(broker_id)
    if broker is None or broker.fenced:
        return NOT_ALIVE
    if broker.shutting_down:
        return "is shutting down"
    return "is alive, without the log directory of its replica"
