"""The names and types of the settings of the clients, for type checkers.

Their defaults, bounds and meaning stand in the constructors of the asynchronous clients. A test
compares both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypedDict

from quorate.consumer.group.assignor import Assignor
from quorate.model import KeyIn, KeyOut, ValueIn, ValueOut
from quorate.producer.partitioner import Partitioner
from quorate.serializers import DeserializerOf, SerializerOf


class AdminSettings(TypedDict, total=False):
    """Those of Admin."""

    bootstrap_servers: str | Sequence[str]
    client_id: str
    request_timeout_ms: int
    security: object | None


class SchemaRegistrySettings(TypedDict, total=False):
    """Those of SchemaRegistry."""

    bootstrap_servers: str | Sequence[str]
    client_id: str
    topic: str
    request_timeout_ms: int
    security: object | None


class ProducerSettings(TypedDict, Generic[KeyIn, ValueIn], total=False):
    """Those of Producer."""

    bootstrap_servers: str | Sequence[str]
    client_id: str
    acks: str | int
    enable_idempotence: bool | None
    compression_type: str | None
    compression_level: int | None
    max_batch_size: int
    linger_ms: float
    buffer_memory: int
    request_timeout_ms: int
    delivery_timeout_ms: int
    max_in_flight: int
    partitioner: Partitioner | None
    key_serializer: SerializerOf[KeyIn] | None
    value_serializer: SerializerOf[ValueIn] | None
    security: object | None


class ConsumerSettings(TypedDict, Generic[KeyOut, ValueOut], total=False):
    """Those of Consumer."""

    bootstrap_servers: str | Sequence[str]
    group_id: str | None
    group_instance_id: str | None
    client_id: str
    client_rack: str | None
    auto_offset_reset: str
    enable_auto_commit: bool
    auto_commit_interval_ms: int
    max_poll_records: int
    fetch_min_bytes: int
    fetch_max_bytes: int
    fetch_max_wait_ms: int
    max_partition_fetch_bytes: int
    session_timeout_ms: int
    max_poll_interval_ms: int
    assignor: str | Assignor | None
    isolation_level: str
    key_deserializer: DeserializerOf[KeyOut] | None
    value_deserializer: DeserializerOf[ValueOut] | None
    security: object | None
