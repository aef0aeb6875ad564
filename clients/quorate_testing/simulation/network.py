"""The network of a simulated cluster, as a test cuts and slows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Annotated, Final

from quorate.settings import Flag, Number, checked
from quorate_testing.simulated.cluster import SimulatedCluster as Nodes
from quorate_testing.simulated.links import LinkQuality
from quorate_testing.simulation.hosts import Hosts
from quorate_testing.simulation.world import World

#: A node by its id, or a program by its name.
Host = int | str
Several = Host | Collection[Host]

CALM: Final = dataclasses.asdict(LinkQuality())


class ClusterNetwork:
    """The links between nodes and programs, as `cluster.network`.

    Nodes are named by id, programs by name, and "test" is the test itself. `these` and `those` are
    one of them or several; `those` of None: all others.
    """

    def __init__(self, world: World, nodes: Nodes, hosts: Hosts) -> None:
        self._world = world
        self._links = nodes.network
        self._hosts = hosts

    @checked
    def cut(
        self,
        these: Several,
        those: Several | None = None,
        *,
        one_way: Annotated[bool, Flag("the other direction stays")] = False,
    ) -> None:
        """Let nothing pass between `these` and `those`, until heal(). Both sides see silence.

        `one_way`: only what `these` send to `those` is held back.
        """
        left, right = self._sides("cut", these, those)
        self._told(f"cut{' one way' if one_way else ''}", left, right)
        self._links.cut(left, right, one_way=one_way)

    @checked
    def heal(self, these: Several | None = None, those: Several | None = None) -> None:
        """End cuts and slow links between `these` and `those`, in both directions.

        What a cut held back arrives now, as TCP repeats it.
        """
        left, right = self._sides("heal", these, those)
        self._told("heal", left, right)
        self._links.set_links(left, right, **CALM)
        self._world.do(lambda: self._links.heal(left, right))

    @checked
    def slow(
        self,
        these: Several | None = None,
        those: Several | None = None,
        *,
        delay_ms: Annotated[float, Number(0, 3_600_000, "of each message")] = 200.0,
        loss: Annotated[float, Number(0, 0.9, "the part of messages to send again")] = 0.0,
        bytes_per_s: Annotated[float | None, Number(1, 1e12, "None: no limit")] = None,
    ) -> None:
        """Make the links between `these` and `those` slow in both directions, until heal().

        A new connection needs its first round trip within 500 ms, as with gRPC.
        """
        left, right = self._sides("slow", these, those)
        told = f"slow by {delay_ms:g} ms, loss {loss:g}, bytes_per_s {bytes_per_s}"
        self._told(told, left, right)
        self._links.set_links(
            left,
            right,
            delay_min_ms=delay_ms,
            delay_max_ms=delay_ms,
            loss=loss,
            bytes_per_s=bytes_per_s,
        )

    @checked
    def break_connections(self, these: Several, those: Several | None = None) -> int:
        """Reset every connection between `these` and `those`. Return their number.

        Both sides see it at once, and may connect again.
        """
        left, right = self._sides("break_connections", these, those)
        self._told("reset connections", left, right)
        return self._world.do(lambda: self._links.break_streams(left, right))

    def _sides(self, call: str, these: object, those: object) -> tuple[list[str], list[str]]:
        self._world.check_is_open()
        left = self._hosts.several(f"ClusterNetwork.{call}", "these", these)
        if those is not None:
            return left, self._hosts.several(f"ClusterNetwork.{call}", "those", those)
        if these is None:
            return left, left
        return left, [name for name in self._hosts.all() if name not in left]

    def _told(self, what: str, left: list[str], right: list[str]) -> None:
        self._world.note(f"{what}: {' '.join(left)} | {' '.join(right)}")
