"""One request of a client, as its handler gets it; and what a handler is.

A module for each family of requests has a class with a table of its handlers:

    class OffsetRequests:
        def handlers(self) -> Mapping[int, Handler]:
            return {LIST_OFFSETS: self.list_offsets}

        async def list_offsets(self, call: Call[ListOffsetsRequest]) -> ListOffsetsResponse: ...

listener.py lists the families. dispatch.py decodes the request and encodes the response.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

from quorate.net.principal import ANONYMOUS, Principal

Q = TypeVar("Q")


class Refusal(Exception):
    """The request has no answer. The connection must be closed, with this reason in the log."""


@dataclass(slots=True, eq=False)
class Client:
    """The client at the other side of one connection."""

    #: The host from which it came; for log lines and answers about members.
    address: str
    #: The name of the listener by which it came in. It is told addresses of this listener only.
    listener: str
    principal: Principal = ANONYMOUS
    #: What ApiVersions said of the program.
    software: str = ""
    #: Grows with each connection of this process.
    number: int = field(default_factory=count(1).__next__)
    #: Called once, when the connection is closed.
    at_close: list[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        """Drop what the handlers keep for this client."""
        callbacks, self.at_close = self.at_close, []
        for callback in callbacks:
            callback()


@dataclass(frozen=True, slots=True)
class Call(Generic[Q]):
    """One request."""

    request: Q
    version: int
    client: Client
    client_id: str = ""


#: A handler returns the response. If the client expects none, it returns None. A handler of Produce
#: returns a future of these, as soon as the next Produce may begin. Handlers turn errors into
#: Kafka's codes (errors.py). An error that escapes closes the connection: Refusal, and
#: InvalidRequestError for a request that names too much, are the client's fault.
Response = Any
Handler = Callable[[Call[Any]], Awaitable[Response | asyncio.Future[Response | None] | None]]


class Family(Protocol):
    """A class that handles some of the requests."""

    def handlers(self) -> Mapping[int, Handler]:
        """Return the handlers, by API key."""
