"""The registered brokers: an aspect of the metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from rpds import HashTrieMap

from quorate_quorum.metadata.aspect import AspectDelta, Line, LogPlace, empty, event_of, replays
from quorate_quorum.metadata.carried import Carrier, ChangeCarrier, Codec, carried
from quorate_quorum.metadata.configs import altered
from quorate_quorum.metadata.history import OPTIONAL_CAUSE, Cause
from quorate_quorum.node import features, listeners
from quorate_quorum.node.features import Levels, UnknownLevelError
from quorate_quorum.node.listeners import ListenerAddress
from quorate_quorum.v1 import events_pb2 as ev

LISTENERS = Codec(
    lambda told: tuple(map(listeners.from_wire, told)),
    lambda addresses: list(map(listeners.to_wire, addresses)),
)
FEATURES = Codec(
    lambda told: tuple(sorted(features.from_wire(told).items())),
    lambda known: features.to_wire(dict(known)),
)


@dataclass(frozen=True, slots=True)
class DirectoryImage:
    """A log directory of a broker.

    `tail_intact` and `sync_failed` come from the registration. Before a broker is unfenced, both
    are applied to its partitions. The unfencing clears both, because they are about earlier runs.
    `failed` comes from heartbeats, and stays until the next registration: no replica in that
    directory can lead.
    """

    id: bytes = field(metadata=carried("directory_id"))
    tail_intact: bool = True
    sync_failed: bool = False
    failed: bool = False


CONFIGS = Codec(
    lambda told: tuple(sorted((one.name, one.value) for one in told)),
    lambda configs: [ev.BrokerConfig(name=name, value=value) for name, value in configs],
)


DIRECTORY = Carrier(DirectoryImage, ev.Directory)


@dataclass(frozen=True, slots=True)
class BrokerImage:
    """A registered broker. `epoch` is the offset of its registration record."""

    id: int = field(metadata=carried("broker_id"))
    epoch: int = field(metadata=carried("broker_epoch"))
    incarnation: bytes
    listeners: tuple[ListenerAddress, ...] = field(metadata=carried(codec=LISTENERS))
    #: The name of the listener by which other nodes reach this broker. It is one of `listeners`.
    inter_broker_listener: str
    rack: str
    host: str
    directories: tuple[DirectoryImage, ...] = field(metadata=carried(codec=DIRECTORY.codec))
    fenced: bool
    shutting_down: bool
    #: Whether the broker is drained: it gets no new replicas, and leads only where no other can.
    cordoned: bool = False
    #: Why it is fenced; None while it is not, or if an older program fenced it and did not say.
    fenced_because: Cause | None = field(default=None, metadata=carried(codec=OPTIONAL_CAUSE))
    #: The feature levels that the broker's program knows, by name; empty if the broker told none.
    features: tuple[tuple[str, Levels], ...] = field(default=(), metadata=carried(codec=FEATURES))
    #: The own values of the settings of brokers that change while they run, by name.
    configs: tuple[tuple[str, str], ...] = field(default=(), metadata=carried(codec=CONFIGS))

    @property
    def endpoint(self) -> str:
        """The host:port by which other nodes reach this broker."""
        address = self.listener(self.inter_broker_listener)
        assert address is not None, "a registration names its inter-broker listener"
        return address.endpoint

    def listener(self, name: str) -> ListenerAddress | None:
        """Return the listener with that name; None if this broker has none."""
        return next((one for one in self.listeners if one.name == name), None)

    def directory(self, directory_id: bytes) -> DirectoryImage | None:
        """Return a directory of this broker; None if the broker did not register it."""
        for directory in self.directories:
            if directory.id == directory_id:
                return directory
        return None


BROKER = Carrier(BrokerImage, ev.RegisterBroker)
CHANGE = ChangeCarrier(BrokerImage, ev.BrokerChange, BROKER)


@dataclass(frozen=True, kw_only=True)
class Brokers:
    """The registered brokers, by id."""

    brokers: HashTrieMap[int, BrokerImage] = field(default_factory=empty)

    def sorted_brokers(self) -> list[BrokerImage]:
        """Return all registered brokers, by id."""
        return [self.brokers[broker_id] for broker_id in sorted(self.brokers)]

    def broker_events(self) -> Iterator[ev.MetadataEvent]:
        """Yield the events that make this part of the image."""
        for broker in self.sorted_brokers():
            yield event_of(register_broker=BROKER.message(broker))


class BrokersDelta(AspectDelta[Brokers], part=Brokers):
    """The brokers that registered, changed or were unregistered."""

    def __init__(self, old: Brokers) -> None:
        super().__init__(old)
        self.brokers = old.brokers
        #: The ids of the changed brokers, in the order of the changes.
        self.changed: dict[int, None] = {}

    @replays("register_broker")
    def _register(self, event: ev.RegisterBroker, place: LogPlace | None) -> None:
        assert place is None or event.broker_epoch == place.offset, (
            f"broker_epoch {event.broker_epoch} stands at {place.offset}"
        )
        if not event.listeners:
            raise UnknownLevelError(
                f"broker {event.broker_id} is registered without listeners: a program from before"
                " brokers could have several wrote this metadata log, and this program does not"
                " read it. Format new directories"
            )
        old = self.brokers.get(event.broker_id)
        assert old is None or event.broker_epoch > old.epoch, "broker_epoch only grows"
        assert place is None or event.fenced, "a registration starts fenced"
        self._put(BROKER.image(event))

    @replays("broker_change")
    def _change(self, event: ev.BrokerChange, _: LogPlace | None) -> None:
        old = self._registered(event)
        new = CHANGE.changed(old, event)
        directories = old.directories
        if old.fenced != new.fenced:
            because = OPTIONAL_CAUSE.from_wire(event.cause) if new.fenced else None
            new = replace(new, fenced_because=because)
        # Its partitions follow tail_intact and sync_failed now: clear both.
        if old.fenced and not new.fenced:
            directories = tuple(
                replace(one, tail_intact=True, sync_failed=False) for one in directories
            )
        for failed in event.failed_directories:
            assert old.directory(failed) is not None, "a directory that it registered"
            directories = tuple(
                replace(one, failed=True) if one.id == failed else one for one in directories
            )
        self._put(replace(new, directories=directories))

    @replays("unregister_broker")
    def _unregister(self, event: ev.UnregisterBroker, _: LogPlace | None) -> None:
        broker = self._registered(event)
        assert broker.fenced, "only a fenced broker is forgotten"
        self.brokers = self.brokers.remove(broker.id)
        self.changed[broker.id] = None

    def compare(self, new: Brokers) -> None:
        for broker_id in sorted({*self.old.brokers, *new.brokers}):
            if self.old.brokers.get(broker_id) != new.brokers.get(broker_id):
                self.changed[broker_id] = None

    def lines(self, new: Brokers) -> Iterator[Line]:
        for broker_id in self.changed:
            before, now = self.old.brokers.get(broker_id), new.brokers.get(broker_id)
            if now is None:
                yield "broker_unregistered", {"broker": broker_id}
            elif before is None or before.epoch != now.epoch:
                named = {"broker": broker_id, "broker_epoch": now.epoch, "rack": now.rack}
                yield "broker_registered", {**named, "endpoint": now.endpoint}
            else:
                yield from _changes(before, now)

    def _registered(self, event: ev.BrokerChange | ev.UnregisterBroker) -> BrokerImage:
        broker = self.brokers.get(event.broker_id)
        assert broker is not None, f"broker {event.broker_id} is not registered"
        assert broker.epoch == event.broker_epoch, "a change names the registration it is of"
        return broker

    def _put(self, broker: BrokerImage) -> None:
        self.brokers = self.brokers.insert(broker.id, broker)
        self.changed[broker.id] = None


def _changes(before: BrokerImage, now: BrokerImage) -> Iterator[Line]:
    """Yield the log lines about what an operator changed of a registered broker."""
    if before.cordoned != now.cordoned:
        yield "broker_drained" if now.cordoned else "broker_undrained", {"broker": now.id}
    if changed := altered(dict(before.configs), dict(now.configs)):
        yield "broker_config_altered", {"broker": now.id, "changed": changed}
