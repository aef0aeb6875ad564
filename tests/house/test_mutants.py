"""The table of `make mutants` fits the source: no mutant is stale, and its tests are there."""

from __future__ import annotations

import re

import pytest

from tests.mutants.mutant import Mutant
from tests.mutants.run import ROOT, mutated
from tests.mutants.table import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.rule}-{m.fault}")
def test_no_mutant_is_stale(mutant: Mutant) -> None:
    mutated(mutant, ROOT)
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert re.search(rf"^(async )?def {name}\b", (ROOT / path).read_text(), re.MULTILINE), test


def test_every_rule_of_the_guarantees_has_a_mutant_and_names_a_test_that_catches_it() -> None:
    row = re.compile(r"^\| \*\*([a-z-]+)\*\* \|.*\| `([^`]+)` \|$", re.MULTILINE)
    told = dict(row.findall((ROOT / "docs/guarantees.md").read_text()))
    tests = {rule: {test for m in MUTANTS if m.rule == rule for test in m.tests} for rule in told}
    assert set(told) == {mutant.rule for mutant in MUTANTS}
    for rule, test in told.items():
        assert any(one.removeprefix("tests/") == test for one in tests[rule]), rule


def test_what_others_have_lost_is_kept_by_rules_that_have_mutants() -> None:
    page = (ROOT / "docs/guarantees.md").read_text()
    _, _, section = page.partition("\n## What others have lost\n")
    rows = re.findall(r"^\| .+ \| .+ \| (.+) \|$", section, re.MULTILINE)[1:]
    assert len(rows) >= 22
    named = {rule for rules in rows for rule in rules.split(", ")}
    assert named <= {mutant.rule for mutant in MUTANTS}
