"""The links between the hosts of a simulated world, and the faults of links."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection
from contextvars import Context
from dataclasses import dataclass, replace
from typing import Any, Literal

from quorate_testing.simulated.loop import SimulatedLoop

#: The additional delay of a lost packet. It doubles with each further loss.
RETRANSMIT_S = 0.2

#: Called when a message leaves a host, with the kind (a client's "send" or a server's "reply"), the
#: source and the target. The hook may kill the sender; if so, the message does not leave.
Hook = Callable[[Literal["send", "reply"], str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkQuality:
    """The properties of one direction between two hosts."""

    delay_min_ms: float = 0.1
    delay_max_ms: float = 1.0
    #: The chance at each attempt that a message is lost and must be sent again.
    loss: float = 0.0
    #: Bytes per second; None: no limit.
    bytes_per_s: float | None = None
    #: The chance that a unary call is carried out a second time, up to `late_max_ms` later.
    duplication: float = 0.0
    #: The chance that a unary call is delayed by up to `late_max_ms`, so that later messages
    #: overtake it.
    reordering: float = 0.0
    late_max_ms: float = 500.0

    def __post_init__(self) -> None:
        if not 0 <= self.delay_min_ms <= self.delay_max_ms:
            raise ValueError(f"0 <= delay_min_ms <= delay_max_ms, not {self}")
        if not 0 <= self.loss <= 0.9:
            raise ValueError(f"loss must be 0 to 0.9, not {self.loss}")
        if not (0 <= self.duplication <= 1 and 0 <= self.reordering <= 1 and self.late_max_ms > 0):
            raise ValueError(f"duplication, reordering 0 to 1, late_max_ms above 0, not {self}")


class Links:
    """The links between hosts. They decide when, in which order and how often messages arrive."""

    def __init__(self, loop: SimulatedLoop, chance: random.Random) -> None:
        self.hook: Hook | None = None
        self._loop = loop
        self._chance = chance
        self._default = LinkQuality()
        self._qualities: dict[tuple[str, str], LinkQuality] = {}
        self._cut: dict[tuple[str, str], None] = {}
        #: The context of deliveries: a delivery belongs to the world, not to a process.
        self._context = Context()

    # -- faults; hosts are the names of processes --

    def set_links(
        self,
        sources: Collection[str] | None = None,
        targets: Collection[str] | None = None,
        **changes: Any,
    ) -> None:
        """Set fields of LinkQuality: on all links, or on those between `sources` and `targets`."""
        if sources is None or targets is None:
            self._default = replace(self._default, **changes)
            self._qualities = {p: replace(q, **changes) for p, q in self._qualities.items()}
            return
        for pair in links_between(sources, targets):
            self._qualities[pair] = replace(self.quality(*pair), **changes)

    def cut(
        self, sources: Collection[str], targets: Collection[str], *, one_way: bool = False
    ) -> None:
        """Hold back all messages from `sources` to `targets`.

        Without `one_way`, also hold back all messages in the other direction.
        """
        for pair in links_between(sources, targets, both=not one_way):
            self._cut[pair] = None

    def heal(
        self, sources: Collection[str] | None = None, targets: Collection[str] | None = None
    ) -> None:
        """End all cuts, or those between `sources` and `targets`."""
        if sources is None or targets is None:
            self._cut.clear()
        else:
            for pair in links_between(sources, targets):
                self._cut.pop(pair, None)

    def is_cut(self, source: str, target: str) -> bool:
        """Return whether a cut holds back messages from one host to another."""
        return (source, target) in self._cut

    def quality(self, source: str, target: str) -> LinkQuality:
        """Return the properties of the link in this direction."""
        return self._qualities.get((source, target), self._default)

    # -- for connections --

    def leaves(self, kind: Literal["send", "reply"], size: int, source: str, target: str) -> None:
        """Call the hook for a message. Openings, credits and ends of calls are no messages."""
        if self.hook is not None and size:
            self.hook(kind, source, target)

    def call_at(
        self, when: float, callback: Callable[..., object], *arguments: Any
    ) -> asyncio.TimerHandle:
        return self._loop.call_at_world(when, callback, *arguments, context=self._context)

    def time(self) -> float:
        return self._loop.world_time()

    def delay_s(self, quality: LinkQuality) -> float:
        """Draw the delay of one message. It includes the delays of its repetitions."""
        delay = self._chance.uniform(quality.delay_min_ms, quality.delay_max_ms) / 1000
        again = RETRANSMIT_S
        while quality.loss and self._chance.random() < quality.loss:
            delay += again
            again = min(2 * again, 10.0)
        return delay

    def late_s(self, quality: LinkQuality, chance: float) -> float:
        """Draw the additional delay of a unary call, or of its repetition; 0: there is none."""
        if not chance or self._chance.random() >= chance:
            return 0.0
        return self._chance.uniform(0, quality.late_max_ms) / 1000


def links_between(
    sources: Collection[str], targets: Collection[str], *, both: bool = True
) -> dict[tuple[str, str], None]:
    """Return (source, target) of each link from `sources` to `targets`; with `both`, also back."""
    there = [(s, t) for s in sorted(sources) for t in sorted(targets) if s != t]
    back = [(t, s) for s, t in there] if both else []
    return dict.fromkeys(there + back)
