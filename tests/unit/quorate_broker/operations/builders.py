"""Partitions that a test moves by hand, and a broker that holds them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rpds import HashTrieMap

from quorate.errors import OffsetOutOfRangeError, QuorumUnavailableError, UnknownTopicError
from quorate.net.principal import Principal
from quorate_broker.groups.coordinator import Coordinator
from quorate_broker.operations.active_producers import ActiveProducers
from quorate_broker.operations.admin import Admin
from quorate_broker.operations.classic_groups import ClassicGroups
from quorate_broker.operations.delete_records import DeleteRecords
from quorate_broker.operations.fetch import Fetch
from quorate_broker.operations.full_fetch import FullFetch
from quorate_broker.operations.group_members import GroupMembers
from quorate_broker.operations.groups import Groups
from quorate_broker.operations.log_dirs import LogDirs
from quorate_broker.operations.metadata import Metadata
from quorate_broker.operations.offsets import Offsets
from quorate_broker.operations.operations import Operations
from quorate_broker.operations.produce import Produce
from quorate_broker.operations.producer_ids import ProducerIds
from quorate_broker.operations.rights import Rights
from quorate_broker.replica.fetched import Fetched
from quorate_quorum.metadata.brokers import BrokerImage
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.authorizer import ALLOW_ALL, Operation, Resource
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.listeners import parse_all

TOPIC = b"t" * 16
ANN = Principal("User", "ann")


class Produced(NamedTuple):
    base_offset: int
    log_append_time_ms: int = -1
    log_start_offset: int = 0


@dataclass
class Call:
    """One call of produce that the test finishes."""

    batch: bytes
    acks: int
    timeout_ms: int
    appended: Callable[[], None]
    outcome: asyncio.Future[Produced]


@dataclass
class FakePartition:
    """Records are single bytes, one an offset."""

    topic = "zoo"
    is_internal = False
    records: bytes = b""
    high_watermark: int = 0
    log_start_offset: int = 0
    calls: list[Call] = field(default_factory=list)
    wakes: list[Callable[[], None]] = field(default_factory=list)
    fetches: list[int] = field(default_factory=list)
    suspected: list[int] = field(default_factory=list)
    last_epochs: list[int] = field(default_factory=list)
    error: Exception | None = None
    record_bytes: int = 1

    def produce(
        self,
        batch: memoryview,
        *,
        acks: int,
        timeout_ms: int,
        in_doubt_ms: int,
        appended: Callable[[], None],
    ) -> asyncio.Future[Produced]:
        outcome: asyncio.Future[Produced] = asyncio.get_running_loop().create_future()
        self.calls.append(Call(bytes(batch), acks, timeout_ms, appended, outcome))
        return outcome

    async def fetch(
        self,
        offset: int,
        *,
        bytes_max: int,
        last_epoch: int,
        at_least_one: bool,
    ) -> Fetched:
        self.fetches.append(offset)
        self.last_epochs.append(last_epoch)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        if not self.log_start_offset <= offset <= len(self.records):
            raise OffsetOutOfRangeError(f"offset {offset}")
        found = self.records[offset : self.high_watermark]
        found = found[: max(bytes_max, 1 if at_least_one else 0)]
        return Fetched(found, self.high_watermark, self.log_start_offset)

    def as_leader(self, leader_epoch: int) -> FakePartition:
        return self

    @property
    def queue(self) -> FakePartition:
        return self

    @property
    def watches(self) -> FakePartition:
        return self

    @property
    def damage(self) -> FakePartition:
        return self

    def suspect(self, offset: int) -> None:
        self.suspected.append(offset)

    def add(self, wake: Callable[[], None]) -> Callable[[], None]:
        self.wakes.append(wake)
        return lambda: self.wakes.remove(wake)

    def move(self, records: bytes, *, commit: bool = True) -> None:
        self.records += records
        if commit:
            self.high_watermark = len(self.records)
        self.wake()

    def wake(self) -> None:
        for wake in list(self.wakes):
            wake()

    async def list_offset(self, timestamp_ms: int) -> tuple[int, int, int]:
        if self.error is not None:
            raise self.error
        if timestamp_ms == -2:
            return self.log_start_offset, -1, 3
        return self.high_watermark, timestamp_ms, 3


class FakeReplicas:
    def __init__(self, **partitions: FakePartition) -> None:
        self.partitions = {int(name[1:]): partition for name, partition in partitions.items()}
        leader = BrokerImage(
            2,
            9,
            b"i" * 16,
            parse_all(("in=grpc://b:1", "out=grpc://b:2")),
            "in",
            "",
            "b",
            (),
            False,
            False,
        )
        self.image = MetadataImage(brokers=HashTrieMap({2: leader}))

    @property
    def held(self) -> int:
        return len(self.partitions)

    def get(self, topic_id: bytes, partition: int) -> FakePartition:
        if topic_id != TOPIC or partition not in self.partitions:
            raise UnknownTopicError(f"no partition {partition}")
        return self.partitions[partition]

    def find(self, topic_id: bytes, partition: int) -> FakePartition | None:
        return self.partitions.get(partition) if topic_id == TOPIC else None


def config(**bounds: int) -> BrokerConfig:
    """`bounds` are settings of the broker."""
    settings: dict[str, Any] = {"node_id": 0, "listeners": ("b0:7092",), "log_dirs": ("/data",)}
    return BrokerConfig(**(settings | bounds))


class DenyAll:
    """An authorizer that allows nothing."""

    def authorize(self, principal: Principal, operation: Operation, resource: Resource) -> bool:
        return False


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def no_controller() -> range:
    raise QuorumUnavailableError("no controller")


def operations(
    replicas: FakeReplicas,
    config: BrokerConfig,
    *,
    client: Any = None,
    publisher: Any = None,
    ready: asyncio.Event | None = None,
) -> Operations:
    """The operations of a broker that allows all."""
    held: Any = replicas
    held.config = config
    held.environment = Environment(network=held, disk=held)
    coordinator = Coordinator(held, _ignore, ALLOW_ALL)
    fetch = Fetch(held, config, ALLOW_ALL)
    return Operations(
        Produce(held, config, ALLOW_ALL),
        fetch,
        FullFetch(fetch, held, config, ALLOW_ALL),
        Offsets(held, config, ALLOW_ALL),
        DeleteRecords(held, config, ALLOW_ALL),
        ProducerIds(no_controller, ALLOW_ALL),
        ActiveProducers(held, config, ALLOW_ALL),
        Metadata(client, ready or asyncio.Event(), ALLOW_ALL),
        Admin(client, publisher),
        LogDirs(held, ALLOW_ALL),
        Groups(coordinator, held, client, config, ALLOW_ALL),
        GroupMembers(coordinator, ALLOW_ALL),
        ClassicGroups(coordinator, ALLOW_ALL, held.environment.new_id),
        Rights(ALLOW_ALL),
    )


def _ignore(reason: str) -> None:
    pass
