"""The history of the cluster that a node follows. The quorum_generation identifies a history.

After the loss of a majority of the voters, disaster recovery begins a new history from the log of
one survivor. Its generation is higher by one. Lost voters may come back, elect each other, and
continue the old history. A node that knows of the new history must not follow them.
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

#: The interval at which all voters are asked for their generation; the watch follows only one.
LOOK_MS = 30_000


class FollowedHistory:
    """The history that this node follows. Its generation never goes back."""

    def __init__(self, cluster_id: str, generation: int) -> None:
        self.cluster_id = cluster_id
        #: The newest generation that this node has followed; 0: none yet.
        self.generation = generation
        #: The newest generation of which a voter said that it has a leader; 0: none known yet.
        self._newest_led = 0

    def learn(self, told: int) -> None:
        """Follow the generation that a voter told, if this node follows none yet.

        Raises WrongClusterError if the number is out of range.
        """
        if not 0 < told <= GENERATION_MAX:
            raise WrongClusterError(f"that voter claims quorum_generation {told}")
        if self.generation == 0:
            self.generation = told

    def led_into(self, told: int, *, from_its_beginning: bool) -> int:
        """Return the newer generation that a voter follows; 0 if the voter follows this node's own.

        Raises WrongClusterError if the voter follows an older generation, or does not send a newer
        one from its beginning: an image must never join two histories.
        """
        self.learn(told)
        if told < self._newest_led:
            raise WrongClusterError(
                f"that voter is of quorum_generation {told}, and generation"
                f" {self._newest_led} has a leader: the quorum was recovered without it"
            )
        if told == self.generation:
            return 0
        if told > self.generation and from_its_beginning:
            return told
        raise WrongClusterError(f"that voter is of quorum_generation {told}, not {self.generation}")

    async def look_for_newer(self, network: Network, voters: Voters) -> NoReturn:
        """Ask all voters for their generation, again and again, until cancelled.

        Otherwise a node that was down during the disaster recovery, and now watches a voter of the
        old history, could follow the old history for ever.
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
