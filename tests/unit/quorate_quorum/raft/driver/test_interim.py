"""News of the high watermark is sent to waiting fetches, which go on waiting.

So the next batch is sent the moment it is written, and a commit costs a follower one message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from quorate.errors import OverloadedError, StoppingError
from quorate_quorum.raft.driver import callers as callers_module
from quorate_quorum.raft.driver.callers import Callers
from quorate_quorum.raft.machine.follower import Follower
from quorate_quorum.raft.machine.messages import DivergingEpoch, FetchResponse
from quorate_quorum.raft.machine.ready import Fetch, FetchReply
from quorate_quorum.snapshots.file import SnapshotId
from tests.harness.raft_machines import Machine, batch, follower, serving_leader

BASE = 2  # where a serving leader's log ends: bootstrap, EpochStart


def replies(said: list[object]) -> list[FetchReply]:
    return [message for message in said if isinstance(message, FetchReply)]


def proposed(made: Machine, offset: int) -> list[FetchReply]:
    made.raft.propose(batch(offset, made.epoch), made.now_ms)
    return replies(list(made.drain()))


# --- the leader -----------------------------------------------------------------------------------


def test_who_waits_is_told_of_a_commit_and_then_given_the_next_batch_without_asking_again() -> None:
    made = serving_leader()
    for voter in (2, 3):
        made.fetch(voter, BASE, 1, high_watermark=BASE)
    assert [r.response.interim for r in proposed(made, BASE)] == [False, False]

    (told,) = made.fetch(2, BASE + 1, 1, high_watermark=BASE)
    assert (told.caller, told.response.interim) == (2, True)
    assert told.response.high_watermark == made.raft.high_watermark == BASE + 1
    assert (told.response.base_offset, told.end) == (BASE + 1, 0)

    (told,) = made.fetch(3, BASE + 1, 1, high_watermark=BASE)
    assert (told.caller, told.response.interim) == (3, True)

    answers = proposed(made, BASE + 1)
    assert [(r.caller, r.response.interim, r.end) for r in answers] == [
        (2, False, BASE + 2),
        (3, False, BASE + 2),
    ]


def test_the_same_high_watermark_is_told_once_and_a_fetch_that_knows_it_is_not_told() -> None:
    made = serving_leader()
    (told,) = made.fetch(2, BASE, 1, high_watermark=BASE - 1)
    assert told.response.interim
    assert replies(list(made.tick(1))) == []
    assert made.fetch(3, BASE, 1, high_watermark=BASE) == []


def test_a_fetch_that_was_told_is_answered_in_time_all_the_same() -> None:
    """Check-quorum counts fetches, and a follower fetches again only after an answer."""
    made = serving_leader()
    made.fetch(2, BASE, 1, high_watermark=0)
    assert replies(list(made.tick(249))) == []
    (answer,) = replies(list(made.tick(1)))
    assert (answer.caller, answer.response.interim) == (2, False)


def test_a_read_is_not_told_as_news_for_only_an_answer_brings_the_next_fetch() -> None:
    """The echo of its round is what confirms a read."""
    made = serving_leader()
    made.fetch(2, BASE, 1, high_watermark=0)
    made.raft.read(made.now_ms)
    (answer,) = replies(list(made.drain()))
    assert (answer.caller, answer.response.interim) == (2, False)
    assert answer.response.round == made.raft.state.round


# --- the follower ---------------------------------------------------------------------------------


def caught_up() -> Machine:
    """Return a waiting follower that does not know yet that its last batch is committed."""
    made = follower()
    made.answered(FetchResponse(1, 2, 1, 1, batches=(batch(1, 1, begins=True), batch(2, 1))))
    assert isinstance(made.raft.role, Follower)
    assert made.raft.role.is_waiting
    made.sent.clear()
    return made


def news(**changed: object) -> FetchResponse:
    given = {"high_watermark": 3, "interim": True}
    return FetchResponse(1, 2, 3, **(given | changed))  # type: ignore[arg-type]


def test_news_commits_and_asks_for_nothing() -> None:
    made = caught_up()
    assert made.answered(news()) == []
    assert made.raft.high_watermark == 3
    said = made.answered(FetchResponse(1, 2, 3, 3, batches=(batch(3, 1),)))
    (fetch,) = [message for message in said if isinstance(message, Fetch)]
    assert (fetch.request.fetch_offset, fetch.request.high_watermark) == (4, 3)


def test_news_is_a_sign_of_life() -> None:
    made = caught_up()
    made.now_ms = made.raft.deadline_ms() - 1
    made.answered(news())
    made.tick(10)
    assert made.role == "follower"


def test_news_of_another_end_than_ours_commits_nothing() -> None:
    """The leader's high watermark is about the log end that the fetch named."""
    made = caught_up()
    made.answered(FetchResponse(1, 2, 2, 3, interim=True))
    assert made.raft.high_watermark == 1


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"batches": (batch(3, 1),)}, id="batches"),
        pytest.param({"diverging": DivergingEpoch(0, 1)}, id="diverging"),
        pytest.param({"snapshot": SnapshotId(9, 1)}, id="snapshot"),
    ],
)
def test_news_with_what_only_an_answer_may_hold_is_no_leaders(changed: dict[str, object]) -> None:
    made = caught_up()
    before = made.raft.role.session
    made.answered(news(**changed))
    assert made.raft.ledger.log_end_offset == 3
    assert made.raft.role.session > before, "the stream is not believed any more"


# --- waiters in the process -----------------------------------------------------------------------


def in_a_loop(program: Callable[[], object]) -> None:
    async def run() -> None:
        await program()  # type: ignore[misc]

    asyncio.run(run())


def test_answers_come_in_order_and_news_that_was_not_taken_gives_way() -> None:
    async def program() -> None:
        callers = Callers()
        with callers.asked() as asked:
            callers.tell(asked.number, "news")
            callers.tell(asked.number, "newer news")
            callers.tell(asked.number, "answer")
            assert await asked.answer() == "answer"

    in_a_loop(program)


def test_what_is_told_between_an_answer_and_its_taking_is_not_lost() -> None:
    async def program() -> None:
        callers = Callers()
        with callers.asked() as asked:
            taking = asyncio.create_task(asked.answer())
            await asyncio.sleep(0)
            callers.tell(asked.number, "news")
            callers.tell(asked.number, "answer")
            assert await taking == "news"
            assert await asked.answer() == "answer"

    in_a_loop(program)


def test_who_asked_and_went_is_told_nothing_and_who_waits_learns_of_the_end() -> None:
    async def program() -> None:
        callers = Callers()
        with callers.asked() as gone:
            pass
        callers.tell(gone.number, "too late")
        with callers.asked() as asked:
            assert asked.number != gone.number
            callers.tell(asked.number, "not taken")
            callers.fail(StoppingError("the end"))
            with pytest.raises(StoppingError, match="the end"):
                await asked.answer()

    in_a_loop(program)


def test_callers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program() -> None:
        monkeypatch.setattr(callers_module, "CALLERS_MAX", 1)
        callers = Callers()
        with callers.asked(), pytest.raises(OverloadedError):
            callers.asked()
        with callers.asked():
            pass

    in_a_loop(program)
