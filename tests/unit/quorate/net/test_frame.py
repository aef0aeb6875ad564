"""Frames: protobuf's bytes, without its copies."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.errors import InvalidRequestError
from quorate.net.frame import Frame, decoder, encode
from quorate.record.record import varint
from quorate.v1.records_pb2 import ProduceFrame, ProduceHeader, ProducePartition

decode = decoder(ProduceHeader)

produce_headers = st.builds(
    ProduceHeader,
    request_id=st.integers(0, 2**64 - 1),
    acks=st.sampled_from([-1, 0, 1]),
    timeout_ms=st.integers(0, 2**32 - 1),
    client_id=st.text(max_size=300),
)


@settings(deadline=None)
@given(produce_headers, st.lists(st.binary(max_size=300), max_size=5))
def test_a_frame_comes_back_as_it_went(header: ProduceHeader, pieces: list[bytes]) -> None:
    frame = decode(encode(Frame(header, pieces)))
    assert frame.header == header
    assert frame.payload == b"".join(pieces)
    assert len(frame.pieces) <= 1


@settings(deadline=None)
@given(produce_headers, st.binary(min_size=1, max_size=300))
def test_a_frame_is_the_protobuf_message_of_its_proto_file(
    header: ProduceHeader, payload: bytes
) -> None:
    message = ProduceFrame(header=header, payload=payload)
    encoded = encode(Frame(header, (payload[:1], payload[1:])))
    assert encoded == message.SerializeToString()
    assert ProduceFrame.FromString(encoded) == message
    assert decode(message.SerializeToString()).header == header


def test_a_frame_without_payload_is_the_header_alone() -> None:
    header = ProduceHeader(request_id=1, partitions=[ProducePartition()])
    encoded = encode(Frame(header))
    assert ProduceFrame.FromString(encoded) == ProduceFrame(header=header)
    assert bytes(decode(encoded).payload) == b""


def test_the_payload_is_a_view_of_what_came() -> None:
    data = encode(Frame(ProduceHeader(request_id=1), (b"x" * 1000,)))
    payload = decode(data).payload
    assert isinstance(payload, memoryview)
    assert payload.obj is data


def test_pieces_of_any_buffer_are_joined() -> None:
    pieces = (b"a", bytearray(b"b"), memoryview(b"xcx")[1:2])
    assert bytes(decode(encode(Frame(ProduceHeader(), pieces))).payload) == b"abc"
    assert bytes(Frame(ProduceHeader(), pieces).payload) == b"abc"


@settings(deadline=None)
@given(st.integers(0, 2**63))
def test_a_varint_is_protobufs(value: int) -> None:
    encoded = ProduceHeader(request_id=value).SerializeToString()
    assert encoded == (b"\x08" + varint(value) if value else b"")


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60), st.binary(max_size=20), st.integers(0, 60))
def test_hostile_bytes_are_an_invalid_request(data: bytes, tail: bytes, cut: int) -> None:
    frame = encode(Frame(ProduceHeader(request_id=5, client_id="c"), (b"payload",)))
    for hostile in (data, b"\x0a" + data, frame[:cut] + data, frame + tail):
        with contextlib.suppress(InvalidRequestError):
            decode(hostile)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "lacks the field tag 0xa"),
        (b"\x7a\x00", "lacks the field tag 0xa"),
        (b"\x0a", "cut or too long"),
        (b"\x0a\x05\x08", "says 5 bytes, and only 1 follow"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "cut or too long"),
        (b"\x0a\x01\x08", "header does not parse"),
        (b"\x0a\x00\x0a\x00", "lacks the field tag 0x7a"),
        (b"\x0a\x00\x7a\x00x", "1 bytes after its payload"),
    ],
)
def test_a_broken_frame_is_named(data: bytes, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        decode(data)
