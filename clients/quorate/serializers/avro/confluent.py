"""Values in the form of Confluent's serializers, and the registry that has their schemas."""

from __future__ import annotations

import base64
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from typing import Annotated, Any, Final, Generic, TypeVar

from quorate.errors import IncompatibleSchemaError, UnknownSchemaError
from quorate.object_rules import data_of
from quorate.serializers.avro.schema import AvroSchema, as_schema
from quorate.serializers.avro.sources import Given, Lookups
from quorate.serializers.coders import Deserializer
from quorate.serializers.protobuf_messages import Protobuf
from quorate.settings import SUBJECT, UINT32_MAX, Number, Whole, checked, refused

T = TypeVar("T")

TIMEOUT_S: Final = Number(0.001, 3600, "the longest wait for an answer")
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
#: More at once would not be faster: a reader meets few new schemas.
THREADS_MAX: Final = 2
SCHEMA_ID: Final = Whole(0, UINT32_MAX, "of a schema in the registry")


class ConfluentRegistry:
    """Finds schemas by their ids at a registry with Confluent's HTTP interface, and registers them.

    What was found is cached.

    A user and a password may be in the address: https://user:password@registry:8081. All threads
    may use one object; the requests run in threads of their own.
    """

    def __init__(self, address: str, *, timeout_s: float = 10.0) -> None:
        parts = urllib.parse.urlsplit(address) if isinstance(address, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            allowed = "an address as http://HOST:8081 or https://HOST"
            raise ValueError(refused("ConfluentRegistry", "address", allowed, address))
        self._timeout_s = TIMEOUT_S.check("ConfluentRegistry", "timeout_s", timeout_s)
        host = parts.netloc.rpartition("@")[2]
        #: The address without a password, for errors.
        self.address = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if parts.username is not None:
            user = urllib.parse.unquote(parts.username)
            password = urllib.parse.unquote(parts.password or "")
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"
        self._found: dict[int, AvroSchema] = {}
        self._lookups: Lookups[int] = Lookups()
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    @checked
    def find(self, schema_id: Annotated[int, SCHEMA_ID]) -> AvroSchema | None:
        """Return a schema that was fetched before. Do not wait."""
        return self._found.get(schema_id)

    @checked
    def look_up(self, schema_id: Annotated[int, SCHEMA_ID]) -> Future[None]:
        """Fetch a schema. The future is done when `find` finds it; its exception says why not."""
        return self._lookups.begin(schema_id, lambda: self._pool().submit(self._fetch, schema_id))

    @checked
    def register(self, subject: Annotated[str, SUBJECT], schema: Given) -> int:
        """Register a schema under a subject, as orders-value; return the id that values get.

        A schema that the registry has keeps its id. This call waits for the answer, timeout_s at
        most: make it before the program starts its event loop, or in a thread. Raises
        InvalidSchemaError, IncompatibleSchemaError (with the registry's reason), and
        UnknownSchemaError if the registry gives no id.
        """
        wanted = as_schema(schema)
        url = f"{self.address}/subjects/{urllib.parse.quote(subject, safe='')}/versions"
        headers = {**self._headers, "Content-Type": "application/vnd.schemaregistry.v1+json"}
        body = json.dumps({"schema": wanted.text}).encode()
        text = self._ask(urllib.request.Request(url, data=body, headers=headers, method="POST"))
        try:
            schema_id = SCHEMA_ID.check("ConfluentRegistry.register", "id", json.loads(text)["id"])
        except (ValueError, TypeError, KeyError):
            raise UnknownSchemaError(f"{url} does not answer with an id: {text[:200]!r}") from None
        self._found[schema_id] = wanted
        return schema_id

    def _ask(self, request: urllib.request.Request) -> bytes:
        url = request.full_url
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                found: bytes = answer.read(ANSWER_BYTES_MAX + 1)
                return found
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(1000).decode(errors="replace")
            text = f"{url} answers {error.code}: {said}"
            if error.code == HTTPStatus.CONFLICT:
                raise IncompatibleSchemaError(text, (said,)) from None
            raise UnknownSchemaError(text) from None
        except OSError as error:
            raise UnknownSchemaError(f"{url} does not answer: {error}") from error

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(THREADS_MAX, "quorate-confluent-registry")
            return self._threads

    def _fetch(self, schema_id: int) -> None:
        if schema_id in self._found:
            return  # found while the caller came here
        url = f"{self.address}/schemas/ids/{schema_id}"
        text = self._ask(urllib.request.Request(url, headers=self._headers))
        self._found[schema_id] = _schema(url, text)


def _schema(url: str, text: bytes) -> AvroSchema:
    if len(text) > ANSWER_BYTES_MAX:
        raise UnknownSchemaError(f"{url} answers with more than {ANSWER_BYTES_MAX} bytes")
    try:
        answer: Any = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("schema"), str):
        raise UnknownSchemaError(f"{url} does not answer with a schema: {text[:200]!r}")
    form = answer.get("schemaType", "AVRO")
    if form != "AVRO":
        raise UnknownSchemaError(f"{url} is a schema of {form}; Avro reads schemas of AVRO alone")
    if answer.get("references"):
        raise UnknownSchemaError(f"{url} refers to other schemas, which is not supported")
    return AvroSchema(answer["schema"])


class Confluent(Generic[T]):
    """Deserializer for values of Confluent's serializers for JSON and Protocol Buffers.

    It takes the magic byte and the schema's id off, and for a message of Protocol Buffers the
    indexes that say which message of the schema it is. The registry is not asked.

        Consumer("orders", value_deserializer=Confluent(Json()))
        Consumer("orders", value_deserializer=Confluent(Protobuf(Order)))
    """

    def __init__(self, inner: Deserializer[T]) -> None:
        if isinstance(inner, type) or not callable(getattr(inner, "deserialize", None)):
            raise TypeError(refused("Confluent", "inner", "a deserializer, as Json()", inner))
        self._inner = inner
        self._has_indexes = isinstance(inner, Protobuf)

    def deserialize(self, topic: str, data: bytes) -> T:
        """Return the value. Raise ValueError if the bytes do not begin as Confluent's do."""
        data = data_of("Confluent", data)
        if len(data) < 5 or data[0] != 0:
            allowed = "the byte 0, a schema's id of 4 bytes, and a value"
            raise ValueError(refused("Confluent.deserialize", "data", allowed, bytes(data)))
        offset = _after_indexes(data, 5) if self._has_indexes else 5
        return self._inner.deserialize(topic, bytes(data[offset:]))


def _after_indexes(data: bytes, offset: int) -> int:
    """Return where the message begins: a count and so many indexes come first, as varints.

    >>> _after_indexes(bytes([0, 9]), 0), _after_indexes(bytes([4, 2, 0, 9]), 0)
    (1, 3)
    """
    count, offset = _zigzag(data, offset)
    if not 0 <= count <= len(data):
        raise ValueError(f"the value has {count} indexes of a message")
    for _ in range(count):
        _, offset = _zigzag(data, offset)
    return offset


def _zigzag(data: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    while offset < len(data) and shift < 64:
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value >> 1 ^ -(value & 1), offset
        shift += 7
    raise ValueError("the indexes of the message are cut off")
