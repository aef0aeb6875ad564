"""Decisions to add and remove voters: changes, requests already done, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from quorate.errors import InvalidRequestError, OverloadedError, UnsupportedError, from_wire
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.controller.decisions.voters import VOTERS_MAX, add_voter, remove_voter
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.voters import VoterImage
from quorate_quorum.node.features import SUPPORTED, Known, Levels
from tests.unit.quorate_quorum.metadata.builders import brokers


def disk(number: int) -> bytes:
    return bytes([number]) * 16


def voter(number: int) -> VoterImage:
    return VoterImage(number, disk(number), f"host{number}:7093")


IMAGE = replace(EMPTY, voters=tuple(map(voter, (1, 2, 3))))
HEARD: dict[tuple[int, bytes], Known] = {(n, disk(n)): SUPPORTED for n in range(1, 40)}


def adding(number: int, *, on: int | None = None, at: str = "") -> admin.AddVoterRequest:
    return admin.AddVoterRequest(
        voter_id=number,
        directory_id=disk(number if on is None else on),
        endpoint=at or f"host{number}:7093",
    )


def after(image: MetadataImage, outcome: Outcome[Any]) -> MetadataImage:
    """One event at most, which replays to the new set."""
    assert len(outcome.events) <= 1
    return replayed(image, outcome.events, epoch=1) if outcome.events else image


def test_a_new_voter_comes_and_all_others_stay() -> None:
    outcome = add_voter(IMAGE, adding(4), HEARD)
    assert outcome.response == admin.AddVoterResponse()
    assert after(IMAGE, outcome).voters == tuple(map(voter, (1, 2, 3, 4)))


def test_who_is_a_voter_already_stays_one_and_nothing_is_written() -> None:
    outcome = add_voter(IMAGE, adding(2), {})
    assert outcome == Outcome((), admin.AddVoterResponse(already=True))


def test_a_voter_moves_to_another_endpoint() -> None:
    outcome = add_voter(IMAGE, adding(2, at="other:1"), {})
    moved = after(IMAGE, outcome).voters
    assert moved == (voter(1), VoterImage(2, disk(2), "other:1"), voter(3))


def test_the_same_id_on_another_disk_is_refused_and_told_what_to_do() -> None:
    """A wiped disk is another voter: its old vote must not count beside its new one."""
    outcome = add_voter(IMAGE, adding(2, on=9), {(2, disk(9)): SUPPORTED})
    assert outcome.events == ()
    with pytest.raises(InvalidRequestError, match=f"remove-voter 2:{disk(2).hex()}"):
        raise from_wire(outcome.response.error)


@pytest.mark.parametrize(
    ("request_", "heard", "error", "says"),
    [
        (adding(4), {}, OverloadedError, "does not fetch from the controller"),
        (adding(4), {(4, disk(5)): SUPPORTED}, OverloadedError, disk(4).hex()),
        (
            adding(4),
            {(4, disk(4)): {"metadata.version": Levels(2, 3)}},
            UnsupportedError,
            "voter 4 knows metadata.version 2 to 3, and this cluster is at level 1",
        ),
        (adding(-1, on=4), HEARD, InvalidRequestError, "not -1"),
        (adding(4, at="nowhere"), HEARD, InvalidRequestError, "must be host:port"),
        (adding(4, at="host:0"), HEARD, InvalidRequestError, "must be host:port"),
        (adding(4, at="h" * 300 + ":1"), HEARD, InvalidRequestError, "at most 255"),
        (adding(4, at="host2:7093"), HEARD, InvalidRequestError, "is where voter 2 listens"),
        (adding(4, at="HOST2.:7093"), HEARD, InvalidRequestError, "is where voter 2 listens"),
        (
            admin.AddVoterRequest(voter_id=4, endpoint="host4:1"),
            HEARD,
            InvalidRequestError,
            "16 bytes, not 0",
        ),
    ],
)
def test_who_may_not_come(
    request_: admin.AddVoterRequest, heard: dict[tuple[int, bytes], Known], error: type, says: str
) -> None:
    image = replace(IMAGE, features=IMAGE.features.insert("metadata.version", 1))
    outcome = add_voter(image, request_, heard)
    assert outcome.events == ()
    with pytest.raises(error, match=says):
        raise from_wire(outcome.response.error)


def test_there_is_a_bound_on_voters() -> None:
    image = replace(IMAGE, voters=tuple(voter(n) for n in range(1, VOTERS_MAX + 1)))
    outcome = add_voter(image, adding(VOTERS_MAX + 1), HEARD)
    with pytest.raises(InvalidRequestError, match=f"at most {VOTERS_MAX}"):
        raise from_wire(outcome.response.error)


@pytest.mark.parametrize("named", [b"", disk(2)])
def test_a_voter_goes_and_its_disk_is_told(named: bytes) -> None:
    request = admin.RemoveVoterRequest(voter_id=2, directory_id=named)
    outcome = remove_voter(IMAGE, request)
    assert outcome.response == admin.RemoveVoterResponse(directory_id=disk(2))
    assert after(IMAGE, outcome).voters == (voter(1), voter(3))


@pytest.mark.parametrize(
    "request_",
    [
        admin.RemoveVoterRequest(voter_id=4),
        admin.RemoveVoterRequest(voter_id=2, directory_id=disk(9)),
    ],
)
def test_who_is_no_voter_stays_none(request_: admin.RemoveVoterRequest) -> None:
    outcome = remove_voter(IMAGE, request_)
    assert outcome == Outcome((), admin.RemoveVoterResponse(already=True))


def test_the_only_voter_stays() -> None:
    image = replace(IMAGE, voters=(voter(1),))
    outcome = remove_voter(image, admin.RemoveVoterRequest(voter_id=1))
    assert outcome.events == ()
    with pytest.raises(InvalidRequestError, match="add another before"):
        raise from_wire(outcome.response.error)


def test_a_broker_s_id_is_not_given_to_a_voter() -> None:
    image = replace(brokers([4]), voters=IMAGE.voters)
    outcome = add_voter(image, adding(4), HEARD)
    assert outcome.events == ()
    assert "broker 4 at b4:9092 is registered" in outcome.response.error.message
