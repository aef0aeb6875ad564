"""Requests of Kafka clients that are wrong in all ways: fields, lengths, counts, tags and frames.

Each begins as a well-formed request of one API and version, whose fields name topics, groups and
members that exist, for what is refused at the first field tests nothing behind it. Some are sent
unchanged: a broker must also bear good requests in an order that no client has.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from typing import Any, Final

from proto.kafka.notation import Field, Struct
from quorate.record.record import varint
from quorate_broker.listeners.kafka.codec import (
    RequestHeader,
    decode_header,
    decode_request,
    is_flexible,
    messages_of,
)
from quorate_broker.listeners.kafka.versions import (
    CREATE_PARTITIONS,
    CREATE_TOPICS,
    FETCH,
    JOIN_GROUP,
    OFFSET_COMMIT,
    PRODUCE,
    SYNC_GROUP,
)
from quorate_broker.listeners.kafka.wire import MalformedRequest
from tests.harness import hostile_batches
from tests.harness.kafka_messages import apis, encode_header, encode_request

BITS: Final = {"int8": 8, "int16": 16, "uint16": 16, "int32": 32, "int64": 64}
#: Lengths and counts that lie, in both encodings, and varints without end.
WORST: Final = (
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff\x07",
    b"\xff\xff\xff\xff\x0f",
    b"\xff" * 4,
    b"\xff" * 9,
    b"\xff" * 2,
    b"\x80\0\0\0",
    b"\x80" * 6,
    b"\0",
    b"\0\0\0\0",
)
TEXTS: Final = ("", "a", "größer", "x" * 249, "y" * 30_000, "\0", "../../etc", "a b", "💥", "__x")
STRANGERS: Final = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    bytes.fromhex("160301020001fc0303") + bytes(60),
    b"SSH-2.0-x\r\n",
    b"\xff" * 64,
)
CONFIG_NAMES: Final = (
    "retention.ms",
    "cleanup.policy",
    "max.message.bytes",
    "segment.bytes",
    "min.insync.replicas",
    "compression.type",
    "no.such",
)
CONFIG_VALUES: Final = ("-1", "0", "100", "compact", "delete", "9" * 30, "", "compact,delete", "é")
#: The partitions that a request of this harness may create. More are allowed, and cost what they
#: cost: the bound of CPU does not hold for them.
CREATED_MAX: Final = 20
#: The most bytes of one request, so that a million of them have the time that they need.
FRAME_MAX: Final = 1 << 20
#: Requests with much behind them, batches and the rules of groups: they are sent more often.
DEEP: Final = (PRODUCE, FETCH, JOIN_GROUP, SYNC_GROUP, OFFSET_COMMIT)
#: Fields by which a client says how long the broker may wait.
WAITS: Final = ("max_wait_ms", "timeout_ms", "rebalance_timeout_ms", "session_timeout_ms")


@dataclass
class Known:
    """What exists in the broker, for requests to name."""

    topics: dict[str, bytes]
    #: Topics that requests may create and delete.
    passing: tuple[str, ...] = ("passing-0", "passing-1", "passing-2")
    groups: tuple[str, ...] = ("g0", "g1", "g2")
    members: list[str] = field(default_factory=lambda: [""])


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is sent on a connection: pieces, each in a segment of its own."""

    name: str
    pieces: tuple[bytes, ...]
    #: Key and version of the request, if its header was left alone.
    api: tuple[int, int] | None = None
    #: Whether it is one frame, and its length is true.
    is_whole: bool = False

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))


class HostileRequests:
    """Draws attempts. Two with the same seed and the same `known` draw the same."""

    def __init__(self, chance: random.Random, known: Known, told: dict[int, range]) -> None:
        self._chance = chance
        self._known = known
        self._pairs = [
            (api_key, version)
            for api_key, versions in told.items()
            for version in versions
            if version in apis()[api_key].versions
        ]
        self._deep = [one for one in self._pairs if one[0] in DEEP]

    def next(self) -> Attempt:
        """Return the next attempt."""
        chance = self._chance
        if chance.random() < 0.01:
            return Attempt("another protocol", (chance.choice(STRANGERS),))
        while True:
            api_key, version = chance.choice(self._deep if chance.random() < 0.3 else self._pairs)
            frame = self._frame(api_key, version)
            if len(frame) <= FRAME_MAX and creates(api_key, version, frame) <= CREATED_MAX:
                break
        sent = struct.unpack_from(">hh", frame)
        pieces = self._framed(frame)
        return Attempt(
            f"{apis()[api_key].name} {version}",
            pieces,
            (api_key, version) if sent == (api_key, version) else None,
            is_whole=b"".join(pieces) == struct.pack(">i", len(frame)) + frame,
        )

    # requests

    def _frame(self, api_key: int, version: int) -> bytes:
        """Return a request and its header, with changes or without."""
        chance = self._chance
        message = self._struct(apis()[api_key].request, version, messages_of(api_key))
        header = RequestHeader(api_key, version, chance.getrandbits(31), "fuzz")
        head = encode_header(header)
        body = bytearray(b"".join(encode_request(header, message))[len(head) :])
        kind = chance.random()
        if kind < 0.4:
            return head + bytes(body)
        if kind < 0.48 and is_flexible(api_key, version) and body:
            body[-1:] = self._tags()
        elif kind < 0.94:
            for _ in range(chance.choice((1, 1, 1, 2, 4))):
                self._change(body)
        else:
            head = self._head(header)
        return head + bytes(body)

    def _head(self, header: RequestHeader) -> bytes:
        chance = self._chance
        head = bytearray(encode_header(header))
        kind = chance.randrange(4)
        if kind == 0:
            struct.pack_into(">h", head, 0, chance.choice((-1, 4, 71, 9999, 32_767)))
        elif kind == 1:
            struct.pack_into(">h", head, 2, chance.choice((-1, 99, 32_767, header.version + 1)))
        elif kind == 2:
            struct.pack_into(">h", head, 8, chance.choice((-1, -2, 0, 5, 32_767)))
        else:
            head[-1:] = self._tags()
        return bytes(head)

    def _tags(self) -> bytes:
        """Return a section of tagged fields: unknown ones, known ones, and sizes that lie."""
        chance = self._chance
        count = chance.choice((1, 2, 3))
        told = chance.choice((count, count, count, 2**31 - 1, 200))
        fields = b""
        for _ in range(count):
            data = chance.randbytes(chance.choice((0, 1, 5, 20)))
            size = chance.choice((len(data), len(data), len(data), 2**28, len(data) + 1))
            fields += varint(chance.choice((0, 1, 2, 100, 2**31))) + varint(size) + data
        return varint(told) + fields

    def _change(self, body: bytearray) -> None:
        """Change some bytes."""
        chance = self._chance
        at = chance.randrange(len(body) + 1)
        end = at + chance.choice((1, 1, 2, 4, 8, 16))
        kind = chance.randrange(7)
        if kind == 0:
            body[at:end] = chance.randbytes(end - at)
        elif kind == 1:
            del body[at:end]
        elif kind == 2:
            body[at:at] = chance.randbytes(end - at)
        elif kind == 3:
            worst = chance.choice(WORST)
            body[at : at + len(worst)] = worst
        elif kind == 4:
            del body[at:]
        elif kind == 5:
            body[at:at] = body[at : at + chance.choice((4, 20, 100))] * chance.choice((1, 1, 50))
        elif body:
            body[min(at, len(body) - 1)] ^= 1 << chance.randrange(8)

    # frames

    def _framed(self, frame: bytes) -> tuple[bytes, ...]:
        """Return the frame with its length, whole or in pieces; sometimes the length lies."""
        chance = self._chance
        size = len(frame)
        kind = chance.random()
        if kind < 0.02:
            size = chance.choice((size + 1, size - 1, size + 100, 0, 7, -1, 2**31 - 1, 64 << 20))
        data = struct.pack(">i", size) + frame
        if kind < 0.04:
            return (data[: chance.randrange(len(data))],)
        if kind < 0.06:
            cut = chance.randrange(len(data))
            return (data[:cut], data[cut:])
        if kind < 0.08:
            return (data * chance.choice((2, 3)),)
        return (data,)

    # values

    def _struct(self, form: Struct, version: int, module: Any) -> Any:
        fields = form.in_version(version)
        tagged = [one for one in form.tagged(version) if self._chance.random() < 0.3]
        values = {one.name: self._field(one, version, module) for one in (*fields, *tagged)}
        return getattr(module, form.name)(**values)

    def _field(self, one: Field, version: int, module: Any) -> Any:
        chance = self._chance
        if version in one.nullable and (one.tag is None or one.default == "None"):
            likely = 0.8 if one.name in ("transactional_id", "group_instance_id") else 0.2
            if chance.random() < likely:
                return None
        if not one.is_array:
            return self._item(one, version, module)
        count = chance.choice((0, 1, 1, 1, 2, 3))
        if chance.random() < 0.005:
            return [self._item(one, version, module)] * chance.choice((100, 1000))
        return [self._item(one, version, module) for _ in range(count)]

    def _item(self, one: Field, version: int, module: Any) -> Any:
        chance = self._chance
        if one.struct is not None:
            return self._struct(one.struct, version, module)
        if one.type == "string":
            return self._text(one.name)
        if one.type == "records":
            return (hostile_batches.hostile if chance.random() < 0.6 else hostile_batches.good)(
                chance
            )
        if one.type == "bytes":
            return chance.randbytes(chance.choice((0, 1, 20, 200)))
        if one.type == "uuid":
            known = tuple(self._known.topics.values())
            return chance.choice((*known, *known, bytes(16), chance.randbytes(16)))
        if one.type == "bool":
            return chance.random() < 0.5
        if one.type == "float64":
            return chance.choice((0.0, -1.0, float("nan"), 1e300))
        return self._number(one)

    def _text(self, name: str) -> str:
        chance, known = self._chance, self._known
        if chance.random() < 0.06:
            return chance.choice(TEXTS)
        if "group" in name or (name == "key" and chance.random() < 0.7):
            return chance.choice(known.groups)
        if name == "member_id":
            return chance.choice(known.members)
        if "instance" in name:
            return chance.choice(("static-0", "static-1"))
        if "protocol" in name:
            return chance.choice(("consumer", "connect", "range"))
        if "software" in name:
            return "fuzz-1.0"
        if name == "value":
            return chance.choice(CONFIG_VALUES)
        if "config" in name or (name == "name" and chance.random() < 0.2):
            return chance.choice(CONFIG_NAMES)
        return chance.choice((*[*known.topics] * 4, *known.passing, "missing", "0"))

    def _number(self, one: Field) -> int:
        chance = self._chance
        bits = BITS[one.type]
        low, high = (0, 1 << bits) if one.type == "uint16" else (-1 << (bits - 1), 1 << (bits - 1))
        if chance.random() < 0.06:
            return chance.choice((low, high - 1, chance.randrange(low, high)))
        if one.name == "acks":
            return chance.choice((-1, -1, 1, 0, 2))
        if one.name in WAITS:
            return (
                chance.choice((6000, 10_000, 1))
                if "session" in one.name
                else chance.choice((0, 1, 10))
            )
        if one.name == "resource_type":
            return chance.choice((2, 2, 2, 4, 0))
        if one.name in ("session_id", "session_epoch"):
            return chance.choice((0, 0, 0, 0, 1, -1))
        if one.name in ("replica_id", "current_leader_epoch", "last_fetched_epoch"):
            return chance.choice((-1, -1, -1, -1, 0))
        if one.name.endswith(("max_bytes", "limit")):
            return chance.choice((0, 1, 1000, 1 << 20))
        if one.name in ("num_partitions", "count", "replication_factor"):
            return chance.choice((1, -1, 2, 0))
        return chance.choice((0, 0, 1, -1, 2, 3) if one.type != "uint16" else (0, 1, 2))


def creates(api_key: int, version: int, frame: bytes) -> int:
    """Return how many partitions a request asks to create, if it is well formed."""
    if api_key not in (CREATE_TOPICS, CREATE_PARTITIONS):
        return 0
    try:
        _, position = decode_header(frame)
        request = decode_request(api_key, version, frame, position)
    except (MalformedRequest, KeyError):
        return 0
    if api_key == CREATE_TOPICS:
        return sum(max(one.num_partitions, len(one.assignments), 1) for one in request.topics)
    return sum(max(one.count, 1) for one in request.topics)
