"""The settings of a node: each has a meaning, a default that is allowed, a name of its own."""

from __future__ import annotations

import inspect
import re
import typing
from typing import Any

import msgspec
import pytest

from quorate_quorum.node.config import BrokerConfig, NodeConfig, QuorumConfig


@pytest.mark.parametrize("kind", [NodeConfig, QuorumConfig, BrokerConfig])
def test_every_setting_says_what_it_means(kind: type[NodeConfig]) -> None:
    lines = [line.strip() for line in inspect.getsource(kind).splitlines()]
    fields = [i for i, line in enumerate(lines) if re.match(r"[a-z_]+: .*", line)]
    assert fields
    assert [lines[i] for i in fields if not lines[i - 1].startswith("#:")] == []


@pytest.mark.parametrize("kind", [QuorumConfig, BrokerConfig])
def test_no_name_begins_another(kind: type[NodeConfig]) -> None:
    """TOML could not say both: `a.b = 1` makes a value of what `a.b.c = 2` makes a table of."""
    names = [name.replace("_", ".") for name in kind.__struct_fields__]
    assert not [(one, other) for one in names for other in names if other.startswith(f"{one}.")]


@pytest.mark.parametrize("kind", [QuorumConfig, BrokerConfig])
def test_every_default_is_allowed(kind: type[NodeConfig]) -> None:
    for field in msgspec.structs.fields(kind):
        if not field.required:
            hint: Any = typing.get_type_hints(kind, include_extras=True)[field.name]
            assert msgspec.convert(field.default, hint) == field.default
