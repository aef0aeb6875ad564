"""The call of an admin that asks why a partition is in its state."""

from __future__ import annotations

from typing import Annotated

from quorate.admin import descriptions
from quorate.admin.quorum_calls import QuorumCalls
from quorate.model import PartitionExplanation
from quorate.net import methods
from quorate.settings import PARTITION, TOPIC, checked
from quorate.v1 import admin_pb2 as wire


class ExplanationCalls(QuorumCalls):
    """The part of an Admin that explains the state of a partition."""

    @checked
    async def explain_partition(
        self, topic: Annotated[str, TOPIC], partition: Annotated[int, PARTITION]
    ) -> PartitionExplanation:
        """Return why a partition has this leader, ISR and ELR: the changes that led here.

        Each change has its time, its offset in the metadata log, and a sentence with its cause. Of
        an old partition, only the last changes are kept. Raises UnknownTopicError if there is no
        such topic or partition, and TopicAuthorizationFailedError if the caller may not describe
        the topic.
        """
        request = wire.ExplainPartitionRequest(topic=topic, partition=partition)
        response = await self._ask(methods.EXPLAIN_PARTITION, request)
        return descriptions.explanation(topic, response)
