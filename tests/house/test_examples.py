"""The examples are what a user may copy: the public API alone, folders that need no other."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/README.md"))
PUBLIC = {
    "quorate", "quorate.errors", "quorate.serializers", "quorate.sync", "quorate_testing",
}  # fmt: skip
#: Module -> the requirement that brings it, where they differ.
REQUIRED_AS = {"pydantic": "fastapi"}


def imports(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the file and the module of each import."""
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path.name, one.name) for one in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None
                yield path.name, node.module


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_imports_the_public_api_its_own_modules_and_its_requirements(
    folder: Path,
) -> None:
    own = {path.stem for path in folder.glob("*.py")}
    lines = (folder / "requirements.txt").read_text().splitlines()
    required = {line.partition(">=")[0] for line in lines}
    wrong = [
        f"{file} imports {module}"
        for file, module in imports(folder)
        if module.partition(".")[0] not in own | sys.stdlib_module_names
        and module not in PUBLIC
        and REQUIRED_AS.get(module, module) not in required - {"quorate"}
    ]
    assert wrong == []
    assert {"quorate", "pytest"} <= required


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_has_a_program_and_tests_and_is_named_where_it_must_be(folder: Path) -> None:
    assert list(folder.glob("test_*.py"))
    assert f"({folder.name}/README.md)" in (ROOT / "examples" / "README.md").read_text()
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    place = f"examples/{folder.name}"
    assert place in settings["pytest"]["ini_options"]["pythonpath"]
    assert place in settings["mypy"]["mypy_path"].split(":")
