"""What a partition needs of its broker, its bounds, and the running loop's time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from quorate_broker.replica.partition import Partition

#: storage: the disk failed (its directory is lost); replica: its log is to be opened again, the
#: disk is good; corrupt: bytes below what was synced are not what was written; broken: an
#: invariant, or a defect of ours.
Failure = Literal["storage", "replica", "corrupt", "broken"]


T = TypeVar("T")


class PartitionHost(Protocol):
    """What a partition needs of its broker; Replicas is it."""

    @property
    def broker_id(self) -> int: ...
    @property
    def lag_ms(self) -> int:
        """replica.lag.time.max.ms."""

    def wall_clock_ms(self) -> int: ...
    def in_thread(self, work: Callable[..., T], *arguments: object) -> Awaitable[T]:
        """Do work that takes longer than a turn of the loop may."""

    async def prepare(self, partition: Partition) -> None:
        """Make the replica's directory and say whose it is, before the first append."""

    async def written(self, partition: Partition) -> None:
        """Remember, outside its directory, that it was written: before that is acknowledged."""

    def isr_wanted(self, partition: Partition) -> None:
        """A replica may enter the ISR: propose soon."""

    def failed(self, partition: Partition, failure: Failure, reason: str) -> None:
        """The replica is offline now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLimits:
    """Bounds of one partition."""

    queue_max: int = 10_000
    waiters_max: int = 50_000
    #: Bytes of one append to the log; the rest of the queue makes the next one.
    append_bytes_max: int = 8 << 20


def loop_ms() -> int:
    """Return the running loop's time, in milliseconds."""
    return int(asyncio.get_running_loop().time() * 1000)
