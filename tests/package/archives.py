"""Which files are in the wheel and in the sdist. Each check returns its complaints."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "quorate": "clients",
    "quorate_cli": "clients",
    "quorate_testing": "clients",
    "quorate_quorum": "quorum",
    "quorate_broker": "broker",
}
#: Files of the repository that neither the build nor the tests need.
NOT_IN_SDIST = {".pre-commit-config.yaml"}
SUFFIXES = {".py", ".pyi", ".typed"}


def repository() -> set[str]:
    """Return the files that git keeps, those that are new and not ignored included."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}


def compare(what: str, found: set[str], wanted: set[str]) -> list[str]:
    """Return a sentence for each file that is missing or too many."""
    return [f"{what} lacks {name}" for name in sorted(wanted - found)] + [
        f"{what} has {name}, and should not" for name in sorted(found - wanted)
    ]


def wheel_faults(path: Path) -> list[str]:
    """Return what is wrong with the wheel: it holds the five packages, and a licence."""
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
    described = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    wanted = {
        f"{package}{name.removeprefix(f'{folder}/{package}')}"
        for package, folder in PACKAGES.items()
        for name in repository()
        if name.startswith(f"{folder}/{package}/") and Path(name).suffix in SUFFIXES
    }
    faults = compare("the wheel", names - described, wanted)
    faults += [
        f"the wheel lacks {package}/py.typed"
        for package in PACKAGES
        if f"{package}/py.typed" not in names
    ]
    if not any(name.endswith("/licenses/LICENSE") for name in described):
        faults.append("the wheel lacks LICENSE")
    return faults


def sdist_faults(path: Path) -> list[str]:
    """Return what is wrong with the sdist: it holds what git keeps, and no leftovers of a build."""
    with tarfile.open(path) as sdist:
        names = {one.name.partition("/")[2] for one in sdist.getmembers() if one.isfile()}
    return compare("the sdist", names - {"PKG-INFO"}, repository() - NOT_IN_SDIST)
