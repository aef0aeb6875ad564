"""ISR, ELR and leaders: AlterPartition, and the way back from a loss."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.decisions import brokers as decide
from quorate_quorum.controller.decisions.free_space import FreeSpace
from quorate_quorum.controller.decisions.lossy_elections import (
    AskEnds,
    LossyElection,
    LossyElections,
    elect_all,
)
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.controller.decisions.partitions import alter_partitions
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.v1 import controller_pb2 as wire
from tests.harness.addresses import listening_at
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    context,
    decided,
    directory_id,
    every_partition,
    incarnation,
    the_partition,
    topic_id,
    with_partition,
)


def proposal(
    image: MetadataImage,
    isr: list[int],
    *,
    leader_epoch: int | None = None,
    partition_epoch: int | None = None,
    broker_epochs: dict[int, int] | None = None,
    number: int = 1,
    partition: int = 0,
) -> wire.AlterPartition:
    now = image.partition(topic_id(number), partition) or PartitionImage(
        replicas=(), isr=(), leader=-1
    )
    epochs = {b: image.brokers[b].epoch for b in isr if b in image.brokers} | (broker_epochs or {})
    return wire.AlterPartition(
        topic_id=topic_id(number),
        partition=partition,
        leader_epoch=now.leader_epoch if leader_epoch is None else leader_epoch,
        partition_epoch=now.partition_epoch if partition_epoch is None else partition_epoch,
        isr=[wire.IsrMember(broker_id=b, broker_epoch=epochs.get(b, 0)) for b in isr],
    )


def alter(
    image: MetadataImage, *proposals: wire.AlterPartition, leader: int = 0
) -> tuple[MetadataImage, list[wire.AlteredPartition]]:
    request = wire.AlterPartitionsRequest(
        broker_id=leader,
        broker_epoch=image.brokers[leader].epoch,
        request_id=77,
        partitions=proposals,
    )
    outcome = alter_partitions(image, request, context(image))
    assert outcome.response.request_id == 77
    return replayed(image, outcome.events), list(outcome.response.partitions)


THREE = with_partition(brokers([0, 1, 2]), [0, 1, 2])


def elected(image: MetadataImage, leader: int) -> Outcome[bool]:
    """Let a broker lead partition 0 although records may be lost."""
    return elect_all(image, [LossyElection(topic_id(1), 0, leader, "")], FreeSpace())


def test_an_isr_shrinks_and_grows_as_its_leader_proposes() -> None:
    image, (result,) = alter(THREE, proposal(THREE, [0, 1]))
    assert list(result.isr) == [0, 1]
    assert (result.leader, result.leader_epoch, result.partition_epoch) == (0, 0, 1)
    assert the_partition(image).isr == (0, 1)
    image, (result,) = alter(image, proposal(image, [2, 1, 0]))
    assert the_partition(image).isr == (0, 1, 2)  # in order of assignment
    assert result.partition_epoch == 2


def test_who_leaves_under_min_isr_enters_the_elr_until_the_isr_is_enough() -> None:
    """KIP-966."""
    image, _ = alter(THREE, proposal(THREE, [0]))
    assert the_partition(image).elr == (1, 2)
    image, _ = alter(image, proposal(image, [0, 2]))
    assert the_partition(image).elr == ()


def test_an_isr_that_is_enough_again_clears_last_isr() -> None:
    image = with_partition(brokers([0, 1, 2]), [0, 1, 2], isr=[0], elr=[1], last_isr=[2])
    shrunk, _ = alter(image, proposal(image, [0]))
    assert the_partition(shrunk).last_isr == (2,)
    grown, _ = alter(image, proposal(image, [0, 1]))
    assert the_partition(grown).last_isr == ()
    enough = with_partition(brokers([0, 1, 2]), [0, 1, 2], isr=[0, 1], last_isr=[2])
    same, (result,) = alter(enough, proposal(enough, [0, 1]))
    assert the_partition(same).last_isr == ()
    assert result.partition_epoch == 1


def test_a_proposal_of_what_is_changes_nothing() -> None:
    image, (result,) = alter(THREE, proposal(THREE, [0, 1, 2]))
    assert image == THREE
    assert not result.error.code


@pytest.mark.parametrize(
    ("given", "leader", "code"),
    [
        pytest.param(proposal(THREE, [1]), 1, ErrorCode.ERROR_CODE_NOT_LEADER, id="not leader"),
        pytest.param(
            proposal(THREE, [0], leader_epoch=-1),
            0,
            ErrorCode.ERROR_CODE_FENCED_LEADER_EPOCH,
            id="old leader_epoch",
        ),
        pytest.param(
            proposal(THREE, [0], leader_epoch=1),
            0,
            ErrorCode.ERROR_CODE_UNKNOWN_LEADER_EPOCH,
            id="new leader_epoch",
        ),
        pytest.param(
            proposal(THREE, [0], partition_epoch=9),
            0,
            ErrorCode.ERROR_CODE_STALE_PARTITION_EPOCH,
            id="partition_epoch",
        ),
        pytest.param(proposal(THREE, []), 0, ErrorCode.ERROR_CODE_INVALID_REQUEST, id="empty"),
        pytest.param(
            proposal(THREE, [0, 1, 1]), 0, ErrorCode.ERROR_CODE_INVALID_REQUEST, id="twice"
        ),
        pytest.param(
            proposal(THREE, [0, 9]), 0, ErrorCode.ERROR_CODE_INVALID_REQUEST, id="no replica"
        ),
        pytest.param(
            proposal(THREE, [0, 1], broker_epochs={1: 999}),
            0,
            ErrorCode.ERROR_CODE_INELIGIBLE_REPLICA,
            id="other broker_epoch",
        ),
        pytest.param(
            proposal(THREE, [0], number=9), 0, ErrorCode.ERROR_CODE_UNKNOWN_TOPIC, id="no topic"
        ),
        pytest.param(
            proposal(THREE, [0], partition=5),
            0,
            ErrorCode.ERROR_CODE_UNKNOWN_TOPIC,
            id="no partition",
        ),
    ],
)
def test_a_bad_proposal_is_refused(
    given: wire.AlterPartition, leader: int, code: ErrorCode.ValueType
) -> None:
    image, (result,) = alter(THREE, given, leader=leader)
    assert result.error.code == code
    assert image == THREE


@pytest.mark.parametrize(
    ("given", "leader", "told"),
    [
        (proposal(THREE, [1]), 1, "broker 1 does not lead; broker 0 does, in leader_epoch 0"),
        (
            proposal(THREE, [0], leader_epoch=-1),
            0,
            "the proposal is of leader_epoch -1, and the partition is in 0, led by broker 0",
        ),
        (
            proposal(THREE, [0], leader_epoch=7),
            0,
            "the proposal is of leader_epoch 7, and the partition is in 0, led by broker 0",
        ),
        (
            proposal(THREE, [0], partition_epoch=9),
            0,
            "the proposal changes partition_epoch 9, and the partition is in 0",
        ),
        (proposal(THREE, []), 0, "the proposed ISR [] lacks the leader 0"),
        (proposal(THREE, [0, 1, 1]), 0, "[0, 1, 1] must name each of some replicas [0, 1, 2] once"),
        (proposal(THREE, [0, 9]), 0, "[0, 9] must name each of some replicas [0, 1, 2] once"),
        (
            proposal(THREE, [0, 1], broker_epochs={1: 999}),
            0,
            f"broker 1 has broker_epoch {THREE.brokers[1].epoch}, not 999",
        ),
    ],
)
def test_a_refused_proposal_names_what_was_asked_and_what_is(
    given: wire.AlterPartition, leader: int, told: str
) -> None:
    image, (result,) = alter(THREE, given, leader=leader)
    assert told in result.error.message
    assert image == THREE


@pytest.mark.parametrize(
    ("broker_id", "broker_epoch", "told"),
    [
        (9, 5, "broker 9 with broker_epoch 5 proposes ISRs, and it is not registered; [0, 1, 2]"),
        (0, 99, f"and its registration is broker_epoch {THREE.brokers[0].epoch}: register again"),
        (2, None, "and it is fenced until it is heard again"),
    ],
    ids=["not registered", "another registration", "fenced"],
)
def test_a_broker_that_may_propose_nothing_is_told_why(
    broker_id: int, broker_epoch: int | None, told: str
) -> None:
    image = decided(THREE, 2, decide.fence(THREE, 2))
    if broker_epoch is None:
        broker_epoch = image.brokers[broker_id].epoch
    request = wire.AlterPartitionsRequest(
        broker_id=broker_id, broker_epoch=broker_epoch, partitions=[proposal(image, [0])]
    )
    outcome = alter_partitions(image, request, context(image))
    assert outcome.response.error.code == ErrorCode.ERROR_CODE_FENCED
    assert told in outcome.response.error.message
    assert outcome.events == ()


def test_a_refusal_says_how_the_partition_is() -> None:
    _, (result,) = alter(THREE, proposal(THREE, [0], partition_epoch=9))
    assert (result.leader, result.partition_epoch, list(result.isr)) == (0, 0, [0, 1, 2])


def test_each_partition_has_its_own_result() -> None:
    image = with_partition(THREE, [0, 1], number=2, name="b")
    good = proposal(image, [0], number=2)
    after, results = alter(image, proposal(image, [0], partition_epoch=4), good, good)
    codes = [result.error.code for result in results]
    assert codes == [
        ErrorCode.ERROR_CODE_STALE_PARTITION_EPOCH,
        0,
        ErrorCode.ERROR_CODE_INVALID_REQUEST,
    ]
    assert the_partition(after, 2).isr == (0,)


def test_a_fenced_member_is_ineligible() -> None:
    """KIP-841: also where the proposal left before the fencing."""
    image = decided(THREE, 2, decide.fence(THREE, 2))
    after, (result,) = alter(image, proposal(image, [0, 1, 2]))
    assert result.error.code == ErrorCode.ERROR_CODE_INELIGIBLE_REPLICA
    assert after == image


def test_a_member_that_shuts_down_is_ineligible() -> None:
    image = decided(THREE, 2, decide.shut_down(THREE, 2))
    _, (result,) = alter(image, proposal(image, [0, 1, 2]))
    assert result.error.code == ErrorCode.ERROR_CODE_INELIGIBLE_REPLICA


def test_a_member_whose_directory_failed_is_ineligible() -> None:
    outcome = decide.directories_failed(THREE, 2, [directory_id(2)])
    image = decided(THREE, 2, outcome)
    _, (result,) = alter(image, proposal(image, [0, 1, 2]))
    assert result.error.code == ErrorCode.ERROR_CODE_INELIGIBLE_REPLICA


def test_an_old_registration_or_a_fenced_leader_proposes_nothing() -> None:
    request = wire.AlterPartitionsRequest(
        broker_id=0, broker_epoch=99, partitions=[proposal(THREE, [0])]
    )
    outcome = alter_partitions(THREE, request, context(THREE))
    assert outcome.response.error.code == ErrorCode.ERROR_CODE_FENCED
    assert outcome.events == ()


def test_the_last_member_that_shuts_down_goes_when_another_joins() -> None:
    image = with_partition(brokers([0, 1]), [0, 1], isr=[0])
    image = decided(image, 0, decide.shut_down(image, 0))
    image, (result,) = alter(image, proposal(image, [0, 1]))
    partition = the_partition(image)
    assert (partition.leader, partition.isr, partition.elr) == (1, (1,), (0,))
    assert (result.leader, result.leader_epoch) == (1, partition.leader_epoch)


# LossyElections.


@dataclass
class Waiting:
    """A reign that recovers one partition; all images are pending ones."""

    image: MetadataImage
    machine: LossyElections = field(default_factory=LossyElections)
    now_ms: int = 0

    def __post_init__(self) -> None:
        self.machine.changed(self.image, every_partition(self.image))

    def tick(self, ms: int = 100) -> list[AskEnds | LossyElection]:
        self.now_ms += ms
        return self.machine.tick(self.image, self.now_ms)

    def asked(self, ms: int = 100) -> list[int]:
        effects = self.tick(ms)
        assert all(isinstance(effect, AskEnds) for effect in effects)
        return [effect.broker_id for effect in effects if isinstance(effect, AskEnds)]

    def answers(self, broker: int, last_epoch: int, end: int, epoch: int | None = None) -> None:
        told = wire.ReplicaEnd(
            topic_id=topic_id(1), partition=0, last_epoch=last_epoch, log_end_offset=end
        )
        broker_epoch = self.image.brokers[broker].epoch if epoch is None else epoch
        self.machine.answered(broker, broker_epoch, [told])

    def unfence(self, broker: int) -> None:
        outcome = decide.unfence(self.image, broker)
        self.image = decided(self.image, broker, outcome)

    def elected(self, ms: int = 100) -> int:
        (effect,) = self.tick(ms)
        assert isinstance(effect, LossyElection)
        outcome = elect_all(self.image, [effect], FreeSpace())
        assert outcome.response
        self.image = replayed(self.image, outcome.events)
        return effect.leader


def power_cut(
    back: list[int],
    *,
    last_isr: tuple[int, ...] = (0, 1, 2),
    elr: tuple[int, ...] = (),
    configs: dict[str, str] | None = None,
) -> Waiting:
    """Three replicas, none in the ISR; some brokers are back."""
    away = [b for b in (0, 1, 2) if b not in back]
    image = brokers([0, 1, 2], fenced=away)
    return Waiting(
        with_partition(image, [0, 1, 2], isr=[], elr=elr, last_isr=last_isr, configs=configs)
    )


def test_once_all_replicas_are_back_the_furthest_leads() -> None:
    waiting = power_cut([0, 1])
    assert waiting.tick() == []
    waiting.unfence(2)
    assert waiting.asked() == [0, 1, 2]
    waiting.answers(0, last_epoch=3, end=90)
    waiting.answers(1, last_epoch=4, end=80)
    assert waiting.asked() == []
    waiting.answers(2, last_epoch=4, end=70)
    assert waiting.elected() == 1
    partition = the_partition(waiting.image)
    assert (partition.leader, partition.isr, partition.leader_epoch) == (1, (1,), 1)
    assert partition.recovered_epoch == partition.leader_epoch
    assert partition.last_isr == (0, 1, 2)
    assert waiting.tick() == []


def test_an_epoch_in_which_nobody_led_makes_no_log_the_furthest() -> None:
    """A flipped bit in the epoch of a replica's last batch must not win it the election."""
    waiting = power_cut([0, 1, 2])
    waiting.asked()
    waiting.answers(0, last_epoch=1 << 20, end=90)
    waiting.answers(1, last_epoch=0, end=70)
    waiting.answers(2, last_epoch=0, end=80)
    assert waiting.elected() == 2


def test_a_tie_goes_by_order_of_assignment() -> None:
    waiting = power_cut([0, 1, 2])
    waiting.asked()
    for broker in (2, 1, 0):
        waiting.answers(broker, last_epoch=1, end=5)
    assert waiting.elected() == 0


def test_a_replica_that_had_left_the_isr_is_waited_for_too() -> None:
    """At min ISR 1 last_isr may be one wiped disk, and the others hold nearly all."""
    waiting = power_cut([1], last_isr=(1,))
    assert waiting.tick() == []
    assert waiting.tick(59_000) == []
    waiting.unfence(0)
    waiting.unfence(2)
    assert waiting.asked() == [0, 1, 2]
    waiting.answers(1, -1, 0)
    assert waiting.tick() == []
    waiting.answers(0, 0, 50)
    waiting.answers(2, 0, 49)
    assert waiting.elected() == 0


def test_those_who_are_back_lead_after_the_wait() -> None:
    waiting = power_cut([1, 2])
    assert waiting.tick() == []
    assert waiting.tick(59_900) == []
    assert waiting.asked(100) == [1, 2]
    waiting.answers(1, 1, 5)
    waiting.answers(2, 1, 6)
    assert waiting.elected() == 2


def test_nobody_is_elected_while_an_elr_member_may_return() -> None:
    waiting = power_cut([1, 2], last_isr=(1, 2), elr=(0,))
    assert waiting.tick() == []
    assert waiting.tick(100_000) == []


def test_unclean_election_where_the_topic_allows_it_waits_for_nobody() -> None:
    waiting = power_cut(
        [1, 2], last_isr=(), elr=(0,), configs={"unclean.leader.election.enable": "true"}
    )
    assert waiting.asked() == [1, 2]
    waiting.answers(1, 1, 5)
    waiting.answers(2, 1, 4)
    assert waiting.elected() == 1
    partition = the_partition(waiting.image)
    assert partition.elr == ()
    assert partition.recovered_epoch == partition.leader_epoch == 1


def test_a_question_is_asked_again_and_at_last_done_without() -> None:
    waiting = power_cut([0, 1, 2])
    assert waiting.asked() == [0, 1, 2]
    waiting.answers(0, 1, 5)
    assert waiting.asked(900) == []
    assert waiting.asked(100) == [1, 2]
    waiting.answers(2, 1, 9)
    assert waiting.asked(3_900) == [1]
    assert waiting.asked(54_900) == [1], "it may be repairing its log, which may have most"
    assert waiting.elected(200) == 2


def test_an_empty_log_leads_only_if_all_who_had_records_say_so() -> None:
    """A wiped disk is no candidate."""
    waiting = power_cut([2], last_isr=(0, 1))
    waiting.tick()
    assert waiting.asked(60_000) == [2]
    waiting.answers(2, -1, 0)
    assert waiting.asked() == []
    waiting.unfence(0)
    assert waiting.asked() == [0]
    waiting.answers(0, 1, 1)
    assert waiting.elected() == 0
    never_written = power_cut([0, 1, 2])
    never_written.asked()
    for broker in (0, 1, 2):
        never_written.answers(broker, -1, 0)
    assert never_written.elected() == 0


def test_an_empty_log_does_not_lead_while_a_replica_outside_the_isr_is_silent() -> None:
    """At min ISR 1 a power loss may empty the last member; the others may hold nearly all."""
    waiting = power_cut([1], last_isr=(1,))
    assert waiting.tick() == []
    assert waiting.asked(60_000) == [1]
    waiting.answers(1, -1, 0)
    assert waiting.tick(100_000) == []
    waiting.unfence(0)
    assert waiting.asked() == [0]
    waiting.answers(0, 0, 50)
    assert waiting.elected() == 0
    partition = the_partition(waiting.image)
    assert partition.recovered_epoch == partition.leader_epoch


def test_a_lossy_election_asks_each_assigned_replica_that_is_back() -> None:
    """It takes the furthest, whether or not that replica was in the ISR."""
    for furthest in (0, 1, 2):
        waiting = power_cut([0, 1, 2], last_isr=(1,))
        assert waiting.asked() == [0, 1, 2]
        for broker in (0, 1, 2):
            waiting.answers(broker, 0, 50 if broker == furthest else 0)
        assert waiting.elected() == furthest


def test_the_wait_for_the_others_begins_when_the_first_is_back() -> None:
    """After a night without brokers the first to be started must not win by seconds."""
    waiting = power_cut([], last_isr=(0, 1))
    assert waiting.tick() == []
    assert waiting.asked(3_600_000) == []
    waiting.unfence(0)
    assert waiting.asked() == []
    assert waiting.asked(59_000) == []
    waiting.unfence(1)
    waiting.unfence(2)
    assert waiting.asked() == [0, 1, 2]
    alone = power_cut([], last_isr=(0, 1))
    assert alone.tick() == []
    assert alone.asked(3_600_000) == []
    alone.unfence(0)
    assert alone.asked() == []
    assert alone.asked(60_000) == [0]


def test_an_answer_of_an_older_registration_does_not_count() -> None:
    waiting = power_cut([0, 1, 2])
    waiting.asked()
    for broker in (0, 1):
        waiting.answers(broker, 1, 5)
    waiting.answers(2, 9, 99, epoch=12345)
    assert waiting.asked(1_000) == [2]


def test_an_answer_that_nobody_asked_for_is_passed_over() -> None:
    waiting = power_cut([0])
    waiting.answers(0, 9, 99)
    assert waiting.tick() == []


def test_a_partition_that_got_a_leader_or_went_is_left_alone() -> None:
    waiting = power_cut([0, 1, 2])
    waiting.asked()
    outcome = elected(waiting.image, 1)
    waiting.image = replayed(waiting.image, outcome.events)
    assert waiting.tick(1_000) == []
    assert elected(waiting.image, 2).events == ()
    gone = power_cut([0, 1, 2])
    gone.image = brokers([0, 1, 2])
    assert gone.tick() == []


def test_who_is_fenced_is_not_made_leader() -> None:
    waiting = power_cut([0, 1])
    outcome = elected(waiting.image, 2)
    assert (outcome.events, outcome.response) == ((), False)


def test_recovery_gives_up_on_a_directory_that_did_not_return() -> None:
    image = with_partition(brokers([0, 1]), [0, 1], isr=[0])
    for broker in (1, 0):
        image = decided(image, broker, decide.fence(image, broker))
    request = wire.RegisterRequest(
        broker_id=0, incarnation=incarnation(0, 2), **listening_at("b0:1")
    )
    request.directories.add(directory_id=directory_id(0, 5), tail_intact=True)
    outcome = decide.register(image, request, context(image), session_lives=lambda _: False)
    image = decided(image, 0, outcome)
    assert the_partition(image).directory_of(0) == directory_id(0, 0)
    assert the_partition(image).last_isr == (0,)
    for broker in (0, 1):
        image = decided(image, broker, decide.unfence(image, broker))
    assert the_partition(image).leader == -1
    image = replayed(image, elected(image, 1).events)
    assert the_partition(image).directory_of(0) == directory_id(0, 5)


def test_a_power_cut_of_a_single_broker_heals_by_itself() -> None:
    """A laptop that was switched off must come back."""
    image = with_partition(brokers([0]), [0])
    request = wire.RegisterRequest(
        broker_id=0, incarnation=incarnation(0, 2), **listening_at("b0:1")
    )
    request.directories.add(directory_id=directory_id(0), tail_intact=False)
    outcome = decide.register(image, request, context(image), session_lives=lambda _: False)
    waiting = Waiting(decided(image, 0, outcome))
    assert the_partition(waiting.image).last_isr == (0,)
    waiting.unfence(0)
    assert waiting.asked() == [0]
    waiting.answers(0, 0, 12)
    assert waiting.elected() == 0


def test_a_leader_that_can_not_serve_resigns_to_others_of_the_isr() -> None:
    """Its invariant broke: the partition must not wait for its restart."""
    image, (result,) = alter(THREE, proposal(THREE, [1, 2]))

    assert result.error.code == ErrorCode.ERROR_CODE_NONE
    assert (the_partition(image).leader, the_partition(image).isr) == (1, (1, 2))
    assert the_partition(image).leader_epoch == the_partition(THREE).leader_epoch + 1


def test_a_leader_that_is_alone_in_the_isr_resigns_to_a_member_of_the_elr() -> None:
    """The ELR has all that is committed: nothing is committed below min ISR."""
    pair, _ = alter(THREE, proposal(THREE, [0, 1]))
    alone, _ = alter(pair, proposal(pair, [0]))
    assert the_partition(alone).elr == (1,)
    refused, (result,) = alter(alone, proposal(alone, [2]))
    assert result.error.code == ErrorCode.ERROR_CODE_INVALID_REQUEST
    assert refused == alone
    image, (result,) = alter(alone, proposal(alone, [1]))
    assert result.error.code == ErrorCode.ERROR_CODE_NONE
    assert (the_partition(image).leader, the_partition(image).isr) == (1, (1,))


def test_a_leader_resigns_to_nobody_and_to_no_stranger() -> None:
    shrunk, _ = alter(THREE, proposal(THREE, [0, 1]))
    for isr in ([], [2], [1, 2]):
        image, (result,) = alter(shrunk, proposal(shrunk, isr))
        assert result.error.code == ErrorCode.ERROR_CODE_INVALID_REQUEST
        assert image == shrunk
