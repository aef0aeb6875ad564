"""No request is parsed that would hold the loop of its server: its size is looked at first."""

from __future__ import annotations

from typing import Any

import pytest

import quorate.net.methods
import quorate_broker.methods
import quorate_quorum.methods
from quorate.errors import InvalidRequestError
from quorate.net.frame import Frame, encode
from quorate.net.methods import NAMES_BYTES_MAX, PRODUCE
from quorate.net.network import REQUEST_BYTES_MAX, Method
from quorate.v1.records_pb2 import ProduceHeader
from quorate_quorum.methods import FORWARD

METHODS = [
    value
    for module in (quorate.net.methods, quorate_broker.methods, quorate_quorum.methods)
    for value in vars(module).values()
    if isinstance(value, Method) and value not in (FORWARD, PRODUCE)
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.path)
def test_a_request_above_the_bound_is_refused_unread(method: Method[Any, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="ask for less at once"):
        method.decode_request(b"\x0a\x00" * (NAMES_BYTES_MAX // 2 + 1))


def test_a_frame_is_bounded_by_its_header_and_not_by_its_payload() -> None:
    header = ProduceHeader()
    for _ in range(REQUEST_BYTES_MAX // 2 + 1):
        header.partitions.add()
    with pytest.raises(InvalidRequestError, match="send several frames"):
        PRODUCE.decode_request(encode(Frame(header)))
    payload = bytes(4 * REQUEST_BYTES_MAX)
    assert PRODUCE.decode_request(encode(Frame(ProduceHeader(), (payload,)))).payload == payload
