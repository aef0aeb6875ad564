"""Finds the partitions that a request names, and checks that the request may name them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from quorate.errors import InvalidRequestError, PolicyViolationError, QuorateError
from quorate_broker.replica.partition import Partition
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.node.authorizer import Caller, Required

TOPIC_ID_BYTES = 16
#: Partitions of one request that are handled in one turn of the loop. They take 1 to 3 ms.
PARTITIONS_A_TURN = 200
#: How often one request may name what it names already, where each is answered, as in Kafka:
#: groups, partitions of a group, resources. Without this bound, one large group, one long piece of
#: metadata, or all configs of a broker, could be told thousands of times in one answer.
REPEATED_MAX = 10


def locate(
    replicas: Replicas,
    caller: Caller,
    required: Required,
    topic_id: bytes,
    partition: int,
    leader_epoch: int,
) -> Partition:
    """Return the partition that a request names, if the caller may use its topic.

    Raises InvalidRequestError for impossible fields, TopicAuthorizationFailedError, and the errors
    of Replicas.get.
    """
    if len(topic_id) != TOPIC_ID_BYTES:
        raise InvalidRequestError(f"topic_id must be {TOPIC_ID_BYTES} bytes, not {len(topic_id)}")
    if partition < 0:
        raise InvalidRequestError(f"partition must be 0 or more, not {partition}")
    if leader_epoch < -1:
        raise InvalidRequestError(f"leader_epoch must be -1 or more, not {leader_epoch}")
    try:
        found = replicas.get(topic_id, partition)
    except QuorateError:
        # Check the right before this error is raised: the error may name the leader, and a caller
        # without the right must not learn the leader.
        topic = replicas.image.topics.get(topic_id)
        if topic is not None:
            _check(caller, required, topic.name, topic_id)
        raise
    _check(caller, required, found.topic, topic_id)
    return found


def _check(caller: Caller, required: Required, topic: str, topic_id: bytes) -> None:
    refusal = caller.refusal_by_id(required, topic, topic_id)
    if refusal is not None:
        raise refusal


def refuse_internal(partition: Partition) -> None:
    """Raise PolicyViolationError for a topic of the cluster's own, which clients may only read."""
    if partition.is_internal:
        raise PolicyViolationError(
            f"topic {partition.topic!r} is Quorate's own: clients may read it, and only the "
            "cluster writes and deletes its records"
        )


def check_count(named: int, allowed: int, replicas: Replicas) -> None:
    """Raise InvalidRequestError if a request or a stream names too many partitions.

    The bound is `allowed`, or the number of partitions of this broker, if that is larger. With a
    lower bound, a client could not read all partitions of this broker.
    """
    most = max(allowed, replicas.held)
    if named > most:
        raise InvalidRequestError(
            f"{named} partitions are named at once; {most} are allowed: name fewer in a request, "
            "or open another stream"
        )


def check_repeated(what: str, named: Sequence[Hashable]) -> None:
    """Raise InvalidRequestError if a request names too much again."""
    repeated = len(named) - len(set(named))
    if repeated > REPEATED_MAX:
        raise InvalidRequestError(
            f"a request names {repeated} {what} that it names already; {REPEATED_MAX} are allowed"
        )


def refuse_duplicates(named: Iterable[Hashable]) -> None:
    """Raise InvalidRequestError if a request names something twice.

    Without this check, the work of a request could grow with its size. With it, the number of
    existing partitions is the bound.
    """
    seen: set[Hashable] = set()
    for one in named:
        if one in seen:
            raise InvalidRequestError(
                f"the request names {_shown(one)} twice; name each topic or partition once"
            )
        seen.add(one)


def _shown(one: Hashable) -> str:
    parts = one if isinstance(one, tuple) else (one,)
    texts = [part.hex() if isinstance(part, bytes) else str(part)[:249] for part in parts]
    return "-".join(texts)
