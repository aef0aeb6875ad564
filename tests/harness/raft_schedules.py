"""Random schedules for the Raft machine: acts on a raft_world, and checks of the outcome.

A schedule is a number of acts, drawn by a seed: proposals, changes of the voters after which the
leader often dies or is cut off at once, crashes by kill and by loss of power, cuts of links,
transfers, snapshots. The rules of safety are checked all the time. Then all nodes start, all links
heal, and no node dies any more: one node must lead, its whole log must be committed, and all others
must follow it.

`make sim-raft SEEDS=5000 FIRST_SEED=0` runs more seeds than `make test`; `SEED=7` prints one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from quorate.errors import QuorateError
from quorate_quorum.raft.machine.events import LogCut, SnapshotTaken
from tests.harness.invariants import Violation
from tests.harness.raft_machines import voters
from tests.harness.raft_world import Run, World

CALM_MS = 25_000
PAUSES_MS = (1, 2, 5, 20, 100, 400, 1500, 3000)
NODES_MAX = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a schedule, and the trace of everything that happened in it."""

    reigns: int
    committed: int
    trace: tuple[str, ...]


def run_schedule(seed: int, *, lines_told: int = 40) -> Outcome:
    """Run the schedule of a seed; Violation names the seed and holds the end of the trace."""
    chance = random.Random(seed)
    initial = chance.choice((1, 1, 2, 2, 3, 3, 4, 5))
    world = World(chance, initial=initial, nodes=min(NODES_MAX, initial + chance.randint(0, 2)))
    try:
        _disturb(world)
        _calm_down(world)
        _check_is_whole(world)
    except Exception as error:
        told = "\n".join([*world.trace[-lines_told:], *map(_state_of, world.runs)])
        raise Violation(f"seed {seed}: {type(error).__name__} {error}\n{told}") from error
    rules = world.rules
    return Outcome(len(rules.leaders), len(rules.committed), tuple(world.trace))


def _disturb(world: World) -> None:
    world.pass_time(world.chance.randint(500, 3000))
    for _ in range(world.chance.randint(10, 60)):
        (act,) = world.chance.choices(tuple(ACTS), tuple(ACTS.values()))
        act(world)
        world.pass_time(world.chance.choice(PAUSES_MS))


def _calm_down(world: World) -> None:
    world.is_calm = True
    world.link.cuts.clear()
    for node in world.nodes.values():
        if not node.run.is_up:
            node.start()
    world.say("calm")
    world.pass_time(CALM_MS)


def _check_is_whole(world: World) -> None:
    """Raise Violation unless one node leads, its log is committed, and all others follow it.

    Exception: a node that was cut off and stood for election before it was removed. Its disk is in
    a later epoch than the quorum, so it needs a new disk (docs/operations.md).
    """
    if not world.leaders():
        raise Violation("no machine leads, though all is calm")
    leader = world.leaders()[-1]
    ledger = leader.raft.ledger
    if ledger.high_watermark != ledger.log_end_offset:
        raise Violation(f"leader {leader.name} does not commit what it holds")
    for run in world.runs:
        if not run.raft.state.is_voter() and run.raft.epoch > leader.raft.epoch:
            continue
        heard, committed = run.raft.leader_id, run.raft.high_watermark
        if (heard, committed) != (leader.node.id, ledger.high_watermark):
            raise Violation(f"node {run.name} does not follow {leader.name}")


def _state_of(run: Run) -> str:
    raft, ledger = run.raft, run.raft.ledger
    return (
        f"node {run.name}: {type(raft.role).__name__ if run.is_up else 'down'}, epoch {raft.epoch},"
        f" log {ledger.log_start_offset} to {ledger.log_end_offset}, last epoch"
        f" {ledger.last_epoch}, committed {ledger.high_watermark},"
        f" voters {[voter.id for voter in ledger.voters.voters]}"
    )


# --- the acts -----------------------------------------------------------------------------------


def _propose(world: World) -> None:
    """Append at every node that thinks it leads; a replaced leader may not know it yet."""
    for run in world.leaders():
        for _ in range(world.chance.randint(1, 4)):
            try:
                run.raft.propose(run.next_batch(), world.now_ms)
            except QuorateError:
                continue
            run.drain()


def _change_voters(world: World) -> None:
    for run in world.leaders():
        if _propose_voters(world, run) and world.chance.random() < 0.4:
            _strike_at_once(world, run)


def _propose_voters(world: World, run: Run) -> bool:
    """Propose to add or remove one voter; return False if no voter would be left."""
    members = [voter.id for voter in run.raft.ledger.voters.voters]
    drawn = world.chance.choice(list(world.nodes) if world.chance.random() < 0.6 else members)
    changed = sorted({*members} ^ {drawn})
    if not changed:
        return False
    made = run.next_batch(voters(*changed))
    try:
        run.raft.propose(made, world.now_ms)
    except QuorateError:
        return True
    world.say(f"node {run.name} changes the voters to {changed} at {made.base_offset}")
    run.drain()
    return True


def _strike_at_once(world: World, run: Run) -> None:
    """Crash the leader or cut it off: the change is in its log only, and may stay so."""
    if world.chance.random() < 0.4:
        run.crash()
    else:
        world.link.isolate(run.node)
        world.say(f"node {run.name} is cut off")


def _crash(world: World) -> None:
    run = world.chance.choice(world.runs)
    if run.is_up:
        run.crash()


def _restart(world: World) -> None:
    for node in world.nodes.values():
        if not node.run.is_up and world.chance.random() < 0.7:
            node.start()


def _cut(world: World) -> None:
    """Cut a link, in one direction or both."""
    if len(world.nodes) < 2:
        return
    source, target = world.chance.sample(list(world.nodes), 2)
    is_deaf = world.chance.random() < 0.3
    world.link.cuts |= {(source, target)} if is_deaf else {(source, target), (target, source)}
    world.say(f"cut: {source} to {target}" + ("" if is_deaf else ", and back"))


def _heal(world: World) -> None:
    world.link.cuts.clear()
    world.say("all links heal")


def _transfer(world: World) -> None:
    for run in world.leaders()[-1:]:
        try:
            successor = run.raft.check_may_transfer(None)
            run.raft.transfer(successor, world.now_ms)
        except QuorateError:
            continue
        world.say(f"node {run.name} is to be followed by {successor}")
        run.drain()


def _take_snapshot(world: World) -> None:
    """Take a snapshot of all that is committed and synced, and cut the log somewhere below it."""
    run = world.chance.choice(world.runs)
    ledger, disk = run.raft.ledger, run.node.disk
    offset = min(ledger.high_watermark, ledger.written_end, disk.synced_end)
    if not run.is_up or offset <= max(disk.log_start, _snapshot_end(run)):
        return
    taken = disk.below(offset)
    disk.keep(taken)
    world.say(f"node {run.name} has a snapshot of all below {offset}")
    if world.strikes(run, 0.2):
        return
    run.step(SnapshotTaken(taken.id))
    log_start = world.chance.randint(disk.log_start, offset)
    if log_start > disk.log_start and not run.saves:
        disk.cut_below(log_start)
        world.say(f"the log of node {run.name} begins at {log_start}")
        run.step(LogCut(log_start))


def _snapshot_end(run: Run) -> int:
    newest = run.raft.ledger.snapshot
    return 0 if newest is None else newest.offset


#: Act -> its weight in the draw.
ACTS: dict[Callable[[World], None], float] = {
    _propose: 30,
    _change_voters: 32,
    _crash: 8,
    _restart: 10,
    _cut: 6,
    _heal: 7,
    _transfer: 2.5,
    _take_snapshot: 4.5,
}
