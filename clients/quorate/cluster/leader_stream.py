"""A stream to one broker that outlives its breaks: what producing and fetching have in common.

The protocol on the stream is the subclass's: what to ask, what an answer means, what follows from a
break. Here is what does not depend on it:

* A stream is opened when there is something to ask, and kept.
* A request is made when the wire takes it. So a slow broker gets fewer and larger requests, not a
  queue of them.
* A stream that ends, for whatever reason, is opened again after a wait that doubles with each break
  in a row. Leaders may have moved by then, so each break makes the client look at the cluster.
* A broker that is silent for too long does not break its stream by itself: the subclass cuts it.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from quorate.aio.backoff import Backoff
from quorate.errors import QuorateError, StreamBrokenError
from quorate.net.network import Method, Q, R

if TYPE_CHECKING:
    from quorate.cluster.cluster import Cluster

log = logging.getLogger(__name__)

#: Waits between one try and the next, for clients: of streams, batches and lookups.
BACKOFF_MS, BACKOFF_MAX_MS = 30, 500


class LeaderStream(ABC, Generic[Q, R]):
    """One stream to the broker at `endpoint`, for the partitions that it leads.

    `work` names its tasks, as in "produce".
    """

    def __init__(self, cluster: Cluster, endpoint: str, method: Method[Q, R], work: str) -> None:
        self.endpoint = endpoint
        self.cluster = cluster
        #: The next request is the first of its stream, and tells what is said once.
        self.is_first_request = True
        self._method = method
        self._work = work
        self._wake = asyncio.Event()
        self._backoff = Backoff(BACKOFF_MS, BACKOFF_MAX_MS)
        self._reader: asyncio.Task[QuorateError] | None = None
        self._cut_for: QuorateError | None = None
        self.task = cluster.owner.spawn(self._stream_for_good(), f"{work}-{endpoint}")

    # -- the protocol ----------------------------------------------------------------------------

    @abstractmethod
    def has_work(self) -> bool:
        """Whether a stream should be opened now. If not, it is asked again after `wake`."""

    @abstractmethod
    def next_request(self) -> Q | None:
        """Return what to send now; None if nothing: then it is asked again after `wake`."""

    @abstractmethod
    def take(self, answer: R) -> None:
        """Carry out one answer."""

    @abstractmethod
    def broke(self, error: QuorateError) -> None:
        """The stream has ended: what it carried will not be answered."""

    @property
    @abstractmethod
    def is_unused(self) -> bool:
        """Whether nothing is lost if the stream ends for good."""

    @abstractmethod
    def tick(self, now: float) -> bool:
        """Cut a stream that is silent for too long; return whether it is silent for a while."""

    # -- its life --------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._reader is not None

    def wake(self) -> None:
        """There may be something to ask."""
        self._wake.set()

    def cut(self, error: QuorateError) -> None:
        """Break the stream for that reason; it is opened again."""
        self._cut_for = error
        if self._reader is not None:
            self.cluster.owner.cancel(self._reader)

    def leave(self) -> None:
        """End the stream for good, without waiting for its end."""
        self.cluster.owner.cancel(self.task)

    async def _stream_for_good(self) -> None:
        while True:
            self._wake.clear()
            if not self.has_work():
                await self._wake.wait()
                continue
            error = await self._one_stream()
            log.debug("the %s stream of %s ended: %s", self._work, self.endpoint, error)
            self.broke(error)
            self.cluster.request_refresh()
            await self._backoff.wait()

    async def _one_stream(self) -> QuorateError:
        """Work with one stream until it ends; return why it did."""
        owner = self.cluster.owner
        self._cut_for = None
        self.is_first_request = True
        reader = owner.spawn(self._read(), f"{self._work}-answers-{self.endpoint}")
        self._reader = reader
        try:
            await asyncio.wait([reader])
        finally:
            self._reader = None
            await owner.end(reader)
        if reader.cancelled():
            return self._cut_for or StreamBrokenError(f"the stream of {self.endpoint} was ended")
        return reader.result()

    async def _read(self) -> QuorateError:
        connection = self.cluster.connection(self.endpoint)
        try:
            async with aclosing(connection.stream(self._method, self._requests())) as answers:
                async for answer in answers:
                    self._backoff.reset()
                    self.take(answer)
                    self._wake.set()
        except QuorateError as error:
            return error
        return StreamBrokenError(f"{self.endpoint} ended the stream")

    async def _requests(self) -> AsyncIterator[Q]:
        while True:
            self._wake.clear()
            request = self.next_request()
            if request is None:
                await self._wake.wait()
            else:
                self.is_first_request = False
                yield request


S = TypeVar("S", bound=LeaderStream[Any, Any])


class LeaderStreams(Generic[S]):
    """The streams of one client, by the endpoint of the broker; there may be several to one."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._streams: dict[str, list[S]] = {}

    def __iter__(self) -> Iterator[S]:
        return iter([stream for listed in self._streams.values() for stream in listed])

    def to(self, endpoint: str) -> list[S]:
        """Return the streams to a broker."""
        return self._streams.get(endpoint, [])

    def add(self, stream: S) -> S:
        """Keep a stream, and return it."""
        self._streams.setdefault(stream.endpoint, []).append(stream)
        return stream

    def wake(self) -> None:
        """There may be something to ask of any broker."""
        for stream in self:
            stream.wake()

    def tick(self, now: float) -> bool:
        """Return whether a broker is silent; end the streams to brokers that are gone."""
        is_silent = False
        endpoints = self._cluster.brokers.values()
        for stream in self:
            is_silent |= stream.tick(now)
            if stream.is_unused and stream.endpoint not in endpoints:
                listed = self._streams[stream.endpoint]
                listed.remove(stream)
                if not listed:
                    del self._streams[stream.endpoint]
                stream.leave()  # not waiting for its end: a tick that waits expires nothing
        return is_silent

    async def stop(self) -> None:
        """End every stream; what they carry is not answered any more."""
        tasks = [stream.task for stream in self]
        self._streams.clear()
        await self._cluster.owner.end(*tasks)
