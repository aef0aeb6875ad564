"""Reads and writes of the log whose failure takes the replica offline, and nothing else (law 11).

Functions over the replica of partition.py, which holds all state.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from quorate.errors import CorruptRecordError, StorageError
from quorate_broker.replica import admission, damage
from quorate_quorum.log.disk_errors import ReopenError, TryAgainError
from quorate_quorum.log.log import LogCorruptError

if TYPE_CHECKING:
    from quorate_broker.replica.host import Failure
    from quorate_broker.replica.partition import Partition

T = TypeVar("T")


class Guard:
    """A broken invariant inside takes the partition offline, and is a StorageError outside."""

    __slots__ = ("_partition",)

    def __init__(self, partition: Partition) -> None:
        self._partition = partition

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None and issubclass(kind, AssertionError):
            self._partition.take_offline("broken", f"a broken invariant: {error}")
            raise self._partition.offline_error()


async def read_batches(
    partition: Partition, offset: int, end: int, bytes_max: int, at_least_one: bool
) -> bytes:
    """Read whole batches from `offset` up to `end`."""
    return await read(
        partition,
        partition.log.read(offset, end=end, bytes_max=bytes_max, at_least_one=at_least_one),
    )


async def read(partition: Partition, reading: Awaitable[T]) -> T:
    """Await a read of the log; what it finds wrong takes the replica offline (law 7)."""
    try:
        return await reading
    except TryAgainError:
        raise  # the replica stays
    except LogCorruptError as error:
        if partition.is_leader and not partition.is_closed:
            damage.found(partition, str(error))
            raise CorruptRecordError(
                f"{partition.name}: a batch is damaged on the disk of its leader, broker "
                f"{partition.host.broker_id}; what else there is can be read: {error}"
            ) from error
        failed(partition, error)
    except StorageError as error:
        if partition.is_closed:  # it was closed under the read: that is no fault of the disk
            raise admission.not_leader(partition) from error
        failed(partition, error)
    raise partition.offline_error()


async def write(partition: Partition, writing: Awaitable[object]) -> bool:
    """Await a write; tell whether it went well. A failure takes the replica offline."""
    try:
        await writing
    except TryAgainError:
        raise  # the replica stays, and tries again
    except (StorageError, CorruptRecordError) as error:
        failed(partition, error)
        return False
    return True


def failed(partition: Partition, error: StorageError | CorruptRecordError) -> None:
    """Take the replica offline, and with it what the error is about: see disk_errors."""
    if isinstance(error, LogCorruptError | CorruptRecordError):
        failure: Failure = "corrupt"
    elif isinstance(error, ReopenError | TryAgainError):
        failure = "replica"
    else:
        failure = "storage"
    partition.take_offline(failure, str(error))


async def sync_if_asked(partition: Partition) -> None:
    """With flush.on.ack, sync what is not synced."""
    if partition.config.flush_on_ack and partition.log.synced_end < partition.log.log_end_offset:
        await partition.log.sync()


async def note_written(partition: Partition) -> None:
    """After the first append, and before it counts for anybody: see PartitionHost.written."""
    if not partition.is_noted:
        await partition.host.written(partition)
        partition.is_noted = True


async def prepare(partition: Partition) -> None:
    """Before the first append: see PartitionHost.prepare."""
    if not partition.is_prepared:
        await partition.host.prepare(partition)
        partition.is_prepared = True
