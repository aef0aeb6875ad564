"""The table of `make mutants` fits the source: no mutant is stale, and its tests are there."""

from __future__ import annotations

import re

import pytest

from tests.mutants.run import ROOT, mutated
from tests.mutants.table import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.pitfall}-{m.fault}")
def test_no_mutant_is_stale(mutant: Mutant) -> None:
    mutated(mutant, ROOT)
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert re.search(rf"^(async )?def {name}\b", (ROOT / path).read_text(), re.MULTILINE), test


def test_there_are_mutants_of_twenty_five_pitfalls() -> None:
    pitfalls = {mutant.pitfall for mutant in MUTANTS}
    assert len(pitfalls) >= 25
    # quorum, records, consumers, losses, operators, authorisation, metadata
    known = {"R": 45, "K": 26, "C": 2, "L": 12, "O": 2, "A": 3, "M": 1}
    assert pitfalls <= {f"{kind}{n}" for kind, last in known.items() for n in range(1, last + 1)}
