"""The page of outside suites is made from their results, and explains every difference."""

from __future__ import annotations

import pytest

from tests.compat import ci
from tests.compat.page import PAGE, page, unexplained
from tests.compat.results import QUORATE, Case, Result


def test_the_page_is_what_the_results_say() -> None:
    """`make docs` writes it."""
    assert PAGE.read_text() == page()


def test_every_difference_from_apache_kafka_has_a_reason() -> None:
    assert unexplained() == []


def test_what_ci_runs_of_them_passed_when_the_results_were_committed() -> None:
    assert ci.idle() == []


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The cases that fail, or do not run, in the suites that CI runs."""
    names: set[str] = set()

    def run_on(suite: str, server: str, only: list[str]) -> Result:
        assert server == QUORATE
        cases = [Case(name, "passed") for name in only if name not in names]
        return Result(suite, server, "", cases)

    monkeypatch.setattr(ci, "run_on", run_on)
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    return names


def test_ci_passes_if_all_of_them_pass(broken: set[str]) -> None:
    assert broken == set()
    assert ci.main() == 0


@pytest.mark.parametrize(
    "case", ["kcat: list the cluster", "test_producer_integration::test_end_to_end[lz4]"]
)
def test_ci_fails_if_one_no_longer_passes(
    case: str, broken: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    broken.add(case)
    assert ci.main() == 1
    assert f": {case}\n" in capsys.readouterr().out


def test_ci_tells_which_program_is_missing_and_goes_on(
    broken: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken.add("kcat: list the cluster")
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert ci.main() == 0
    assert "SKIPPED: kcat is not installed" in capsys.readouterr().out
