"""The links between the hosts of a simulated world, and the faults of links."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from contextvars import Context
from dataclasses import dataclass, replace
from typing import Any, Literal

from quorate_testing.simulated.loop import SimulatedLoop

#: A lost packet comes this much later, twice as much when lost again.
RETRANSMIT_S = 0.2

#: Called as a message leaves a host: a client's "send" or a server's "reply", from where, to
#: where. It may kill the sender; then the message does not leave.
Hook = Callable[[Literal["send", "reply"], str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkQuality:
    """How one direction between two hosts behaves."""

    delay_min_ms: float = 0.1
    delay_max_ms: float = 1.0
    #: The chance that a message has to be sent again, each time.
    loss: float = 0.0
    #: Bytes per second; None: as many as come.
    bytes_per_s: float | None = None
    #: The chance that a unary call is carried out a second time, up to `late_max_ms` later.
    duplication: float = 0.0
    #: The chance that a unary call is held back by up to `late_max_ms`, and nothing else with it.
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
    """How messages travel between hosts: how late, in which order, how often, or not at all."""

    def __init__(self, loop: SimulatedLoop, chance: random.Random) -> None:
        self.hook: Hook | None = None
        self._loop = loop
        self._chance = chance
        self._default = LinkQuality()
        self._qualities: dict[tuple[str, str], LinkQuality] = {}
        self._cut: dict[tuple[str, str], None] = {}
        #: Deliveries are the world's doing: no process's callbacks.
        self._context = Context()

    # -- faults; hosts are the names of processes --

    def set_delay(
        self,
        delay_min_ms: float,
        delay_max_ms: float,
        sources: Collection[str] | None = None,
        targets: Collection[str] | None = None,
    ) -> None:
        """Set the delay of one message, everywhere, or from some hosts to others and back."""
        self._change(sources, targets, delay_min_ms=delay_min_ms, delay_max_ms=delay_max_ms)

    def set_loss(
        self,
        loss: float,
        sources: Collection[str] | None = None,
        targets: Collection[str] | None = None,
    ) -> None:
        """Set the chance that a message must be sent again (0 to 0.9)."""
        self._change(sources, targets, loss=loss)

    def set_bandwidth(
        self,
        bytes_per_s: float | None,
        sources: Collection[str] | None = None,
        targets: Collection[str] | None = None,
    ) -> None:
        """Make links slow; None: as fast as the delay allows."""
        self._change(sources, targets, bytes_per_s=bytes_per_s)

    def set_duplication(
        self,
        chance: float,
        sources: Collection[str] | None = None,
        targets: Collection[str] | None = None,
        *,
        late_max_ms: float = 500.0,
    ) -> None:
        """Set the chance that a unary call is carried out twice, the second time so much later."""
        self._change(sources, targets, duplication=chance, late_max_ms=late_max_ms)

    def set_reordering(
        self,
        chance: float,
        sources: Collection[str] | None = None,
        targets: Collection[str] | None = None,
        *,
        late_max_ms: float = 500.0,
    ) -> None:
        """Set the chance that a unary call is overtaken by what is sent so much later."""
        self._change(sources, targets, reordering=chance, late_max_ms=late_max_ms)

    def cut(
        self, sources: Collection[str], targets: Collection[str], *, one_way: bool = False
    ) -> None:
        """Hold back all that goes from `sources` to `targets`, and back unless `one_way`."""
        for pair in links_between(sources, targets, both=not one_way):
            self._cut[pair] = None

    def heal(
        self, sources: Collection[str] | None = None, targets: Collection[str] | None = None
    ) -> None:
        """Let everything through again, or what goes between these."""
        if sources is None or targets is None:
            self._cut.clear()
        else:
            for pair in links_between(sources, targets):
                self._cut.pop(pair, None)

    def is_cut(self, source: str, target: str) -> bool:
        """Whether messages from one host to another are held back."""
        return (source, target) in self._cut

    def quality(self, source: str, target: str) -> LinkQuality:
        """Return how the link in that direction behaves."""
        return self._qualities.get((source, target), self._default)

    # -- for connections --

    def leaves(self, kind: Literal["send", "reply"], size: int, source: str, target: str) -> None:
        """Tell the hook of a message; openings, credits and ends of calls are none."""
        if self.hook is not None and size:
            self.hook(kind, source, target)

    def call_at(self, when: float, callback: Callable[..., object], *arguments: Any) -> None:
        self._loop.call_at_world(when, callback, *arguments, context=self._context)

    def time(self) -> float:
        return self._loop.world_time()

    def delay_s(self, quality: LinkQuality) -> float:
        """Draw what one message takes, its repetitions included."""
        delay = self._chance.uniform(quality.delay_min_ms, quality.delay_max_ms) / 1000
        again = RETRANSMIT_S
        while quality.loss and self._chance.random() < quality.loss:
            delay += again
            again = min(2 * again, 10.0)
        return delay

    def late_s(self, quality: LinkQuality, chance: float) -> float:
        """Draw how much later a unary call comes, or comes again; 0: it does not."""
        if not chance or self._chance.random() >= chance:
            return 0.0
        return self._chance.uniform(0, quality.late_max_ms) / 1000

    def _change(
        self,
        sources: Collection[str] | None,
        targets: Collection[str] | None,
        **changes: Any,
    ) -> None:
        if sources is None or targets is None:
            self._default = replace(self._default, **changes)
            self._qualities = {p: replace(q, **changes) for p, q in self._qualities.items()}
            return
        for pair in links_between(sources, targets):
            self._qualities[pair] = replace(self.quality(*pair), **changes)


def links_between(
    sources: Collection[str], targets: Collection[str], *, both: bool = True
) -> dict[tuple[str, str], None]:
    """Return (source, target) of each link from these to those, and back."""
    there = [(s, t) for s in sorted(sources) for t in sorted(targets) if s != t]
    back = [(t, s) for s, t in there] if both else []
    return dict.fromkeys(there + back)
