"""A voter that comes back, or was removed, causes no change of leader (KAFKA-17030).

One machine at a time goes away in some way, with or without writes meanwhile, and returns. If a
follower went, the leader must not change from before it goes until long after it is back. If the
leader went, or an operator changed the leadership or the voters meanwhile, the leader must not
change from the time at which the others have settled.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from quorate_quorum.disk import replace_whole
from quorate_quorum.raft.driver.bootstrap import metadata_directory
from quorate_quorum.raft.driver.quorum_state import QUORUM_STATE, encode_state, read_state
from tests.harness.invariants import Violation
from tests.harness.quorum_faults import Fault
from tests.harness.quorum_machines import DATA, Machine, Quorum
from tests.harness.quorum_operators import Operator
from tests.harness.quorum_rules import Rules

SETTLED_S = 0.5
#: Long enough for every time-out of a voter to pass several times.
WATCHED_S = 5.0
PATIENCE_S = 40.0
#: A leader that is silent for a shorter time keeps its place, even if messages are lost.
NOT_MISSED_S = 0.3
#: A leader that is silent for this time is replaced before it comes back.
REPLACED_S = 3.5


def draw_returns(chance: random.Random, machines: int, until_s: float) -> list[Fault]:
    """Return the absences of a run; each begins when the one before is over."""
    plan: list[Fault] = []
    now_s = 3.0
    while now_s < until_s:
        seconds = chance.choice((0.1, 0.5, 1.2, 2.5, 6.0, 12.0)) * chance.uniform(0.5, 1.2)
        machine, other = chance.sample(range(machines), 2)
        way = chance.choice(list(WAYS))
        acts = [act for act, (_, ways) in ACTS.items() if way in ways]
        act = chance.choice(["", "", "", *acts])
        plan.append(
            Fault(
                round(now_s, 3),
                f"{way}, {act}" if act else way,
                machine,
                other,
                round(seconds, 3),
                round(chance.random(), 3),
                chance.getrandbits(32),
            )
        )
        now_s += seconds + WATCHED_S + 3 * SETTLED_S
    return plan


@dataclass(slots=True)
class Returns:
    """Lets machines go and come back; raises Violation if a return changes the leader."""

    quorum: Quorum
    rules: Rules
    told: Callable[[str], None]
    injected: Counter[str] = field(default_factory=Counter)
    operator: Operator = field(init=False)

    def __post_init__(self) -> None:
        self.operator = Operator(self.quorum)

    async def run(self, plan: Sequence[Fault]) -> None:
        """Carry out the absences one after the other."""
        for fault in plan:
            await asyncio.sleep(max(0.0, fault.at_s - self.quorum.loop.time()))
            await self.settled(None)
            self.told(str(fault))
            machines = self.quorum.machines
            going = _Going(self, fault, machines[fault.machine % len(machines)])
            way, _, act = fault.kind.partition(", ")
            was_leader = self.quorum.leader is going.machine
            await going.run(WAYS[way], ACTS[act][0] if act else None)
            self.injected.update(
                (way, act or "nothing else", "leader" if was_leader else "follower")
            )

    async def settled(self, but: Machine | None) -> None:
        """Wait until all machines except `but` follow one leader for a while."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                before = self._followed(but)
                await asyncio.sleep(SETTLED_S)
                if before is not None and before == self._followed(but):
                    return

    def _followed(self, but: Machine | None) -> tuple[int, int] | None:
        """Return the epoch and leader on which all machines except `but` agree; else None."""
        found = {
            (one.raft.epoch, one.raft.leader_id) if one.raft is not None else (-1, -1)
            for one in self.quorum.machines
            if one is not but
        }
        epoch, leader_id = found.pop()
        is_led = any(one.node_id == leader_id and one.is_leader for one in self.quorum.machines)
        return (epoch, leader_id) if is_led and not found else None


@dataclass(slots=True)
class _Going:
    """One absence."""

    world: Returns
    fault: Fault
    machine: Machine
    #: Brings it back: undoes the way in which it went.
    back: Callable[[], None] = lambda: None
    #: Whether it was removed meanwhile.
    is_removed: bool = False
    #: Whether it can become a voter again only with a new disk.
    needs_disk: bool = False

    @property
    def quorum(self) -> Quorum:
        return self.world.quorum

    @property
    def others(self) -> list[str]:
        return [name for name in self.quorum.names if name != self.machine.name]

    async def run(
        self,
        way: Callable[[_Going], Awaitable[None]],
        act: Callable[[_Going], Awaitable[None]] | None,
    ) -> None:
        """Go and return; check that the return changes no leader, nor the going of a follower."""
        # Without writes its log is as complete as any other when it comes back.
        self.quorum.is_idle = self.fault.level < 0.5
        reigns = len(self.world.rules.leaders)
        is_leader = self.quorum.leader is self.machine
        is_calm = act is None and not is_leader
        await way(self)
        seconds = self.fault.seconds
        if is_leader and seconds > NOT_MISSED_S:
            seconds = max(seconds, REPLACED_S)
        await asyncio.sleep(seconds)
        if act is not None:
            await act(self)
        if not is_calm:
            await self.world.settled(self.machine)
            reigns = len(self.world.rules.leaders)
        self.back()
        await asyncio.sleep(WATCHED_S)
        self.quorum.is_idle = False
        new = list(self.world.rules.leaders.items())[reigns:]
        if new:
            raise Violation(
                f"{self.machine.name} came back from '{self.fault.kind}', and {new} led"
            )
        if self.needs_disk:
            await self.quorum.replace_disk(self.machine)
            self.quorum.let_go(self.machine)
        if self.is_removed and not await self.world.operator.add_again(self.machine):
            raise Violation(f"{self.machine.name} could not become a voter again")

    # -- ways to be away

    async def pause(self) -> None:
        process = self.machine.process
        assert process is not None
        process.pause()
        self.back = process.resume

    async def cut_off(self) -> None:
        self._cut(self.others)

    async def cut_from_the_leader(self) -> None:
        leader = self.quorum.leader
        assert leader is not None
        self._cut([leader.name if leader is not self.machine else self.others[0]])

    async def deaf(self) -> None:
        self.quorum.network.cut(self.others, [self.machine.name], one_way=True)
        self.back = self.quorum.network.heal

    async def mute(self) -> None:
        self.quorum.network.cut([self.machine.name], self.others, one_way=True)
        self.back = self.quorum.network.heal

    def _cut(self, those: list[str]) -> None:
        self.quorum.network.cut([self.machine.name], those)
        self.back = self.quorum.network.heal

    async def broken_streams(self) -> None:
        self.quorum.network.break_streams([self.machine.name], self.others)

    async def kill(self) -> None:
        self.quorum.kill(self.machine)
        self.back = self._let_go

    async def power_loss(self) -> None:
        self.quorum.cut_power(self.machine)
        self.back = self._let_go

    async def clean_stop(self) -> None:
        await self.quorum.stop(self.machine)
        self.back = self._let_go

    def _let_go(self) -> None:
        self.quorum.let_go(self.machine)

    async def slow_clock(self) -> None:
        self._drift(0.5)

    async def fast_clock(self) -> None:
        self._drift(1.5)

    def _drift(self, rate: float) -> None:
        process = self.machine.process
        assert process is not None
        process.set_clock_rate(rate)
        self.back = lambda: process.set_clock_rate(1.0)

    # -- what is done meanwhile

    async def removed(self) -> None:
        """Remove it from the voters; when it comes back it does not know of that."""
        self.is_removed = await self.world.operator.remove_surely(self.machine)

    async def removed_with_a_later_epoch(self) -> None:
        """As removed; and it stood for election in vain: its disk is in a later epoch."""
        await self.removed()
        if self.is_removed:
            disk = self.machine.disk
            directory = metadata_directory(DATA)
            state = await read_state(disk, directory)
            raised = replace(state, epoch=state.epoch + 1 + int(9 * self.fault.level))
            raised = replace(raised, voted_for=None)
            await replace_whole(disk, f"{directory}/{QUORUM_STATE}", encode_state(raised))
            self.needs_disk = True

    async def new_disk(self) -> None:
        """Remove it and replace its disk: it comes back as an observer with an empty disk."""
        await self.removed()
        await self.quorum.replace_disk(self.machine)
        self.quorum.let_go(self.machine)  # the way in which it went still holds it down

    async def moved(self) -> None:
        """Move the leadership meanwhile: it comes back with an earlier epoch."""
        await self.world.settled(self.machine)
        leader = self.quorum.leader
        if leader is not None and leader is not self.machine:
            assert leader.process is not None
            assert leader.server is not None
            leader.process.context().run(leader.server.raft.hand_over, for_silence=False)
            await asyncio.sleep(SETTLED_S)


Act = Callable[[_Going], Awaitable[None]]
WAYS: dict[str, Act] = {
    "pause": _Going.pause,
    "cut off": _Going.cut_off,
    "cut from the leader": _Going.cut_from_the_leader,
    "deaf": _Going.deaf,
    "mute": _Going.mute,
    "broken streams": _Going.broken_streams,
    "kill": _Going.kill,
    "power loss": _Going.power_loss,
    "clean stop": _Going.clean_stop,
    "slow clock": _Going.slow_clock,
    "fast clock": _Going.fast_clock,
}
DOWN = ("kill", "power loss", "clean stop")
#: What an operator does during the absence, and the ways to be away that go with it.
ACTS: dict[str, tuple[Act, tuple[str, ...]]] = {
    "removed": (_Going.removed, tuple(WAYS)),
    "removed with a later epoch": (_Going.removed_with_a_later_epoch, DOWN),
    "new disk": (_Going.new_disk, DOWN),
    "leadership moved": (_Going.moved, tuple(WAYS)),
}
