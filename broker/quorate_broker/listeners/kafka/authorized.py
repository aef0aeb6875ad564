"""What a client may do, as answers tell it (KIP-430): a bit for each operation."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Final, TypeVar

from msgspec.structs import replace

from quorate.net.principal import Principal
from quorate_broker.listeners.kafka.errors import NONE
from quorate_broker.listeners.kafka.messages import consumer_group_describe, describe_groups
from quorate_broker.operations.rights import Rights
from quorate_quorum.node.authorizer import Operation

Group = TypeVar("Group", describe_groups.DescribedGroup, consumer_group_describe.DescribedGroup)

#: Stands for the operations if they are not asked for.
NOT_ASKED: Final = -(1 << 31)
#: The number of each operation's bit: its code in Kafka's AclOperation.
BIT: Final = {
    Operation.READ: 3,
    Operation.WRITE: 4,
    Operation.CREATE: 5,
    Operation.DELETE: 6,
    Operation.ALTER: 7,
    Operation.DESCRIBE: 8,
    Operation.CLUSTER_ACTION: 9,
    Operation.DESCRIBE_CONFIGS: 10,
    Operation.ALTER_CONFIGS: 11,
    Operation.IDEMPOTENT_WRITE: 12,
}


def told(operations: Set[Operation]) -> int:
    """Return operations as an answer has them.

    >>> told({Operation.READ, Operation.WRITE})
    24
    """
    return sum(1 << BIT[one] for one in operations)


def told_of_cluster(operations: Set[Operation]) -> int:
    """Return operations on the cluster: none if describing it is not among them, as in Kafka."""
    return told(operations) if Operation.DESCRIBE in operations else 0


def with_operations(groups: Iterable[Group], rights: Rights, principal: Principal) -> list[Group]:
    """Return descriptions of groups, with what the principal may do with each that is there."""
    return [
        one
        if one.error_code != NONE
        else replace(one, authorized_operations=told(rights.on_group(principal, one.group_id)))
        for one in groups
    ]
