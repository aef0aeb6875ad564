"""The calls of an admin that move the replicas of partitions to other brokers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Final, NamedTuple

from quorate.admin.quorum_calls import QuorumCalls
from quorate.errors import QuorateError, from_wire, raise_if_error
from quorate.model import TopicPartition
from quorate.net import methods
from quorate.settings import (
    INT32_MAX,
    INT64_MAX,
    ByPartition,
    Flag,
    Partitions,
    Whole,
    checked,
    listed,
)
from quorate.v1 import admin_pb2 as wire

#: The most partitions that one request names. Calls that name more send several, one after another.
NAMED_MAX: Final = 1_000
#: The most partitions that an error names.
SHOWN_MAX: Final = 5


class Reassignment(NamedTuple):
    """A partition whose replicas are being moved.

    `replicas`: the target, the preferred leader first, then the brokers to remove. `adding` and
    `removing`: those of them that get a replica, and that lose it at the end. `isr`: the brokers
    that are in sync: the reassignment ends when all of the target are. `leader`: -1 if there is
    none. `throttle`: the bytes a second that reassign_partitions() was given; 0: none.
    """

    replicas: tuple[int, ...]
    adding: tuple[int, ...]
    removing: tuple[int, ...]
    isr: tuple[int, ...]
    leader: int
    throttle: int = 0

    @property
    def target(self) -> tuple[int, ...]:
        """The brokers that have a replica when the reassignment is over."""
        return tuple(b for b in self.replicas if b not in self.removing)


@dataclass(frozen=True)
class Target:
    """Rule: a list of broker ids, or None."""

    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> list[int] | None:
        if given is None:
            return None
        said = "a list of broker ids, or None to cancel"
        broker = Whole(0, INT32_MAX)
        return [
            broker.check(call, f"a broker id in {name}", one)
            for one in listed(call, name, said, given)
        ]


class ReassignmentCalls(QuorumCalls):
    """The part of an Admin that is about reassignments."""

    @checked
    async def reassign_partitions(
        self,
        targets: Annotated[Mapping[TopicPartition, Sequence[int] | None], ByPartition(Target())],
        *,
        expected: Annotated[
            Mapping[TopicPartition, Sequence[int]] | None, ByPartition(Target())
        ] = None,
        keep_replication_factor: Annotated[
            bool, Flag("refuse a target with more or fewer replicas than there are")
        ] = False,
        throttle: Annotated[int, Whole(0, INT64_MAX, "bytes a second; 0: no limit")] = 0,
    ) -> dict[TopicPartition, QuorateError | None]:
        """Begin to move the replicas of partitions. Return why a partition was refused, or None.

        A target is a list of brokers, the preferred leader first. Missing replicas are added and
        catch up; when all of the target are in sync, the others are removed. Producers and
        consumers go on meanwhile. The call returns when the reassignments have begun:
        list_reassignments() shows those under way. A new target replaces an older one. None as a
        target cancels: the partition keeps the replicas that it had before, in their order. More
        than 1,000 targets go in several requests, one after another: if the call fails, some moves
        may have begun. The call is safe to repeat.

        `expected`: the replicas from which a plan was made, of each partition with a target.
        ValueError if it lacks one, or names another partition. A partition that has other replicas
        now, or another order of them, or that is being moved, is refused; one that has the asked
        target already, or is moving to it, is not.

        `throttle`: the bytes a second that each broker sends to added replicas, and that each takes
        for them, until they are in sync; 0: as fast as it goes. All moves with the same throttle
        share it. It ends with the move. Another call with the same target changes it. While the
        partition is written to faster than the throttle allows, the move does not end.

        An error is in the result of its partition: InvalidReplicaAssignmentError (no broker, one
        twice, one that is not registered or can't take replicas now, or a change that would drop
        the only replicas in sync), NoReassignmentInProgressError (there is nothing to cancel) or
        UnknownTopicError.
        """
        _check_expected(targets, expected)
        results: dict[TopicPartition, QuorateError | None] = {}
        for part in _parts(targets):
            request = wire.ReassignPartitionsRequest(
                keep_replication_factor=keep_replication_factor,
                timeout_ms=self._timeout_ms,
                throttle=throttle,
            )
            by_topic: dict[str, wire.ReassignedTopic] = {}
            for topic, number in part:
                if topic not in by_topic:
                    by_topic[topic] = request.topics.add(topic=topic)
                key = TopicPartition(topic, number)
                target = targets[key]
                by_topic[topic].partitions.add(
                    partition=number,
                    replicas=target or (),
                    cancel=target is None,
                    expected=(expected or {}).get(key) or (),
                )
            response = await self._ask(methods.REASSIGN_PARTITIONS, request)
            raise_if_error(response.error)
            for one in response.topics:
                for result in one.partitions:
                    error = from_wire(result.error) if result.error.code else None
                    results[TopicPartition(one.topic, result.partition)] = error
        return results

    @checked
    async def list_reassignments(
        self, partitions: Annotated[Iterable[TopicPartition] | None, Partitions()] = None
    ) -> dict[TopicPartition, Reassignment]:
        """Return the reassignments under way, of the named partitions, or of all.

        Of all, at most 10,000 are returned.
        """
        if partitions is None:
            return await self._list_reassignments(wire.ListReassignmentsRequest())
        found: dict[TopicPartition, Reassignment] = {}
        for part in _parts(partitions):
            by_topic: dict[str, list[int]] = {}
            for topic, number in part:
                by_topic.setdefault(topic, []).append(number)
            request = wire.ListReassignmentsRequest()
            for topic, numbers in by_topic.items():
                request.topics.add(topic=topic, partitions=numbers)
            found |= await self._list_reassignments(request)
        return found

    async def _list_reassignments(
        self, request: wire.ListReassignmentsRequest
    ) -> dict[TopicPartition, Reassignment]:
        response = await self._ask(methods.LIST_REASSIGNMENTS, request)
        raise_if_error(response.error)
        return {
            TopicPartition(one.topic, found.partition): Reassignment(
                tuple(found.replicas),
                tuple(found.adding),
                tuple(found.removing),
                tuple(found.isr),
                found.leader,
                found.throttle,
            )
            for one in response.topics
            for found in one.partitions
        }


def _check_expected(
    targets: Mapping[TopicPartition, Sequence[int] | None],
    expected: Mapping[TopicPartition, Sequence[int]] | None,
) -> None:
    """Raise ValueError for a plan of which a part would not be compared with what is there."""
    if expected is None:
        return
    lacks = [key for key, target in targets.items() if target is not None and not expected.get(key)]
    extra = [key for key in expected if key not in targets]
    for keys, fault in ((lacks, "has no replicas of"), (extra, "names, and targets does not,")):
        if keys:
            raise ValueError(
                "reassign_partitions: expected must have the replicas of each partition with a"
                f" target, and name no other; it {fault} {_names(keys)}"
            )


def _names(keys: Sequence[TopicPartition]) -> str:
    names = ", ".join(f"{topic}/{number}" for topic, number in keys[:SHOWN_MAX])
    return f"{names} and {len(keys) - SHOWN_MAX} more" if len(keys) > SHOWN_MAX else names


def _parts(partitions: Iterable[TopicPartition]) -> Iterator[list[TopicPartition]]:
    """Yield the partitions in parts of which each fits into a request."""
    left = iter(partitions)
    while part := list(islice(left, NAMED_MAX)):
        yield part
