"""A broken stream is suspicion, silence is proof."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from quorate_quorum.controller.decisions.liveness import (
    Dial,
    Effect,
    Fence,
    HandOver,
    Liveness,
)
from tests.unit.quorate_quorum.metadata.builders import incarnation

TIMES: dict[str, Any] = {"session_timeout_ms": 3000, "disconnect_grace_ms": 500}


@dataclass
class Reign:
    """A reign over some unfenced brokers, and a clock."""

    brokers: int = 3
    handed_over_for_silence: bool = False
    has_other_voter: bool = True
    now_ms: int = 10_000
    effects: list[Effect] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machine = Liveness(
            self.now_ms,
            **TIMES,
            unfenced=[(b, incarnation(b)) for b in range(self.brokers)],
            handed_over_for_silence=self.handed_over_for_silence,
            has_other_voter=self.has_other_voter,
        )

    def all_come(self) -> Reign:
        for broker in range(self.brokers):
            self.open(broker)
            self.can_be_dialled(broker)
        self.effects.clear()
        return self

    def can_be_dialled(self, broker: int) -> None:
        self.machine.dial_answered(broker, self.dial(broker), incarnation(broker))

    def open(self, broker: int, stream: int = 1) -> None:
        self.effects += self.machine.stream_opened(broker, incarnation(broker), stream)

    def breaks(self, broker: int, stream: int = 1) -> None:
        self.effects += self.machine.stream_broken(broker, incarnation(broker), stream, self.now_ms)

    def dial(self, broker: int) -> int:
        """The number of the last dial of a broker."""
        return [e.number for e in self.effects if isinstance(e, Dial) and e.broker_id == broker][-1]

    def refused(self, broker: int) -> None:
        self.effects += self.machine.dial_refused(broker, self.dial(broker))

    def unanswered(self, broker: int) -> None:
        self.effects += self.machine.dial_unanswered(broker, self.dial(broker))

    def answered(self, broker: int, run: int = 1) -> None:
        self.effects += self.machine.dial_answered(
            broker, self.dial(broker), incarnation(broker, run)
        )

    def passes(self, ms: int, *, heard: tuple[int, ...] = (), step: int = 100) -> None:
        """Let time pass in ticks; some brokers are heard all the time."""
        for _ in range(0, ms, step):
            self.now_ms += step
            for broker in heard:
                self.machine.heard(broker, incarnation(broker))
            self.effects += self.machine.tick(self.now_ms)

    @property
    def dials(self) -> list[int]:
        return [effect.broker_id for effect in self.effects if isinstance(effect, Dial)]

    @property
    def fenced(self) -> list[int]:
        return [effect.broker_id for effect in self.effects if isinstance(effect, Fence)]

    @property
    def hand_overs(self) -> int:
        return sum(isinstance(effect, HandOver) for effect in self.effects)


def test_a_killed_broker_is_fenced_at_once() -> None:
    """Its stream breaks and its port refuses: milliseconds, not a session timeout."""
    reign = Reign().all_come()
    reign.breaks(0)
    assert reign.dials == [0]
    reign.refused(0)
    assert reign.fenced == [0]


def test_another_incarnation_at_its_address_is_proof_too() -> None:
    reign = Reign().all_come()
    reign.breaks(0)
    reign.answered(0, run=2)
    assert reign.fenced == [0]


def test_a_broker_that_answers_is_judged_by_its_silence_alone() -> None:
    reign = Reign().all_come()
    reign.breaks(0)
    reign.answered(0)
    reign.passes(2_900, heard=(1, 2))
    assert reign.fenced == []
    reign.passes(100, heard=(1, 2))
    assert reign.fenced == [0]


def test_a_broker_that_does_not_answer_has_a_grace() -> None:
    reign = Reign(brokers=6).all_come()
    reign.breaks(0)
    reign.unanswered(0)
    reign.passes(400, heard=(1, 2, 3, 4, 5))
    assert reign.fenced == []
    reign.passes(100, heard=(1, 2, 3, 4, 5))
    assert reign.fenced == [0]


def test_the_grace_ends_when_any_stream_of_that_incarnation_is_open() -> None:
    reign = Reign(brokers=6).all_come()
    reign.breaks(0)
    reign.unanswered(0)
    reign.passes(400, heard=(1, 2, 3, 4, 5))
    reign.machine.stream_opened(0, incarnation(0, run=2), 8)  # not of that incarnation
    reign.open(0, stream=7)
    reign.passes(1_000, heard=(1, 2, 3, 4, 5))
    assert reign.fenced == []


def test_an_old_answer_proves_nothing_of_a_broker_that_came_back() -> None:
    reign = Reign().all_come()
    reign.breaks(0)
    reign.open(0, stream=2)
    reign.refused(0)
    assert reign.fenced == []


def test_one_of_two_streams_is_no_break() -> None:
    reign = Reign().all_come()
    reign.open(0, stream=2)
    reign.breaks(0, stream=1)
    assert reign.dials == []


def test_many_breaks_at_once_without_a_refusal_leave_silence_only() -> None:
    """Two or more, and over a third: the controller itself may be cut off."""
    reign = Reign(brokers=5).all_come()
    reign.breaks(0)
    reign.breaks(1)
    reign.unanswered(0)
    reign.unanswered(1)
    reign.passes(2_900, heard=(2, 3, 4))
    assert reign.fenced == []
    reign.passes(100, heard=(2, 3, 4))
    assert reign.fenced == [0, 1]


def test_many_breaks_with_refusals_are_so_many_deaths() -> None:
    reign = Reign(brokers=5).all_come()
    reign.breaks(0)
    reign.breaks(1)
    reign.refused(0)
    reign.refused(1)
    assert reign.fenced == [0, 1]


def test_breaks_that_lie_apart_are_not_one_event() -> None:
    reign = Reign(brokers=5).all_come()
    reign.breaks(0)
    reign.answered(0)
    reign.passes(1_100, heard=(0, 1, 2, 3, 4))
    reign.breaks(1)
    reign.unanswered(1)
    reign.passes(500, heard=(0, 1, 2, 3, 4))
    assert reign.fenced == [1]


def test_a_third_of_all_is_not_over_a_third() -> None:
    reign = Reign(brokers=6).all_come()
    for broker in (0, 1):
        reign.breaks(broker)
        reign.unanswered(broker)
    reign.passes(500, heard=(2, 3, 4, 5))
    assert reign.fenced == [0, 1]


def test_a_tick_adds_at_most_100_ms_of_silence() -> None:
    """A controller that was stopped for a minute fences no broker for it."""
    reign = Reign().all_come()
    reign.passes(60_000, step=60_000)
    assert reign.fenced == []
    assert reign.hand_overs == 0


def registers_while_it_is_busy() -> Reign:
    """Broker 7 registers, and does not answer the trial dial in time, as it opens its logs."""
    reign = Reign(brokers=0)
    reign.effects += reign.machine.registered(7, incarnation(7))
    reign.open(7)
    reign.unanswered(7)
    reign.machine.unfenced(7)
    reign.effects.clear()
    return reign


def test_a_broker_that_was_too_busy_to_answer_when_it_registered_is_fenced_at_once() -> None:
    """What a dial finds at one moment is no verdict for the rest of the reign."""
    reign = registers_while_it_is_busy()
    reign.breaks(7)
    reign.refused(7)
    assert reign.fenced == [7]


def test_a_broker_that_never_answered_a_dial_has_no_grace() -> None:
    """Its port may be behind a filter: no answer says nothing of such a broker."""
    reign = registers_while_it_is_busy()
    reign.breaks(7)
    reign.unanswered(7)
    reign.passes(2_900)
    assert reign.fenced == []
    reign.passes(100)
    assert reign.fenced == [7]


def test_a_trial_that_got_no_answer_is_repeated_ever_more_rarely_until_it_gets_one() -> None:
    reign = registers_while_it_is_busy()
    reign.passes(900, heard=(7,))
    assert reign.dials == []
    reign.passes(100, heard=(7,))
    assert reign.dials == [7]
    reign.unanswered(7)
    reign.passes(1_900, heard=(7,))
    assert reign.dials == [7]
    reign.passes(100, heard=(7,))
    assert reign.dials == [7, 7]
    reign.can_be_dialled(7)
    reign.passes(100_000, heard=(7,))
    assert reign.dials == [7, 7]
    reign.breaks(7)
    reign.unanswered(7)
    reign.passes(600)
    assert reign.fenced == [7]  # it has a grace again, as any broker that can be dialled


def test_no_trial_is_repeated_for_a_broker_without_a_stream() -> None:
    reign = Reign(brokers=0)
    reign.effects += reign.machine.registered(7, incarnation(7))
    reign.unanswered(7)
    reign.effects.clear()
    reign.passes(10_000)
    assert reign.dials == []


def test_a_port_that_refuses_although_the_broker_runs_proves_nothing() -> None:
    reign = Reign(brokers=0)
    reign.effects += reign.machine.registered(7, incarnation(7))
    reign.open(7)
    reign.machine.unfenced(7)
    reign.refused(7)
    assert reign.fenced == []
    reign.effects.clear()
    reign.breaks(7)
    reign.passes(2_900)
    assert (reign.dials, reign.fenced) == ([], [])
    reign.passes(100)
    assert reign.fenced == [7]


def test_a_refusal_of_a_moment_is_tried_again_too() -> None:
    reign = Reign(brokers=0)
    reign.effects += reign.machine.registered(7, incarnation(7))
    reign.open(7)
    reign.machine.unfenced(7)
    reign.refused(7)
    reign.passes(1_000, heard=(7,))
    reign.can_be_dialled(7)
    reign.breaks(7)
    reign.refused(7)
    assert reign.fenced == [7]


def test_a_suspected_broker_is_dialled_again_until_a_dial_proves_it_gone() -> None:
    """The first dial may meet a process that is about to die, or a controller that is busy."""
    reign = Reign(brokers=6).all_come()
    reign.breaks(0)
    reign.unanswered(0)
    reign.passes(200, heard=(1, 2, 3, 4, 5))
    assert reign.dials == [0, 0]
    reign.answered(0)
    reign.passes(200, heard=(1, 2, 3, 4, 5))
    assert reign.dials == [0, 0, 0]
    reign.refused(0)
    assert reign.fenced == [0]
    reign.passes(1_000, heard=(1, 2, 3, 4, 5))
    assert reign.dials == [0, 0, 0]


def test_a_busy_broker_that_answers_a_later_dial_is_not_fenced_after_the_grace() -> None:
    reign = Reign(brokers=6).all_come()
    reign.breaks(0)
    reign.unanswered(0)
    reign.passes(200, heard=(1, 2, 3, 4, 5))
    reign.answered(0)
    reign.passes(1_000, heard=(0, 1, 2, 3, 4, 5))
    assert reign.fenced == []


def test_a_new_controller_dials_who_has_not_come_after_500_ms() -> None:
    reign = Reign(brokers=4)
    reign.open(0)
    reign.effects.clear()
    reign.passes(400, heard=(0,))
    assert reign.dials == []
    reign.open(1)
    reign.open(2)
    reign.effects.clear()
    reign.passes(200, heard=(0, 1, 2))
    assert reign.dials == [3]
    reign.refused(3)
    assert reign.fenced == [3]
    reign.passes(2_000, heard=(0, 1, 2))
    assert reign.dials == [3]


def test_timers_start_anew_with_a_reign() -> None:
    reign = Reign().all_come()
    reign.passes(2_900)
    later = Reign(now_ms=reign.now_ms).all_come()
    later.passes(2_900)
    assert later.fenced == []
    assert later.hand_overs == 0


def test_a_controller_that_hears_less_than_half_hands_over_and_fences_none() -> None:
    reign = Reign(brokers=3).all_come()
    reign.passes(300, heard=(1,))
    reign.passes(3_500, heard=(2,))
    assert reign.hand_overs == 1
    assert reign.fenced == []


def test_one_silent_broker_is_not_many() -> None:
    reign = Reign(brokers=1).all_come()
    reign.passes(3_000)
    assert (reign.hand_overs, reign.fenced) == (0, [0])


def test_half_is_not_more_than_half() -> None:
    reign = Reign(brokers=4).all_come()
    reign.passes(3_000, heard=(2, 3))
    assert (reign.hand_overs, reign.fenced) == (0, [0, 1])


def test_brokers_that_went_one_after_the_other_are_fenced() -> None:
    reign = Reign(brokers=3).all_come()
    reign.passes(3_300, heard=(1, 2))
    reign.passes(3_300, heard=(2,))
    assert (reign.hand_overs, reign.fenced) == (0, [0, 1])


def test_a_broker_fenced_for_silence_a_moment_ago_counts_as_silent() -> None:
    reign = Reign(brokers=3).all_come()
    reign.passes(2_000, heard=(1, 2))
    reign.passes(3_500, heard=(2,))
    assert (reign.hand_overs, reign.fenced) == (1, [0])


def test_a_reign_that_began_by_handing_over_fences() -> None:
    reign = Reign(handed_over_for_silence=True).all_come()
    reign.passes(3_000)
    assert (reign.hand_overs, reign.fenced) == (0, [0, 1, 2])


def test_a_reign_without_another_voter_fences() -> None:
    reign = Reign(has_other_voter=False).all_come()
    reign.passes(3_000)
    assert (reign.hand_overs, reign.fenced) == (0, [0, 1, 2])


def test_a_handing_over_that_nobody_takes_ends_in_fencing() -> None:
    reign = Reign().all_come()
    reign.passes(3_000)
    assert (reign.hand_overs, reign.fenced) == (1, [])
    reign.passes(2_900)
    assert reign.fenced == []
    reign.passes(100)
    assert reign.fenced == [0, 1, 2]


def test_a_broker_fenced_by_disconnect_that_returns_has_twice_the_grace() -> None:
    reign = Reign(brokers=6).all_come()
    everybody = (0, 1, 2, 3, 4, 5)
    for grace in (500, 1_000, 2_000, 3_000):
        reign.effects.clear()
        reign.breaks(0)
        reign.unanswered(0)
        reign.passes(grace - 100, heard=everybody)
        assert reign.fenced == []
        reign.passes(100, heard=everybody)
        assert reign.fenced == [0]
        reign.open(0)
        reign.machine.registered(0, incarnation(0))
        reign.machine.unfenced(0)
    reign.effects.clear()
    reign.breaks(0)
    reign.unanswered(0)
    reign.passes(3_000, heard=everybody)  # never more than the session timeout
    assert reign.fenced == [0]


def test_a_new_incarnation_begins_with_the_first_grace() -> None:
    reign = Reign(brokers=6).all_come()
    reign.breaks(0)
    reign.refused(0)
    reign.effects += reign.machine.registered(0, incarnation(0, run=2))
    reign.machine.stream_opened(0, incarnation(0, run=2), 5)
    reign.machine.unfenced(0)
    reign.machine.dial_answered(0, reign.dial(0), incarnation(0, run=2))
    reign.effects.clear()
    reign.effects += reign.machine.stream_broken(0, incarnation(0, run=2), 5, reign.now_ms)
    reign.unanswered(0)
    reign.passes(500, heard=(1, 2, 3, 4, 5))
    assert reign.fenced == [0]


def test_a_broker_that_dies_while_it_is_unfenced_is_fenced_again() -> None:
    reign = Reign(brokers=0)
    reign.effects += reign.machine.registered(7, incarnation(7))
    reign.open(7)
    reign.can_be_dialled(7)
    reign.breaks(7)
    reign.refused(7)
    assert reign.fenced == []
    reign.machine.unfenced(7)
    reign.passes(100)
    assert reign.fenced == [7]


def test_a_session_lives_while_it_is_heard() -> None:
    reign = Reign(brokers=1).all_come()
    assert reign.machine.session_lives(0)
    reign.breaks(0)
    assert reign.machine.session_lives(0)  # not proved
    reign.refused(0)
    assert not reign.machine.session_lives(0)
    assert not reign.machine.session_lives(9)


def test_a_session_of_a_fenced_broker_lives_only_if_it_is_seen() -> None:
    machine = Liveness(0, **TIMES, fenced=[(3, incarnation(3))])
    assert not machine.session_lives(3)
    machine.stream_opened(3, incarnation(3), 1)
    assert machine.session_lives(3)


def test_frames_of_another_incarnation_move_nothing() -> None:
    reign = Reign(brokers=6).all_come()
    for _ in range(30):
        reign.machine.heard(0, incarnation(0, run=2))
        reign.passes(100, heard=(1, 2, 3, 4, 5))
    assert reign.fenced == [0]
