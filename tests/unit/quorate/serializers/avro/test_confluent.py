"""Values of Confluent's serializers, read with the schemas of a registry on HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from quorate.errors import IncompatibleSchemaError, InvalidSchemaError, UnknownSchemaError
from quorate.serializers import Avro, Confluent, ConfluentRegistry, Json, Protobuf
from quorate.v1.common_pb2 import Error

ORDER = {
    "type": "record",
    "name": "shop.Order",
    "fields": [{"name": "customer", "type": "int"}, {"name": "note", "type": "string"}],
}
WIDER = {
    "type": "record",
    "name": "shop.Order",
    "fields": [{"name": "customer", "type": "long"}, {"name": "at", "type": "int", "default": 0}],
}
#: As AvroSerializer of confluent-kafka writes {"customer": 42, "note": "x"} with the schema 7.
VALUE = bytes.fromhex("00" + "00000007" + "54" + "0278")


class Registry(ThreadingHTTPServer):
    """A registry with the answers that a test gives it, by path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Any] = {
            "/schemas/ids/7": {"schema": json.dumps(ORDER)},
            "/schemas/ids/8": {"schema": "{}", "schemaType": "PROTOBUF"},
            "/schemas/ids/9": {"schema": json.dumps("int"), "references": [{"name": "x"}]},
            "/schemas/ids/10": [],
        }
        self.asked: list[tuple[str, str | None]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def registered(self, path: str, schema: Any) -> tuple[int, Any]:
        """Answer a request to register a schema."""
        self.asked.append((path, json.dumps(schema)))
        if path == "/subjects/strict-value/versions":
            return 409, {"error_code": 409, "message": "Schema being registered is incompatible"}
        return 200, {"id": 7} if schema == ORDER else {"version": 1}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = self.server.registered(self.path, json.loads(asked["schema"]))
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        assert self.server.may_answer.wait(60)
        found = self.server.answers.get(self.path)
        missing = {"error_code": 40403, "message": "Schema not found"}
        body = json.dumps(missing if found is None else found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_value_is_read_and_its_schema_asked_for_once(registry: Registry) -> None:
    serde = Avro(ORDER, confluent=registry.address)
    for _ in range(3):
        assert serde.deserialize("topic", VALUE) == {"customer": 42, "note": "x"}
    assert registry.asked == [("/schemas/ids/7", None)]


def test_values_are_written_in_confluent_s_form(registry: Registry) -> None:
    """The bytes are those of Confluent's serializer; what reads them asks for no schema."""
    at = ConfluentRegistry(registry.address)
    schema_id = at.register("orders/eu-value", ORDER)
    assert schema_id == 7
    assert [path for path, _ in registry.asked] == ["/subjects/orders%2Feu-value/versions"]
    serde = Avro(ORDER, WIDER, confluent=at, confluent_id=schema_id)
    assert serde.serialize("topic", {"customer": 42, "note": "x"}) == VALUE
    assert serde.deserialize("topic", VALUE) == {"customer": 42, "at": 0}
    assert Avro(ORDER, confluent=at).deserialize("topic", VALUE) == {"customer": 42, "note": "x"}
    assert len(registry.asked) == 1


def test_a_schema_that_the_registry_refuses_is_told_with_its_reason(registry: Registry) -> None:
    at = ConfluentRegistry(registry.address)
    with pytest.raises(IncompatibleSchemaError, match=r"answers 409: .* is incompatible"):
        at.register("strict-value", ORDER)
    with pytest.raises(UnknownSchemaError, match=r"does not answer with an id: .*version"):
        at.register("orders-value", WIDER)
    with pytest.raises(InvalidSchemaError, match="the type 'integer' is not defined"):
        at.register("orders-value", "integer")
    with pytest.raises(UnknownSchemaError, match="does not answer"):
        ConfluentRegistry("http://127.0.0.1:1").register("orders-value", ORDER)


def test_an_id_without_its_registry_or_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="confluent_id needs confluent"):
        Avro(ORDER, confluent_id=7)
    with pytest.raises(ValueError, match="Avro: confluent_id must be"):
        Avro(ORDER, confluent="http://127.0.0.1:1", confluent_id=-1)


def test_it_is_read_with_another_schema_beside_values_of_ours(registry: Registry) -> None:
    serde = Avro(WIDER, confluent=ConfluentRegistry(registry.address))
    ours = serde.serialize("topic", {"customer": 1, "at": 2})
    assert serde.deserialize("topic", VALUE) == {"customer": 42, "at": 0}
    assert serde.deserialize("topic", ours) == {"customer": 1, "at": 2}


def test_a_user_and_a_password_are_sent_and_stay_out_of_errors(registry: Registry) -> None:
    address = f"http://me:p%40ss@127.0.0.1:{registry.server_port}/"
    serde = Avro(ORDER, confluent=address)
    assert serde.deserialize("topic", VALUE)["customer"] == 42
    assert registry.asked == [("/schemas/ids/7", "Basic bWU6cEBzcw==")]
    with pytest.raises(UnknownSchemaError) as raised:
        serde.deserialize("topic", b"\0\0\0\0\x0bx")
    assert "ss@" not in str(raised.value)
    assert "/schemas/ids/11 answers 404" in str(raised.value)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (8, "is a schema of PROTOBUF; Avro reads schemas of AVRO alone"),
        (9, "refers to other schemas, which is not supported"),
        (10, r"does not answer with a schema: b'\[\]'"),
        (11, "answers 404: .*Schema not found"),
    ],
)
def test_an_answer_without_a_schema_of_avro_says_so(
    registry: Registry, number: int, said: str
) -> None:
    with pytest.raises(UnknownSchemaError, match=said):
        Avro(ORDER, confluent=registry.address).deserialize("topic", b"\0\0\0\0%cx" % number)


def test_a_registry_that_was_away_is_asked_again(registry: Registry) -> None:
    found = registry.answers.pop("/schemas/ids/7")
    serde = Avro(ORDER, confluent=registry.address)
    for _ in range(2):
        with pytest.raises(UnknownSchemaError, match="answers 404"):
            serde.deserialize("topic", VALUE)
    registry.answers["/schemas/ids/7"] = found
    assert serde.deserialize("topic", VALUE)["customer"] == 42


def test_no_registry_is_an_error_that_names_its_address() -> None:
    with Registry() as server:
        address = server.address
    with pytest.raises(UnknownSchemaError, match=f"{address}/schemas/ids/7 does not answer"):
        Avro(ORDER, confluent=address).deserialize("topic", VALUE)


async def test_an_event_loop_is_not_held_up(registry: Registry) -> None:
    """The error has what to wait for. Then the value is read."""
    registry.may_answer.clear()
    serde = Avro(ORDER, confluent=registry.address)
    futures = []
    for _ in range(2):
        with pytest.raises(UnknownSchemaError, match="the schema 7 is looked for") as raised:
            serde.deserialize("topic", VALUE)
        assert raised.value.lookup is not None
        futures.append(raised.value.lookup)
    registry.may_answer.set()
    await asyncio.gather(*map(asyncio.wrap_future, futures))
    assert serde.deserialize("topic", VALUE)["customer"] == 42
    assert len(registry.asked) == 1


def test_threads_ask_once(registry: Registry) -> None:
    registry.may_answer.clear()
    serde = Avro(ORDER, confluent=registry.address)
    with ThreadPoolExecutor(4) as threads:
        found = [threads.submit(serde.deserialize, "topic", VALUE) for _ in range(4)]
        registry.may_answer.set()
        assert [one.result(60)["customer"] for one in found] == [42] * 4
    assert len(registry.asked) == 1


def test_json_and_messages_are_read_without_a_registry() -> None:
    assert Confluent(Json()).deserialize("topic", b'\0\0\0\0\x07{"a":1}') == {"a": 1}
    error = Error(message="why")
    for indexes in (b"\0", bytes([2, 0]), bytes([4, 2, 6])):
        data = b"\0\0\0\0\x07" + indexes + error.SerializeToString()
        assert Confluent(Protobuf(Error)).deserialize("topic", data) == error


def test_what_does_not_begin_as_values_of_confluent_is_refused() -> None:
    for wrong in (b"", b"\0\0\0\0", b'{"a":1}'):
        with pytest.raises(ValueError, match=r"Confluent.deserialize: data must be the byte 0"):
            Confluent(Json()).deserialize("topic", wrong)
    for wrong in (
        b"\0\0\0\0\x07",
        b"\0\0\0\0\x07\x80",
        b"\0\0\0\0\x07\x04\x02",
        b"\0\0\0\0\x07\x01",
    ):
        with pytest.raises(ValueError, match="indexes"):
            Confluent(Protobuf(Error)).deserialize("topic", wrong)
    with pytest.raises(TypeError, match="Confluent: inner must be a deserializer"):
        Confluent(Json)  # type: ignore[arg-type]
