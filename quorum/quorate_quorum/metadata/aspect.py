"""The base of the modules that declare the aspects of the metadata.

An aspect is a part of the metadata that has its own events: topics (with their partitions and
configs), brokers, voters, features, producer ids. One module declares all of an aspect:

* its part of the image: a frozen dataclass. MetadataImage inherits from all of them;
* its part of a snapshot: a method of that dataclass, which yields the events that make the part;
* its part of the delta: a subclass of AspectDelta. It replays each event in a method that is marked
  with `replays`, notes the changes, and yields the log lines of a committed change.

A new event needs a message in events.proto, and a method marked `replays` in its aspect. If the
event adds state, the snapshot must yield that state, too: a test checks all fields of all images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar

from rpds import HashTrieMap

from quorate_quorum.v1.events_pb2 import MetadataEvent

P = TypeVar("P")
K = TypeVar("K")
V = TypeVar("V")
F = TypeVar("F", bound=Callable[..., None])

#: A line of the controller's log: the name of the log event, and its fields.
Line = tuple[str, dict[str, Any]]


class LogPlace(NamedTuple):
    """Where a record is in the metadata log."""

    offset: int
    #: When it was proposed, by the controller's clock, in milliseconds since 1970; 0: not known.
    time_ms: int


def empty() -> HashTrieMap[K, V]:
    """Return an empty persistent map. The order of its keys differs from process to process."""
    return HashTrieMap()


def event_of(**kind: object) -> MetadataEvent:
    """Return the event of one kind, as in `event_of(voters=...)`."""
    return MetadataEvent(**kind)  # type: ignore[arg-type]


def replays(kind: str) -> Callable[[F], F]:
    """Mark the method that replays the events of one kind.

    The method is called with the event and its place in the log; the place is None for an event
    of a snapshot. It raises AssertionError for an event that contradicts the image.
    """

    def mark(method: F) -> F:
        method.replays = kind  # type: ignore[attr-defined]
        return method

    return mark


#: By kind of event: the delta class of its aspect, and the method that replays the event.
REPLAYS: Final[dict[str, tuple[type, Callable[..., None]]]] = {}


class AspectDelta(Generic[P]):
    """The changes of one aspect since the image `old`.

    A subclass has the current values of its part of the image, in fields of the same names.
    """

    _names: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, *, part: type[Any]) -> None:
        cls._names = tuple(one.name for one in fields(part))
        for method in vars(cls).values():
            kind = getattr(method, "replays", None)
            if kind is not None:
                assert kind not in REPLAYS, f"two methods replay {kind}"
                REPLAYS[kind] = cls, method

    def __init__(self, old: P) -> None:
        self.old = old

    def finish(self) -> dict[str, Any]:
        """Return the fields that this aspect adds to the next image."""
        return {name: getattr(self, name) for name in self._names}

    def compare(self, new: P) -> None:
        """Note the differences between `old` and `new`, without a replay of events."""

    def lines(self, new: P) -> Iterator[Line]:
        """Yield the log lines for operators about the changes that led to `new`."""
        yield from ()
