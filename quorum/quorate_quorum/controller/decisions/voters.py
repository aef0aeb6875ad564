"""Adds and removes voters, one at a time, by decisions on the pending image (KIP-853).

A voter is identified by its id and its directory. Raft appends the event only after its own checks:
the last change of the voters is committed, a new voter has caught up, and enough voters are heard.
"""

from __future__ import annotations

from quorate.errors import InvalidRequestError, OverloadedError, QuorateError, to_wire
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions.features import Heard, check_knows
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.voters import VoterImage, voters_event
from quorate_quorum.node.listeners import place_of, wrong_address
from quorate_quorum.v1.events_pb2 import MetadataEvent

#: The most voters. More voters make commits slower, and do not make a cluster safer.
VOTERS_MAX = 15
ENDPOINT_LENGTH_MAX = 255
DIRECTORY_ID_BYTES = 16
INT32_MAX = 2**31 - 1


def add_voter(
    image: MetadataImage, request: admin.AddVoterRequest, heard: Heard
) -> Outcome[admin.AddVoterResponse]:
    """Add a voter that has caught up as an observer, or change the endpoint of a voter."""
    voter = VoterImage(request.voter_id, request.directory_id, request.endpoint)
    if voter in image.voters:
        return Outcome((), admin.AddVoterResponse(already=True))
    try:
        _check_voter(voter)
        _check_may_come(image, voter, heard)
    except QuorateError as error:
        return Outcome((), admin.AddVoterResponse(error=to_wire(error)))
    others = [one for one in image.voters if one.id != voter.id]
    return Outcome((_changed(*others, voter),), admin.AddVoterResponse())


def remove_voter(
    image: MetadataImage, request: admin.RemoveVoterRequest
) -> Outcome[admin.RemoveVoterResponse]:
    """Remove a voter. Without a directory id, remove the voter with that id, whatever its disk."""
    named = request.directory_id
    gone = [v for v in image.voters if v.id == request.voter_id and named in (b"", v.directory_id)]
    if not gone:
        return Outcome((), admin.RemoveVoterResponse(already=True))
    directory_id = gone[0].directory_id
    if len(image.voters) == 1:
        error = InvalidRequestError(
            f"voter {request.voter_id} is the only one: add another before you remove it"
        )
        return Outcome((), admin.RemoveVoterResponse(error=to_wire(error)))
    others = [one for one in image.voters if one not in gone]
    return Outcome((_changed(*others),), admin.RemoveVoterResponse(directory_id=directory_id))


def _changed(*voters: VoterImage) -> MetadataEvent:
    return voters_event(tuple(sorted(voters, key=lambda voter: voter.id)))


def _check_voter(voter: VoterImage) -> None:
    if not 0 <= voter.id <= INT32_MAX:
        raise InvalidRequestError(f"a voter's id is 0 to {INT32_MAX}, not {voter.id}")
    if len(voter.directory_id) != DIRECTORY_ID_BYTES:
        raise InvalidRequestError(
            f"voter {voter.id}: a directory id has {DIRECTORY_ID_BYTES} bytes, not "
            f"{len(voter.directory_id)}"
        )
    if len(voter.endpoint) > ENDPOINT_LENGTH_MAX:
        raise InvalidRequestError(
            f"voter {voter.id}: an endpoint has at most {ENDPOINT_LENGTH_MAX} characters, not "
            f"{len(voter.endpoint)}"
        )
    wrong = wrong_address(voter.endpoint, port_min=1)
    if wrong is not None:
        raise InvalidRequestError(f"voter {voter.id}: {wrong}")


def _check_may_come(image: MetadataImage, voter: VoterImage, heard: Heard) -> None:
    """Raise the reason why a voter may not be added.

    Raises InvalidRequestError if the voter's address or id is taken, or there are too many voters.
    Raises UnsupportedError if the voter's program does not know a feature level in force.
    Raises OverloadedError (retriable) if the voter does not fetch from this controller yet.
    """
    there = {place_of(one.endpoint): one.id for one in image.voters if one.id != voter.id}
    other = there.get(place_of(voter.endpoint))
    if other is not None:
        raise InvalidRequestError(f"{voter.endpoint} is where voter {other} listens")
    same = next((one for one in image.voters if one.id == voter.id), None)
    if same is not None:
        if same.directory_id == voter.directory_id:
            return  # the same voter with another endpoint
        raise InvalidRequestError(
            f"voter {voter.id} is there with directory {same.directory_id.hex()}: if that disk is "
            f"gone, remove it first: quorate quorum remove-voter {voter.id}:"
            f"{same.directory_id.hex()}"
        )
    if voter.id in image.brokers:
        raise InvalidRequestError(
            f"broker {voter.id} at {image.brokers[voter.id].endpoint} is registered: voters and"
            " brokers share one space of ids. Format the new voter with another node.id"
        )
    if len(image.voters) >= VOTERS_MAX:
        raise InvalidRequestError(f"there are {len(image.voters)} voters; at most {VOTERS_MAX}")
    known = heard.get((voter.id, voter.directory_id))
    if known is None:
        raise OverloadedError(
            f"node {voter.id} with directory {voter.directory_id.hex()} does not fetch from the "
            "controller: start it on a disk made by `quorate storage format --new-voter`, look "
            "for it among the observers of `quorate quorum describe`, and ask again"
        )
    check_knows(image, f"voter {voter.id}", known)
