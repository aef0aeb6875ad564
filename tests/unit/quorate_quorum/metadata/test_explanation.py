"""The sentences about causes and changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from quorate_quorum.metadata.explanation import CLAUSES, OutOfSync, clause, out_of_sync, sentence
from quorate_quorum.metadata.history import Cause, PastChange
from quorate_quorum.v1 import events_pb2 as ev

CREATED = Cause(ev.CAUSE_KIND_TOPIC_CREATED)
SILENT = Cause(ev.CAUSE_KIND_BROKER_SILENT, 1, ms=9_230)
BEHIND = Cause(ev.CAUSE_KIND_FELL_BEHIND, 2, ms=12_000, records=18_000)
NEW = PastChange(
    offset=10,
    time_ms=1_000,
    causes=(CREATED,),
    leader=1,
    leader_epoch=0,
    isr=(1, 2, 3),
    elr=(),
    replicas=(1, 2, 3),
    adding=(),
    removing=(),
)


def after(change: PastChange, *causes: Cause, **fields: Any) -> PastChange:
    """The next change, a second later."""
    offset, time_ms = change.offset + 1, change.time_ms + 1_000
    return replace(change, offset=offset, time_ms=time_ms, causes=causes, **fields)


def test_each_cause_has_a_clause() -> None:
    assert set(CLAUSES) == set(ev.CauseKind.values())
    said = [clause(Cause(kind, 7, ms=1_500, records=4)) for kind in CLAUSES]
    assert len(set(said)) == len(said), "no two causes read the same"
    for text in said:
        assert "{" not in text
        assert not text.endswith((".", " "))


@pytest.mark.parametrize(
    ("cause", "it", "text"),
    [
        (SILENT, "", "broker 1 was fenced: no heartbeat for 9.2 s"),
        (SILENT, "it", "it was fenced: no heartbeat for 9.2 s"),
        (
            BEHIND,
            "",
            "broker 2 lagged for 12 s, over replica.lag.time.max.ms, and was 18,000 records behind",
        ),
        (
            Cause(ev.CAUSE_KIND_LOST_RECORDS, 2, records=1),
            "",
            "broker 2 has lost records: its log ended 1 record below the high watermark",
        ),
        (Cause(9_999), "", "of a cause that this release does not know"),  # type: ignore[arg-type]
    ],
)
def test_a_cause_is_a_clause(cause: Cause, it: str, text: str) -> None:
    assert clause(cause, it) == text


SHRUNK = after(NEW, BEHIND, isr=(1, 3))
NO_LEADER = after(NEW, SILENT, leader=-1, leader_epoch=1, isr=())
MOVING = after(
    NEW,
    Cause(ev.CAUSE_KIND_REASSIGNMENT_ASKED),
    replicas=(4, 2, 3, 1),
    adding=(4,),
    removing=(1,),
)


@pytest.mark.parametrize(
    ("before", "change", "text"),
    [
        pytest.param(
            None,
            NEW,
            "the controller created the partition, with leader 1 in leader epoch 0, ISR [1, 2, 3]"
            " and replicas [1, 2, 3], because the topic was created",
            id="created",
        ),
        pytest.param(
            NEW,
            after(NEW, SILENT, leader=3, leader_epoch=5, isr=(2, 3)),
            "the controller elected broker 3 in leader epoch 5 and took broker 1 out of the ISR,"
            " because broker 1 was fenced: no heartbeat for 9.2 s",
            id="elected",
        ),
        pytest.param(
            NEW,
            replace(NO_LEADER, elr=(1, 2)),
            "the controller left the partition without a leader in leader epoch 1, took brokers 1,"
            " 2 and 3 out of the ISR and put brokers 1 and 2 into the ELR, because broker 1 was"
            " fenced: no heartbeat for 9.2 s",
            id="no leader",
        ),
        pytest.param(
            NEW,
            SHRUNK,
            "the controller took broker 2 out of the ISR, because broker 2 lagged for 12 s, over"
            " replica.lag.time.max.ms, and was 18,000 records behind",
            id="shrunk",
        ),
        pytest.param(
            SHRUNK,
            after(SHRUNK, Cause(ev.CAUSE_KIND_CAUGHT_UP, 2), isr=(1, 2, 3)),
            "the controller took broker 2 into the ISR, because broker 2 has caught up",
            id="grown",
        ),
        pytest.param(
            NEW,
            MOVING,
            "the controller began to add replicas on broker 4 and marked the replicas on broker 1"
            " for removal, because an operator asked for other replicas",
            id="moving",
        ),
        pytest.param(
            after(MOVING, isr=(4, 2, 3, 1)),
            after(
                MOVING,
                Cause(ev.CAUSE_KIND_REASSIGNMENT_COMPLETED),
                isr=(4, 2, 3),
                replicas=(4, 2, 3),
                adding=(),
                removing=(),
                leader=4,
                leader_epoch=1,
            ),
            "the controller elected broker 4 in leader epoch 1, took broker 1 out of the ISR,"
            " removed the replicas on broker 1 and ended the reassignment, with replicas"
            " [4, 2, 3], because every target replica is in the ISR",
            id="moved",
        ),
        pytest.param(
            replace(SHRUNK, elr=(2,)),
            after(SHRUNK, Cause(ev.CAUSE_KIND_REPLICA_LOSSY, 2)),
            "the controller took broker 2 out of the ELR, because broker 2 reported that its"
            " replica has lost records, or cannot be read",
            id="ELR left",
        ),
        pytest.param(
            NEW,
            after(NEW, Cause(ev.CAUSE_KIND_REASSIGNMENT_CANCELLED), leader_epoch=3),
            "the controller began leader epoch 3, with the same leader, because an operator"
            " cancelled the reassignment",
            id="same leader",
        ),
        pytest.param(
            None,
            SHRUNK,
            "the controller changed the partition: leader 1 in leader epoch 0, ISR [1, 3] and"
            " replicas [1, 2, 3], because broker 2 lagged for 12 s, over replica.lag.time.max.ms,"
            " and was 18,000 records behind",
            id="the changes before are not kept",
        ),
        pytest.param(
            NEW,
            after(NEW, isr=(1, 2)),
            "the controller took broker 3 out of the ISR; the cause was not recorded",
            id="an older release wrote it",
        ),
        pytest.param(
            NEW,
            after(NEW),
            "the controller changed the state of the partition; the cause was not recorded",
            id="nothing that is told",
        ),
        pytest.param(
            NEW,
            after(NEW, SILENT, BEHIND, isr=(3,), leader=3, leader_epoch=1),
            "the controller elected broker 3 in leader epoch 1 and took brokers 1 and 2 out of the"
            " ISR, because broker 1 was fenced: no heartbeat for 9.2 s and broker 2 lagged for"
            " 12 s, over replica.lag.time.max.ms, and was 18,000 records behind",
            id="two causes",
        ),
        pytest.param(
            MOVING,
            after(MOVING, Cause(ev.CAUSE_KIND_REASSIGNMENT_REPLACED)),
            "the controller changed the throttle of the reassignment, because an operator asked"
            " for the same replicas with another throttle",
            id="another throttle",
        ),
        pytest.param(
            NEW,
            after(
                NEW,
                Cause(ev.CAUSE_KIND_REASSIGNMENT_ASKED),
                replicas=(1, 2, 3, 4),
                adding=(4,),
            ),
            "the controller gave the partition 4 replicas instead of 3 and began to add replicas"
            " on broker 4, because an operator asked for other replicas",
            id="more replicas",
        ),
        pytest.param(
            NEW,
            after(NEW, Cause(ev.CAUSE_KIND_REASSIGNMENT_ASKED), replicas=(2, 1, 3)),
            "the controller changed the order of the replicas to [2, 1, 3], because an operator"
            " asked for other replicas",
            id="another preferred leader",
        ),
        pytest.param(
            NEW,
            after(NEW, Cause(ev.CAUSE_KIND_LOSSY_ASKED, 3), leader=3, leader_epoch=2, isr=(3,)),
            "the controller elected broker 3 in leader epoch 2 and took brokers 1 and 2 out of the"
            " ISR, because an operator asked for an unclean election, and broker 3 had most"
            " records: ACKNOWLEDGED RECORDS MAY BE LOST",
            id="a lossy election",
        ),
    ],
)
def test_a_change_is_a_sentence(before: PastChange | None, change: PastChange, text: str) -> None:
    assert sentence(before, change) == text


LOSSY = Cause(ev.CAUSE_KIND_LOSSY_ASKED, 3)


@pytest.mark.parametrize(
    ("history", "found"),
    [
        pytest.param([NEW], [], id="all are in sync"),
        pytest.param(
            [NEW, SHRUNK],
            [OutOfSync(2, 2_000, clause(BEHIND, "it"))],
            id="one left",
        ),
        pytest.param(
            [NEW, SHRUNK, after(SHRUNK, SILENT, leader=3, leader_epoch=1, isr=(3,))],
            [
                OutOfSync(1, 3_000, clause(SILENT, "it"), was_away=True),
                OutOfSync(2, 2_000, clause(BEHIND, "it")),
            ],
            id="each has its own cause and time",
        ),
        pytest.param(
            [SHRUNK],
            [OutOfSync(2, 0, "the event that took it out is not kept")],
            id="it left too long ago",
        ),
        pytest.param(
            [NEW, after(NEW, isr=(1, 3))],
            [OutOfSync(2, 2_000, "the cause was not recorded")],
            id="an older release",
        ),
        pytest.param(
            [replace(NEW, isr=(1, 3))],
            [
                OutOfSync(
                    2,
                    1_000,
                    "its broker was not alive when the partition was created",
                    was_away=True,
                )
            ],
            id="never in sync",
        ),
        pytest.param(
            [NEW, MOVING],
            [OutOfSync(4, 2_000, "its replica was added, and has not caught up yet")],
            id="added",
        ),
        pytest.param(
            [NEW, NO_LEADER, after(NO_LEADER, LOSSY, leader=3, leader_epoch=2, isr=(3,))],
            [
                OutOfSync(1, 2_000, clause(SILENT, "it"), was_away=True),
                OutOfSync(2, 2_000, "the cause was not recorded"),
            ],
            id="out before a lossy election",
        ),
        pytest.param(
            [NEW, after(NEW, LOSSY, leader=3, leader_epoch=2, isr=(3,))],
            [OutOfSync(b, 2_000, clause(LOSSY)) for b in (1, 2)],
            id="not trusted any more after a lossy election",
        ),
    ],
)
def test_a_replica_out_of_the_isr_has_a_reason_and_a_time(
    history: list[PastChange], found: list[OutOfSync]
) -> None:
    newest = history[-1]
    assert out_of_sync(reversed(history), newest.replicas, newest.isr) == found


def test_without_a_history_nothing_is_claimed() -> None:
    reason = "the event that took it out is not kept"
    assert out_of_sync([], [1, 2], [1]) == [OutOfSync(2, 0, reason)]
