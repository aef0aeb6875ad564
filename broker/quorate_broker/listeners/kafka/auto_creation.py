"""Creates the topics that a client names in Metadata, and that do not exist.

The cluster's config auto.create.topics.enable allows it. A new topic has the cluster's
num.partitions and default.replication.factor. It is created by the same call as for CreateTopics,
with the client's principal, so the controller checks the same rights and limits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from quorate.errors import (
    InvalidTopicError,
    OutcomeUnknownError,
    QuorateError,
    TopicExistsError,
    from_wire,
)
from quorate.net.methods import CREATE_TOPICS
from quorate.net.principal import Principal
from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode
from quorate_broker.operations.admin import Admin
from quorate_quorum.configs import ClusterConfig
from quorate_quorum.metadata.topic_names import check_name
from quorate_quorum.metadata.topics import OFFSETS_TOPIC

log = structlog.get_logger(__name__)

#: Longest wait for a creation. The requests behind it on the connection wait, too.
WAIT_MS: Final = 1_000
#: The most topics that one request creates, and the most partitions that these have together. One
#: topic may always be created. The client asks again for the others, because they are missing.
TOPICS_AT_ONCE: Final = 100
PARTITIONS_AT_ONCE: Final = 1_000
#: The most topics that are being created for all clients of this broker.
UNDER_WAY_MAX: Final = 1_000
NAMES_A_TURN: Final = 100
BY_DEFAULT: Final = -1
#: Errors that are not retriable, after which the topic may be there all the same: another broker
#: has created it at the same time, or this creation was carried out without an answer.
MAY_BE_THERE: Final = (TopicExistsError, OutcomeUnknownError)


class AutoCreation:
    """The creations that are under way for the clients of this broker.

    Clients that ask for the same topic at the same time wait for one creation.
    """

    def __init__(self, admin_calls: Admin) -> None:
        self._admin = admin_calls
        #: For each topic that is being created: set when its creation has ended, however it ended.
        self._under_way: dict[str, asyncio.Event] = {}

    async def create(
        self, names: Iterable[str], principal: Principal, cluster: ClusterConfig
    ) -> dict[str, QuorateError]:
        """Create topics. Return why some of them cannot be created; asking again does not help.

        The caller finds the others in the newest image. It tells the client to ask again for those
        that are not there yet.
        """
        refused: dict[str, QuorateError] = {}
        ended = asyncio.Event()
        mine: list[str] = []
        others: dict[asyncio.Event, None] = {}
        most = topics_at_once(cluster.num_partitions)
        try:
            for number, name in enumerate(names, 1):
                if len(mine) == most:
                    break
                if name in self._under_way:
                    others[self._under_way[name]] = None
                elif (error := _refusal(name)) is not None:
                    refused[name] = error
                elif name != OFFSETS_TOPIC and len(self._under_way) < UNDER_WAY_MAX:
                    self._under_way[name] = ended
                    mine.append(name)
                if number % NAMES_A_TURN == 0:
                    await asyncio.sleep(0)
            if mine:
                refused |= await self._create(mine, principal)
        finally:
            for name in mine:
                del self._under_way[name]
            ended.set()
        for other in others:
            if other is not ended:
                await other.wait()
        return refused

    async def _create(self, names: Sequence[str], principal: Principal) -> dict[str, QuorateError]:
        """Let the controller create topics. Return why it refuses some for good."""
        asked = admin.CreateTopicsRequest(
            topics=[
                admin.NewTopic(name=name, num_partitions=BY_DEFAULT, replication_factor=BY_DEFAULT)
                for name in names
            ]
        )
        try:
            response = await self._admin.forward(
                CREATE_TOPICS, asked, principal, timeout_ms=WAIT_MS, caller_timeout_ms=0
            )
        except QuorateError as error:
            log.info("topics_not_created", topics=len(names), reason=str(error), repeats=True)
            return dict.fromkeys(names, error) if _is_final(error) else {}
        refused: dict[str, QuorateError] = {}
        created: list[str] = []
        for one in response.topics:
            if one.error.code == ErrorCode.ERROR_CODE_NONE:
                created.append(one.name)
                continue
            failure = from_wire(one.error)
            # repeats: a client that waits for the topic asks ten times a second
            level = logging.INFO if isinstance(failure, MAY_BE_THERE) else logging.WARNING
            log.log(level, "topic_not_created", topic=one.name, reason=str(failure), repeats=True)
            if _is_final(failure):
                refused[one.name] = failure
        if created:
            log.info("topics_created", topics=created, reason="a Kafka client asked for them")
        return refused


def topics_at_once(partitions: int) -> int:
    """Return how many topics with this number of partitions one request creates.

    >>> topics_at_once(1), topics_at_once(100), topics_at_once(10_000)
    (100, 10, 1)
    """
    return max(1, min(TOPICS_AT_ONCE, PARTITIONS_AT_ONCE // partitions))


def _is_final(error: QuorateError) -> bool:
    return not error.retriable and not isinstance(error, MAY_BE_THERE)


def _refusal(name: str) -> QuorateError | None:
    try:
        check_name(name, internal=name == OFFSETS_TOPIC)
    except InvalidTopicError as error:
        return error
    return None
