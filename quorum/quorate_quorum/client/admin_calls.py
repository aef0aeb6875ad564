"""The admin calls that a broker passes on to the controller, and what each requires.

The one table of them: the broker serves each of its methods by passing it on, and the controller
judges each for the principal that asked the broker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from quorate.net.methods import (
    ADD_VOTER,
    ALTER_CONFIGS,
    CREATE_TOPICS,
    DELETE_TOPICS,
    DESCRIBE_FEATURES,
    DESCRIBE_HEALTH,
    DESCRIBE_QUORUM,
    REMOVE_VOTER,
    TRANSFER_LEADERSHIP,
    UNREGISTER_BROKER,
    UPDATE_FEATURE,
)
from quorate.net.network import Method
from quorate_quorum.node.authorizer import (
    ALTER_CLUSTER,
    DESCRIBE_CLUSTER,
    Operation,
    Required,
    ResourceType,
)

FORWARDED: Final[Mapping[Method[Any, Any], Required]] = {
    CREATE_TOPICS: Required(Operation.CREATE, ResourceType.TOPIC),
    DELETE_TOPICS: Required(Operation.DELETE, ResourceType.TOPIC),
    ALTER_CONFIGS: Required(Operation.ALTER_CONFIGS, ResourceType.TOPIC),
    DESCRIBE_QUORUM: DESCRIBE_CLUSTER,
    DESCRIBE_HEALTH: DESCRIBE_CLUSTER,
    DESCRIBE_FEATURES: DESCRIBE_CLUSTER,
    UPDATE_FEATURE: ALTER_CLUSTER,
    UNREGISTER_BROKER: ALTER_CLUSTER,
    TRANSFER_LEADERSHIP: ALTER_CLUSTER,
    ADD_VOTER: ALTER_CLUSTER,
    REMOVE_VOTER: ALTER_CLUSTER,
}
