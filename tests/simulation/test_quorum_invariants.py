"""Every rule of the simulated quorum, broken by a patch in a sound world: each must notice it.

A rule that sees nothing proves nothing. Here is the list of what holds after every event, each
with what breaks it; that reads are linearizable is broken in test_quorum_judge.py, that voters
come back without harm in test_quorum_rejoin.py, that damage is noticed in test_quorum_damage.py.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace

import pytest

from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.leader import Leader
from quorate_quorum.raft.machine.ledger import Batch
from quorate_quorum.raft.machine.raft import Raft
from quorate_quorum.raft.machine.voters import VoterSet
from quorate_testing.simulated.loop import SimulatedLoop, SimulationError, simulate
from tests.harness.invariants import Violation
from tests.harness.quorum_clients import Clients
from tests.harness.quorum_machines import Machine, Quorum
from tests.harness.quorum_rules import Rules
from tests.harness.quorum_seed import SETTINGS, run_seed
from tests.harness.world import logs

pytestmark = pytest.mark.simulation


@dataclass(slots=True)
class LedQuorum:
    """Three voters that have elected a leader and committed something."""

    quorum: Quorum
    rules: Rules

    @property
    def leader(self) -> Machine:
        leader = self.quorum.leader
        assert leader is not None
        return leader

    @property
    def follower(self) -> Machine:
        return next(one for one in self.quorum.machines if one is not self.leader)

    @property
    def reign(self) -> Leader:
        role = raft_of(self.leader).role
        assert isinstance(role, Leader)
        return role


def raft_of(machine: Machine) -> Raft:
    assert machine.raft is not None
    return machine.raft


def set_state(raft: Raft, state: HardState) -> None:
    raft.state.hard_state = state


# -- what breaks each rule


def another_leads(world: LedQuorum) -> None:
    raft_of(world.follower).role = copy(world.reign)


def leads_twice(world: LedQuorum) -> None:
    raft_of(world.leader).role = copy(world.reign)


def leads_without_what_is_committed(world: LedQuorum) -> None:
    raft = raft_of(world.follower)
    set_state(raft, replace(raft.hard_state, epoch=raft.epoch + 1))
    raft.ledger.log_end_offset = world.rules.committed_end - 1
    reign = copy(world.reign)
    reign.epoch = raft.epoch
    raft.role = reign


def appends_another_batch(world: LedQuorum) -> None:
    (base, epoch), _ = max(world.rules.batches.items())
    raft_of(world.follower).state.append(Batch(base, base + 1, epoch, b"another"))


def applies_another_batch(world: LedQuorum) -> None:
    world.rules.committed[world.rules.committed_end] = b"another"


def applies_out_of_order(world: LedQuorum) -> None:
    world.rules.runs[world.follower.name].applied_end -= 1


def high_watermark_falls(world: LedQuorum) -> None:
    raft_of(world.follower).ledger.high_watermark -= 1


def epoch_falls(world: LedQuorum) -> None:
    raft = raft_of(world.follower)
    set_state(raft, replace(raft.hard_state, epoch=raft.epoch - 1))


def starts_in_an_older_epoch(world: LedQuorum) -> None:
    one = world.follower
    world.rules.epochs[raft_of(one).me, one.disks_lost] = 99
    world.quorum.kill(one)
    world.quorum.let_go(one)


def votes_twice(world: LedQuorum) -> None:
    raft = raft_of(world.follower)
    set_state(raft, replace(raft.hard_state, voted_for=raft.me))


def two_voters_go_at_once(world: LedQuorum) -> None:
    change_voters(world, lambda voters: VoterSet(voters.voters[:1]))


def two_changes_wait(world: LedQuorum) -> None:
    change_voters(world, lambda voters: VoterSet(voters.voters[:2]))
    change_voters(world, lambda voters: VoterSet(voters.voters[:1]))


def change_voters(world: LedQuorum, change: Callable[[VoterSet], VoterSet]) -> None:
    raft = raft_of(world.leader)
    base = raft.ledger.log_end_offset
    raft.state.append(Batch(base, base + 1, raft.epoch, b"voters", change(raft.ledger.voters)))


def log_begins_above_nothing(world: LedQuorum) -> None:
    raft_of(world.follower).ledger.log_start_offset += 1


def shows_another_image(world: LedQuorum) -> None:
    controller = world.follower.controller
    assert controller is not None
    world.rules.digests[controller.image.offset] = 0
    world.rules.compare_image(world.follower, controller.image)


def loads_an_image_of_nobody(world: LedQuorum) -> None:
    controller = world.follower.controller
    assert controller is not None
    world.rules.images.clear()
    world.rules._loaded(world.follower, controller.image)


def stops_itself(world: LedQuorum) -> None:
    server = world.follower.server
    assert server is not None
    server.raft.loop.fail("of a bug")


def breaks_a_rule_under_a_full_disk(world: LedQuorum) -> None:
    world.follower.excuses["full disk"] += 1
    applies_another_batch(world)


@pytest.mark.parametrize(
    ("breaks", "rule"),
    [
        pytest.param(another_leads, "both lead in epoch", id="election safety"),
        pytest.param(leads_twice, "both lead in epoch", id="nobody leads twice in an epoch"),
        pytest.param(
            leads_without_what_is_committed,
            "without the committed record",
            id="leader completeness, no committed record lost",
        ),
        pytest.param(appends_another_batch, "another batch at", id="log matching"),
        pytest.param(applies_another_batch, "applies another batch", id="state machine safety"),
        pytest.param(applies_out_of_order, r"applies \d+ after", id="each record applied once"),
        pytest.param(high_watermark_falls, "watermark fell", id="monotone high watermark"),
        pytest.param(epoch_falls, "epoch fell", id="monotone epoch on disk"),
        pytest.param(starts_in_an_older_epoch, "it starts in", id="monotone epoch over runs"),
        pytest.param(votes_twice, "voted for", id="one vote an epoch"),
        pytest.param(two_voters_go_at_once, "more than one voter", id="one voter at a time"),
        pytest.param(two_changes_wait, "two changes of voters", id="one change at a time"),
        pytest.param(log_begins_above_nothing, "log begins at", id="snapshot at log start"),
        pytest.param(shows_another_image, "another image", id="equal images at equal offsets"),
        pytest.param(loads_an_image_of_nobody, "image of nobody", id="a snapshot's image"),
        pytest.param(
            breaks_a_rule_under_a_full_disk, "stopped itself", id="no fault excuses a broken rule"
        ),
        pytest.param(stops_itself, "stopped itself", id="no voter stops of itself"),
    ],
)
def test_each_rule_sees_what_breaks_it(breaks: Callable[[LedQuorum], None], rule: str) -> None:
    async def program(loop: SimulatedLoop) -> None:
        quorum = Quorum(loop, 3, SETTINGS)
        rules = Rules(quorum)
        clients = Clients(quorum, random.Random(1))
        loop.on_instant = rules.check
        try:
            await quorum.begin()
            while (leader := quorum.leader) is None:  # noqa: ASYNC110  # virtual time
                await asyncio.sleep(0.05)
            for _ in range(3):
                await clients.operate(leader, "write")
            await asyncio.sleep(1)
            world = LedQuorum(quorum, rules)
            breaks(world)
            loop.ran.update(dict.fromkeys(quorum.names))
            await asyncio.sleep(0)
            await clients.operate(leader, "write")
            await asyncio.sleep(2)
        finally:
            loop.on_instant = None

    with logs(verbose=False), pytest.raises((Violation, SimulationError), match=rule):
        simulate(program, 1)


def test_a_seed_that_commits_nothing_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without commits no rule can be broken: such a run proves nothing."""
    monkeypatch.setattr(Clients, "count", lambda _: Counter())
    with pytest.raises(Violation, match="nothing was committed"):
        run_seed(0, [])
