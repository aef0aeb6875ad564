"""The shape of the house: no circle of imports, no long file, no long class."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

from tests.house.generated import is_generated

ROOT = Path(__file__).parents[2]
PACKAGES = ("quorate", "quorate_cli", "quorate_testing", "quorate_quorum", "quorate_broker")
FILE_LINES_MAX = 500
CLASS_LINES_MAX = 300


def test_no_modules_import_one_another_in_a_circle() -> None:
    """Imports for type checkers count: two modules that need each other's types are one thought."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=False, cache_dir=None)
    order = TopologicalSorter(
        {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    )
    try:
        order.prepare()
    except CycleError as error:
        raise AssertionError("a circle: " + " -> ".join(reversed(error.args[1]))) from None


def test_no_file_and_no_class_of_production_code_is_long() -> None:
    long = []
    for folder in ("clients", "quorum", "broker"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if is_generated(path):
                continue
            source = path.read_text()
            if source.count("\n") > FILE_LINES_MAX:
                long.append(str(path.relative_to(ROOT)))
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ClassDef):
                    assert node.end_lineno is not None
                    if node.end_lineno - node.lineno + 1 > CLASS_LINES_MAX:
                        long.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert long == []
