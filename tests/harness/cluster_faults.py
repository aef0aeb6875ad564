"""Faults of a simulated cluster that also damage disks, drawn from the seed as a plan.

Faults that acks=all does not promise to survive are done only in seeds whose shape says so
(`beyond`): see cluster_shape and cluster_damage. The other faults: quorate_testing.simulated.chaos.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass

from quorate_cli.node_disks import format_broker
from quorate_testing.simulated import chaos
from quorate_testing.simulated.chaos import Fault, FaultUnderWay, Kind
from quorate_testing.simulated.cluster import DATA, SimulatedCluster, SimulatedNode
from tests.harness.cluster_damage import Damages, flip, replica_directories

#: Time in which a node stops after a fault of its disk.
STOP_S = 6.0
TAKEN_FOR_ANOTHER = "is held by a living process"


def draw_plan(chance: random.Random, until_s: float) -> list[Fault]:
    """Return the faults of a run, by time."""
    return chaos.draw_plan(chance, until_s, KINDS)


class Nemesis(chaos.Nemesis):
    """Does the faults of a plan to a cluster, and knows what they damaged."""

    def __init__(
        self,
        cluster: SimulatedCluster,
        topic: str,
        damages: Damages,
        told: Callable[[str], None] = lambda _: None,
        hosts: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        super().__init__(cluster, KINDS, told, hosts)
        self.topic, self.damages = topic, damages
        #: How many faults may make a node stop itself; it is no violation then.
        self.excuses: Counter[str] = Counter()
        #: Brokers with a new disk. Until the session of its last run has ended, the controller
        #: takes such a broker for another one of the same id.
        self.wiped: set[str] = set()

    def under_way(self, fault: Fault) -> FaultUnderWay:
        return _Damaging(self, fault, random.Random(fault.seed), of=self)

    def is_excused(self, node: SimulatedNode) -> bool:
        """Whether a fault of the node's disk is a reason for it to stop itself."""
        is_taken_for_another = TAKEN_FOR_ANOTHER in (node.failure or "")
        return self.excuses[node.name] > 0 or (node.name in self.wiped and is_taken_for_another)

    def excuse_ends(self, node: SimulatedNode) -> None:
        """From now on this fault of the disk is no reason for the node to stop itself."""
        self.excuses[node.name] -= 1


@dataclass
class _Damaging(FaultUnderWay):
    """One fault under way, within the damage that a seed's shape allows."""

    of: Nemesis

    def may_go_dark(self, node: SimulatedNode) -> bool:
        damages = self.of.damages
        return node.is_voter or damages.shape.syncs_on_ack or damages.may_hurt(node)

    def may_fail_a_sync(self, node: SimulatedNode) -> bool:
        """At a broker a failed sync counts as damage."""
        if node.is_voter:
            return True
        if not self.of.damages.may_hurt(node):
            return False
        self.of.damages.failing.append(node.disk)
        return True

    async def until_mended(self, node: SimulatedNode) -> bool:
        """While the fault lasts the node may stop itself; the supervisor starts it again."""
        self.of.excuses[node.name] += 1
        await super().until_mended(node)
        self.of.excuses[node.name] -= 1
        self._may_stop_for_a_while(node)
        return True

    def _may_stop_for_a_while(self, node: SimulatedNode) -> None:
        self.of.excuses[node.name] += 1
        self.cluster.loop.call_later(STOP_S, self.of.excuse_ends, node, context=Context())

    def a_broker(self) -> SimulatedNode:
        return self.chance.choice(self.cluster.brokers)

    async def flip_log(self) -> bool:
        return await self._flip("log")

    async def flip_index(self) -> bool:
        return await self._flip("index")

    async def flip_checkpoint(self) -> bool:
        return await self._flip("checkpoint")

    async def flip_metadata(self) -> bool:
        return await self._flip("metadata")

    async def _flip(self, part: str) -> bool:
        """Flip a bit on a broker's disk: the broker is killed and comes back, or runs on."""
        node, nemesis = self.a_broker(), self.of
        if not nemesis.damages.may_hurt(node):
            return False
        is_killed = self.fault.level < 0.6
        if is_killed:
            nemesis.down(node, self.cluster.kill)
        damage = flip(node.disk, nemesis.topic, part, self.chance)
        if damage is not None:
            nemesis.damages.note(node, damage)
            nemesis.told(f"flipped: {node.name} {damage.path}, byte {damage.position}")
        if is_killed:
            await self.lasts()
            nemesis.let_go(node)
        return damage is not None

    async def lost_directory(self) -> bool:
        """A replica's directory is gone when its broker comes back."""
        node, nemesis = self.a_broker(), self.of
        if not nemesis.damages.may_hurt(node):
            return False
        nemesis.down(node, self.cluster.kill)
        found = replica_directories(node.disk, nemesis.topic)
        lost = self.chance.sample(found, self.chance.randint(1, len(found))) if found else []
        for path in lost:
            node.disk.lose_directory(path)
            nemesis.told(f"lost: {node.name} {path}")
        await self.lasts()
        nemesis.let_go(node)
        return bool(lost)

    async def wiped_disk(self) -> bool:
        """One or all disks of a broker are replaced by empty ones, which are formatted."""
        node, nemesis = self.a_broker(), self.of
        if not nemesis.damages.may_hurt(node):
            return False
        nemesis.down(node, self.cluster.kill)
        log_dirs = self.cluster.shape.log_dirs
        gone = self.chance.sample(log_dirs, self.chance.randint(1, len(log_dirs)))
        nemesis.told(f"  wiped: {node.name} {' '.join(gone)}")
        for directory in gone:
            node.disk.lose_directory(directory)
        await self.lasts()
        while not await self._is_formatted(node):  # noqa: ASYNC110  (virtual time)
            await asyncio.sleep(0.1)
        nemesis.wiped.add(node.name)
        nemesis.let_go(node)
        return True

    async def _is_formatted(self, node: SimulatedNode) -> bool:
        """Format what is empty. False: another fault of this node stopped that."""
        try:
            await format_broker(
                self.cluster.cluster_id,
                node.node_id,
                self.cluster.shape.log_dirs,
                disk=node.disk,
                chance=self.chance,
            )
        except OSError:
            return False
        return True

    async def failed_disk(self) -> bool:
        """All that is done with one disk fails, until it works again and the node is restarted.

        At a broker this counts as damage: the disk may have forgotten what was not synced.
        """
        (node,) = self.some(1)
        if not node.is_voter and not self.of.damages.may_hurt(node):
            return False
        log_dirs = (DATA,) if node.is_voter else self.cluster.shape.log_dirs
        directory = self.chance.choice(log_dirs)
        self.tell(f"failed disk {directory}", node)

        def fails(_: str, path: str) -> None:
            if f"{path}/".startswith(f"{directory}/"):
                raise OSError(errno.EIO, "simulated: input/output error", path)

        node.disk.hook = fails
        await self.until_mended(node)
        if node.disk.hook is fails:
            node.disk.hook = None
        self.of.down(node, self.cluster.kill)
        self.of.let_go(node)
        return True


KINDS: dict[str, Kind] = {
    **chaos.KINDS,
    "bit flip, log": Kind(3, _Damaging.flip_log),
    "bit flip, index": Kind(1, _Damaging.flip_index),
    "bit flip, checkpoint": Kind(1, _Damaging.flip_checkpoint),
    "bit flip, metadata": Kind(1, _Damaging.flip_metadata),
    "lost directory": Kind(2, _Damaging.lost_directory),
    "wiped disk": Kind(2, _Damaging.wiped_disk),
    "failed disk": Kind(2, _Damaging.failed_disk),
}
