"""The size of each installed package, as a table. Any Python runs it: `python sizes.py`.

The table of docs/installing.md is what `make package-test` prints for an environment with Quorate
alone. A byte-compiled file counts too, as pip writes it.
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

#: They come with each virtual environment.
NOT_OURS = {"pip", "setuptools", "wheel"}
MEGABYTE = 1_000_000


def size(package: Distribution) -> int:
    """Return the bytes of a package's files."""
    paths = [Path(str(file.locate())) for file in package.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())


def table() -> str:
    """Return the table in Markdown, the largest package first."""
    sizes = {
        one.metadata["Name"]: size(one)
        for one in distributions()
        if one.metadata["Name"] not in NOT_OURS
    }
    lines = ["| package | MB |", "|---|---:|"]
    for name, count in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        lines.append(f"| {name} | {count / MEGABYTE:.1f} |")
    lines.append(f"| **all** | **{sum(sizes.values()) / MEGABYTE:.1f}** |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
