"""What the judge of a simulated cluster says of histories that break a rule, each by hand."""

from __future__ import annotations

import pytest

from quorate.errors import DeliveryTimeoutError, NotLeaderError
from tests.harness.cluster_history import History, judge
from tests.harness.invariants import Violation


def history(*values: int) -> History:
    """Return one of partition 0 in which all is as it should be."""
    told = History()
    told.final = {0: [b"%d" % value for value in values]}
    for offset, value in enumerate(told.final[0]):
        told.acked[value] = (0, offset)
        told.final_at[(0, offset)] = value
        told.live[0][value] = None
    return told


def judged(told: History, told_lost: set[int] | None = None, *, recreates: bool = False) -> None:
    judge(told, told_lost or set(), recreates=recreates, is_patient=True)


def test_a_history_in_order_breaks_no_rule() -> None:
    judged(history(0, 1, 2))


def test_a_lost_record_is_seen_unless_the_loss_was_told() -> None:
    told = history(0, 1, 2)
    told.acked[b"3"] = (0, 3)
    with pytest.raises(Violation, match="is lost"):
        judged(told)
    judged(told, {0})
    told.acked[b"4"] = (1, 0)
    with pytest.raises(Violation, match="partition 1 offset 0, and is lost"):
        judged(told, {0})


def test_a_record_written_twice_is_seen() -> None:
    told = history(0, 1, 1)
    with pytest.raises(Violation, match="written twice"):
        judged(told)


def test_records_out_of_order_are_seen() -> None:
    with pytest.raises(Violation, match="out of order"):
        judged(history(0, 2, 1))


def test_only_the_records_of_one_producer_are_in_order() -> None:
    told = history(0, 2, 1)
    told.producer_of[b"2"] = 1
    judged(told)
    told = history(0, 3, 1, 2)
    told.producer_of.update(dict.fromkeys((b"3", b"2"), 1))
    with pytest.raises(Violation, match="out of order at 2"):
        judged(told)


def test_a_record_at_another_offset_than_was_said_is_seen() -> None:
    told = history(0, 1)
    told.acked[b"1"] = (0, 7)
    with pytest.raises(Violation, match="another offset than 7"):
        judged(told)


def test_a_record_that_failed_for_good_and_was_written_is_seen() -> None:
    told = history(0, 1, 2)
    told.failed[b"1"] = DeliveryTimeoutError("it is not known")
    judged(told)
    told.failed[b"1"] = NotLeaderError("not written, it says")
    with pytest.raises(Violation, match="and was written"):
        judged(told)


def test_a_record_that_the_consumer_passed_over_is_seen() -> None:
    told = history(0, 1, 2)
    del told.live[0][b"1"]
    with pytest.raises(Violation, match="consumer 0 has not seen 1 records"):
        judged(told)
    told = history(0, 1, 2)
    told.live.append(dict.fromkeys((b"0", b"2")))
    with pytest.raises(Violation, match="consumer 1 has not seen 1 records"):
        judged(told)


def test_a_record_of_a_deleted_topic_in_the_new_one_is_seen() -> None:
    told = history(4, 5, 6)
    told.next_at_deletion = told.first_of_topic = 4
    judged(told, recreates=True)
    told.next_at_deletion = told.first_of_topic = 6
    with pytest.raises(Violation, match="sent to the topic before"):
        judged(told, recreates=True)


def test_only_the_last_record_of_a_key_must_be_there_in_a_compacted_topic() -> None:
    """Values 0 and 5 have one key, as KEYS is 5; value 1 has another."""
    told = history(0, 1, 5)
    told.final[0].remove(b"0")
    del told.final_at[(0, 0)], told.live[0][b"0"]
    judge(told, set(), recreates=False, is_patient=True, compacts=True)
    with pytest.raises(Violation, match="is lost"):
        judge(told, set(), recreates=False, is_patient=True)
    told.final[0].remove(b"5")
    del told.final_at[(0, 2)]
    with pytest.raises(Violation, match="is lost"):
        judge(told, set(), recreates=False, is_patient=True, compacts=True)
