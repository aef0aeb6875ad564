"""The names of `quorate`: each is imported when it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import quorate


@pytest.mark.parametrize("name", quorate.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(quorate, name).__class__
    assert name in dir(quorate)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = quorate.Nothing
    assert not hasattr(quorate, "__nothing__")


def test_modules_are_there_after_the_package_is_imported() -> None:
    program = (
        "import sys, quorate; assert 'quorate.errors' not in sys.modules; "
        "quorate.errors.TopicExistsError; from quorate import *; Admin, Record"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
