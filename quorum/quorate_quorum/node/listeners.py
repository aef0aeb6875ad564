"""The addresses of a node's listeners: their form in the configuration, and their wire format.

    [NAME=]PROTOCOL[+tls]://HOST:PORT       or HOST:PORT, which is grpc

The listeners of one node have different names. A client that connects to a listener gets the
addresses of the listeners with the same name. So all brokers must give the listeners of one network
the same name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from quorate.v1 import common_pb2 as wire

GRPC: Final = "grpc"
KAFKA: Final = "kafka"
FORM: Final = "[NAME=]PROTOCOL[+tls]://HOST:PORT or HOST:PORT"
#: Bounds of a broker's registration. They are small, because every image has the listeners of all
#: brokers.
LISTENERS_MAX: Final = 16
ENDPOINT_LENGTH_MAX: Final = 255
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_PROTOCOL: Final = re.compile(r"[a-z][a-z0-9]{0,15}")
_ADDRESS: Final = re.compile(
    rf"(?:(?:(?P<name>{NAME.pattern})=)?(?P<protocol>[^:/=+\s]+)(?P<tls>\+tls)?://)?"
    r"(?P<endpoint>\S+)"
)
_ENDPOINT: Final = re.compile(r"(?:\[(?P<v6>[^\s\[\]]+)\]|(?P<host>[\w.-]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class ListenerAddress:
    """The address of one listener: the one to bind, or the one that other nodes and clients dial.

    `host` has no brackets. Port 0 means any free port, until the listener is bound.
    """

    name: str
    protocol: str
    tls: bool
    host: str
    port: int

    @property
    def endpoint(self) -> str:
        """The host:port to dial or to bind. An IPv6 literal is in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def place(self) -> str:
        """The endpoint in one spelling, so that equal addresses compare equal."""
        return place_of(self.endpoint)

    def __str__(self) -> str:
        name = "" if self.name == self.protocol else f"{self.name}="
        return f"{name}{self.protocol}{'+tls' if self.tls else ''}://{self.endpoint}"

    def bound_at(self, endpoint: str) -> ListenerAddress:
        """Return this address. Port 0 is replaced by the port at which the listener is bound."""
        return self if self.port else replace(self, port=int(endpoint.rpartition(":")[2]))


def parse(text: str, *, port_min: int = 1) -> ListenerAddress:
    """Return the address that a text names. Raises ValueError, which says what is wrong.

    >>> parse("localhost:7092")
    ListenerAddress(name='grpc', protocol='grpc', tls=False, host='localhost', port=7092)
    >>> str(parse("external=grpc+tls://[::1]:7092"))
    'external=grpc+tls://[::1]:7092'
    >>> parse("grpc://localhost")
    Traceback (most recent call last):
    ValueError: 'grpc://localhost' must be [NAME=]PROTOCOL[+tls]://HOST:PORT or HOST:PORT, with \
a port from 1 to 65535
    """
    match = _ADDRESS.fullmatch(text)
    found = _split(match["endpoint"], port_min) if match else None
    if match is None or found is None:
        raise ValueError(f"{text!r} must be {FORM}, with a port from {port_min} to 65535")
    protocol = match["protocol"] or GRPC
    if protocol not in (GRPC, KAFKA):
        raise ValueError(
            f"{text!r}: no protocol has the name {protocol!r}; allowed are {GRPC} and {KAFKA}"
        )
    return ListenerAddress(match["name"] or protocol, protocol, bool(match["tls"]), *found)


def parse_all(texts: Sequence[str], *, port_min: int = 1) -> tuple[ListenerAddress, ...]:
    """Return the addresses of a node's list. ValueError if one is wrong, or two have one name.

    >>> parse_all(["a=grpc://h:1", "a=grpc://h:2"])
    Traceback (most recent call last):
    ValueError: a=grpc://h:1 and a=grpc://h:2 have one name, 'a': every listener needs its own, \
as NAME=PROTOCOL://HOST:PORT
    """
    found: dict[str, ListenerAddress] = {}
    for address in (parse(text, port_min=port_min) for text in texts):
        other = found.setdefault(address.name, address)
        if other is not address:
            raise ValueError(
                f"{other} and {address} have one name, {address.name!r}: every listener needs its"
                " own, as NAME=PROTOCOL://HOST:PORT"
            )
    return tuple(found.values())


def unsupported(address: ListenerAddress) -> str | None:
    """Return why this release cannot open a listener; None if it can.

    >>> unsupported(parse("kafka+tls://localhost:9092"))
    'kafka+tls://localhost:9092: TLS does not exist yet, and a +tls listener is never opened \
without it'
    """
    if address.tls:  # checked first: a listener that asks for TLS must never be opened without it
        return f"{address}: TLS does not exist yet, and a +tls listener is never opened without it"
    return None


def inter_broker(addresses: Iterable[ListenerAddress], name: str) -> ListenerAddress:
    """Return the listener by which other nodes reach a broker.

    It is the grpc listener with this name, or the first grpc listener if `name` is empty.

    >>> inter_broker([parse("kafka://h:1"), parse("grpc://h:2")], "").endpoint
    'h:2'
    >>> inter_broker([parse("kafka://h:1"), parse("grpc://h:2")], "kafka")
    Traceback (most recent call last):
    ValueError: 'kafka' is no listener that other nodes can dial; allowed are the grpc listeners: \
grpc
    """
    speaking = [one for one in addresses if one.protocol == GRPC]
    for address in speaking:
        if name in ("", address.name):
            return address
    names = ", ".join(one.name for one in speaking) or "none"
    raise ValueError(
        f"{name!r} is no listener that other nodes can dial; allowed are the {GRPC} listeners:"
        f" {names}"
    )


def wrong_address(address: str, *, port_min: int) -> str | None:
    """Return what is wrong with a host:port; None if nothing is wrong.

    >>> wrong_address("localhost:7092", port_min=1)
    >>> wrong_address("localhost", port_min=1)
    "'localhost' must be host:port, with a port from 1 to 65535"
    """
    if _split(address, port_min) is None:
        return f"{address!r} must be host:port, with a port from {port_min} to 65535"
    return None


def place_of(endpoint: str) -> str:
    """Return a host:port in one spelling, so that equal addresses compare equal.

    Names are in lower case. "localhost" becomes 127.0.0.1, because both sides of a connection use
    this address for it. An IPv4 address in IPv6 form becomes the IPv4 address.

    >>> place_of("LOCALHOST:1"), place_of("[0:0::1]:1"), place_of("[::ffff:10.0.0.1]:1")
    ('127.0.0.1:1', '[::1]:1', '10.0.0.1:1')
    >>> place_of("DB.example.org.:1")
    'db.example.org:1'
    """
    found = _split(endpoint, 0)
    if found is None:
        return endpoint
    host, port = found
    literal = _literal(host)
    name = host.lower().removesuffix(".") if literal is None else str(literal)
    name = "127.0.0.1" if _is_localhost(host) else name
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether a listener on this host can be reached only from this machine.

    >>> is_loopback("localhost."), is_loopback("127.0.0.2"), is_loopback("::1")
    (True, True, True)
    >>> is_loopback("0.0.0.0"), is_loopback("db.example.org")
    (False, False)
    """
    literal = _literal(host)
    return _is_localhost(host) if literal is None else literal.is_loopback


def is_wildcard(host: str) -> bool:
    """Return whether a host means all addresses of its machine. Other machines can't dial it.

    >>> is_wildcard("0.0.0.0"), is_wildcard("::"), is_wildcard("::ffff:0.0.0.0")
    (True, True, True)
    >>> is_wildcard("::1")
    False
    """
    literal = _literal(host)
    return literal is not None and literal.is_unspecified


def is_name(host: str) -> bool:
    """Return whether a host must be resolved before it can be dialled.

    >>> is_name("db.example.org"), is_name("10.0.0.1"), is_name("localhost")
    (True, False, False)
    """
    return _literal(host) is None and not _is_localhost(host)


def to_wire(address: ListenerAddress) -> wire.Listener:
    """Return an address as a message, for registrations, metadata answers and leader hints."""
    return wire.Listener(
        name=address.name, protocol=address.protocol, tls=address.tls, endpoint=address.endpoint
    )


def from_wire(told: wire.Listener) -> ListenerAddress:
    """Return the address in a message. Raises ValueError if the address is not valid.

    A protocol that this release does not know is accepted: a newer broker may have such a listener.
    """
    found = _split(told.endpoint, 1)
    if found is None or len(told.endpoint) > ENDPOINT_LENGTH_MAX:
        raise ValueError(
            f"the endpoint of a listener must be host:port, with a port from 1 to 65535 and at most"
            f" {ENDPOINT_LENGTH_MAX} characters, not {told.endpoint[:100]!r}"
        )
    if not NAME.fullmatch(told.name) or not _PROTOCOL.fullmatch(told.protocol):
        raise ValueError(
            f"a listener has a name and a protocol, not {told.name[:100]!r} and"
            f" {told.protocol[:100]!r}"
        )
    return ListenerAddress(told.name, told.protocol, told.tls, *found)


def _split(endpoint: str, port_min: int) -> tuple[str, int] | None:
    """Return host and port, the host without brackets; None if `endpoint` is not an address."""
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None or not port_min <= int(match["port"]) <= 65535:
        return None
    host: str = match["v6"] or match["host"]
    is_literal = _literal(host) is not None
    if (match["v6"] or re.fullmatch(r"[0-9.]+", host)) and not is_literal:
        return None  # an invalid IP address: digits and dots are never a host name
    return host, int(match["port"])


def _is_localhost(host: str) -> bool:
    """Return whether a host is the name for which both sides use 127.0.0.1."""
    return host.lower().removesuffix(".") == "localhost"


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host is; None if the host is a name.

    An IPv4 address in its IPv6 form, such as ::ffff:0.0.0.0, is that IPv4 address.
    """
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
