"""Rights: what a principal may do with a topic, a group or the cluster, to be told to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from quorate.net.principal import Principal
from quorate_quorum.node.authorizer import Authorizer, Caller, Operation, Required, ResourceType

#: What there is to do with each type of resource, as in Kafka's AclEntry.
OPERATIONS: Final[Mapping[ResourceType, tuple[Operation, ...]]] = {
    ResourceType.TOPIC: (
        Operation.READ,
        Operation.WRITE,
        Operation.CREATE,
        Operation.DESCRIBE,
        Operation.DELETE,
        Operation.ALTER,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
    ),
    ResourceType.GROUP: (
        Operation.READ,
        Operation.DESCRIBE,
        Operation.DELETE,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
    ),
    ResourceType.CLUSTER: (
        Operation.CREATE,
        Operation.CLUSTER_ACTION,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
        Operation.ALTER,
        Operation.IDEMPOTENT_WRITE,
        Operation.DESCRIBE,
    ),
}


class Rights:
    """The rights of principals, as the authorizer has them now. A right may be withdrawn later."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def on_topic(self, principal: Principal, name: str) -> frozenset[Operation]:
        return self._on(principal, ResourceType.TOPIC, name)

    def on_group(self, principal: Principal, group_id: str) -> frozenset[Operation]:
        return self._on(principal, ResourceType.GROUP, group_id)

    def on_cluster(self, principal: Principal) -> frozenset[Operation]:
        return self._on(principal, ResourceType.CLUSTER, None)

    def _on(
        self, principal: Principal, resource_type: ResourceType, name: str | None
    ) -> frozenset[Operation]:
        caller = Caller(principal, self._authorizer)
        return frozenset(
            one
            for one in OPERATIONS[resource_type]
            if caller.may(Required(one, resource_type), name)
        )
