"""The program that runs seeds of whole clusters: its floors and its shrinking."""

from __future__ import annotations

from collections import Counter

import pytest

from quorate_testing.simulated.chaos import Fault
from tests.harness.cluster_faults import KINDS
from tests.harness.cluster_shape import Shape
from tests.harness.invariants import Violation
from tests.harness.world import Outcome, plan_of, shape_of
from tests.simulation import run as cluster_run
from tests.simulation.run import FLOORS, FLOORS_FROM_SEEDS, PROGRAMS, SUMS

#: What a seed must count, so that a hundred of them reach each floor.
ENOUGH = {name: -(-floor // 100) for name, floor in FLOORS.items()}


def outcome(seed: int, left_out: str = "") -> Outcome:
    counted = {name: count for name, count in ENOUGH.items() if name != left_out}
    injected = Counter({kind: 1 for kind in KINDS if kind != left_out})
    found = Outcome(seed, counters=Counter(counted), injected=injected)
    for name in SUMS:
        setattr(found, name, found.counters.pop(name, 0))
    return found


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["run", "--workers", "1", *arguments])
    return cluster_run.main()


@pytest.mark.parametrize("missing", [*FLOORS, *KINDS])
def test_what_happens_too_little_fails_a_run(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = str(FLOORS_FROM_SEEDS)
    monkeypatch.setattr(cluster_run, "run_seed", outcome)
    assert run(monkeypatch, "--seeds", seeds) == 0
    monkeypatch.setattr(cluster_run, "run_seed", lambda seed: outcome(seed, missing))
    assert run(monkeypatch, "--seeds", seeds) == 1
    assert f"too little happened: {missing}\n" in capsys.readouterr().out


def test_a_failing_seed_is_shrunk_to_its_faults_and_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = next(seed for seed in range(100) if shape_of(seed).grows and shape_of(seed).moves)
    plan = plan_of(seed)
    wanted = [plan[2], plan[7]]

    def breaks(
        _seed: int, part: list[Fault] | None = None, *, shape: Shape | None = None
    ) -> Outcome:
        shape = shape or shape_of(seed)
        if not shape.grows:
            raise Violation("another rule")
        if part is None or all(fault in part for fault in wanted):
            raise Violation("an acknowledged record is lost")
        raise TimeoutError

    monkeypatch.setattr(cluster_run, "run_seed", breaks)
    assert run(monkeypatch, "--first-seed", str(seed), "--seeds", "1") == 1
    told = capsys.readouterr().out
    others = [name for name in PROGRAMS if getattr(shape_of(seed), name) and name != "grows"]
    assert told.endswith(f"--seed {seed} --only 2,7 --without {','.join(others)}\n")


def test_a_seed_is_replayed_with_some_faults_and_without_some_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = next(seed for seed in range(100) if shape_of(seed).grows and shape_of(seed).moves)
    asked: list[tuple[list[Fault], bool, bool]] = []

    def replay(_: int, plan: list[Fault], *, shape: Shape, verbose: bool) -> None:
        asked.append((plan, shape.grows, shape.moves))
        assert verbose

    monkeypatch.setattr(cluster_run, "run_seed", replay)
    run(monkeypatch, "--seed", str(seed), "--only", "0,3", "--without", "grows")
    plan = plan_of(seed)
    assert asked == [([plan[0], plan[3]], False, True)]
    with pytest.raises(SystemExit):
        run(monkeypatch, "--seed", str(seed), "--without", "everything")
    assert "--without everything: it may name cancels, " in capsys.readouterr().err


def test_a_replay_ends_with_a_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def passes(seed: int, plan: object, **_: object) -> Outcome:
        return outcome(seed)

    monkeypatch.setattr(cluster_run, "run_seed", passes)
    assert run(monkeypatch, "--seed", "7") == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "seed 7 passed: no rule was broken"
    assert "Outcome(" not in said
    assert f"{ENOUGH['drains']:10}  drains\n" in said

    def fails(seed: int, plan: object, **_: object) -> Outcome:
        raise Violation("a record is lost")

    monkeypatch.setattr(cluster_run, "run_seed", fails)
    assert run(monkeypatch, "--seed", "7") == 1
    said, told = capsys.readouterr()
    assert said.startswith("seed 7 FAILED: it breaks Violation in fails, line ")
    assert "a record is lost" in told
