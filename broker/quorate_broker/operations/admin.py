"""Admin calls that only the controller decides. A broker passes them on with their principal.

The controller checks the principal's rights and decides. The broker returns the answer only after
it has carried out the effect itself. So the caller can send its next call to this broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from quorate.aio.clock import Deadline
from quorate.errors import (
    OutcomeUnknownError,
    QuorateError,
    QuorumUnavailableError,
    RequestTimedOutError,
)
from quorate.net.methods import (
    DESCRIBE_FEATURES,
    DESCRIBE_HEALTH,
    DESCRIBE_QUORUM,
    LIST_REASSIGNMENTS,
)
from quorate.net.network import Method
from quorate.net.principal import Principal
from quorate_broker.publisher import Publisher
from quorate_quorum.client.client import QuorumClient

Q = TypeVar("Q")
R = TypeVar("R")

#: The timeout of a request without one, and the longest timeout that a request may have.
TIMEOUT_MS = 30_000
TIMEOUT_MS_MAX = 300_000
#: Of the parts of one request, the most that wait for the controller at a time.
PARTS_IN_FLIGHT_MAX = 16
#: Calls that change nothing: without an answer, no outcome is unknown, and they may be repeated.
READS: Final[frozenset[Method[Any, Any]]] = frozenset(
    (DESCRIBE_FEATURES, DESCRIBE_HEALTH, DESCRIBE_QUORUM, LIST_REASSIGNMENTS),
)


class Admin:
    """The admin operation, for all clients of a broker.

    QuorumClient limits how many calls are under way.
    """

    def __init__(self, client: QuorumClient, publisher: Publisher) -> None:
        self._client = client
        self._publisher = publisher

    async def forward(
        self,
        method: Method[Q, R],
        request: Q,
        principal: Principal,
        *,
        timeout_ms: int,
        caller_timeout_ms: int,
    ) -> R:
        """Ask the controller. Wait until this broker has carried out the effect; return the answer.

        If this broker does not carry out the effect in time, the answer is returned anyway, because
        the decision is committed. `timeout_ms` is the timeout in the request; 0: none.
        `caller_timeout_ms` is how long the caller waits for its answer; 0: not known. Raises the
        errors of QuorumClient.forward.
        """
        loop = asyncio.get_running_loop()
        wait_ms = min(timeout_ms or TIMEOUT_MS, TIMEOUT_MS_MAX)
        wait_ms = answered_in_time(wait_ms, caller_timeout_ms)
        deadline = loop.time() + wait_ms / 1000
        try:
            response = await self._client.forward(
                method, request, principal=principal, timeout_ms=wait_ms
            )
        except OutcomeUnknownError as error:
            if method not in READS:
                raise
            raise QuorumUnavailableError(
                f"the controller has not answered, and it was only asked a question: {error}"
            ) from error
        left_ms = max(0, int((deadline - loop.time()) * 1000))
        with suppress(RequestTimedOutError):
            await self._publisher.wait_applied(self._client.image.offset, timeout_ms=left_ms)
        return response

    async def forward_each(
        self, method: Method[Q, R], parts: Sequence[Q], principal: Principal, *, timeout_ms: int
    ) -> list[R | QuorateError]:
        """Ask the controller for each part of a request, some at a time.

        Returns the answers, or the errors of `forward`, in the order of `parts`. `timeout_ms` is
        the timeout of the whole request; 0: none.
        """
        deadline = Deadline(min(timeout_ms or TIMEOUT_MS, TIMEOUT_MS_MAX))

        async def answer(part: Q) -> R | QuorateError:
            if deadline.has_passed:
                return RequestTimedOutError("the time of the request was over before this part")
            try:
                return await self.forward(
                    method, part, principal, timeout_ms=deadline.left_ms + 1, caller_timeout_ms=0
                )
            except QuorateError as error:
                return error

        answers: list[R | QuorateError] = []
        for first in range(0, len(parts), PARTS_IN_FLIGHT_MAX):
            portion = parts[first : first + PARTS_IN_FLIGHT_MAX]
            answers.extend(await asyncio.gather(*map(answer, portion)))
        return answers


def answered_in_time(wait_ms: int, caller_timeout_ms: int) -> int:
    """Return how long to wait, so that an error still reaches the caller before its own timeout.

    >>> answered_in_time(5000, 1000), answered_in_time(5000, 0)
    (800, 5000)
    """
    return min(wait_ms, caller_timeout_ms * 4 // 5) if caller_timeout_ms else wait_ms
