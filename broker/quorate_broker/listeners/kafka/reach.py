"""Where a client reaches the brokers: at their listeners with the name of its own listener."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from quorate.errors import QuorateError
from quorate_broker.listeners.kafka.call import Client
from quorate_broker.replica.hints import hint_of
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.metadata.brokers import BrokerImage
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.listeners import ListenerAddress


@dataclass(frozen=True, slots=True)
class Leader:
    """The present leader of a partition, and its address if the client can reach it (KIP-951)."""

    broker_id: int
    leader_epoch: int
    rack: str
    address: ListenerAddress | None


def address_of(client: Client, broker: BrokerImage) -> ListenerAddress | None:
    """Return the address of a broker for this client; None if the client cannot reach it."""
    return None if broker.fenced else broker.listener(client.listener)


def reachable(client: Client, image: MetadataImage) -> dict[int, ListenerAddress]:
    """Return the addresses of all brokers that this client can reach, by id."""
    return {
        broker.id: address
        for broker in image.sorted_brokers()
        if (address := address_of(client, broker)) is not None
    }


def leader_in(error: QuorateError, client: Client, replicas: Replicas) -> Leader | None:
    """Return the leader that an error names; None if it names none."""
    hint = hint_of(error)
    if hint is None:
        return None
    broker = replicas.image.brokers.get(hint.leader)
    rack = "" if broker is None else broker.rack
    address = None if broker is None else address_of(client, broker)
    return Leader(hint.leader, hint.leader_epoch, rack, address)


def as_java_host(host: str) -> str:
    """Return a member's host as Kafka tells it, which is how Java writes an address.

    Records that Kafka wrote have that form already.

    >>> as_java_host("127.0.0.1"), as_java_host("/10.0.0.1"), as_java_host("::1"), as_java_host("")
    ('/127.0.0.1', '/10.0.0.1', '/0:0:0:0:0:0:0:1', '')
    """
    if not host or host.startswith("/"):
        return host
    try:
        address = ip_address(host)
    except ValueError:
        return f"/{host}"
    if isinstance(address, IPv6Address):
        host = ":".join(f"{int(part, 16):x}" for part in address.exploded.split(":"))
    return f"/{host}"
