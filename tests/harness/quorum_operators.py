"""Who changes the voters of a simulated quorum, as a careful administrator does.

One thing at a time, asked again until it is done. A disk is given up only when nothing that was
begun before can still shrink the quorum, and at least three vote: no majority loses its disks.
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
#: For what is given up when others hold it up.
TRY_S = 8.0
#: For what has to be done in the end, while faults come and go.
DONE_S = 60.0
#: A voter that can start has started.
START_S = 2.0
VOTERS_LEFT_MIN = 2
VOTERS_TO_WIPE_MIN = 3


class Operator:
    """See the module. Each operation returns whether it was done."""

    def __init__(self, quorum: Quorum) -> None:
        self._quorum = quorum
        self._lock = asyncio.Lock()

    async def add(self, machine: Machine) -> bool:
        """Make an observer a voter: that one, or if it is one already the first that is none."""
        async with self._lock:
            voters = await self._voters()
            named = [machine, *self._quorum.machines]
            outside = [one for one in named if (one.node_id, one.directory_id) not in voters]
            return bool(voters and outside) and await self._add(outside[0], TRY_S)

    async def remove(self, machine: Machine) -> bool:
        """Take a voter out, if enough are left."""
        async with self._lock:
            voters = await self._voters()
            key = machine.node_id, machine.directory_id
            if key not in voters or len(voters) <= VOTERS_LEFT_MIN:
                return False
            return await self._remove(key, TRY_S)

    async def remove_surely(self, machine: Machine) -> bool:
        """Take a voter out, however long it takes; whether it was one, and enough are left."""
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
        """Lose a disk for good; its machine comes back with another, as a new voter."""
        async with self._lock:
            voters = await self._voters()
            if len(voters) < VOTERS_TO_WIPE_MIN:
                return False
            await self._replace(machine, voters, seconds)
            return True

    async def damage(
        self, machine: Machine, chance: random.Random, seconds: float, *, all_dark: bool = False
    ) -> bool:
        """Flip a bit of what was synced: the voter must not run with it, and is replaced.

        With `all_dark` the power of all goes at the same time: the promise is one damaged disk,
        and any number of power losses.
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
        """Lose a disk, and come back under its old directory id with what format wrote.

        Only where all others hold some history: nothing tells such a disk from a new quorum's.
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
        """Give it a new disk, and make that a voter if the old one was."""
        old = machine.node_id, machine.directory_id
        await self._quorum.replace_disk(machine)
        await asyncio.sleep(seconds)
        self._quorum.let_go(machine)
        if old not in voters:
            return
        if not await self._remove(old, DONE_S) or not await self._add(machine, DONE_S):
            raise Violation(f"{machine.name} could not come back as a new voter")

    async def _voters(self) -> list[tuple[int, bytes]]:
        """Return the voters as all that was committed or begun before made them; none: unknown."""
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
        """Ask whoever leads; None if the time is over, or it was refused for good."""
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
            task.cancel()  # or it could do its work much later, when the process is awake again
            return None
        return task.result()


def _has_caught_up(machine: Machine, offset: int) -> bool:
    """On its disk, too: a power loss would bring back that it was behind."""
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
    """Return them when all that was decided is committed, by who surely leads."""
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
