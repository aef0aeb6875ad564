"""Which history of the cluster a node follows, told by its quorum_generation.

A quorum that has lost a majority of its voters is recovered into a new history: one generation
later, from the log of one survivor. Lost voters may come back, elect each other, and lead the old
history on; a node must not follow them once it has heard of the new one.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

import structlog

from quorate.errors import WrongClusterError
from quorate.net.network import Network
from quorate_quorum.client.voters import Voters
from quorate_quorum.generations import ask_generation
from quorate_quorum.log.identity import GENERATION_MAX
from quorate_quorum.node.config import ConfigError

log = structlog.get_logger(__name__)

#: So often all voters are asked for their generation, beside the one that is watched.
LOOK_MS = 30_000


class FollowedHistory:
    """The history that this node follows now. The generation never goes back."""

    def __init__(self, cluster_id: str, generation: int) -> None:
        self.cluster_id = cluster_id
        #: The newest that this node has followed; 0: none yet.
        self.generation = generation
        #: The newest that has a leader, as far as voters said; 0: none was asked yet.
        self._newest_led = 0

    def learn(self, told: int) -> None:
        """Follow the history of the first voter that accepts us, while we follow none."""
        if not 0 < told <= GENERATION_MAX:
            raise WrongClusterError(f"that voter claims quorum_generation {told}")
        if self.generation == 0:
            self.generation = told

    def led_into(self, told: int, *, from_its_beginning: bool) -> int:
        """Return the newer generation into which a voter leads us, 0 if it is of ours.

        Raises WrongClusterError if it is of an older one, or of a newer one and does not begin
        with the beginning of that.
        """
        self.learn(told)
        if told < self._newest_led:
            raise WrongClusterError(
                f"that voter is of quorum_generation {told}, and somebody leads in"
                f" {self._newest_led}: the quorum was recovered without it"
            )
        if told == self.generation:
            return 0
        if told > self.generation and from_its_beginning:
            return told
        raise WrongClusterError(f"that voter is of quorum_generation {told}, not {self.generation}")

    async def look_for_newer(self, network: Network, voters: Voters) -> NoReturn:
        """Ask all voters for their generation, again and again, until cancelled.

        A node that was down during the recovery, and then watches a voter of the old history,
        would not hear of the new one otherwise.
        """
        while True:
            newest = 0
            try:
                if len(voters.known) > 1:
                    newest = await ask_generation(network, voters.known, self.cluster_id)
            except ConfigError as error:
                log.warning("a voter of another cluster is asked", reason=str(error), repeats=True)
            self._newest_led = max(newest, self._newest_led)
            await asyncio.sleep(LOOK_MS / 1000)
