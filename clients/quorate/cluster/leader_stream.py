"""A stream to one broker that is opened again after a break, for producing and for fetching.

A subclass knows the protocol: what to ask, what an answer means, what to do after a break. This
class follows these rules:

* A stream is opened when there is something to ask, and stays open.
* A request is built only when the wire can take it. So a slow broker gets fewer and larger
  requests, and no queue of requests.
* After a stream has ended, for whatever reason, it is opened again after a wait. The wait doubles
  with each break in a row. Leaders may have moved, so the client also asks for metadata.
* This class does not break the stream of a broker that is silent for too long. The subclass does,
  with `cut`.
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

#: First and longest wait before a client tries again (a stream, a batch, a lookup).
BACKOFF_MS, BACKOFF_MAX_MS = 30, 500


class LeaderStream(ABC, Generic[Q, R]):
    """One stream to the broker at `endpoint`, for the partitions that this broker leads.

    `work` is part of the names of its tasks, for example "produce".
    """

    def __init__(self, cluster: Cluster, endpoint: str, method: Method[Q, R], work: str) -> None:
        self.endpoint = endpoint
        self.cluster = cluster
        #: Whether the next request is the first of its stream. Some fields are sent only in the
        #: first.
        self.is_first_request = True
        self._method = method
        self._work = work
        self._wake = asyncio.Event()
        self._backoff = Backoff(BACKOFF_MS, BACKOFF_MAX_MS)
        self._reader: asyncio.Task[QuorateError] | None = None
        self._cut_for: QuorateError | None = None
        self._is_left = False
        self.task = cluster.owner.spawn(self._stream_for_good(), f"{work}-{endpoint}")

    # -- the protocol ----------------------------------------------------------------------------

    @abstractmethod
    def has_work(self) -> bool:
        """Return whether a stream should be opened now. After False, `wake` causes another call."""

    @abstractmethod
    def next_request(self) -> Q | None:
        """Return the next request; None: there is none now.

        After None, `wake` causes another call.
        """

    @abstractmethod
    def take(self, answer: R) -> None:
        """Process one answer."""

    @abstractmethod
    def broke(self, error: QuorateError) -> None:
        """React to the end of the stream. Its open requests get no answer any more."""

    @property
    @abstractmethod
    def is_unused(self) -> bool:
        """Whether the stream can end for good without losing work."""

    @abstractmethod
    def tick(self, now: float) -> bool:
        """Cut the stream if its broker is silent for too long.

        Return whether the broker is silent.
        """

    # -- its life --------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._reader is not None

    def wake(self) -> None:
        """Wake the stream, because there may be something to ask."""
        self._wake.set()

    def cut(self, error: QuorateError) -> None:
        """Break the stream, with `error` as the reason. It is opened again afterwards."""
        self._cut_for = error
        if self._reader is not None:
            self.cluster.owner.cancel(self._reader)

    def leave(self) -> None:
        """End the stream for good. Do not wait for its end.

        Its tasks run on until the loop cancels them. They take no further request: it would get no
        answer, and its batches would wait for ever.
        """
        self._is_left = True
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
        """Open one stream and work with it until it ends. Return the reason of the end."""
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
        while not self._is_left:
            self._wake.clear()
            request = self.next_request()
            if request is None:
                await self._wake.wait()
            else:
                self.is_first_request = False
                yield request


S = TypeVar("S", bound=LeaderStream[Any, Any])


class LeaderStreams(Generic[S]):
    """The streams of one client, by endpoint. There may be several streams to the same broker."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._streams: dict[str, list[S]] = {}

    def __iter__(self) -> Iterator[S]:
        return iter([stream for listed in self._streams.values() for stream in listed])

    def to(self, endpoint: str) -> list[S]:
        """Return the streams to the broker at this endpoint."""
        return self._streams.get(endpoint, [])

    def add(self, stream: S) -> S:
        """Add a stream, and return it."""
        self._streams.setdefault(stream.endpoint, []).append(stream)
        return stream

    def wake(self) -> None:
        """Wake every stream, so that each checks whether it has something to ask."""
        for stream in self:
            stream.wake()

    def tick(self, now: float) -> bool:
        """End unused streams to brokers that are gone. Return whether a broker is silent."""
        is_silent = False
        endpoints = self._cluster.brokers.values()
        for stream in self:
            is_silent |= stream.tick(now)
            if stream.is_unused and stream.endpoint not in endpoints:
                listed = self._streams[stream.endpoint]
                listed.remove(stream)
                if not listed:
                    del self._streams[stream.endpoint]
                # do not wait for the stream's end: no batch would expire during the wait
                stream.leave()
        return is_silent

    async def stop(self) -> None:
        """End every stream. Open requests get no answer."""
        tasks = [stream.task for stream in self]
        self._streams.clear()
        await self._cluster.owner.end(*tasks)
