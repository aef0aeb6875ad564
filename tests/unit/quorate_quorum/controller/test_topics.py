"""Topics are created, deleted, configured."""

from __future__ import annotations

import pytest

from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.decisions.topics import (
    delete_topics,
)
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from tests.unit.quorate_quorum.controller.builders import create, new
from tests.unit.quorate_quorum.metadata.builders import (
    RACKS,
    alter_configs,
    brokers,
    built,
    config_event,
    context,
    create_topics,
    directory_id,
    permitted,
    raised,
    the_partition,
    topic_id,
    unfence_event,
    with_partition,
)


def test_the_invoice_topic_lies_as_the_design_says() -> None:
    image, (result,) = create(brokers(range(6), racks=RACKS), new("invoice", 10, 3))
    assert (result.num_partitions, result.replication_factor) == (10, 3)
    assert [p.broker_ids for p in image.topics[topic_id(1)].partitions] == [
        (0, 3, 1), (3, 1, 4), (1, 4, 2), (4, 2, 5), (2, 5, 0),
        (5, 0, 3), (0, 3, 1), (3, 1, 4), (1, 4, 2), (4, 2, 5),
    ]  # fmt: skip


def test_the_next_topic_starts_where_the_last_one_ended() -> None:
    image, _ = create(brokers(range(4)), new("a", 3, 2))
    image, _ = create(image, new("b", 1, 2, number=2))
    assert the_partition(image, 2).broker_ids == (3, 1)  # start 3; shifted by one


def test_a_new_partition_is_whole() -> None:
    image, _ = create(brokers([0, 1, 2]), new())
    partition = the_partition(image)
    assert partition.isr == partition.broker_ids == (0, 1, 2)
    assert (partition.leader, partition.leader_epoch, partition.partition_epoch) == (0, 0, 0)
    assert (partition.elr, partition.last_isr, partition.recovered_epoch) == ((), (), -1)
    assert partition.directory_of(1) == directory_id(1)


@pytest.mark.parametrize(("registered", "factor"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_default_replication_is_three_or_all_that_are_registered(
    registered: int, factor: int
) -> None:
    _, (result,) = create(brokers(range(registered)), new())
    assert result.replication_factor == factor


def test_defaults_come_from_the_clusters_configuration() -> None:
    image = built(
        config_event("num.partitions", "4"),
        config_event("default.replication.factor", "2"),
        on=brokers(range(3)),
    )
    _, (result,) = create(image, new(partitions=-1))
    assert (result.num_partitions, result.replication_factor) == (4, 2)


def test_more_replicas_than_brokers_names_both_numbers() -> None:
    _, (result,) = create(brokers(range(2)), new(factor=3))
    assert result.error.code == ErrorCode.ERROR_CODE_INVALID_REPLICATION_FACTOR
    assert "3 is more than the 2 registered" in result.error.message


def test_more_replicas_than_brokers_by_the_clusters_default_names_the_default() -> None:
    image = built(config_event("default.replication.factor", "9"), on=brokers(range(2)))
    _, (result,) = create(image, new())
    assert result.error.message == (
        "replication_factor 9, the cluster's default.replication.factor, is more than the 2"
        " registered brokers"
    )


def test_creation_fails_retriably_while_too_few_are_unfenced() -> None:
    image = brokers(range(3), fenced=[2])
    after, (result,) = create(image, new(factor=3))
    assert result.error.code == ErrorCode.ERROR_CODE_NOT_ENOUGH_REPLICAS
    assert "2 of 3 are unfenced" in result.error.message
    assert after == image
    _, (result,) = create(built(unfence_event(2, image.brokers[2].epoch), on=image), new(factor=3))
    assert not result.error.code


def test_no_broker_at_all_is_retriable() -> None:
    _, (result,) = create(MetadataImage(), new())
    assert result.error.code == ErrorCode.ERROR_CODE_NOT_ENOUGH_REPLICAS


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "needs a name"),
        (".", "directory"),
        ("..", "directory"),
        ("a/b", "'/'"),
        ("a b", "' '"),
        ("ö", "'ö'"),
        ("a\n", r"'\n'"),
        ("x" * 250, "at most 249"),
        ("__consumer_offsets", "Quorate's own"),
        ("__transaction_state", "Quorate's own"),
        ("__share_group_state", "Quorate's own"),
        ("__cluster_metadata", "Quorate's own"),
    ],
)
def test_a_bad_name_is_told_what_is_wrong(name: str, says: str) -> None:
    _, (result,) = create(brokers([0]), new(name))
    assert result.error.code == ErrorCode.ERROR_CODE_INVALID_TOPIC
    assert says in result.error.message


@pytest.mark.parametrize("name", ["__mine", "__debezium-heartbeat.x", "__consumer_offsets2"])
def test_names_of_other_programs_may_begin_like_our_own(name: str) -> None:
    _, (result,) = create(brokers([0]), new(name))
    assert result.error.code == ErrorCode.ERROR_CODE_NONE


def test_a_name_of_249_characters_is_good() -> None:
    _, (result,) = create(brokers([0]), new("x" * 249))
    assert not result.error.code


@pytest.mark.parametrize("partitions", [0, -2, 10_001])
def test_partitions_have_bounds(partitions: int) -> None:
    _, (result,) = create(brokers([0]), new(partitions=partitions))
    assert result.error.code == ErrorCode.ERROR_CODE_INVALID_PARTITIONS


@pytest.mark.parametrize("factor", [0, -2])
def test_replication_has_a_lower_bound(factor: int) -> None:
    _, (result,) = create(brokers([0]), new(factor=factor))
    assert result.error.code == ErrorCode.ERROR_CODE_INVALID_REPLICATION_FACTOR


def test_a_repeat_with_the_same_id_returns_the_first_result() -> None:
    image, first = create(brokers([0]), new(partitions=3))
    again, second = create(image, new(partitions=5))
    assert first == second
    assert again == image


def test_another_topic_of_that_name_exists() -> None:
    image, _ = create(brokers([0]), new())
    _, (result,) = create(image, new(number=2))
    assert result.error.code == ErrorCode.ERROR_CODE_TOPIC_EXISTS
    _, results = create(brokers([0]), new(), new(number=2))
    assert [r.error.code for r in results] == [0, ErrorCode.ERROR_CODE_TOPIC_EXISTS]


def test_an_id_of_another_topic_is_refused() -> None:
    image, _ = create(brokers([0]), new())
    _, (result,) = create(image, new("other"))
    assert result.error.code == ErrorCode.ERROR_CODE_INVALID_REQUEST


def test_a_topic_without_an_id_gets_one() -> None:
    request = admin.CreateTopicsRequest(
        topics=[admin.NewTopic(name="a", num_partitions=1, replication_factor=1)]
    )
    image = brokers([0])
    outcome = create_topics(image, request, context(image))
    assert len(outcome.response.topics[0].topic_id) == 16


def test_validation_only_answers_and_changes_nothing() -> None:
    image = brokers([0])
    after, (result,) = create(image, new(partitions=4), validate_only=True)
    assert after == image
    assert result.num_partitions == 4


def test_one_bad_topic_does_not_stop_the_others() -> None:
    image, results = create(brokers([0]), new("a"), new("b/", number=2), new("c", number=3))
    assert [bool(r.error.code) for r in results] == [False, True, False]
    assert sorted(image.topic_ids) == ["a", "c"]


def test_configs_are_checked_and_stored() -> None:
    image, (result,) = create(brokers([0]), new(configs={"retention.ms": "5"}))
    assert image.topics[topic_id(1)].configs["retention.ms"] == "5"
    _, (result,) = create(brokers([0]), new(configs={"retension.ms": "5"}))
    assert result.error.code == ErrorCode.ERROR_CODE_INVALID_CONFIG
    assert "retention.ms" in result.error.message


def test_flush_on_ack_is_taken_from_the_cluster_when_the_topic_is_created() -> None:
    image = built(config_event("flush.on.ack", "true"), on=brokers([0]))
    image, _ = create(image, new())
    image = built(config_event("flush.on.ack", "false"), on=image)
    assert image.topic_config(image.topics[topic_id(1)]).flush_on_ack


def test_an_explicit_assignment_is_kept() -> None:
    image, _ = create(brokers(range(3)), new(partitions=-1, assignments=[[2, 0], [1, 2]]))
    assert [p.broker_ids for p in image.topics[topic_id(1)].partitions] == [(2, 0), (1, 2)]


def test_a_fenced_broker_may_be_assigned_but_is_not_in_sync() -> None:
    image, _ = create(brokers(range(2), fenced=[0]), new(partitions=-1, assignments=[[0, 1]]))
    partition = the_partition(image)
    assert (partition.isr, partition.leader) == ((1,), 1)
    _, (result,) = create(brokers(range(2), fenced=[0]), new(partitions=-1, assignments=[[0]]))
    assert result.error.code == ErrorCode.ERROR_CODE_NOT_ENOUGH_REPLICAS


@pytest.mark.parametrize(
    "topic",
    [
        new(partitions=-1, assignments=[[0, 0]]),
        new(partitions=-1, assignments=[[]]),
        new(partitions=-1, assignments=[[0, 9]]),
        new(partitions=-1, assignments=[[0, 1], [0]]),
        new(partitions=2, assignments=[[0, 1]]),
        new(partitions=-1, factor=3, assignments=[[0, 1]]),
    ],
    ids=["twice", "empty", "unknown", "uneven", "number", "factor"],
)
def test_an_impossible_assignment_is_refused(topic: admin.NewTopic) -> None:
    image = brokers(range(3))
    after, (result,) = create(image, topic)
    assert result.error.code
    assert after == image


def test_replicas_go_to_the_least_loaded_directory() -> None:
    image, _ = create(brokers([0], disks=2), new(partitions=3))
    used = [p.directory_of(0) for p in image.topics[topic_id(1)].partitions]
    assert used == [directory_id(0, 0), directory_id(0, 1), directory_id(0, 0)]
    image, _ = create(image, new("b", 1, number=2))
    assert the_partition(image, 2).directory_of(0) == directory_id(0, 1)


def test_internal_replicas_are_spread_over_the_directories_of_a_broker() -> None:
    image, _ = create(brokers([0]), new("__consumer_offsets", 4), internal=True)
    image = brokers([1], on=image, disks=2)
    image = raised(image)
    used = [p.directory_of(1) for p in image.topics[topic_id(1)].partitions]
    assert used == [directory_id(1, 0), directory_id(1, 1)] * 2


def test_what_makes_more_metadata_than_a_batch_holds_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quorate_quorum.controller.decisions.creation.BATCH_BYTES_MAX", 8_000)
    image = brokers([0])
    topics = [new(f"t{i}", 20, 1, number=i) for i in range(6)]
    after, results = create(image, *topics)
    refused = [r for r in results if r.error.code]
    assert refused
    assert all("at a time" in r.error.message for r in refused)
    assert 0 < len(after.topics) == 6 - len(refused)


def test_topics_are_deleted_by_name_and_id() -> None:
    image = with_partition(brokers([0]), [0], name="a", number=1)
    image = with_partition(image, [0], name="b", number=2)
    request = admin.DeleteTopicsRequest(topics=["a", "zz"], topic_ids=[topic_id(2), topic_id(2)])
    outcome = delete_topics(image, request, permitted)
    after = replayed(image, outcome.events)
    unknown = ErrorCode.ERROR_CODE_UNKNOWN_TOPIC
    assert [t.error.code for t in outcome.response.topics] == [0, unknown, 0, unknown]
    assert not after.topics
    assert not after.topic_ids


def test_one_request_deletes_so_many_topics_and_refuses_the_rest() -> None:
    """Deciding holds the controller's loop up for every topic of the request."""
    image = with_partition(brokers([0]), [0], name="a", number=1)
    image = with_partition(image, [0], name="b", number=2)
    names = ["a", *("zz" for _ in range(999)), "b"]
    outcome = delete_topics(image, admin.DeleteTopicsRequest(topics=names), permitted)
    assert list(replayed(image, outcome.events).topic_ids) == ["b"]
    refused = outcome.response.topics[-1].error
    assert refused.code == ErrorCode.ERROR_CODE_INVALID_REQUEST
    assert "at most 1000" in refused.message


@pytest.mark.parametrize(
    ("names", "words"),
    [(["retention.ms"] * 2, "removed twice"), (["retention.ms"] * 1001, "1001 configs")],
)
def test_configs_are_removed_once_and_not_too_many_at_once(names: list[str], words: str) -> None:
    image = with_partition(brokers([0]), [0], name="a", number=1)
    request = admin.AlterConfigsRequest(topic="a", remove=names)
    outcome = alter_configs(image, request)
    assert outcome.events == ()
    assert words in outcome.response.error.message


def test_internal_topics_are_not_deleted() -> None:
    image, _ = create(brokers([0]), new("__consumer_offsets"), internal=True)
    request = admin.DeleteTopicsRequest(topics=["__consumer_offsets"])
    outcome = delete_topics(image, request, permitted)
    assert outcome.events == ()
    assert outcome.response.topics[0].error.code == ErrorCode.ERROR_CODE_POLICY_VIOLATION


def alter(
    image: MetadataImage,
    topic: str = "orders",
    *,
    remove: tuple[str, ...] = (),
    validate_only: bool = False,
    **settings: str,
) -> tuple[MetadataImage, ErrorCode.ValueType]:
    request = admin.AlterConfigsRequest(
        topic=topic,
        set={name.replace("_", "."): value for name, value in settings.items()},
        remove=remove,
        validate_only=validate_only,
    )
    outcome = alter_configs(image, request)
    return replayed(image, outcome.events), outcome.response.error.code


def test_configs_change_and_go() -> None:
    image = with_partition(brokers([0]), [0])
    image, error = alter(image, retention_ms="5")
    assert not error
    assert image.topics[topic_id(1)].configs["retention.ms"] == "5"
    image, error = alter(image, remove=("retention.ms",))
    assert not image.topics[topic_id(1)].configs
    image, error = alter(image, "", num_partitions="3")
    assert image.configs["num.partitions"] == "3"


def test_a_min_isr_above_the_number_of_replicas_is_said_in_the_answer() -> None:
    image = with_partition(brokers([0, 1]), [0, 1])
    said = "min.insync.replicas=3 is above the number of replicas, and counts as 2"
    for topic, value, warnings in (("orders", "2", []), ("orders", "3", [said]), ("", "3", [])):
        request = admin.AlterConfigsRequest(topic=topic, set={"min.insync.replicas": value})
        assert list(alter_configs(image, request).response.warnings) == warnings


def test_a_change_of_configs_is_all_or_nothing() -> None:
    image = with_partition(brokers([0]), [0])
    after, error = alter(image, retention_ms="5", segment_ms="never")
    assert error == ErrorCode.ERROR_CODE_INVALID_CONFIG
    assert after == image
    assert alter(image, "nope", retention_ms="5")[1] == ErrorCode.ERROR_CODE_UNKNOWN_TOPIC
    assert alter(image, retention_ms="5", validate_only=True) == (image, 0)
    assert alter(image, retention_ms="5", remove=("retention.ms",))[1]
    assert alter(image, remove=("retension.ms",))[1] == ErrorCode.ERROR_CODE_INVALID_CONFIG


def test_flush_on_ack_cannot_change() -> None:
    image = with_partition(brokers([0]), [0], configs={"flush.on.ack": "true"})
    for change in ({"flush_on_ack": "false"}, {"remove": ("flush.on.ack",)}):
        assert alter(image, **change)[1] == ErrorCode.ERROR_CODE_POLICY_VIOLATION
    assert not alter(image, flush_on_ack="true")[1]


def test_an_elr_is_void_before_the_isr_may_commit_alone_wherever_the_log_ends() -> None:
    """A large Outcome is several batches, and the log may end after the first of them.

    Even then an ELR must not count that lacks what the ISR has committed.
    """
    image = brokers([0, 1, 2], fenced=[1, 2])
    for number in (1, 2, 3):
        name = f"t{number}"
        image = with_partition(image, [0, 1, 2], isr=[0], elr=[1], number=number, name=name)
    request = admin.AlterConfigsRequest(set={"min.insync.replicas": "1"})
    events = alter_configs(image, request).events
    assert len(events) == 4
    for end in range(len(events) + 1):
        cut = replayed(image, events[:end])
        for topic in cut.sorted_topics():
            (partition,) = topic.partitions
            assert not partition.elr or len(partition.isr) < cut.min_isr(topic, partition)


def test_a_lower_min_isr_that_the_isr_meets_voids_the_elr() -> None:
    image = with_partition(brokers([0, 1, 2], fenced=[1, 2]), [0, 1, 2], isr=[0], elr=[1])
    lower, _ = alter(image, min_insync_replicas="1")
    assert the_partition(lower).elr == ()
    assert the_partition(lower).partition_epoch == 1
    cluster, _ = alter(image, "", min_insync_replicas="1")
    assert the_partition(cluster).elr == ()
    higher, _ = alter(image, min_insync_replicas="3")
    assert the_partition(higher).elr == (1,)


def test_internal_topics_are_raised_when_brokers_join() -> None:
    image, _ = create(brokers([0]), new("__consumer_offsets", 2), internal=True)
    image = with_partition(image, [0], name="mine", number=5)
    assert raised(image) == image
    image = brokers([1, 2], on=image)
    turns: list[int] = []
    image = raised(image, turns=turns)
    assert turns == [2]
    for partition in image.topics[topic_id(1)].partitions:
        assert sorted(partition.broker_ids) == [0, 1, 2]
        assert partition.isr == (0,)
        assert sorted(partition.adding) == [1, 2]
        assert image.min_isr(image.topics[topic_id(1)], partition) == 1  # still works alone
    assert the_partition(image, 5).broker_ids == (0,)
    assert raised(image) == image
