"""Offsets in messages of the Groups service, which takes fewer of them than the machine behind."""

from __future__ import annotations

import pytest

from quorate.errors import InvalidRequestError
from quorate.v1 import groups_pb2 as wire
from quorate_broker.groups.machine.values import CommittedOffset, FetchedOffset, OffsetCommit
from quorate_broker.listeners.grpc.group_values import commits_of, offset_message

TOPIC = b"t" * 16


def commit(*offsets: int) -> list[wire.CommitTopic]:
    """Return a message that commits an offset for each partition from 0 on."""
    partitions = [
        wire.CommitPartition(partition=number, offset=offset, leader_epoch=-1)
        for number, offset in enumerate(offsets)
    ]
    return [wire.CommitTopic(topic_id=TOPIC, partitions=partitions)]


def test_a_member_commits_no_negative_offset_and_the_others_of_its_request_count() -> None:
    commits, refused = commits_of(commit(5, -1, -2, -(2**63), 0), is_member=True)
    assert commits == [OffsetCommit((TOPIC, 0), 5), OffsetCommit((TOPIC, 4), 0)]
    assert sorted(refused) == [(TOPIC, 1), (TOPIC, 2), (TOPIC, 3)]
    assert all(isinstance(error, InvalidRequestError) for error in refused.values())


def test_a_caller_that_is_no_member_takes_an_offset_away_with_minus_1() -> None:
    commits, refused = commits_of(commit(5, -1, -2), is_member=False)
    assert commits == [OffsetCommit((TOPIC, 0), 5), OffsetCommit((TOPIC, 1), None)]
    assert [*refused] == [(TOPIC, 2)]
    with pytest.raises(InvalidRequestError, match="offset for partition 2 is -2"):
        raise refused[TOPIC, 2]


@pytest.mark.parametrize(("stored", "told"), [(7, 7), (0, 0), (-1, -1), (-2, -1), (-(2**63), -1)])
def test_a_negative_offset_of_a_kafka_client_is_told_as_nothing(stored: int, told: int) -> None:
    committed = CommittedOffset(TOPIC, stored, 3, "note", 9, partitions_at_first_commit=4)
    message = offset_message(0, FetchedOffset((TOPIC, 0), "t", committed))
    assert message.offset == told
    # The group is as old as it is.
    assert message.partitions_at_first_commit == 4
