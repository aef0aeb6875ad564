"""The program that runs seeds of the quorum: its floors, its memory, its shrinking."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from quorate_testing.simulated.loop import SimulationError
from tests.harness.invariants import Violation
from tests.harness.quorum_faults import KINDS, Fault
from tests.harness.quorum_scenarios import SCENARIOS
from tests.harness.quorum_seed import Outcome, broken_rule, plan_of
from tests.simulation import quorum_run
from tests.simulation.quorum_run import FLOORS_FROM_SEEDS

FLOORS = SCENARIOS["faults"].floors
ENOUGH = Counter({name: floor // 50 for name, floor in FLOORS.items()})


def outcome(seed: int, counters: Counter[str] = ENOUGH) -> Outcome:
    return Outcome(seed, Counter(counters), Counter(dict.fromkeys(KINDS, 1)))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["quorum_run", "--workers", "1", *arguments])
    return quorum_run.main()


@pytest.mark.parametrize("missing", FLOORS)
def test_what_never_happened_is_below_its_floor(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A counter that no seed has counted is not left out: it is below its floor."""
    happened = Counter({name: count for name, count in ENOUGH.items() if name != missing})
    seeds = str(FLOORS_FROM_SEEDS)
    monkeypatch.setattr(quorum_run, "run_seed", lambda seed, **_: outcome(seed))
    assert run(monkeypatch, "--seeds", seeds) == 0
    monkeypatch.setattr(quorum_run, "run_seed", lambda seed, **_: outcome(seed, happened))
    assert run(monkeypatch, "--seeds", seeds) == 1
    assert f"too little happened: {missing}" in capsys.readouterr().out


def test_a_run_that_was_stopped_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if it was killed in the middle of a line. Failed seeds run again."""
    state = tmp_path / "state"
    ran: list[int] = []

    def stopped_at_seven(seed: int, *, scenario: str) -> Outcome:
        ran.append(seed)
        if seed == 5:
            raise Violation("two leaders")
        if seed == 7:
            raise KeyboardInterrupt
        return outcome(seed)

    def goes_on(seed: int, *, scenario: str) -> Outcome:
        ran.append(seed)
        return outcome(seed)

    arguments = ("--seeds", "10", "--state", str(state), "--no-shrink")
    monkeypatch.setattr(quorum_run, "run_seed", stopped_at_seven)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, *arguments)
    assert ran == list(range(8))

    lines = state.read_bytes()
    state.write_bytes(lines[: lines.rindex(b'"seed": 6') + 20])
    ran.clear()
    monkeypatch.setattr(quorum_run, "run_seed", goes_on)
    assert run(monkeypatch, *arguments) == 0
    assert ran == [5, 6, 7, 8, 9]
    assert "5 of 10 seeds are done already" in capsys.readouterr().out

    ran.clear()
    assert run(monkeypatch, *arguments) == 0
    assert ran == []
    assert "10 seeds passed" in capsys.readouterr().out


def test_shrinking_keeps_to_the_rule_that_was_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If fewer faults break another rule, that is another failure, not a shorter form of it."""
    plan = plan_of(1)
    wanted = [plan[2], plan[11]]

    def breaks(seed: int, part: list[Fault] | None = None, *, scenario: str) -> Outcome:
        if part is None or all(fault in part for fault in wanted):
            raise Violation("a committed record is lost")
        if plan[2] in part:
            raise Violation("two leaders")
        raise TimeoutError

    monkeypatch.setattr(quorum_run, "run_seed", breaks)
    assert run(monkeypatch, "--first-seed", "1", "--seeds", "1") == 1
    told = capsys.readouterr().out
    assert "seed 1 breaks Violation in breaks, line" in told
    assert told.endswith("--seed 1 --only 2,11\n")


def test_the_rule_is_told_by_the_line_that_broke_it_however_deep_it_is() -> None:
    def raised() -> Exception:
        try:
            raise Violation("two leaders")
        except Violation as error:
            return error

    first, second = raised(), raised()
    assert broken_rule(first) == broken_rule(second)
    unseen = SimulationError("a task failed and its result was never read")
    unseen.__cause__ = ExceptionGroup("tasks", [first, TimeoutError()])
    assert broken_rule(unseen) == broken_rule(first)
    assert broken_rule(first) != broken_rule(TimeoutError())
