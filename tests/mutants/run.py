"""`make mutants`: take each rule out, one change at a time, and see that its test fails.

    python -m tests.mutants.run [own-epoch-commits one-vote ...]

Works on a copy of the source roots in a temporary folder. A mutant that no test catches, whose
text is gone from the source, or that fails for another reason than an assertion is an error.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from py_compile import PycInvalidationMode

from tests.mutants.mutant import Mutant
from tests.mutants.table import MUTANTS

ROOT = Path(__file__).parents[2]
ROOTS = ("clients", "quorum", "broker", "proto", "tests")
SECONDS_MAX = 120


def mutated(mutant: Mutant, root: Path) -> str:
    """Return the source with the fault in it; ValueError if its text does not occur once."""
    source = (root / mutant.path).read_text()
    found = source.count(mutant.old)
    if found != 1:
        raise ValueError(f"{mutant.rule}: stale, its text occurs {found} times in {mutant.path}")
    return source.replace(mutant.old, mutant.new)


def verdict(mutant: Mutant, tree: Path) -> tuple[bool, str]:
    """Return whether a test caught it, and which one, or what happened instead."""
    path = tree / mutant.path
    sound = path.read_text()
    try:
        path.write_text(mutated(mutant, tree))
    except ValueError as error:
        return False, str(error)
    roots = [str(tree), *(str(tree / root) for root in ROOTS[:3])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    # What main() has compiled is read. A module with a fault is compiled in memory: once written,
    # it would stand for the sound source of the same size and second.
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", *mutant.tests]
    try:
        run = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX
        )
    except subprocess.TimeoutExpired:
        return False, f"no end within {SECONDS_MAX} s"
    finally:
        path.write_text(sound)
    failed = [line[7:] for line in run.stdout.splitlines() if line.startswith("FAILED ")]
    if run.returncode != 1 or not failed:
        survived = run.returncode == 0
        return (
            False,
            "SURVIVED" if survived else f"no verdict: {run.stdout[-300:]}{run.stderr[-300:]}",
        )
    return True, failed[0].partition(" - ")[0]


def main() -> int:
    """Run all, or those of the rules that are named; return 1 if one was not caught."""
    chosen = [m for m in MUTANTS if not sys.argv[1:] or m.rule in sys.argv[1:]]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="quorate-mutants-") as folder:
        tree = Path(folder)
        for root in ROOTS:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / root, tree / root, ignore=ignored)
        for root in ROOTS[:3]:
            compileall.compile_dir(
                tree / root, quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH
            )
        shutil.copy(ROOT / "pyproject.toml", tree)
        for mutant in chosen:
            begin = time.monotonic()
            caught, by = verdict(mutant, tree)
            missed += not caught
            seconds = time.monotonic() - begin
            word = "caught" if caught else "MISSED"
            print(f"{mutant.rule:22} {word} {seconds:5.1f} s  {mutant.fault}: {by}", flush=True)
    rules = {mutant.rule for mutant in chosen}
    print(f"{len(chosen)} mutants of {len(rules)} rules, {missed} missed")
    return 1 if missed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
