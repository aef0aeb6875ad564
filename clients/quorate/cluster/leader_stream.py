"""A stream to one broker that reopens after a break: the common part of producing and fetching.

The subclass knows the protocol: what to ask, what an answer means, what to do after a break. This
class knows the rest:

* A stream is opened when there is something to ask, and stays open.
* A request is made when the wire can take it. So a slow broker gets fewer and larger requests, not
  a queue of requests.
* A stream that ends, for whatever reason, is opened again after a wait that doubles with each break
  in a row. Leaders may have moved, so each break makes the client ask for metadata again.
* A broker that is silent for too long does not break its stream by itself: the subclass cuts it.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from quorate.aio.backoff import Backoff
from quorate.cluster.cluster import Cluster
from quorate.errors import QuorateError, StreamBrokenError
from quorate.net.network import Method, Q, R

log = logging.getLogger(__name__)

#: First and longest wait of clients before another try: of a stream, a batch or a lookup.
BACKOFF_MS, BACKOFF_MAX_MS = 30, 500


class LeaderStream(ABC, Generic[Q, R]):
    """One stream to the broker at `endpoint`, for the partitions that it leads.

    `work` names its tasks, as in "produce".
    """

    def __init__(self, cluster: Cluster, endpoint: str, method: Method[Q, R], work: str) -> None:
        self.endpoint = endpoint
        self.cluster = cluster
        #: The next request is the first of its stream, and has the fields that a stream sends once.
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
        """Return whether a stream should be opened now. If not, it is called again after `wake`."""

    @abstractmethod
    def next_request(self) -> Q | None:
        """Return the next request. None: there is none, so it is called again after `wake`."""

    @abstractmethod
    def take(self, answer: R) -> None:
        """Process one answer."""

    @abstractmethod
    def broke(self, error: QuorateError) -> None:
        """React to the stream's end: its open requests will not be answered."""

    @property
    @abstractmethod
    def is_unused(self) -> bool:
        """Whether the stream may end for good without a loss."""

    @abstractmethod
    def tick(self, now: float) -> bool:
        """Cut a stream that is silent for too long; return whether the broker is silent already."""

    # -- its life --------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._reader is not None

    def wake(self) -> None:
        """Wake the stream: there may be something to ask."""
        self._wake.set()

    def cut(self, error: QuorateError) -> None:
        """Break the stream, with `error` as the reason. It is opened again."""
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
        """Work with one stream until it ends; return the reason of the end."""
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
    """The streams of one client, by endpoint. There may be several streams to one broker."""

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
        """Wake every stream, so that each looks whether it has something to ask."""
        for stream in self:
            stream.wake()

    def tick(self, now: float) -> bool:
        """End unused streams to brokers that are gone; return whether a broker is silent."""
        is_silent = False
        endpoints = self._cluster.brokers.values()
        for stream in self:
            is_silent |= stream.tick(now)
            if stream.is_unused and stream.endpoint not in endpoints:
                listed = self._streams[stream.endpoint]
                listed.remove(stream)
                if not listed:
                    del self._streams[stream.endpoint]
                stream.leave()  # does not wait: a tick that waits would expire no batches
        return is_silent

    async def stop(self) -> None:
        """End every stream. Open requests get no answer."""
        tasks = [stream.task for stream in self]
        self._streams.clear()
        await self._cluster.owner.end(*tasks)
