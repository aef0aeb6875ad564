"""The voters of the metadata quorum: an aspect of the metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quorate_quorum.metadata.aspect import AspectDelta, Line, LogPlace, event_of, replays
from quorate_quorum.metadata.carried import Carrier
from quorate_quorum.v1 import events_pb2 as ev


@dataclass(frozen=True, slots=True)
class VoterImage:
    """A member of the metadata quorum."""

    id: int
    directory_id: bytes
    endpoint: str


VOTER = Carrier(VoterImage, ev.Voter)


def voters_event(voters: tuple[VoterImage, ...]) -> ev.MetadataEvent:
    """Return the event that sets the voters."""
    return event_of(voters=ev.Voters(voters=map(VOTER.message, voters)))


@dataclass(frozen=True, kw_only=True)
class Voters:
    """The members of the metadata quorum."""

    voters: tuple[VoterImage, ...] = ()

    def voter_events(self) -> Iterator[ev.MetadataEvent]:
        """Yield the events that make this part of the image."""
        if self.voters:
            yield voters_event(self.voters)


class VotersDelta(AspectDelta[Voters], part=Voters):
    """The changes of the voters."""

    def __init__(self, old: Voters) -> None:
        super().__init__(old)
        self.voters = old.voters

    @replays("voters")
    def _set(self, event: ev.Voters, _: LogPlace | None) -> None:
        ids = [voter.id for voter in event.voters]
        assert ids, "there is a voter"
        assert len(set(ids)) == len(ids), f"voters repeat: {ids}"
        self.voters = tuple(map(VOTER.image, event.voters))

    def lines(self, new: Voters) -> Iterator[Line]:
        if self.old.voters and self.old.voters != new.voters:
            yield "voters_changed", {"before": _named(self.old), "voters": _named(new)}


def _named(image: Voters) -> list[str]:
    return [f"{voter.id}@{voter.endpoint}" for voter in image.voters]
