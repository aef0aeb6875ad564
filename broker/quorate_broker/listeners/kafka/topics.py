"""CreateTopics, DeleteTopics, CreatePartitions and DeleteRecords."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from quorate.errors import (
    InvalidRequestError,
    QuorateError,
    UnknownTopicError,
    from_wire,
    raise_if_error,
    to_wire,
)
from quorate.net.methods import CREATE_PARTITIONS, CREATE_TOPICS, DELETE_TOPICS
from quorate.net.principal import Principal
from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode
from quorate_broker.listeners.kafka import config_entries, versions
from quorate_broker.listeners.kafka.call import Call, Handler
from quorate_broker.listeners.kafka.errors import (
    BY_ID,
    INVALID_REQUEST,
    NONE,
    OF_ASSIGNMENT,
    code_of,
)
from quorate_broker.listeners.kafka.messages import create_partitions as cp
from quorate_broker.listeners.kafka.messages import create_topics as ct
from quorate_broker.listeners.kafka.messages import delete_records as dr
from quorate_broker.listeners.kafka.messages import delete_topics as dt
from quorate_broker.operations.delete_records import DeletionAsked
from quorate_broker.operations.metadata import check_count
from quorate_broker.operations.operations import Operations
from quorate_broker.replicas.replicas import Replicas

#: The most replicas that one request may place by hand, and the most configs that it may give.
REPLICAS_PLACED_MAX: Final = 100_000
CONFIGS_MAX: Final = 10_000
#: The topics whose configs are told in one turn of the loop.
TOPICS_A_TURN: Final = 20
#: The version from which an answer tells the configs of a new topic.
CONFIGS_TOLD_FROM: Final = 5
#: The version from which a request names topics by name or by id.
IDS_FROM: Final = 6
BY_DEFAULT: Final = -1
NO_ID: Final = bytes(16)
NO_OFFSET: Final = -1


class TopicRequests:
    """Creates, enlarges and empties topics. The controller decides; this broker passes on.

    A topic that a request names twice is refused. Each other topic has its own result.
    """

    def __init__(self, operations: Operations, replicas: Replicas) -> None:
        self._admin = operations.admin
        self._metadata = operations.metadata
        self._delete_records = operations.delete_records
        self._replicas = replicas

    def handlers(self) -> Mapping[int, Handler]:
        return {
            versions.CREATE_TOPICS: self.create_topics,
            versions.DELETE_TOPICS: self.delete_topics,
            versions.CREATE_PARTITIONS: self.create_partitions,
            versions.DELETE_RECORDS: self.delete_records,
        }

    async def create_topics(self, call: Call[ct.CreateTopicsRequest]) -> ct.CreateTopicsResponse:
        request, principal = call.request, call.client.principal
        _check_creation(request)
        counts = Counter(topic.name for topic in request.topics)
        results: dict[str, ct.CreatableTopicResult] = {}
        asked: dict[str, admin.NewTopic] = {}
        for topic in request.topics:
            try:
                _refuse_repeated(topic.name, counts)
                asked[topic.name] = _new_topic(topic)
            except QuorateError as error:
                results[topic.name] = _not_created(topic.name, error)
        for one in await self._create(asked, call):
            new = asked[one.name]
            if one.error.code != ErrorCode.ERROR_CODE_NONE:
                results[one.name] = _not_created(
                    one.name, from_wire(one.error), is_placed=bool(new.assignments)
                )
            else:
                results[one.name] = _created(one, is_real=not request.validate_only)
        if call.version >= CONFIGS_TOLD_FROM:
            await self._tell_configs(results, asked, principal)
        return ct.CreateTopicsResponse(topics=list(results.values()))

    async def _create(
        self, asked: Mapping[str, admin.NewTopic], call: Call[ct.CreateTopicsRequest]
    ) -> Sequence[admin.CreatedTopic]:
        if not asked:
            return ()
        request = admin.CreateTopicsRequest(
            topics=asked.values(), validate_only=call.request.validate_only
        )
        try:
            response = await self._admin.forward(
                CREATE_TOPICS,
                request,
                call.client.principal,
                timeout_ms=max(0, call.request.timeout_ms),
                caller_timeout_ms=0,
            )
        except QuorateError as error:
            return [admin.CreatedTopic(name=name, error=to_wire(error)) for name in asked]
        return response.topics

    async def _tell_configs(
        self,
        results: dict[str, ct.CreatableTopicResult],
        asked: Mapping[str, admin.NewTopic],
        principal: Principal,
    ) -> None:
        """Put the configs of the new topics into their results."""
        created = [name for name, result in results.items() if result.error_code == NONE]
        image = self._replicas.image
        for number, name in enumerate(created, 1):
            result = results[name]
            try:
                found = self._metadata.new_topic_configs(
                    image, principal, name, asked[name].configs
                )
            except QuorateError as error:
                results[name] = replace(
                    result, configs=None, topic_config_error_code=code_of(error)
                )
                continue
            told = [
                ct.CreatableTopicConfigs(one.name, one.value, config_source=one.source)
                for one in config_entries.of_topic(found, image.configs)
            ]
            results[name] = replace(result, configs=told)
            if number % TOPICS_A_TURN == 0:
                await asyncio.sleep(0)

    async def delete_topics(self, call: Call[dt.DeleteTopicsRequest]) -> dt.DeleteTopicsResponse:
        request = call.request
        named = [dt.DeleteTopicState(name) for name in request.topic_names]
        topics = request.topics if call.version >= IDS_FROM else named
        check_count(len(topics))
        counts = Counter(topics)
        results: list[dt.DeletableTopicResult] = []
        names: list[str] = []
        ids: list[bytes] = []
        for topic in counts:
            try:
                _check_named(topic, counts)
            except QuorateError as error:
                results.append(_deleted(topic, error))
                continue
            if topic.name is None:
                ids.append(topic.topic_id)
            else:
                names.append(topic.name)
        if names or ids:
            results += await self._delete(names, ids, call)
        return dt.DeleteTopicsResponse(responses=results)

    async def _delete(
        self, names: Sequence[str], ids: Sequence[bytes], call: Call[dt.DeleteTopicsRequest]
    ) -> list[dt.DeletableTopicResult]:
        try:
            response = await self._admin.forward(
                DELETE_TOPICS,
                admin.DeleteTopicsRequest(topics=names, topic_ids=ids),
                call.client.principal,
                timeout_ms=max(0, call.request.timeout_ms),
                caller_timeout_ms=0,
            )
        except QuorateError as error:
            asked = [*map(dt.DeleteTopicState, names), *(dt.DeleteTopicState(None, i) for i in ids)]
            return [_deleted(one, error) for one in asked]
        return [
            _deleted(
                dt.DeleteTopicState(one.name or None, one.topic_id or NO_ID),
                from_wire(one.error) if one.error.code != ErrorCode.ERROR_CODE_NONE else None,
            )
            for one in response.topics
        ]

    async def create_partitions(
        self, call: Call[cp.CreatePartitionsRequest]
    ) -> cp.CreatePartitionsResponse:
        request = call.request
        check_count(len(request.topics))
        placed = sum(
            1 + len(one.broker_ids) for topic in request.topics for one in topic.assignments or ()
        )
        _check_size(placed, REPLICAS_PLACED_MAX, "replicas by hand")
        counts = Counter(topic.name for topic in request.topics)
        topics = [topic for topic in request.topics if counts[topic.name] == 1]
        parts = [
            admin.CreatePartitionsRequest(
                topic=topic.name,
                count=topic.count,
                assignments=[
                    admin.ReplicaAssignment(replicas=one.broker_ids)
                    for one in topic.assignments or ()
                ],
                validate_only=request.validate_only,
            )
            for topic in topics
        ]
        answers = await self._admin.forward_each(
            CREATE_PARTITIONS,
            parts,
            call.client.principal,
            timeout_ms=max(0, request.timeout_ms),
        )
        results = [_enlarged(topic, answer) for topic, answer in zip(topics, answers, strict=True)]
        for name, count in counts.items():
            if count > 1:
                message = f"the request names topic {name[:249]!r} twice"
                results.append(cp.CreatePartitionsTopicResult(name, INVALID_REQUEST, message))
        return cp.CreatePartitionsResponse(results=results)

    async def delete_records(self, call: Call[dr.DeleteRecordsRequest]) -> dr.DeleteRecordsResponse:
        request = call.request
        self._delete_records.check_count(sum(len(topic.partitions) for topic in request.topics))
        topic_ids = self._replicas.image.topic_ids
        asked = {
            (topic.name, one.partition_index): DeletionAsked(
                topic_id, one.partition_index, one.offset, -1
            )
            for topic in request.topics
            if (topic_id := topic_ids.get(topic.name)) is not None
            for one in topic.partitions
        }
        try:
            found = await self._delete_records.delete(
                call.client.principal,
                list(asked.values()),
                timeout_ms=max(0, request.timeout_ms),
                caller_timeout_ms=0,
            )
        except QuorateError as error:
            found = [error] * len(asked)
        starts = dict(zip(asked, found, strict=True))
        return dr.DeleteRecordsResponse(
            topics=[
                dr.DeleteRecordsTopicResult(
                    topic.name,
                    [
                        _emptied(
                            one.partition_index,
                            starts.get((topic.name, one.partition_index), _UNKNOWN),
                        )
                        for one in topic.partitions
                    ],
                )
                for topic in request.topics
            ]
        )


_UNKNOWN: Final = UnknownTopicError("no topic has that name")


def _check_size(found: int, allowed: int, what: str) -> None:
    if found > allowed:
        raise InvalidRequestError(f"a request has {found} {what}; {allowed} are allowed")


def _refuse_repeated(name: str, counts: Mapping[str, int]) -> None:
    if counts[name] > 1:
        raise InvalidRequestError(f"the request names topic {name[:249]!r} twice")


def _check_creation(request: ct.CreateTopicsRequest) -> None:
    """Raise InvalidRequestError for a request whose translation would take long."""
    check_count(len(request.topics))
    placed = sum(1 + len(one.broker_ids) for topic in request.topics for one in topic.assignments)
    _check_size(placed, REPLICAS_PLACED_MAX, "replicas placed by hand")
    _check_size(sum(len(topic.configs) for topic in request.topics), CONFIGS_MAX, "configs")


def _new_topic(topic: ct.CreatableTopic) -> admin.NewTopic:
    """Return what the controller is asked for."""
    by_default = (topic.num_partitions, topic.replication_factor) == (BY_DEFAULT, BY_DEFAULT)
    if topic.assignments and not by_default:
        raise InvalidRequestError(
            f"topic {topic.name[:249]!r}: num_partitions and replication_factor must be -1 if the"
            " request places the replicas"
        )
    configs = {
        one.name: config_entries.value_of(one.name, one.value)
        for one in topic.configs
        if config_entries.is_ours(one.name, one.value)
    }
    return admin.NewTopic(
        name=topic.name,
        num_partitions=topic.num_partitions,
        replication_factor=topic.replication_factor,
        configs=configs,
        assignments=[
            admin.ReplicaAssignment(replicas=broker_ids) for broker_ids in _assignments(topic)
        ],
    )


def _assignments(topic: ct.CreatableTopic) -> list[Sequence[int]]:
    """Return the brokers of each partition, if the request names them."""
    brokers = {one.partition_index: one.broker_ids for one in topic.assignments}
    if len(brokers) != len(topic.assignments) or any(
        index not in brokers for index in range(len(brokers))
    ):
        raise InvalidRequestError(
            f"topic {topic.name[:249]!r}: each of the partitions 0 to {len(topic.assignments) - 1}"
            " must be placed once"
        )
    return [brokers[index] for index in range(len(brokers))]


def _not_created(
    name: str, error: QuorateError, *, is_placed: bool = False
) -> ct.CreatableTopicResult:
    code = code_of(error, OF_ASSIGNMENT) if is_placed else code_of(error)
    return ct.CreatableTopicResult(name, error_code=code, error_message=str(error))


def _created(one: admin.CreatedTopic, *, is_real: bool) -> ct.CreatableTopicResult:
    return ct.CreatableTopicResult(
        one.name,
        one.topic_id if is_real else NO_ID,
        NONE,
        None,
        num_partitions=one.num_partitions,
        replication_factor=one.replication_factor,
    )


def _check_named(topic: dt.DeleteTopicState, counts: Mapping[dt.DeleteTopicState, int]) -> None:
    if (topic.name is None) == (topic.topic_id == NO_ID):
        raise InvalidRequestError("a topic to delete is named by its name or by its id")
    if counts[topic] > 1:
        raise InvalidRequestError("the request names the topic twice")


def _deleted(topic: dt.DeleteTopicState, error: QuorateError | None) -> dt.DeletableTopicResult:
    if error is None:
        return dt.DeletableTopicResult(topic.name, topic.topic_id, NONE)
    code = code_of(error, BY_ID) if topic.name is None else code_of(error)
    return dt.DeletableTopicResult(topic.name, topic.topic_id, code, str(error))


def _enlarged(
    topic: cp.CreatePartitionsTopic, answer: admin.CreatePartitionsResponse | QuorateError
) -> cp.CreatePartitionsTopicResult:
    try:
        if isinstance(answer, QuorateError):
            raise answer
        raise_if_error(answer.error)
    except QuorateError as error:
        code = code_of(error, OF_ASSIGNMENT) if topic.assignments else code_of(error)
        return cp.CreatePartitionsTopicResult(topic.name, code, str(error))
    return cp.CreatePartitionsTopicResult(topic.name, NONE)


def _emptied(partition: int, found: int | QuorateError) -> dr.DeleteRecordsPartitionResult:
    if isinstance(found, QuorateError):
        return dr.DeleteRecordsPartitionResult(partition, NO_OFFSET, code_of(found))
    return dr.DeleteRecordsPartitionResult(partition, found, NONE)
