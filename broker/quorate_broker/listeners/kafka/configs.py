"""DescribeConfigs, AlterConfigs, IncrementalAlterConfigs and ListConfigResources.

Topics have configs that may be altered, and brokers have the throttles of replication. Other
configs of brokers, and those of groups, can only be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from quorate.errors import (
    GroupAuthorizationFailedError,
    InvalidConfigError,
    InvalidRequestError,
    InvalidTopicError,
    QuorateError,
    raise_if_error,
)
from quorate.net import methods
from quorate.net.principal import Principal
from quorate.v1 import admin_pb2 as admin
from quorate_broker.listeners.kafka import broker_configs, config_entries, versions
from quorate_broker.listeners.kafka.broker_configs import APPEND, DELETE, SET, SUBTRACT
from quorate_broker.listeners.kafka.call import Call, Handler
from quorate_broker.listeners.kafka.codec import EncodedBody
from quorate_broker.listeners.kafka.config_entries import Entry
from quorate_broker.listeners.kafka.errors import NONE, UNSUPPORTED_VERSION, code_of
from quorate_broker.listeners.kafka.in_parts import encoded_in_parts
from quorate_broker.listeners.kafka.messages import alter_configs as ac
from quorate_broker.listeners.kafka.messages import describe_configs as dc
from quorate_broker.listeners.kafka.messages import incremental_alter_configs as iac
from quorate_broker.listeners.kafka.messages import list_config_resources as lc
from quorate_broker.operations.metadata import check_count
from quorate_broker.operations.operations import Operations
from quorate_broker.operations.partitions import check_repeated
from quorate_quorum.configs import CONFIGS, ClusterConfig, effective
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.node.authorizer import Operation
from quorate_quorum.node.config import BrokerConfig

#: Kafka's numbers of resource types.
TOPIC: Final = 2
BROKER: Final = 4
BROKER_LOGGER: Final = 8
CLIENT_METRICS: Final = 16
GROUP: Final = 32
#: What Kafka lists if a request names no types. There are no resources of the last three.
LISTED: Final = (TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP)
#: The most configs that one request may alter.
CONFIGS_MAX: Final = 10_000
#: The resources that are described, and listed, in one turn of the loop.
RESOURCES_A_TURN: Final = 20
LISTED_A_TURN: Final = 1_000

Resource = TypeVar("Resource", ac.AlterConfigsResource, iac.AlterConfigsResource)


class ConfigRequests:
    """Tells configs from this broker's image, and passes changes on to the controller."""

    def __init__(self, operations: Operations, config: BrokerConfig) -> None:
        self._metadata = operations.metadata
        self._admin = operations.admin
        self._rights = operations.rights
        self._config = config

    def handlers(self) -> Mapping[int, Handler]:
        return {
            versions.DESCRIBE_CONFIGS: self.describe_configs,
            versions.ALTER_CONFIGS: self.alter_configs,
            versions.INCREMENTAL_ALTER_CONFIGS: self.incremental_alter_configs,
            versions.LIST_CONFIG_RESOURCES: self.list_config_resources,
        }

    async def describe_configs(self, call: Call[dc.DescribeConfigsRequest]) -> EncodedBody:
        resources = call.request.resources
        check_count(len(resources))
        check_repeated("resources", [(one.resource_type, one.resource_name) for one in resources])
        image = await self._metadata.image(0)
        return await encoded_in_parts(
            versions.DESCRIBE_CONFIGS,
            call.version,
            lambda results: dc.DescribeConfigsResponse(results=results),
            self._described(call, image),
        )

    async def _described(
        self, call: Call[dc.DescribeConfigsRequest], image: MetadataImage
    ) -> AsyncIterator[list[dc.DescribeConfigsResult]]:
        resources = call.request.resources
        for first in range(0, len(resources), RESOURCES_A_TURN):
            portion = resources[first : first + RESOURCES_A_TURN]
            yield [self._result(call, image, one) for one in portion]

    def _result(
        self,
        call: Call[dc.DescribeConfigsRequest],
        image: MetadataImage,
        resource: dc.DescribeConfigsResource,
    ) -> dc.DescribeConfigsResult:
        kind, name = resource.resource_type, resource.resource_name
        try:
            entries = self._entries(call, image, resource)
        except QuorateError as error:
            return dc.DescribeConfigsResult(code_of(error), str(error), kind, name)
        told = _told(entries, call.request, resource)
        return dc.DescribeConfigsResult(NONE, None, kind, name, told)

    def _entries(
        self,
        call: Call[dc.DescribeConfigsRequest],
        image: MetadataImage,
        resource: dc.DescribeConfigsResource,
    ) -> list[Entry]:
        name, principal = resource.resource_name, call.client.principal
        if resource.resource_type == TOPIC:
            _check_topic(name)
            found = self._metadata.configs(image, principal, name)
            return config_entries.of_topic(found, image.configs)
        if resource.resource_type == GROUP:
            self._check_group(name, principal)
            return config_entries.of_group(self._config)
        if resource.resource_type != BROKER:
            raise InvalidRequestError(
                f"no configs of resource type {resource.resource_type} can be told: only those of"
                f" topics ({TOPIC}), brokers ({BROKER}) and groups ({GROUP})"
            )
        found = self._metadata.configs(image, principal, "")
        if not name:
            return config_entries.of_all_brokers(found)
        if name != str(self._config.node_id):
            raise InvalidRequestError(
                f"broker {self._config.node_id} tells its own configs only, not those of"
                f" {name[:100]!r}"
            )
        factor = ClusterConfig.of(image.configs).replication_factor(len(image.brokers))
        own = image.brokers.get(self._config.node_id)
        altered = () if own is None else own.configs
        return config_entries.of_broker(self._config, found, factor, altered)

    def _check_group(self, group_id: str, principal: Principal) -> None:
        if not group_id:
            raise InvalidRequestError("a group needs a name")
        if Operation.DESCRIBE_CONFIGS not in self._rights.on_group(principal, group_id):
            raise GroupAuthorizationFailedError(
                f"{principal} may not describe the configs of group {group_id[:249]!r}"
            )

    async def alter_configs(self, call: Call[ac.AlterConfigsRequest]) -> ac.AlterConfigsResponse:
        """Replace all configs of topics: those that are not named are removed."""
        request = call.request
        results = await self._alter(call, request.resources, _replacement)
        return ac.AlterConfigsResponse(
            responses=[
                ac.AlterConfigsResourceResponse(*_failure(error), kind, name)
                for (kind, name), error in results.items()
            ]
        )

    async def incremental_alter_configs(
        self, call: Call[iac.IncrementalAlterConfigsRequest]
    ) -> iac.IncrementalAlterConfigsResponse:
        """Change some configs of topics and brokers. The others stay."""
        results = await self._alter(call, call.request.resources, _changes)
        return iac.IncrementalAlterConfigsResponse(
            responses=[
                iac.AlterConfigsResourceResponse(*_failure(error), kind, name)
                for (kind, name), error in results.items()
            ]
        )

    async def list_config_resources(
        self, call: Call[lc.ListConfigResourcesRequest]
    ) -> lc.ListConfigResourcesResponse | EncodedBody:
        """List what has configs. Version 0 asks for the resources of client metrics alone."""
        asked = frozenset(call.request.resource_types or LISTED)
        if call.version == 0:
            asked = frozenset((CLIENT_METRICS,))
        if not asked <= frozenset(LISTED):
            return lc.ListConfigResourcesResponse(error_code=UNSUPPORTED_VERSION)
        image = await self._metadata.image(0)
        return await encoded_in_parts(
            versions.LIST_CONFIG_RESOURCES,
            call.version,
            lambda found: lc.ListConfigResourcesResponse(config_resources=found),
            self._listed(call, image, asked),
        )

    async def _listed(
        self,
        call: Call[lc.ListConfigResourcesRequest],
        image: MetadataImage,
        asked: frozenset[int],
    ) -> AsyncIterator[list[lc.ConfigResource]]:
        if TOPIC in asked:
            topics = self._metadata.all_topics(image, call.client.principal)
            while portion := list(islice(topics, LISTED_A_TURN)):
                yield [lc.ConfigResource(topic.name, TOPIC) for topic in portion]
        if BROKER in asked:
            yield [lc.ConfigResource(str(one.id), BROKER) for one in image.sorted_brokers()]

    async def _alter(
        self,
        call: Call[Any],
        resources: Sequence[Resource],
        changes: Callable[[Resource, TopicImage, MetadataImage], admin.AlterConfigsRequest],
    ) -> dict[tuple[int, str], QuorateError | None]:
        """Alter each resource by what `changes` makes of it. Return the errors by resource."""
        check_count(len(resources))
        count = sum(len(resource.configs) for resource in resources)
        if count > CONFIGS_MAX:
            raise InvalidRequestError(f"{count} configs are altered; {CONFIGS_MAX} are allowed")
        image = await self._metadata.image(0)
        counts = Counter((one.resource_type, one.resource_name) for one in resources)
        results: dict[tuple[int, str], QuorateError | None] = {}
        asked: dict[tuple[int, str], admin.AlterConfigsRequest] = {}
        for resource in resources:
            key = resource.resource_type, resource.resource_name
            try:
                if counts[key] > 1:
                    raise InvalidRequestError(f"the request names {key[1][:249]!r} twice")
                if resource.resource_type == BROKER and isinstance(
                    resource, iac.AlterConfigsResource
                ):
                    part = broker_configs.changes(resource)
                else:
                    part = changes(resource, _topic_of(resource, image), image)
                part.validate_only = call.request.validate_only
                asked[key] = part
            except QuorateError as error:
                results[key] = error
        answers = await self._admin.forward_each(
            methods.ALTER_CONFIGS, list(asked.values()), call.client.principal, timeout_ms=0
        )
        for key, answer in zip(asked, answers, strict=True):
            results[key] = _error_in(answer)
        return results


def _told(
    entries: Sequence[Entry],
    request: dc.DescribeConfigsRequest,
    resource: dc.DescribeConfigsResource,
) -> list[dc.DescribeConfigsResourceResult]:
    """Return the entries that are asked for. No names, or none at all, ask for all."""
    wanted = frozenset(resource.configuration_keys or ())
    return [
        dc.DescribeConfigsResourceResult(
            one.name,
            one.value,
            not _is_alterable(resource, one),
            one.source,
            synonyms=[dc.DescribeConfigsSynonym(*synonym) for synonym in one.synonyms]
            if request.include_synonyms
            else [],
            config_type=one.kind,
            documentation=one.doc or None if request.include_documentation else None,
        )
        for one in entries
        if not wanted or one.name in wanted
    ]


def _is_alterable(resource: dc.DescribeConfigsResource, entry: Entry) -> bool:
    if resource.resource_type == BROKER:
        return broker_configs.is_alterable(entry.name)
    return resource.resource_type == TOPIC


def _check_topic(name: str) -> None:
    if not name:
        raise InvalidTopicError("a topic needs a name")


def _topic_of(
    resource: ac.AlterConfigsResource | iac.AlterConfigsResource, image: MetadataImage
) -> TopicImage:
    """Return the topic that a request alters; one without configs if no topic has the name.

    The controller refuses the latter, after it has checked the caller's right. So a caller without
    the right does not learn which topics exist.
    """
    kind, name = resource.resource_type, resource.resource_name
    if kind == BROKER:
        raise InvalidRequestError(
            "AlterConfigs cannot replace the configs of brokers: IncrementalAlterConfigs alters"
            " their throttles, `quorate cluster config` the configs of the cluster, and the others"
            " are in a broker's file"
        )
    if kind != TOPIC:
        raise InvalidRequestError(f"no configs of resource type {kind} can be altered")
    _check_topic(name)
    return image.topic_named(name) or TopicImage(b"", name)


def _replacement(
    resource: ac.AlterConfigsResource, topic: TopicImage, image: MetadataImage
) -> admin.AlterConfigsRequest:
    """Return the change after which a topic has these configs alone.

    A config that can't change once a topic is created stays, unless it is named: Kafka's tools do
    not know it.
    """
    del image
    config_entries.refuse_repeated((one.name for one in resource.configs), "config")
    wanted = {
        one.name: config_entries.value_of(one.name, one.value)
        for one in resource.configs
        if config_entries.is_ours(one.name, one.value)
    }
    gone = [name for name in topic.configs if name not in wanted and not CONFIGS[name].fixed]
    return admin.AlterConfigsRequest(topic=topic.name, set=wanted, remove=gone)


def _changes(
    resource: iac.AlterConfigsResource, topic: TopicImage, image: MetadataImage
) -> admin.AlterConfigsRequest:
    """Return the changes that are asked for. An item is added to the list that is in force."""
    config_entries.refuse_repeated((one.name for one in resource.configs), "config")
    change = admin.AlterConfigsRequest(topic=topic.name)
    for one in resource.configs:
        if one.config_operation == DELETE:
            if config_entries.is_ours(one.name, None):
                change.remove.append(one.name)
            continue
        value = config_entries.value_of(one.name, one.value)
        if one.config_operation in (APPEND, SUBTRACT):
            value = _list_after(one, value, topic, image)
        elif one.config_operation != SET:
            raise InvalidRequestError(
                f"{one.name[:100]}: there is no operation {one.config_operation}"
            )
        if config_entries.is_ours(one.name, value):
            change.set[one.name] = value
    return change


def _list_after(
    one: iac.AlterableConfig, value: str, topic: TopicImage, image: MetadataImage
) -> str:
    if not config_entries.is_list(one.name):
        raise InvalidConfigError(f"{one.name[:100]} is no list: nothing can be added or taken away")
    known = one.name in CONFIGS
    now = effective(one.name, topic.configs, image.configs)[0] if known else ""
    after = config_entries.appended if one.config_operation == APPEND else config_entries.subtracted
    return after(now, value)


def _error_in(answer: admin.AlterConfigsResponse | QuorateError) -> QuorateError | None:
    try:
        if isinstance(answer, QuorateError):
            raise answer
        raise_if_error(answer.error)
    except QuorateError as error:
        return error
    return None


def _failure(error: QuorateError | None) -> tuple[int, str | None]:
    return (NONE, None) if error is None else (code_of(error), str(error))
