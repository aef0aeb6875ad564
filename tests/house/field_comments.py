"""What the source says of the fields of a class: the comments `#:` above them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence


def field_comments(kind: type) -> dict[str, str]:
    """Return the comment above each field that the class itself declares; "" if it has none."""
    lines, _ = inspect.getsourcelines(kind)
    (declared,) = ast.parse("".join(lines)).body
    assert isinstance(declared, ast.ClassDef)
    return {
        node.target.id: _comment_above(lines, node.lineno - 1)
        for node in declared.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _comment_above(lines: Sequence[str], index: int) -> str:
    comment: list[str] = []
    while lines[index - 1].strip().startswith("#:"):
        index -= 1
        comment.insert(0, lines[index].strip().removeprefix("#:").strip())
    return " ".join(comment)
