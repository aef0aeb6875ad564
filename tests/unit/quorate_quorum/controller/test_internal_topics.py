"""The cluster's own topics: made once, with what their settings say, and not altered wrongly."""

from __future__ import annotations

import asyncio
from dataclasses import fields

import pytest

from quorate.errors import InvalidTopicError
from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.decisions.config_change import FIXED_ON_INTERNAL
from quorate_quorum.controller.decisions.internal_topics import (
    CHANGED_MAX,
    LOOKED_MAX,
    Raising,
    internal_topic,
)
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.controller.decisions.reassignment import Reassignments
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.topics import OFFSETS_TOPIC, TopicImage
from quorate_quorum.methods import CREATE_INTERNAL_TOPIC
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_quorum.controller.builders import CLUSTER, World, in_a_world
from tests.unit.quorate_quorum.metadata.builders import (
    alter_configs,
    brokers,
    built,
    context,
    create_topics,
    partition_made,
    raised,
    topic_event,
    topic_id,
    with_partition,
)


def made(image: MetadataImage) -> MetadataImage:
    outcome = create_topics(
        image, internal_topic(image, OFFSETS_TOPIC), context(image), internal=True
    )
    (topic,) = outcome.response.topics
    assert topic.error.code == ErrorCode.ERROR_CODE_NONE, topic.error.message
    return replayed(image, outcome.events)


def offsets_topic(image: MetadataImage) -> TopicImage:
    topic = image.topic_named(OFFSETS_TOPIC)
    assert topic is not None
    return topic


def configured(image: MetadataImage, topic: str = "", **settings: str) -> MetadataImage:
    values = {name.replace("_", "."): value for name, value in settings.items()}
    outcome = alter_configs(image, admin.AlterConfigsRequest(topic=topic, set=values))
    assert outcome.response.error.code == ErrorCode.ERROR_CODE_NONE, outcome.response.error.message
    return replayed(image, outcome.events)


def test_the_offsets_topic_is_made_as_its_settings_say() -> None:
    image = made(brokers([0, 1, 2, 3]))
    topic = offsets_topic(image)
    assert topic.is_internal
    assert len(topic.partitions) == 16
    assert {len(one.replicas) for one in topic.partitions} == {3}
    config = image.topic_config(topic)
    assert config.cleanup_policy == "compact"
    assert config.segment_bytes == 100 << 20
    altered = configured(
        brokers([0, 1, 2]),
        offsets_topic_num_partitions="5",
        offsets_topic_replication_factor="2",
        offsets_topic_segment_bytes="2000000",
    )
    topic = offsets_topic(made(altered))
    assert [len(one.replicas) for one in topic.partitions] == [2] * 5
    assert topic.configs["segment.bytes"] == "2000000"


def test_the_cluster_s_defaults_do_not_make_a_topic_that_loses_or_refuses_offsets() -> None:
    """An operator who sets these for all topics does not think of the cluster's own one."""
    image = configured(
        brokers([0]),
        cleanup_policy="delete",
        max_message_bytes="1024",
        message_timestamp_after_max_ms="0",
        unclean_leader_election_enable="true",
    )
    image = made(image)
    config = image.topic_config(offsets_topic(image))
    assert config.cleanup_policy == "compact"
    assert config.max_message_bytes == 16 << 20
    assert config.message_timestamp_after_max_ms > 0
    assert not config.unclean_leader_election_enable


def test_with_few_brokers_the_offsets_topic_has_as_many_replicas_as_there_can_be() -> None:
    image = made(brokers([0, 1], fenced=[1]))
    assert {len(one.replicas) for one in offsets_topic(image).partitions} == {1}


def test_the_offsets_topic_is_raised_to_the_number_of_its_own_setting() -> None:
    image = configured(brokers([0]), default_replication_factor="1")
    image = brokers([1, 2, 3], on=made(image))
    image = raised(image)
    assert {len(one.replicas) for one in offsets_topic(image).partitions} == {3}
    assert {one.original for one in offsets_topic(image).partitions} == {(0,)}


def moving(image: MetadataImage, *target: int) -> MetadataImage:
    asked = admin.ReassignedPartition(partition=0, replicas=target)
    topic = admin.ReassignedTopic(topic=OFFSETS_TOPIC, partitions=[asked])
    work = Reassignments(admin.ReassignPartitionsRequest(topics=[topic]))
    outcome = work.next(image, context(image))
    assert not work.response.topics[0].partitions[0].HasField("error")
    return replayed(image, outcome.events)


@pytest.mark.parametrize("count", [3, 4])
def test_a_target_of_an_operator_is_not_raised_while_its_move_runs(count: int) -> None:
    """With three brokers, the change would be empty, and be made again at each look."""
    image = with_partition(brokers(range(count)), [0, 1, 2], isr=[0, 1], name=OFFSETS_TOPIC)
    image = moving(image, 0, 2)
    assert raised(image) == image


def test_what_other_topics_there_are_costs_nothing() -> None:
    """No topic but an internal one is looked at, however many there are."""
    image = brokers([1, 2], on=made(brokers([0])))
    for number in range(20, 40):
        image = with_partition(image, [0], name=f"t{number}", number=number)

    class NoList(MetadataImage):
        def sorted_topics(self) -> list[TopicImage]:
            raise AssertionError("all topics are sorted")

    values = {one.name: getattr(image, one.name) for one in fields(image) if one.init}
    outcome = Raising().next(NoList(**values), context(image))
    assert (len(outcome.events), outcome.response) == (16, True)


def test_many_partitions_are_raised_in_turns() -> None:
    """A look that finds nothing is bounded, too."""
    count = 2 * LOOKED_MAX
    made = [partition_made(1, index, [0]) for index in range(count)]
    image = brokers([1, 2], on=built(topic_event(1, OFFSETS_TOPIC), *made, on=brokers([0])))
    turns: list[int] = []
    image = raised(image, turns=turns)
    assert turns == [0, 0, *[CHANGED_MAX] * (count // CHANGED_MAX), 0]
    assert {len(one.target) for one in image.topics[topic_id(1)].partitions} == {3}
    turns.clear()
    assert raised(image, turns=turns) == image
    assert turns == [0] * 5


def test_a_topic_that_is_deleted_amid_a_look_is_passed_over() -> None:
    made = [partition_made(1, index, [0]) for index in range(2 * CHANGED_MAX)]
    image = brokers([1], on=built(topic_event(1, OFFSETS_TOPIC), *made, on=brokers([0])))
    raising = Raising()
    outcome = raising.next(image, context(image))
    assert (len(outcome.events), outcome.response) == (CHANGED_MAX, False)
    gone = ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=topic_id(1)))
    image = replayed(image, [*outcome.events, gone])
    assert raising.next(image, context(image)) == Outcome((), True)


def test_there_is_no_other_internal_topic() -> None:
    with pytest.raises(InvalidTopicError, match="'__mine' is no internal topic"):
        internal_topic(brokers([0]), "__mine")


@pytest.mark.parametrize("name", sorted(FIXED_ON_INTERNAL))
def test_configs_without_which_an_internal_topic_cannot_work_are_not_altered(name: str) -> None:
    image = made(brokers([0]))
    for request in (
        admin.AlterConfigsRequest(topic=OFFSETS_TOPIC, remove=[name]),
        admin.AlterConfigsRequest(
            topic=OFFSETS_TOPIC, set={name: offsets_topic(image).configs[name]}
        ),
    ):
        outcome = alter_configs(image, request)
        assert outcome.events == ()
        assert outcome.response.error.code == ErrorCode.ERROR_CODE_POLICY_VIOLATION
        assert name in outcome.response.error.message


def test_other_configs_of_an_internal_topic_can_be_altered() -> None:
    image = configured(made(brokers([0])), OFFSETS_TOPIC, segment_bytes="2000000")
    assert offsets_topic(image).configs["segment.bytes"] == "2000000"


def test_two_brokers_that_ask_at_once_make_one_topic() -> None:
    async def program(world: World) -> None:
        await world.unfenced(2)

        async def ask() -> wire.CreateInternalTopicResponse:
            return await world.connection.unary(
                CREATE_INTERNAL_TOPIC,
                wire.CreateInternalTopicRequest(cluster_id=CLUSTER, name=OFFSETS_TOPIC),
                timeout_ms=5000,
            )

        answers = await asyncio.gather(*(ask() for _ in range(3)))
        assert {one.error.code for one in answers} == {ErrorCode.ERROR_CODE_NONE}
        assert len({one.topic_id for one in answers}) == 1
        again = await ask()
        topic = world.controller.image.topic_named(OFFSETS_TOPIC)
        assert topic is not None
        assert topic.id == answers[0].topic_id == again.topic_id
        assert len(world.controller.image.topics) == 1

    in_a_world(program)


def test_a_topic_of_many_partitions_is_made_once_too() -> None:
    """It is made in several turns, and is hidden while it is."""

    async def program(world: World) -> None:
        await world.unfenced(1)
        settings = {"offsets.topic.num.partitions": "300"}
        request = admin.AlterConfigsRequest(set=settings)
        await world.run(lambda image, _: alter_configs(image, request))

        async def ask() -> wire.CreateInternalTopicResponse:
            return await world.connection.unary(
                CREATE_INTERNAL_TOPIC,
                wire.CreateInternalTopicRequest(cluster_id=CLUSTER, name=OFFSETS_TOPIC),
                timeout_ms=5000,
            )

        answers = await asyncio.gather(*(ask() for _ in range(3)))
        made = {one.topic_id for one in answers if one.topic_id}
        assert len(made) == 1
        refused = {one.error.code for one in answers if not one.topic_id}
        assert refused <= {ErrorCode.ERROR_CODE_OVERLOADED}
        topic = world.controller.image.topic_named(OFFSETS_TOPIC)
        assert topic is not None
        assert len(topic.partitions) == 300

    in_a_world(program)
