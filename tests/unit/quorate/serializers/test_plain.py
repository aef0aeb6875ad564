"""The bytes are those of Kafka's serializers for Java; what does not fit is refused."""

from __future__ import annotations

import math
import struct
import uuid
from typing import Any

import pytest

from quorate.serializers import (
    Boolean,
    Bytes,
    Double,
    Float,
    Integer,
    Json,
    Long,
    Serde,
    Short,
    String,
    Uuid,
)

ID = uuid.UUID("123e4567-e89b-42d3-a456-426614174000")

#: What ShortSerializer, IntegerSerializer, ... of Apache Kafka's clients write.
TABLE: list[tuple[Serde[Any], Any, str]] = [
    (Short(), 0, "0000"),
    (Short(), 1, "0001"),
    (Short(), -1, "ffff"),
    (Short(), 32767, "7fff"),
    (Short(), -32768, "8000"),
    (Integer(), 0, "00000000"),
    (Integer(), 423412424, "193cc2c8"),
    (Integer(), -41243432, "fd8aacd8"),
    (Integer(), 2147483647, "7fffffff"),
    (Integer(), -2147483648, "80000000"),
    (Long(), 1, "0000000000000001"),
    (Long(), -1, "ffffffffffffffff"),
    (Long(), 922337203685477580, "0ccccccccccccccc"),
    (Long(), 9223372036854775807, "7fffffffffffffff"),
    (Long(), -9223372036854775808, "8000000000000000"),
    (Float(), 0.0, "00000000"),
    (Float(), 1.5, "3fc00000"),
    (Float(), -2.0, "c0000000"),
    (Float(), math.inf, "7f800000"),
    (Double(), 0.0, "0000000000000000"),
    (Double(), 9.5, "4023000000000000"),
    (Double(), -math.inf, "fff0000000000000"),
    (Double(), 5e-324, "0000000000000001"),
    (Boolean(), True, "01"),
    (Boolean(), False, "00"),
    (Uuid(), ID, b"123e4567-e89b-42d3-a456-426614174000".hex()),
    (Bytes(), b"\x00\xff", "00ff"),
    (Bytes(), b"", ""),
    (String(), "Zoë", "5a6fc3ab"),
    (String("utf-16-be"), "Zoë", "005a006f00eb"),
    (String("latin-1"), "Zoë", "5a6feb"),
    (Json(), {"ë": [1, None]}, '{"ë":[1,null]}'.encode().hex()),
]


@pytest.mark.parametrize(("serde", "value", "data"), TABLE)
def test_a_value_has_these_bytes_and_comes_back(serde: Serde[Any], value: Any, data: str) -> None:
    assert serde.serialize("topic", value).hex() == data
    assert serde.deserialize("topic", bytes.fromhex(data)) == value


def test_not_a_number_stays_not_a_number() -> None:
    for serde in (Float(), Double()):
        assert math.isnan(serde.deserialize("topic", serde.serialize("topic", math.nan)))


@pytest.mark.parametrize(
    ("serde", "value", "error", "said"),
    [
        (Short(), 32768, ValueError, "Short.serialize: value must be .*32767, not 32768"),
        (Integer(), -2147483649, ValueError, "Integer.serialize: value must be .*2147483647"),
        (Long(), 1 << 63, ValueError, "Long.serialize: value must be .*9223372036854775807"),
        (Integer(), "7", TypeError, "Integer.serialize: value must be .* not '7'"),
        (Integer(), True, TypeError, "Integer.serialize: value must be .* not True"),
        (Integer(), 1.5, TypeError, "Integer.serialize: value must be .* not 1.5"),
        (Float(), 1e39, ValueError, "Float.serialize: .*fits into 4 bytes, not 1e.39"),
        (Double(), 10**400, ValueError, "Double.serialize: .*fits into 8 bytes"),
        (Double(), "1", TypeError, "Double.serialize: .*fits into 8 bytes, not '1'"),
        (Double(), True, TypeError, "Double.serialize: .*not True"),
        (Boolean(), 1, TypeError, "Boolean.serialize: value must be True or False, not 1"),
        (Uuid(), str(ID), TypeError, "Uuid.serialize: value must be a uuid.UUID, not '123e"),
        (Bytes(), "text", TypeError, "Bytes.serialize: value must be bytes, not 'text'"),
    ],
)
def test_a_value_that_has_no_such_bytes_is_refused(
    serde: Serde[Any], value: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        serde.serialize("topic", value)


@pytest.mark.parametrize(
    ("serde", "data"),
    [
        *((serde, b"\0" * wrong) for serde in (Short(),) for wrong in (0, 1, 3)),
        *((serde, b"\0" * wrong) for serde in (Integer(), Float()) for wrong in (0, 3, 5, 8)),
        *((serde, b"\0" * wrong) for serde in (Long(), Double()) for wrong in (0, 4, 7, 9)),
        *((Boolean(), wrong) for wrong in (b"", b"\x02", b"\x01\x01")),
        *((Uuid(), wrong) for wrong in (b"", ID.bytes, b"{%s}" % str(ID).encode(), b"\xff" * 36)),
        (Uuid(), ID.hex.encode()),
        (Json(), b"{"),
        (String(), b"\xff"),
    ],
)
def test_bytes_of_another_kind_are_refused(serde: Serde[Any], data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the kinds of it are many
        serde.deserialize("topic", data)


def test_a_refusal_of_bytes_names_their_number() -> None:
    with pytest.raises(
        ValueError, match=r"Integer.deserialize: data must be 4 bytes, not b'ab', wh.* 2"
    ):
        Integer().deserialize("topic", b"ab")


def test_a_uuid_in_capitals_is_read() -> None:
    assert Uuid().deserialize("topic", str(ID).upper().encode()) == ID


def test_a_float_has_four_bytes_of_precision() -> None:
    assert (
        Float().deserialize("t", Float().serialize("t", 0.1))
        == struct.unpack(">f", struct.pack(">f", 0.1))[0]
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, {"a": [1.0, math.nan]}], ids=repr)
def test_what_is_no_json_is_not_written(value: object) -> None:
    with pytest.raises(ValueError, match="must be a value of JSON, which has no NaN"):
        Json().serialize("t", value)
