"""The blocking clients have the settings and methods of the asynchronous ones."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest

import quorate
from quorate import sync
from quorate.sync import settings

PAIRS = [
    (quorate.Admin, sync.Admin, settings.AdminSettings),
    (quorate.Consumer, sync.Consumer, settings.ConsumerSettings),
    (quorate.Producer, sync.Producer, settings.ProducerSettings),
    (quorate.SchemaRegistry, sync.SchemaRegistry, settings.SchemaRegistrySettings),
]
#: What `async with` and `async for` need has other names without them.
ONLY_ASYNC: set[str] = set()


@pytest.mark.parametrize(("asynchronous", "blocking", "told"), PAIRS)
def test_settings_have_the_same_names_and_types(
    asynchronous: Any, blocking: Any, told: Any
) -> None:
    hints = get_type_hints(asynchronous.__init__)
    keywords = [
        name
        for name, one in inspect.signature(asynchronous).parameters.items()
        if one.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    assert get_type_hints(told) == {name: hints[name] for name in keywords}
    assert inspect.signature(blocking) == inspect.signature(asynchronous)


@pytest.mark.parametrize(("asynchronous", "blocking", "_"), PAIRS)
def test_methods_have_the_same_names_and_arguments(
    asynchronous: Any, blocking: Any, _: Any
) -> None:
    for name in dir(asynchronous):
        if name.startswith("_") or name in ONLY_ASYNC:
            continue
        one, other = getattr(asynchronous, name), getattr(blocking, name, None)
        assert other is not None, name
        if callable(one):
            assert list(inspect.signature(one).parameters) == list(
                inspect.signature(other).parameters
            ), name
            assert not inspect.iscoroutinefunction(other), name
            assert inspect.getdoc(other), name
