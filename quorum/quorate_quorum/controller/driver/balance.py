"""Lets preferred replicas lead again, from time to time.

When a broker goes, others lead its partitions, and when it comes back, it follows. Without this,
the leaders would gather on the brokers that were never restarted (auto.leader.rebalance.enable).
"""

from __future__ import annotations

import asyncio

import structlog

from quorate.v1.admin_pb2 import ElectLeadersRequest
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.decisions.requested_elections import RequestedElections
from quorate_quorum.controller.driver.reign import Reign
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.config import QuorumConfig
from quorate_quorum.v1 import events_pb2 as ev

log = structlog.get_logger(__name__)


async def balance(reign: Reign, config: QuorumConfig) -> None:
    """Look at all partitions once in each interval, some of them in each turn of the event loop.

    Returns at once if the configuration switches this off.
    """
    while config.auto_leader_rebalance_enable:
        await asyncio.sleep(config.leader_imbalance_check_interval_seconds)
        elected = await _balance_once(reign)
        if elected:
            log.info("leaders_balanced", partitions=elected)


async def _balance_once(reign: Reign) -> int:
    """Let the preferred replicas lead that may. Return the number of partitions."""
    requested = RequestedElections(
        ElectLeadersRequest(all_topics=True), ev.CAUSE_KIND_PREFERRED_BALANCE
    )
    elected = 0

    def step(image: MetadataImage, context: Context) -> Outcome[tuple[bool, int]]:
        outcome = requested.next(image, context)
        return Outcome(outcome.events, (outcome.response, len(outcome.events)))

    while True:
        done = reign.attempt("balance", step)
        if done is None:
            return elected  # the log takes no more now
        is_last, count = done
        elected += count
        if is_last:
            return elected
        await asyncio.sleep(0)
