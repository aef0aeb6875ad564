"""A broker's registration: its identity, and the broker_epoch that the controller gives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from quorate_quorum.metadata.brokers import BrokerImage
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.features import Known, to_wire
from quorate_quorum.node.listeners import ListenerAddress, inter_broker
from quorate_quorum.node.listeners import to_wire as listener_to_wire
from quorate_quorum.v1.controller_pb2 import RegisterRequest
from quorate_quorum.v1.events_pb2 import Directory

UNREGISTERED: Final = -1


@dataclass(frozen=True, slots=True)
class Registration:
    """A broker's registration. It is immutable, so its fields never mix two registrations."""

    cluster_id: str
    broker_id: int
    #: Identifies this run of the broker. Another process with the same id has another incarnation.
    incarnation: bytes
    #: The offset of the registration's record in the metadata log. It grows with every
    #: registration.
    broker_epoch: int = UNREGISTERED

    @property
    def is_known(self) -> bool:
        """Whether the controller has given an epoch. Before, this broker leads no partition."""
        return self.broker_epoch != UNREGISTERED

    def given(self, broker_epoch: int) -> Registration:
        """Return this registration with the broker_epoch that the controller gave."""
        return replace(self, broker_epoch=broker_epoch)

    def was_replaced_by(self, broker: BrokerImage) -> bool:
        """Return whether another process has registered with this id since."""
        return broker.epoch > self.broker_epoch and broker.incarnation != self.incarnation

    def request(
        self,
        config: BrokerConfig,
        listeners: tuple[ListenerAddress, ...],
        directories: Iterable[Directory],
        features: Known,
    ) -> RegisterRequest:
        """Return the request that asks the controller for a broker_epoch."""
        internal = inter_broker(listeners, config.inter_broker_listener_name)
        return RegisterRequest(
            broker_id=self.broker_id,
            incarnation=self.incarnation,
            listeners=map(listener_to_wire, listeners),
            inter_broker_listener=internal.name,
            rack=config.broker_rack,
            host=config.broker_host or internal.host,
            directories=directories,
            features=to_wire(features),
        )
