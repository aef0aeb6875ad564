"""Serializers of classes: msgspec's structs, pydantic's models, messages of Protocol Buffers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import msgspec
import pydantic
import pytest
from google.protobuf.message import DecodeError

from quorate.serializers import Integer, Msgspec, Protobuf, Pydantic, Serde, String
from quorate.v1.common_pb2 import Error, ErrorCode

T = TypeVar("T")


class Order(msgspec.Struct):
    customer: int
    price: float = 0.0


@dataclass
class Point:
    x: int


class Invoice(pydantic.BaseModel):
    total: float
    customer: int = pydantic.Field(alias="customerId")


def test_a_struct_is_json_or_messagepack() -> None:
    order = Order(42, 9.5)
    json, packed = Msgspec(Order), Msgspec(Order, format="msgpack")
    assert json.serialize("topic", order) == b'{"customer":42,"price":9.5}'
    assert json.deserialize("topic", b'{"customer":42}') == Order(42)
    assert packed.deserialize("topic", packed.serialize("topic", order)) == order
    assert packed.serialize("topic", order) == msgspec.msgpack.encode(order)


def test_msgspec_takes_every_type_that_it_knows() -> None:
    assert Msgspec(Point).deserialize("topic", b'{"x":1}') == Point(1)
    assert Msgspec(dict[str, int]).serialize("topic", {"a": 1}) == b'{"a":1}'


def test_a_value_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Msgspec.serialize: value must be of the type Order, not"):
        Msgspec(Order).serialize("topic", Point(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Pydantic.serialize: value must be of the type Invoice"):
        Pydantic(Invoice).serialize("topic", Order(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Protobuf.serialize: value must be a quorate.v1.Error"):
        Protobuf(Error).serialize("topic", Order(1))  # type: ignore[arg-type]


def test_bytes_of_another_type_are_refused() -> None:
    with pytest.raises(
        msgspec.ValidationError, match=r"Expected `int`, got `str` - at `\$.customer`"
    ):
        Msgspec(Order).deserialize("topic", b'{"customer":"x"}')
    with pytest.raises(pydantic.ValidationError, match="customerId"):
        Pydantic(Invoice).deserialize("topic", b'{"total":1}')
    with pytest.raises(DecodeError):
        Protobuf(Error).deserialize("topic", b"\xff\xff")


def test_a_model_of_pydantic_is_json_by_its_aliases() -> None:
    serde, invoice = Pydantic(Invoice), Invoice(customerId=42, total=9.5)
    data = serde.serialize("topic", invoice)
    assert msgspec.json.decode(data) == {"customerId": 42, "total": 9.5}
    assert serde.deserialize("topic", data) == invoice


def test_a_message_has_its_protobuf_bytes() -> None:
    serde = Protobuf(Error)
    error = Error(code=ErrorCode.ERROR_CODE_UNKNOWN, message="why")
    assert serde.deserialize("topic", serde.serialize("topic", error)) == error
    assert serde.serialize("topic", error) == error.SerializeToString()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            lambda: Msgspec(Order, format=cast(Any, "xml")),
            "Msgspec: format must be .*json.*msgpack.*, not 'xml'",
        ),
        (
            lambda: Pydantic(cast(Any, Order)),
            "Pydantic: model must be a subclass of pydantic.BaseModel",
        ),
        (lambda: Protobuf(cast(Any, Order)), "Protobuf: message must be a class that protoc made"),
        (
            lambda: Protobuf(cast(Any, Error())),
            "Protobuf: message must be a class that protoc made",
        ),
    ],
)
def test_a_wrong_argument_is_named(wrong: object, said: str) -> None:
    assert callable(wrong)
    with pytest.raises((TypeError, ValueError), match=said):
        wrong()


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("Pydantic", "pydantic", "pydantic"), ("Avro", "fastavro", "avro")],
)
def test_a_library_is_imported_at_the_first_use_and_its_extra_is_named(
    name: str, library: str, extra: str
) -> None:
    program = f"""
import sys
sys.modules["{library}"] = None
from quorate.serializers import *
assert not {{"msgspec", "fastavro", "pydantic"}} & set(sys.modules) - {{"{library}"}}
try:
    from quorate.serializers import {name}
except ModuleNotFoundError as error:
    assert 'pip install "quorate[{extra}]"' in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def there_and_back(serde: Serde[T], value: T) -> T:
    """A type checker knows by this what each serializer takes and gives."""
    return serde.deserialize("topic", serde.serialize("topic", value))


def test_a_serializer_is_typed_by_its_values() -> None:
    order: Order = there_and_back(Msgspec(Order), Order(1))
    invoice: Invoice = there_and_back(Pydantic(Invoice), Invoice(customerId=1, total=2))
    error: Error = there_and_back(Protobuf(Error), Error(message="x"))
    number: int = there_and_back(Integer(), 7)
    text: str = there_and_back(String(), "x")
    assert (order.customer, invoice.customer, error.message, number, text) == (1, 1, "x", 7, "x")
