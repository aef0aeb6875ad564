"""Messages: what is encoded is decoded, in every version; what a version lacks is left out."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from proto.kafka.generate import FOLDER
from proto.kafka.notation import Api
from quorate_broker.listeners.kafka.codec import (
    RequestHeader,
    decode_header,
    decode_request,
    encode_response,
)
from quorate_broker.listeners.kafka.messages import (
    api_versions,
    fetch,
    join_group,
    metadata,
    produce,
    sasl_handshake,
)
from quorate_broker.listeners.kafka.wire import MalformedRequest
from tests.harness.kafka_messages import (
    client_messages,
    decode_response,
    encode_header,
    encode_request,
)
from tests.unit.quorate_broker.listeners.kafka.random_messages import ALL, cases_of

ROOT = Path(__file__).parents[5]
ROUNDS = 5


def test_the_messages_are_what_the_generator_makes(tmp_path: Path) -> None:
    """`make proto` changes nothing."""
    command = [sys.executable, "-m", "proto.kafka.generate", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT)
    made = {path.name: path.read_text() for path in (tmp_path / FOLDER).glob("*.py")}
    committed = {path.name: path.read_text() for path in (ROOT / FOLDER).glob("[a-z]*.py")}
    assert made.keys() == committed.keys()
    for name, text in made.items():
        assert committed[name] == text, f"{name}: run `make proto`"


@pytest.mark.parametrize("api", ALL, ids=lambda api: api.name)
def test_what_is_encoded_is_decoded(api: Api) -> None:
    for case in cases_of(api):
        for seed in range(ROUNDS):
            message = case.draw(random.Random(seed))
            assert case.decode(case.encode(message)) == message, f"{case}, seed {seed}"
            assert case.decode(bytearray(case.encode(message))) == message, f"{case}, seed {seed}"


@pytest.mark.parametrize("api", ALL, ids=lambda api: api.name)
def test_a_field_that_a_version_does_not_have_is_left_out(api: Api) -> None:
    """KAFKA-14422: a broker that refused to encode such a field left a group stuck."""
    for newest in list(cases_of(api))[-2:]:
        for seed in range(ROUNDS):
            message = newest.draw(random.Random(seed))
            for version in api.versions:
                older = newest._replace(version=version)
                told = older.encode(message)
                assert older.encode(older.decode(told)) == told, f"{older}, seed {seed}"


def test_null_is_written_as_empty_where_a_version_does_not_allow_it() -> None:
    response = join_group.JoinGroupResponse(protocol_name=None)
    decoders = client_messages(11).RESPONSE_DECODERS
    for version, name in ((6, ""), (7, None)):
        (data,) = join_group.RESPONSE_ENCODERS[version](response)
        assert decoders[version](data, 0, len(data)).protocol_name == name


def test_records_are_not_copied() -> None:
    batch = bytes(range(256)) * 4
    partition = produce.PartitionProduceData(1, batch)
    topic = produce.TopicProduceData(name="t", partition_data=[partition])
    header = RequestHeader(0, 9, 7, "client")
    request = produce.ProduceRequest(topic_data=[topic])
    frame = bytearray(b"".join(encode_request(header, request)))
    decoded = decode_request(0, 9, frame, decode_header(frame)[1])
    records = decoded.topic_data[0].partition_data[0].records
    assert records == batch
    frame[frame.index(batch)] = 99
    assert records[0] == 99, "a view of the frame sees its change"


def test_the_records_of_a_fetch_response_are_pieces_of_their_own() -> None:
    batches = [memoryview(b"first" * 100), memoryview(b"second" * 100)]
    partitions = [fetch.PartitionData(index, records=view) for index, view in enumerate(batches)]
    partitions.insert(1, fetch.PartitionData(9))
    topic = fetch.FetchableTopicResponse(topic="t", partitions=partitions)
    pieces = encode_response(1, 12, 5, fetch.FetchResponse(responses=[topic]))
    views = [piece for piece in pieces if isinstance(piece, memoryview)]
    assert len(views) == 2
    assert all(view is batch for view, batch in zip(views, batches, strict=True))
    correlation_id, decoded = decode_response(1, 12, b"".join(pieces))
    assert correlation_id == 5
    told = decoded.responses[0].partitions
    assert [each.records for each in told] == [batches[0], None, batches[1]]


@pytest.mark.parametrize("client_id", [None, "", "größer", "c" * 300])
@pytest.mark.parametrize(("api_key", "version"), [(3, 0), (3, 9), (18, 0), (18, 3), (18, 5)])
def test_headers_of_both_kinds_are_read(api_key: int, version: int, client_id: str | None) -> None:
    header = RequestHeader(api_key, version, -7, client_id)
    frame = encode_header(header)
    assert decode_header(frame + b"body") == (header, len(frame))


def test_tagged_fields_of_a_header_are_skipped() -> None:
    header = RequestHeader(3, 9, 1, "c")
    frame = encode_header(header)[:-1] + b"\x01\x05\x02ab"
    assert decode_header(frame) == (header, len(frame))


def test_the_header_of_an_unknown_api_is_read_as_far_as_it_is_known() -> None:
    frame = encode_header(RequestHeader(3, 0, 1, "c"))
    assert decode_header(b"\x27\x0f" + frame[2:])[0] == RequestHeader(9999, 0, 1, "c")


@pytest.mark.parametrize("length", range(10))
def test_a_cut_header_is_refused(length: int) -> None:
    frame = encode_header(RequestHeader(3, 9, 1, ""))
    with pytest.raises(MalformedRequest):
        decode_header(frame[:length])


def test_a_client_id_beyond_the_frame_is_refused() -> None:
    frame = bytearray(encode_header(RequestHeader(3, 0, 1, "client")))
    frame[9] += 1
    with pytest.raises(MalformedRequest):
        decode_header(frame)


def test_the_header_of_an_answer_to_api_versions_has_no_tags() -> None:
    """A client that asks for the versions cannot know yet that the broker has flexible ones."""
    told = b"".join(encode_response(18, 3, 1, api_versions.ApiVersionsResponse()))
    assert told[:6] == b"\0\0\0\1\0\0", "the correlation id, then the error code"
    told = b"".join(encode_response(3, 9, 1, metadata.MetadataResponse(throttle_time_ms=-1)))
    assert told[:6] == b"\0\0\0\1\0\xff"


@pytest.mark.parametrize(("api_key", "version"), [(4, 0), (9999, 0), (-1, 0), (3, 14), (3, -1)])
def test_an_unknown_api_or_version_is_refused(api_key: int, version: int) -> None:
    with pytest.raises(MalformedRequest):
        decode_request(api_key, version, b"", 0)


def test_an_api_that_has_no_flexible_version_has_none_beyond_the_last() -> None:
    """Version 2 of SaslHandshake does not exist: its header must not fail before it is refused."""
    header = RequestHeader(17, 2, 1, "c")
    assert decode_header(encode_header(header)[:-1] + b"\0")[0] == header
    assert sasl_handshake.REQUEST_DECODERS.keys() == {0, 1}
