"""The names of `quorate`: each is imported when it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import quorate
from quorate import serializers


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


def test_a_star_import_of_the_serializers_needs_no_further_library() -> None:
    """Those that need one are in dir(), and are imported by name."""
    missing = ["fastavro", "pydantic", "msgspec"]
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({missing})); "
        "from quorate.serializers import *; Json, String"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    extras = {"Avro", "Msgspec", "Protobuf", "Pydantic"}
    assert extras <= set(dir(serializers)) - set(serializers.__all__)
    assert set(serializers.__all__) <= set(dir(serializers))
    assert all(name in str(serializers.__doc__) for name in extras)
