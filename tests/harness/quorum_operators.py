"""The operator of a simulated quorum: changes its voters as a careful administrator does.

It does one operation at a time, and repeats the request until it is done. It gives up a disk only
if no earlier change can still shrink the quorum, and at least three vote: no majority loses its
disks.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from quorate.errors import InvalidRequestError, QuorateError, raise_if_error
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.controller.decisions.voters import remove_voter
from quorate_quorum.controller.driver.controller import Controller
from quorate_quorum.metadata.voters import VoterImage
from tests.harness.invariants import Violation
from tests.harness.quorum_damage import flip_below_the_sync
from tests.harness.quorum_machines import Machine, Quorum

R = TypeVar("R")

PATIENCE_S = 3.0
AGAIN_S = 0.2
#: Time for an operation that may be given up.
TRY_S = 8.0
#: Time for an operation that must succeed in the end, while faults come and go.
DONE_S = 60.0
#: In this time a voter starts, if it can start.
START_S = 2.0
VOTERS_LEFT_MIN = 2
VOTERS_TO_WIPE_MIN = 3


class Operator:
    """A careful administrator. Each operation returns whether it was done."""

    def __init__(self, quorum: Quorum) -> None:
        self._quorum = quorum
        self._lock = asyncio.Lock()

    async def add(self, machine: Machine) -> bool:
        """Make that machine a voter; if it is one already, the first machine that is none."""
        async with self._lock:
            voters = await self._voters()
            named = [machine, *self._quorum.machines]
            outside = [one for one in named if (one.node_id, one.directory_id) not in voters]
            return bool(voters and outside) and await self._add(outside[0], TRY_S)

    async def remove(self, machine: Machine) -> bool:
        """Remove a voter, if enough voters are left."""
        async with self._lock:
            voters = await self._voters()
            key = machine.node_id, machine.directory_id
            if key not in voters or len(voters) <= VOTERS_LEFT_MIN:
                return False
            return await self._remove(key, TRY_S)

    async def remove_surely(self, machine: Machine) -> bool:
        """Remove a voter, however long it takes; False if it is none, or too few would be left."""
        async with self._lock:
            voters = await self._voters()
            key = machine.node_id, machine.directory_id
            if key not in voters or len(voters) <= VOTERS_LEFT_MIN:
                return False
            return await self._remove(key, DONE_S)

    async def add_again(self, machine: Machine) -> bool:
        """Make it a voter, however long it takes to catch up."""
        async with self._lock:
            return await self._add(machine, DONE_S)

    async def wipe(self, machine: Machine, seconds: float) -> bool:
        """Take a disk away for good; its machine comes back as a new voter with another disk."""
        async with self._lock:
            voters = await self._voters()
            if len(voters) < VOTERS_TO_WIPE_MIN:
                return False
            await self._replace(machine, voters, seconds)
            return True

    async def damage(
        self, machine: Machine, chance: random.Random, seconds: float, *, all_dark: bool = False
    ) -> bool:
        """Flip a bit below the synced end. The voter must not run with it; its disk is replaced.

        With `all_dark` all voters lose their power at the same time: the quorum is promised to
        survive one damaged disk together with any number of power losses.
        """
        async with self._lock:
            voters = await self._voters()
            if len(voters) < VOTERS_TO_WIPE_MIN or machine.raft is None:
                return False
            machine.excuses["damaged disk"] += 1
            told = machine.raft.ledger.synced_end
            dark = self._quorum.machines if all_dark else []
            for one in dark:
                self._quorum.cut_power(one)
            self._quorum.kill(machine)
            damage = flip_below_the_sync(machine.disk, told, chance)
            for one in [machine, *dark]:
                self._quorum.let_go(one)
            await asyncio.sleep(START_S + seconds)
            if damage is not None and damage.is_there and machine.raft is not None:
                raise Violation(f"{machine.name} runs with a damaged {damage.path}")
            await self._replace(machine, voters, 0.0)
            machine.excuses["damaged disk"] -= 1
            return damage is not None

    async def empty(self, machine: Machine, seconds: float) -> bool:
        """Empty a disk: it keeps its directory id, and holds only what format wrote.

        Only if all others hold some history: else this disk looks like that of a new quorum.
        """
        async with self._lock:
            voters = await self._voters()
            others = [one for one in self._quorum.machines if one is not machine]
            is_voter = (machine.node_id, machine.directory_id) in voters
            if len(voters) < VOTERS_TO_WIPE_MIN or not is_voter:
                return False
            if any(one.raft is None or one.raft.ledger.last_epoch <= 0 for one in others):
                return False
            goal = max(one.raft.high_watermark for one in others if one.raft is not None)
            await self._quorum.empty_disk(machine)
            await asyncio.sleep(seconds)
            self._quorum.let_go(machine)
            until = self._quorum.loop.time() + DONE_S
            while not _has_caught_up(machine, goal):
                if self._quorum.loop.time() > until:
                    raise Violation(f"{machine.name} did not catch up with its emptied disk")
                await asyncio.sleep(AGAIN_S)
            return True

    async def _replace(
        self, machine: Machine, voters: list[tuple[int, bytes]], seconds: float
    ) -> None:
        """Give the machine a new disk, and make it a voter if the old disk was one."""
        old = machine.node_id, machine.directory_id
        await self._quorum.replace_disk(machine)
        await asyncio.sleep(seconds)
        self._quorum.let_go(machine)
        if old not in voters:
            return
        if not await self._remove(old, DONE_S) or not await self._add(machine, DONE_S):
            raise Violation(f"{machine.name} could not come back as a new voter")

    async def _voters(self) -> list[tuple[int, bytes]]:
        """Return the voters after all changes that were begun before; empty if not known."""
        found: tuple[VoterImage, ...] | None = await self._until_done(
            lambda controller: _read_voters(controller), TRY_S
        )
        return [(voter.id, voter.directory_id) for voter in found or ()]

    async def _add(self, machine: Machine, seconds: float) -> bool:
        request = admin.AddVoterRequest(
            voter_id=machine.node_id, directory_id=machine.directory_id, endpoint=machine.endpoint
        )
        return await self._until_done(lambda controller: _add(controller, request), seconds) is True

    async def _remove(self, key: tuple[int, bytes], seconds: float) -> bool:
        request = admin.RemoveVoterRequest(voter_id=key[0], directory_id=key[1])
        done = await self._until_done(lambda controller: _remove(controller, request), seconds)
        return done is True

    async def _until_done(
        self, ask: Callable[[Controller], Coroutine[Any, Any, R]], seconds: float
    ) -> R | None:
        """Ask the leader again and again; None if the time is over, or the request is invalid."""
        loop = self._quorum.loop
        until = loop.time() + seconds
        while loop.time() < until:
            leader = self._quorum.leader
            if leader is not None and leader.controller is not None:
                answer = await self._ask(leader, _caught(ask, leader.controller))
                if isinstance(answer, InvalidRequestError):
                    return None
                if not isinstance(answer, QuorateError) and answer is not None:
                    return answer
            await asyncio.sleep(AGAIN_S)
        return None

    async def _ask(self, leader: Machine, asked: Coroutine[Any, Any, R]) -> R | None:
        process, death = leader.process, leader.death
        assert process is not None
        assert death is not None
        task = process.spawn(asked)
        await asyncio.wait((task, death), timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()  # else a paused process could do the work much later
            return None
        return task.result()


def _has_caught_up(machine: Machine, offset: int) -> bool:
    """Whether its log reaches the offset, and its saved state no longer says `is_behind`."""
    raft = machine.raft
    if raft is None or not raft.state.is_saved:
        return False
    return not raft.hard_state.is_behind and raft.ledger.synced_end >= offset


async def _caught(
    ask: Callable[[Controller], Coroutine[Any, Any, R]], controller: Controller
) -> R | QuorateError:
    try:
        return await ask(controller)
    except QuorateError as error:
        return error


async def _read_voters(controller: Controller) -> tuple[VoterImage, ...]:
    """Return the voters by a decision: the leader surely leads, and all before is committed."""
    return (
        await controller.active().reign.run(lambda image, _: Outcome((), image.voters))
    ).response


async def _add(controller: Controller, request: admin.AddVoterRequest) -> bool:
    raise_if_error((await controller.active().add_voter(request)).response.error)
    return True


async def _remove(controller: Controller, request: admin.RemoveVoterRequest) -> bool:
    decided = await controller.active().reign.run(lambda image, _: remove_voter(image, request))
    raise_if_error(decided.response.error)
    return True
