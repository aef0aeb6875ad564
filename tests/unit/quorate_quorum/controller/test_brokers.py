"""Brokers register, are fenced and unfenced, shut down and lose disks."""

from __future__ import annotations

import pytest

from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode, Listener
from quorate_quorum.controller.decisions import brokers as decide
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev
from tests.harness.addresses import listener
from tests.unit.quorate_quorum.controller.builders import request
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    built,
    context,
    decided,
    directory_id,
    incarnation,
    partition_made,
    the_partition,
    topic_id,
    with_partition,
)


def register(
    image: MetadataImage, given: wire.RegisterRequest, *, lives: bool = False
) -> tuple[MetadataImage, wire.RegisterResponse]:
    outcome = decide.register(image, given, context(image), session_lives=lambda _: lives)
    after = decided(image, given.broker_id, outcome) if outcome.events else image
    return after, outcome.response


def fence(image: MetadataImage, broker: int) -> MetadataImage:
    return decided(image, broker, decide.fence(image, broker))


def unfence(image: MetadataImage, broker: int) -> MetadataImage:
    assert decide.may_unfence(image, broker, image.offset, outcome_end=image.offset) is None
    return decided(image, broker, decide.unfence(image, broker))


# Registration.


def test_a_broker_epoch_is_the_offset_of_its_registration() -> None:
    image = brokers([1])
    after, response = register(image, request(0))
    assert response.broker_epoch == image.offset == after.brokers[0].epoch
    assert response.apply_offset == response.broker_epoch + 1
    assert after.brokers[0].fenced


def test_the_same_incarnation_again_gets_the_same_answer() -> None:
    image, first = register(MetadataImage(), request())
    again, second = register(image, request(), lives=True)
    assert again == image
    assert (second.broker_epoch, second.apply_offset) == (first.broker_epoch, first.apply_offset)


def test_the_same_directory_takes_over_at_once() -> None:
    image, response = register(brokers([0]), request(run=2), lives=True)
    assert not response.error.code
    assert image.brokers[0].incarnation == incarnation(0, 2)


def test_another_directory_is_refused_while_the_old_session_lives() -> None:
    image = brokers([0])
    given = request(disks=(7,))
    after, response = register(image, given, lives=True)
    assert response.error.code == ErrorCode.ERROR_CODE_DUPLICATE_BROKER
    assert f"held by a living process at {image.brokers[0].endpoint}" in response.error.message
    assert f"than those of this one ({given.listeners[0].endpoint})" in response.error.message
    assert after == image
    _, response = register(image, request(disks=(7,)), lives=False)
    assert not response.error.code


def listening(broker: int, *listeners: Listener) -> wire.RegisterRequest:
    given = request(broker)
    del given.listeners[:]
    given.listeners.extend(listeners)
    return given


def test_the_address_of_another_living_broker_is_refused() -> None:
    """Clients and followers of one of the two would reach the other."""
    image, _ = register(
        MetadataImage(), listening(1, listener("b1:1"), listener("x:2", "external"))
    )
    for given in (
        listening(0, listener("B1:1")),
        listening(0, listener("b0:1"), listener("x:2", "external")),
        listening(0, listener("b0:1"), listener("x:2", "public")),
    ):
        after, response = register(image, given, lives=True)
        assert response.error.code == ErrorCode.ERROR_CODE_INVALID_REQUEST
        assert "broker 1, which runs" in response.error.message
        assert after == image
        _, response = register(image, given, lives=False)
        assert not response.error.code


def test_of_two_brokers_with_one_address_the_second_stays_fenced() -> None:
    """Two that start together register before the controller hears either."""
    image, _ = register(MetadataImage(), listening(1, listener("b1:1")))
    image, response = register(image, listening(0, listener("b1:1")))
    assert not response.error.code
    image = unfence(image, 1)
    why = decide.may_unfence(image, 0, image.offset, outcome_end=image.offset)
    assert why is not None
    assert "one address cannot lead to both" in why
    assert decide.unfence(image, 0).events == ()
    assert not unfence(fence(image, 1), 0).brokers[0].fenced


def test_a_loopback_listener_for_local_tools_may_have_one_address_on_all_machines() -> None:
    image = MetadataImage()
    for broker in (0, 1):
        given = listening(broker, listener(f"b{broker}:1"), listener("127.0.0.1:2", "local"))
        image, response = register(image, given, lives=True)
        assert not response.error.code


def bad(**fields: object) -> wire.RegisterRequest:
    given = request()
    for name, value in fields.items():
        if name == "directories":
            del given.directories[:]
            given.directories.extend(ev.Directory(directory_id=i) for i in value)  # type: ignore[attr-defined]
        elif name == "listeners":
            del given.listeners[:]
            given.listeners.extend(value)  # type: ignore[arg-type]
        else:
            setattr(given, name, value)
    return given


@pytest.mark.parametrize(
    "given",
    [
        bad(broker_id=-1),
        bad(incarnation=b"short"),
        bad(listeners=[]),
        bad(listeners=[listener("b0:1", name) for name in ("grpc", "grpc")]),
        bad(listeners=[listener("b0:1", f"n{i}") for i in range(17)], inter_broker_listener="n1"),
        bad(listeners=[listener("b0")]),
        bad(inter_broker_listener=""),
        bad(inter_broker_listener="other"),
        bad(listeners=[Listener(name="grpc", protocol="kafka", endpoint="b0:1")]),
        bad(rack="r" * 256),
        bad(directories=[]),
        bad(directories=[b"d" * 16, b"d" * 16]),
        bad(directories=[b"short"]),
        bad(directories=[bytes([i]) * 16 for i in range(65)]),
        bad(directories=[directory_id(1)]),
    ],
    ids=[
        "id",
        "incarnation",
        "no listener",
        "one name",
        "many listeners",
        "no address",
        "no inter-broker listener",
        "unknown inter-broker listener",
        "kafka between brokers",
        "rack",
        "none",
        "twice",
        "short",
        "many",
        "another's",
    ],
)
def test_an_impossible_registration_is_refused(given: wire.RegisterRequest) -> None:
    image = brokers([1])
    after, response = register(image, given)
    assert response.error.code == ErrorCode.ERROR_CODE_INVALID_REQUEST
    assert after == image


def test_a_new_incarnation_leaves_every_isr_and_loses_every_leadership() -> None:
    image = with_partition(brokers([0, 1, 2]), [0, 1, 2])
    image, _ = register(image, request(0), lives=True)
    partition = the_partition(image)
    assert (partition.isr, partition.leader) == ((1, 2), 1)
    assert (partition.leader_epoch, partition.partition_epoch) == (1, 1)
    assert partition.elr == ()  # the ISR is enough


def test_a_new_incarnation_raises_the_leader_epoch_even_if_the_leader_becomes_none() -> None:
    """No node leads twice in one leader_epoch."""
    image = with_partition(brokers([0]), [0])
    image, _ = register(image, request(0), lives=True)
    partition = the_partition(image)
    assert (partition.leader, partition.leader_epoch) == (-1, 1)
    image = unfence(image, 0)
    assert (the_partition(image).leader, the_partition(image).leader_epoch) == (0, 2)


@pytest.mark.parametrize(
    ("given", "configs", "elr", "last_isr"),
    [
        pytest.param(request(), {}, (0, 1), (), id="lossless"),
        pytest.param(request(tail_intact=False), {}, (1,), (0,), id="lossy"),
        pytest.param(
            request(tail_intact=False), {"flush.on.ack": "true"}, (0, 1), (), id="flushed"
        ),
        pytest.param(
            request(sync_failed=True), {"flush.on.ack": "true"}, (1,), (0,), id="sync failed"
        ),
        pytest.param(request(disks=(5,)), {}, (1,), (0,), id="disk missing"),
    ],
)
def test_a_registration_tells_whether_the_tail_is_there(
    given: wire.RegisterRequest,
    configs: dict[str, str],
    elr: tuple[int, ...],
    last_isr: tuple[int, ...],
) -> None:
    image = with_partition(brokers([0, 1]), [0, 1], configs=configs)
    image = fence(fence(image, 1), 0)
    assert the_partition(image).elr == (0, 1)  # at fencing it counts as lossless
    image, _ = register(image, given)
    partition = the_partition(image)
    assert (partition.isr, partition.elr, partition.last_isr) == ((), elr, last_isr)


def test_a_missing_directory_is_replaced_while_somebody_has_the_records() -> None:
    image = with_partition(brokers([0, 1, 2]), [0, 1, 2], number=1, name="a")
    image = with_partition(image, [0], number=2, name="b")
    image, _ = register(image, request(0, disks=(5,)))
    assert the_partition(image, 1).directory_of(0) == directory_id(0, 5)
    assert the_partition(image, 2).directory_of(0) == directory_id(0, 0)  # the disk may return
    assert the_partition(image, 2).last_isr == (0,)
    image = unfence(image, 0)
    assert the_partition(image, 2).leader == -1


def test_a_short_run_that_ended_well_does_not_make_good_what_was_lost_before_it() -> None:
    """A registration's verdict stands until all its partitions are changed, slice by slice."""
    image = fence(fence(with_partition(brokers([0, 1]), [0, 1]), 1), 0)
    lossy = decide.register(
        image, request(0, tail_intact=False), context(image), session_lives=lambda _: False
    )
    image = replayed(image, lossy.events)  # before the partitions are changed it registers again
    image, _ = register(image, request(0, run=3))
    partition = the_partition(image)
    assert (partition.elr, partition.last_isr) == ((1,), (0,))
    assert unfence(image, 0).brokers[0].directories[0].tail_intact


# Fencing and unfencing.


def test_a_fenced_broker_is_in_no_isr_and_enters_the_elr_under_min_isr() -> None:
    image = with_partition(brokers([0, 1, 2]), [0, 1, 2])
    image = fence(image, 0)
    assert the_partition(image).isr == (1, 2)
    assert the_partition(image).elr == ()
    image = fence(image, 1)
    assert (the_partition(image).isr, the_partition(image).elr) == ((2,), (1,))
    image = fence(image, 2)
    partition = the_partition(image)
    assert (partition.isr, partition.elr, partition.leader) == ((), (1, 2), -1)
    assert partition.leader_epoch == 3
    assert fence(image, 2) == image


def test_a_follower_that_is_fenced_changes_no_leader_epoch() -> None:
    image = fence(with_partition(brokers([0, 1, 2]), [0, 1, 2]), 2)
    partition = the_partition(image)
    assert (partition.leader, partition.leader_epoch, partition.partition_epoch) == (0, 0, 1)


def test_leaders_come_from_the_isr_then_from_the_elr_in_order_of_assignment() -> None:
    image = with_partition(brokers([0, 1, 2, 3]), [3, 1, 2, 0], isr=[3, 2], elr=[1, 0])
    image = fence(image, 3)
    assert the_partition(image).leader == 2
    image = fence(image, 2)
    partition = the_partition(image)
    assert partition.leader == 1
    assert (partition.isr, partition.elr) == ((1,), (3, 2, 0))  # it moved from ELR to ISR


def test_unfencing_brings_back_a_leader() -> None:
    image = fence(with_partition(brokers([0]), [0]), 0)
    assert the_partition(image).leader == -1
    image = unfence(image, 0)
    assert (the_partition(image).leader, the_partition(image).isr) == (0, (0,))
    assert not image.brokers[0].fenced


def test_a_broker_waits_until_it_has_applied_its_whole_outcome() -> None:
    image = fence(brokers([0]), 0)
    why = decide.may_unfence(image, 0, image.offset - 1, outcome_end=image.offset)
    assert why is not None
    assert "not yet" in why
    assert decide.may_unfence(image, 9, 99, outcome_end=0) == "it is not registered"
    why = decide.may_unfence(image, 0, image.offset, outcome_end=None)
    assert why is not None
    assert "former self" in why


def test_a_broker_that_came_back_lossy_is_lossless_once_it_runs() -> None:
    """The verdict of a registration holds for what was written before it."""
    image = with_partition(brokers([0, 1]), [0, 1])
    image, _ = register(image, request(0, tail_intact=False))
    image = unfence(image, 0)
    joined = ev.PartitionChange(
        topic_id=topic_id(1), partition=0, partition_epoch=2, isr=ev.BrokerSet(brokers=[0, 1])
    )
    joined.elr.SetInParent()
    joined.last_isr.SetInParent()
    image = built(ev.MetadataEvent(partition_change=joined), on=image)
    image = fence(image, 0)
    assert the_partition(image).elr == (0,)
    assert decide.may_unfence(image, 0, image.offset, outcome_end=0) is None


# Controlled shutdown and failed disks.


def shut_down(image: MetadataImage, broker: int) -> MetadataImage:
    return decided(image, broker, decide.shut_down(image, broker))


def test_shutting_down_moves_leaders_and_leaves_isrs() -> None:
    image = shut_down(with_partition(brokers([0, 1, 2]), [0, 1, 2]), 0)
    assert image.brokers[0].shutting_down
    assert not image.brokers[0].fenced
    partition = the_partition(image)
    assert (partition.leader, partition.isr, partition.leader_epoch) == (1, (1, 2), 1)
    assert shut_down(image, 0) == image


def test_the_last_member_never_leaves_but_by_fencing() -> None:
    image = with_partition(brokers([0, 1]), [0, 1], isr=[0])
    image = shut_down(image, 0)
    assert (the_partition(image).leader, the_partition(image).isr) == (0, (0,))
    image = fence(image, 0)
    assert (the_partition(image).leader, the_partition(image).elr) == (-1, (0,))


def test_the_last_member_hands_over_to_an_eligible_leader_replica() -> None:
    image = with_partition(brokers([0, 1]), [0, 1], isr=[0], elr=[1])
    partition = the_partition(shut_down(image, 0))
    assert (partition.leader, partition.isr, partition.elr) == (1, (1,), (0,))


def test_all_of_an_isr_may_shut_down() -> None:
    image = with_partition(brokers([0, 1, 2]), [0, 1, 2])
    for broker in (0, 1, 2):
        image = shut_down(image, broker)
    assert (the_partition(image).leader, the_partition(image).isr) == (2, (2,))
    assert the_partition(image).elr == (1,)  # 0 left while the ISR was enough


def test_a_broker_that_is_shutting_down_is_not_unfenced() -> None:
    image = fence(shut_down(brokers([0]), 0), 0)
    assert decide.may_unfence(image, 0, image.offset, outcome_end=0) == "it is shutting down"


def test_a_failed_directory_takes_its_replicas_out() -> None:
    image = brokers([0, 1], disks=2)
    image = with_partition(image, [0, 1], number=1, name="a")
    outcome = decide.directories_failed(image, 0, [directory_id(0, 0), b"unknown"])
    after = decided(image, 0, outcome)
    partition = the_partition(after)
    assert (partition.leader, partition.isr, partition.elr) == (1, (1,), ())
    assert partition.last_isr == (0,)
    assert after.brokers[0].directories[0].failed
    assert not after.brokers[0].directories[1].failed
    again = decide.directories_failed(after, 0, [directory_id(0, 0)])
    assert again.events == ()
    gone = decide.directories_failed(after, 0, [directory_id(0, 1)])
    lost = fence(replayed(after, gone.events), 0)
    why = decide.may_unfence(lost, 0, lost.offset, outcome_end=0)
    assert why == "all its log directories failed"


# The rest.


def unregister(
    image: MetadataImage, broker: int, *, lives: bool = False
) -> tuple[MetadataImage, str]:
    """The image afterwards, and why nothing was done."""
    request = admin.UnregisterBrokerRequest(broker_id=broker)
    outcome = decide.unregister(image, request, session_lives=lives)
    return replayed(image, outcome.events), outcome.response.error.message


def test_a_fenced_broker_without_replicas_is_unregistered() -> None:
    after, why_not = unregister(brokers([0, 1], fenced=[1]), 1)
    assert (sorted(after.brokers), why_not) == ([0], "")
    assert "not registered" in unregister(after, 1)[1]


def test_a_broker_that_runs_is_not_unregistered_fenced_or_not() -> None:
    image = brokers([0, 1], fenced=[1])
    for broker in (0, 1):
        after, why_not = unregister(image, broker, lives=broker == 1)
        assert after == image
        assert f"broker {broker} at b{broker}:9092 runs: stop it first" in why_not


def test_a_broker_that_holds_replicas_is_not_unregistered_until_they_are_gone() -> None:
    image = with_partition(brokers([0, 1]), [0, 1])
    image = fence(image, 0)
    after, why_not = unregister(image, 0)
    assert after == image
    assert "broker 0 still holds 1 replicas" in why_not
    assert "empty disk" in why_not
    gone = built(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=topic_id(1))), on=image)
    assert sorted(unregister(gone, 0)[0].brokers) == [1]


def test_a_replica_of_a_topic_that_is_still_being_made_counts_too() -> None:
    image = brokers([0, 1])
    topic = ev.Topic(topic_id=topic_id(1), name="big", partitions=2)
    image = built(ev.MetadataEvent(topic=topic), partition_made(1, 0, [0, 1]), on=image)
    assert [image.replicas_on(one) for one in range(3)] == [1, 1, 0]
    assert "holds 1 replicas" in unregister(fence(image, 0), 0)[1]


def test_ids_of_voters_and_brokers_are_one_space() -> None:
    voters = ev.Voters(voters=[ev.Voter(id=7, directory_id=b"v" * 16, endpoint="v7:7093")])
    image = built(ev.MetadataEvent(voters=voters))
    after, response = register(image, request(7))
    assert after == image
    assert response.error.code == ErrorCode.ERROR_CODE_INVALID_REQUEST
    assert "node.id 7 is the id of the voter at v7:7093" in response.error.message
    assert "another node.id" in response.error.message


def test_producer_ids_are_given_out_once() -> None:
    image = brokers([0])
    ask = wire.AllocateProducerIdsRequest(broker_id=0, broker_epoch=image.brokers[0].epoch)
    firsts = []
    for _ in range(3):
        outcome = decide.allocate_producer_ids(image, ask)
        firsts.append(outcome.response.first_producer_id)
        assert outcome.response.count == 1_000
        image = replayed(image, outcome.events)
    assert firsts == [0, 1_000, 2_000]
    ask.broker_epoch += 1
    outcome = decide.allocate_producer_ids(image, ask)
    assert outcome.response.error.code == ErrorCode.ERROR_CODE_FENCED
