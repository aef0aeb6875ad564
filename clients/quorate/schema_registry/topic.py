"""The topic of the schemas: reads it into a catalog, and writes proposals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from quorate.admin.admin import Admin
from quorate.aio.bell import Bell
from quorate.consumer.consumer import Consumer
from quorate.errors import (
    ClosedError,
    InvalidConfigError,
    QuorateError,
    RequestTimedOutError,
    TopicExistsError,
)
from quorate.model import AnyRecord, TopicPartition
from quorate.producer.producer import Producer
from quorate.schema_registry.catalog import Catalog, Proposal

log = logging.getLogger(__name__)

#: The pause before the topic is read again after an error.
PAUSE_S: Final = 1.0
#: The longest wait for new records. Then the position is looked at: compaction may have taken the
#: last records away.
POLL_MS: Final = 500


class SchemaTopic:
    """Follows the topic from its beginning. What it reads is in `catalog`."""

    def __init__(self, name: str, admin: Admin, producer: Producer, consumer: Consumer) -> None:
        self.catalog = Catalog()
        self._name = name
        self._partition = TopicPartition(name, 0)
        self._admin, self._producer, self._consumer = admin, producer, consumer
        #: Rings when records were read, or could not be.
        self._read = Bell()
        #: Why the topic can't be read now.
        self._trouble: QuorateError | None = None
        #: Keys of proposals that this program waits for -> whether they were accepted.
        self._accepted: dict[bytes, bool] = {}
        self._follower: asyncio.Task[None] | None = None

    async def start(self, timeout_ms: int) -> None:
        """Make the topic if there is none, and read it to its end."""
        async with self._admin:
            await self._make()
        await self._producer.start()
        await self._consumer.start()
        self._follower = asyncio.get_running_loop().create_task(
            self._follow(), name="quorate-schemas"
        )
        await self.catch_up(timeout_ms)

    async def stop(self) -> None:
        """End. What was read stays in the catalog."""
        try:
            if self._follower is not None:
                self._follower.cancel()
                await asyncio.wait([self._follower])
            self._read.ring()
        finally:
            try:
                await self._consumer.stop()
            finally:
                await self._producer.stop()

    async def catch_up(self, timeout_ms: int) -> None:
        """Read every record that is committed now. Raise RequestTimedOutError."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                ends = await self._consumer.end_offsets([self._partition])
                await self._reach(ends[self._partition])
        except TimeoutError:
            raise self._too_late("to its end", timeout_ms) from self._trouble

    async def write(self, proposal: Proposal, timeout_ms: int) -> None:
        """Write a proposal, and read up to it. Delete it if it lost."""
        self._accepted[proposal.key] = False
        try:
            written = await self._producer.send_and_wait(
                self._name, proposal.value, proposal.key, partition=0
            )
            try:
                async with asyncio.timeout(timeout_ms / 1000):
                    await self._reach(written.offset + 1)
            except TimeoutError:
                raise self._too_late(f"to offset {written.offset}", timeout_ms) from self._trouble
            if not self._accepted[proposal.key]:
                await self._producer.send(self._name, None, proposal.key, partition=0)
        finally:
            del self._accepted[proposal.key]

    # -- inside

    async def _make(self) -> None:
        name, admin = self._name, self._admin
        if name not in await admin.list_topics(internal=True):
            with contextlib.suppress(TopicExistsError):
                await admin.create_topic(
                    name, num_partitions=1, configs={"cleanup.policy": "compact"}
                )
        configs = {one.name: one.value for one in await admin.describe_configs(name)}
        described = (await admin.describe_topics([name]))[name]
        policy, count = configs.get("cleanup.policy"), len(described.partitions)
        if policy != "compact" or count != 1:
            raise InvalidConfigError(
                f"the topic {name} of the schemas must have one partition and "
                f"cleanup.policy=compact; it has {count} and {policy}"
            )

    async def _reach(self, offset: int) -> None:
        while await self._consumer.position(self._partition) < offset:
            if self._follower is None or self._follower.done():
                said = "this schema registry was stopped while it read its topic"
                raise ClosedError(said) from self._trouble
            await self._read.next_ring()

    def _too_late(self, where: str, timeout_ms: int) -> RequestTimedOutError:
        why = f" (last: {self._trouble})" if self._trouble is not None else ""
        return RequestTimedOutError(
            f"the topic {self._name} was not read {where} within {timeout_ms} ms{why}"
        )

    async def _follow(self) -> None:
        while True:
            try:
                found = await self._consumer.getmany(timeout_ms=POLL_MS)
                self._trouble = None
                for records in found.values():
                    for record in records:
                        self._apply(record)
            except ClosedError as error:
                self._trouble = error
                self._read.ring()
                return
            except QuorateError as error:
                if self._trouble is None:
                    log.warning("schemas in %s: %s", self._name, error)
                self._trouble = error
                await asyncio.sleep(PAUSE_S)
            self._read.ring()

    def _apply(self, record: AnyRecord) -> None:
        try:
            is_accepted = self.catalog.apply(record.offset, record.key, record.value)
        except (ValueError, RecursionError) as error:
            log.warning(
                "schemas in %s: the record at offset %d is passed over: %s",
                self._name,
                record.offset,
                error,
            )
            return
        if record.key in self._accepted and is_accepted:
            self._accepted[record.key] = True
