"""What the module of each aspect of the metadata declares.

An aspect is a part of the metadata that has events of its own: features, voters, cluster configs,
brokers, topics with their partitions, producer ids. All of it is in one module:

* its part of the image: a frozen dataclass. MetadataImage inherits from all of them;
* its part of a snapshot: a method of that dataclass that yields the events which make it;
* its part of the delta: a subclass of AspectDelta. It replays each event in a method that is marked
  with `replays`, notes what changed, and words the log lines of a committed change.

A new event needs a message in events.proto, and a method marked `replays` in its aspect. If it adds
state, the snapshot must yield it, too; a test goes over all fields of all images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, ClassVar, Final, Generic, TypeVar

from rpds import HashTrieMap

from quorate_quorum.v1.events_pb2 import MetadataEvent

P = TypeVar("P")
K = TypeVar("K")
V = TypeVar("V")
F = TypeVar("F", bound=Callable[..., None])

#: A line of the controller's log: the event and its fields.
Line = tuple[str, dict[str, Any]]


def empty() -> HashTrieMap[K, V]:
    """Return an empty persistent map. The order of its keys differs between two processes."""
    return HashTrieMap()


def event_of(**kind: object) -> MetadataEvent:
    """Return the event of one kind, as in `event_of(voters=...)`."""
    return MetadataEvent(**kind)  # type: ignore[arg-type]


def replays(kind: str) -> Callable[[F], F]:
    """Mark the method that replays the events of one kind.

    It is called with the event and its offset in the log; the offset is None for an event of a
    snapshot. It raises AssertionError for an event that contradicts the image.
    """

    def mark(method: F) -> F:
        method.replays = kind  # type: ignore[attr-defined]
        return method

    return mark


#: By the kind of event: the aspect that it belongs to, and the method that replays it.
REPLAYS: Final[dict[str, tuple[type, Callable[..., None]]]] = {}


class AspectDelta(Generic[P]):
    """The changes of one aspect, over `old`. A subclass keeps the fields of its part of the image
    under their own names.
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
        """Return the fields of this part of the next image."""
        return {name: getattr(self, name) for name in self._names}

    def compare(self, new: P) -> None:
        """Note what differs in an image that was not made by replaying events here."""

    def lines(self, new: P) -> Iterator[Line]:
        """Yield what an operator reads about the changes that led to `new`."""
        yield from ()
