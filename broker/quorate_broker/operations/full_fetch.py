"""A fetch without a session: one answer about every partition that the request names."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from quorate.errors import QuorateError
from quorate.net.principal import Principal
from quorate_broker.operations.fetch import REQUIRED, Fetch, Wanted, source_of
from quorate_broker.operations.partitions import (
    PARTITIONS_A_TURN,
    check_count,
    locate,
    refuse_duplicates,
)
from quorate_broker.operations.read_replicas import Reader
from quorate_broker.replica.fetched import Fetched
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.node.authorizer import Authorizer, Caller
from quorate_quorum.node.config import BrokerConfig


class FetchAsked(NamedTuple):
    """One partition of a fetch without a session. The fields are those of FetchSession.name."""

    topic_id: bytes
    partition: int
    offset: int
    leader_epoch: int
    bytes_max: int
    last_epoch: int = -1


class FullFetch:
    """The operation of a fetch without a session, for all consumers of a broker."""

    def __init__(
        self, fetch: Fetch, replicas: Replicas, config: BrokerConfig, authorizer: Authorizer
    ) -> None:
        self._fetch = fetch
        self._replicas = replicas
        self._partitions_max = config.request_partitions_max
        self._authorizer = authorizer

    def check_count(self, named: int) -> None:
        """Raise InvalidRequestError if a request names more partitions than it may."""
        check_count(named, self._partitions_max, self._replicas)

    async def once(
        self, principal: Principal, reader: Reader, asked: Sequence[FetchAsked], wanted: Wanted
    ) -> list[Fetched | QuorateError]:
        """Read without a session. Return the result for each partition, in the order of `asked`.

        A partition that found no room in the answer has a result without records. Raises
        InvalidRequestError if a partition occurs twice.
        """
        refuse_duplicates((one.topic_id, one.partition) for one in asked)
        session = self._fetch.session(principal, reader)
        try:
            for index, one in enumerate(asked, 1):
                session.name(
                    (one.topic_id, one.partition),
                    one.offset,
                    leader_epoch=one.leader_epoch,
                    bytes_max=one.bytes_max,
                    last_epoch=one.last_epoch,
                )
                if index % PARTITIONS_A_TURN == 0:
                    await asyncio.sleep(0)
            looks = await session.collect(wanted, _never)
        finally:
            session.close()
        found: list[Fetched | QuorateError] = []
        for index, one in enumerate(asked, 1):
            look = looks.get((one.topic_id, one.partition))
            found.append(self._bounds(principal, reader, one) if look is None else look.found)
            if index % PARTITIONS_A_TURN == 0:
                await asyncio.sleep(0)
        return found

    def _bounds(
        self, principal: Principal, reader: Reader, asked: FetchAsked
    ) -> Fetched | QuorateError:
        """Return a result without records, for a partition that was not read."""
        caller = Caller(principal, self._authorizer)
        try:
            partition = locate(
                self._replicas,
                caller,
                REQUIRED,
                asked.topic_id,
                asked.partition,
                asked.leader_epoch,
            )
            source_of(partition, reader, asked.leader_epoch)
        except QuorateError as error:
            return error
        return Fetched(b"", partition.high_watermark, partition.log_start_offset)


def _never() -> bool:
    """Return that a fetch without a session has no reason to hurry."""
    return False
