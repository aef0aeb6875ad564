"""The questions of a consumer about partitions, assigned or not."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated

from quorate.cluster.client import Client
from quorate.consumer.offset_lookup import EARLIEST, LATEST
from quorate.model import OffsetAndTimestamp, TopicPartition
from quorate.settings import TIMESTAMP_MS, TOPIC, ByPartition, Partitions, checked

if TYPE_CHECKING:
    from quorate.consumer.fetcher import Fetcher


class ConsumerQueries(Client):
    """The part of a consumer that asks leaders. It moves no position."""

    @abstractmethod
    def _running_fetcher(self) -> Fetcher:
        """Return the fetcher; ClosedError if the client is not running."""

    @checked
    async def beginning_offsets(
        self, partitions: Annotated[Iterable[TopicPartition], Partitions()]
    ) -> dict[TopicPartition, int]:
        """Return the first offset held, of each partition."""
        return await self._offsets(partitions, EARLIEST)

    @checked
    async def end_offsets(
        self, partitions: Annotated[Iterable[TopicPartition], Partitions()]
    ) -> dict[TopicPartition, int]:
        """Return the high watermark of each partition."""
        return await self._offsets(partitions, LATEST)

    @checked
    async def offsets_for_times(
        self, timestamps: Annotated[Mapping[TopicPartition, int], ByPartition(TIMESTAMP_MS)]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """Return the first record at or after each time (ms since 1970); None if there is none."""
        listed = await self._running_fetcher().offsets.list_offsets(dict(timestamps))
        return {
            key: OffsetAndTimestamp(one.offset, one.timestamp_ms) if one.offset >= 0 else None
            for key, one in listed.items()
        }

    @checked
    async def partitions_for(self, topic: Annotated[str, TOPIC]) -> set[int]:
        """Return the numbers of a topic's partitions."""
        return set((await self._running_fetcher().cluster.topic(topic)).numbers)

    async def _offsets(
        self, partitions: Iterable[TopicPartition], time: int
    ) -> dict[TopicPartition, int]:
        wanted = dict.fromkeys(partitions, time)
        listed = await self._running_fetcher().offsets.list_offsets(wanted)
        return {key: listed[key].offset for key in wanted}
