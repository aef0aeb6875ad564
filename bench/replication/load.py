"""A producer at a steady rate, and the gaps in the acknowledgements of each partition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from quorate import Producer
from quorate_cli.workload import AckTimes, produce_paced

#: The time in which a producer finds its leaders and the cluster is calm again.
SETTLE_S = 2.0


@dataclass(slots=True)
class Load:
    """A producer that writes small records to all partitions of a topic in turn."""

    topic: str
    partitions: int
    acks: AckTimes = field(default_factory=AckTimes)
    sent: int = 0

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def gaps(self, partitions: Iterable[int], start: float, end: float) -> list[float]:
        """Return the longest time without an acknowledgement of each partition, in seconds."""
        return [self.acks.longest_silence([one], start, end)[0] for one in partitions]

    async def until_all_acked_since(self, start: float, partitions: Iterable[int]) -> float:
        """Wait until each partition has acknowledged after `start`. Return the last first time."""
        firsts = []
        for partition in partitions:
            while not (times := self.acks.times.get(partition)) or times[-1] <= start:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            firsts.append(next(one for one in times if one > start))
        return max(firsts, default=start)


@asynccontextmanager
async def load(
    servers: str, topic: str, partitions: int, records_per_s: float
) -> AsyncIterator[Load]:
    """Produce with acks=all inside of this context, after a time to settle."""
    found, stop = Load(topic, partitions), asyncio.Event()
    async with Producer(bootstrap_servers=servers) as producer:
        running = asyncio.create_task(
            produce_paced(
                producer,
                topic,
                partitions,
                records_per_s=records_per_s,
                acks=found.acks,
                stop=stop,
            )
        )
        try:
            await found.until_all_acked_since(0.0, range(partitions))
            await asyncio.sleep(SETTLE_S)
            yield found
        finally:
            stop.set()
            found.sent = await running
