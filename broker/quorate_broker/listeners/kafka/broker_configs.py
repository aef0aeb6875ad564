"""The configs of brokers that Kafka's clients may alter: the throttles of replication (KIP-73)."""

from __future__ import annotations

from typing import Final

from quorate.errors import InvalidConfigError, InvalidRequestError
from quorate.v1 import admin_pb2 as admin
from quorate_broker.listeners.kafka import config_entries
from quorate_broker.listeners.kafka.messages import incremental_alter_configs as iac
from quorate_quorum.configs import CONFIGS

#: Kafka's numbers of the operations of IncrementalAlterConfigs.
SET, DELETE, APPEND, SUBTRACT = range(4)
#: Kafka's throttle of moves between the log directories of a broker, which Quorate does not have.
#: kafka-reassign-partitions --verify removes it from all brokers whenever a move has ended.
OF_DIRECTORIES: Final = "replica.alter.log.dirs.io.max.bytes.per.second"
BROKER_ID_MAX: Final = (1 << 31) - 1


def is_alterable(name: str) -> bool:
    """Return whether a broker's config can be altered while the broker runs."""
    spec = CONFIGS.get(name)
    return spec is not None and spec.scope == "broker"


def changes(resource: iac.AlterConfigsResource) -> admin.AlterConfigsRequest:
    """Return the changes that are asked for, of one broker, or of all if none is named.

    Raises InvalidRequestError for a config that can't be altered, and InvalidConfigError for an
    operation on lists.
    """
    config_entries.refuse_repeated((one.name for one in resource.configs), "config")
    change = admin.AlterConfigsRequest()
    if resource.resource_name:
        change.broker_id = _broker_id(resource.resource_name)
    for one in resource.configs:
        if one.name == OF_DIRECTORIES and one.config_operation == DELETE:
            continue
        if not is_alterable(one.name):
            raise InvalidRequestError(
                f"{one.name[:100]} of a broker cannot be altered by Kafka's protocol: `quorate"
                " cluster config` alters the configs of the cluster, and a broker's own are in its"
                " file"
            )
        if one.config_operation == DELETE:
            change.remove.append(one.name)
        elif one.config_operation == SET:
            change.set[one.name] = config_entries.value_of(one.name, one.value)
        else:
            raise InvalidConfigError(f"{one.name} is no list: it can be set and deleted")
    return change


def _broker_id(name: str) -> int:
    is_id = name.isdecimal() and name.isascii() and len(name) <= 10 and int(name) <= BROKER_ID_MAX
    if not is_id:
        raise InvalidRequestError(f"the name of a broker is its id, not {name[:100]!r}")
    return int(name)
