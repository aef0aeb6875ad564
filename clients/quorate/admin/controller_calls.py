"""Calls of an admin. Any broker takes them, and forwards them to the controller if necessary."""

from __future__ import annotations

import asyncio
from typing import Any

from quorate.aio.clock import Deadline
from quorate.cluster.cluster import METADATA_TIMEOUT_MS, Cluster
from quorate.errors import (
    DeadlineExceededError,
    NetworkError,
    OutcomeUnknownError,
    QuorumUnavailableError,
    StreamBrokenError,
    WrongClusterError,
    raise_if_error,
)
from quorate.net import methods
from quorate.net.network import Method, Q, R
from quorate.v1.admin_pb2 import MetadataRequest
from quorate.v1.common_pb2 import Error, ErrorCode

#: Longest wait for one broker. A silent broker must not use up the time of the others.
ONE_BROKER_TIMEOUT_MS = 5000
#: Pause before the next try if a broker has found no controller. It is short, because the broker
#: itself has waited before it answered.
TRY_AGAIN_S = 0.25
#: Longest wait until every broker knows a new topic or partition, and the pause between two
#: questions.
KNOWN_BY_ALL_MS, KNOWN_AGAIN_S = 5000, 0.02
#: After one of these errors the call may have been carried out.
UNKNOWN_OUTCOMES = StreamBrokenError | DeadlineExceededError


async def ask(
    cluster: Cluster, method: Method[Q, R], request: Q, deadline: Deadline, *, safe_to_repeat: bool
) -> R:
    """Ask one broker after another, until one that has found a controller answers.

    A call that is not safe to repeat is sent once. Raises the first error in the answer. Raises
    OutcomeUnknownError if a call that is not safe to repeat was sent and no answer came.
    """
    refused: R | None = None
    while True:
        try:
            response = await cluster.ask_any(
                method,
                request,
                timeout_ms=max(1, deadline.left_ms),
                one_broker_ms=ONE_BROKER_TIMEOUT_MS if safe_to_repeat else None,
                safe_to_repeat=safe_to_repeat,
            )
        except (NetworkError, QuorumUnavailableError) as error:
            if refused is not None and (
                safe_to_repeat or isinstance(error, QuorumUnavailableError)
            ):
                # return the error of the earlier answer: it says why the call was not carried out
                return _checked(refused)
            if safe_to_repeat or not isinstance(error, UNKNOWN_OUTCOMES):
                raise
            raise OutcomeUnknownError(
                f"{method.path} was sent, and no answer came ({error}); "
                "look whether it was carried out before you repeat it"
            ) from error
        if not _found_no_controller(response) or deadline.left_s <= TRY_AGAIN_S:
            return _checked(response)
        refused = response
        await asyncio.sleep(TRY_AGAIN_S)


async def wait_until_known(cluster: Cluster, wanted: dict[bytes, int], deadline: Deadline) -> None:
    """Wait until each broker knows these topics, with at least so many partitions.

    `wanted`: topic id -> number of partitions, in the order in which they were made. Brokers that
    do not answer are skipped. A broker learns of all changes in order, so it is asked for the last
    topic only: to describe hundreds of new ones again and again would slow their creation.
    """
    last = next(reversed(wanted), None)
    if last is None:
        return
    request = MetadataRequest(topic_ids=[last])
    until = Deadline(min(deadline.left_ms, KNOWN_BY_ALL_MS))

    async def known_by(endpoint: str) -> None:
        connection = cluster.connection(endpoint, "control")
        while (left_ms := until.left_ms) > 0:
            try:
                told = await connection.unary(
                    methods.METADATA, request, timeout_ms=min(left_ms, METADATA_TIMEOUT_MS)
                )
            except (NetworkError, WrongClusterError):
                return
            if not any(one.error.code or len(one.partitions) < wanted[last] for one in told.topics):
                return
            await asyncio.sleep(KNOWN_AGAIN_S)

    await asyncio.gather(*map(known_by, dict.fromkeys(cluster.brokers.values())))


def _errors(response: Any) -> list[Error]:
    """Return the errors in an answer: first that of the call, then those of its topics."""
    errors = [response.error] if hasattr(response, "error") else []
    return errors + [one.error for one in getattr(response, "topics", ()) if hasattr(one, "error")]


def _checked(response: R) -> R:
    for error in _errors(response):
        raise_if_error(error)
    return response


def _found_no_controller(response: Any) -> bool:
    """Return whether the broker found no controller. Then nothing was done."""
    return any(error.code == ErrorCode.ERROR_CODE_QUORUM_UNAVAILABLE for error in _errors(response))
