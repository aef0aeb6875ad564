"""Topics that are created because a Kafka client asks for them in Metadata."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest
from rpds import HashTrieMap
from structlog.testing import capture_logs

from quorate.errors import (
    InvalidReplicationFactorError,
    InvalidTopicError,
    NotEnoughReplicasError,
    OutcomeUnknownError,
    QuorateError,
    QuorumUnavailableError,
    TopicAuthorizationFailedError,
    TopicExistsError,
    to_wire,
)
from quorate.net.methods import CREATE_TOPICS
from quorate.v1 import admin_pb2 as admin
from quorate_broker.listeners.kafka import auto_creation
from quorate_broker.listeners.kafka.auto_creation import AutoCreation
from quorate_broker.listeners.kafka.errors import (
    INVALID_TOPIC_EXCEPTION,
    NONE,
    UNKNOWN_TOPIC_OR_PARTITION,
)
from quorate_broker.listeners.kafka.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
)
from quorate_broker.listeners.kafka.metadata import MetadataRequests
from quorate_broker.listeners.kafka.recently_fenced import RecentlyFenced
from quorate_broker.operations.admin import Admin
from quorate_broker.operations.metadata import Metadata
from quorate_broker.operations.rights import Rights
from quorate_quorum.configs import ClusterConfig
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.topics import OFFSETS_TOPIC
from quorate_quorum.node.authorizer import ALLOW_ALL
from quorate_quorum.node.logs import Repeats
from tests.unit.quorate_broker.listeners.kafka.families import (
    CLIENT,
    NAME,
    broker,
    call,
    image_of,
    partition,
)
from tests.unit.quorate_broker.operations.builders import DenyAll, settle

IMAGE = image_of([broker(0)], zoo=[partition(0)])


class Controller:
    """Creates each topic that it is asked for, at once or when the test lets it."""

    def __init__(self) -> None:
        self.image = IMAGE
        self.asked: list[list[str]] = []
        self.error: QuorateError | None = None
        self.errors: dict[str, QuorateError] = {}
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def forward(
        self, method: Any, request: admin.CreateTopicsRequest, principal: Any, **_: int
    ) -> admin.CreateTopicsResponse:
        assert method is CREATE_TOPICS
        assert all(
            (one.num_partitions, one.replication_factor) == (-1, -1) for one in request.topics
        )
        assert principal == CLIENT.principal
        names = [one.name for one in request.topics]
        self.asked.append(names)
        await self.may_go_on.wait()
        if self.error is not None:
            raise self.error
        made = [name for name in names if name not in self.errors]
        new = image_of([], **{name: [partition(0)] for name in made})
        for topic_id, topic in new.topics.items():
            self.image = replace(
                self.image,
                topics=self.image.topics.insert(topic_id, topic),
                topic_ids=self.image.topic_ids.insert(topic.name, topic_id),
            )
        return admin.CreateTopicsResponse(
            topics=[
                admin.CreatedTopic(
                    name=name, error=to_wire(self.errors[name]) if name in self.errors else None
                )
                for name in names
            ]
        )


@pytest.fixture
def controller() -> Controller:
    return Controller()


def creation(controller: Controller) -> AutoCreation:
    return AutoCreation(cast(Admin, controller))


def requests(controller: Controller, authorizer: Any = ALLOW_ALL) -> MetadataRequests:
    ready = asyncio.Event()
    ready.set()
    metadata = Metadata(cast(Any, _ClientOf(controller)), ready, authorizer)
    return MetadataRequests(
        metadata,
        creation(controller),
        RecentlyFenced(lambda: 0.0),
        Rights(authorizer),
        "cluster-id",
        0,
    )


class _ClientOf:
    leader_id = 100
    quorum_generation = 1

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    @property
    def image(self) -> MetadataImage:
        return self._controller.image


async def asked_for(
    handlers: MetadataRequests, *names: str, version: int = 9, allowed: bool = True
) -> MetadataResponse:
    topics = [MetadataRequestTopic(name=name) for name in names]
    request = MetadataRequest(topics, allow_auto_topic_creation=allowed)
    return await handlers.metadata(call(request, version))


async def codes(
    handlers: MetadataRequests, *names: str, allowed: bool = True
) -> list[tuple[str | None, int]]:
    response = await asked_for(handlers, *names, allowed=allowed)
    return [(one.name, one.error_code) for one in response.topics]


async def create(made: AutoCreation, *names: str, partitions: int = 1) -> dict[str, QuorateError]:
    cluster = ClusterConfig(num_partitions=partitions)
    return await made.create(names, CLIENT.principal, cluster)


# in answers to Metadata


async def test_a_missing_topic_is_created_and_the_answer_has_it(controller: Controller) -> None:
    response = await asked_for(requests(controller), "new", NAME)
    assert [(one.name, one.error_code) for one in response.topics] == [("new", NONE), (NAME, NONE)]
    assert response.topics[0].partitions[0].leader_id == 0
    assert controller.asked == [["new"]]


async def test_topics_that_exist_ask_the_controller_nothing(controller: Controller) -> None:
    await asked_for(requests(controller), NAME)
    all_topics = MetadataRequest(None)
    await requests(controller).metadata(call(all_topics, 9))
    assert controller.asked == []


async def test_a_client_that_does_not_allow_it_creates_nothing(controller: Controller) -> None:
    handlers = requests(controller)
    assert await codes(handlers, "new", allowed=False) == [("new", UNKNOWN_TOPIC_OR_PARTITION)]
    assert controller.asked == []


async def test_the_cluster_may_switch_it_off(controller: Controller) -> None:
    configs = HashTrieMap({"auto.create.topics.enable": "false"})
    controller.image = replace(IMAGE, configs=configs)
    assert await codes(requests(controller), "new") == [("new", UNKNOWN_TOPIC_OR_PARTITION)]
    assert controller.asked == []


async def test_a_topic_that_is_asked_for_by_id_is_not_created(controller: Controller) -> None:
    request = MetadataRequest([MetadataRequestTopic(topic_id=b"?" * 16, name=None)])
    await requests(controller).metadata(call(request, 12))
    assert controller.asked == []


async def test_a_client_that_may_not_see_a_topic_does_not_create_it(controller: Controller) -> None:
    await asked_for(requests(controller, DenyAll()), "new")
    assert controller.asked == []


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_name_that_no_topic_can_have_is_an_error_of_its_own(
    controller: Controller, allowed: bool
) -> None:
    names = ("a b", "..", "", "x" * 250)
    found = await codes(requests(controller), *names, allowed=allowed)
    assert found == [(name, INVALID_TOPIC_EXCEPTION) for name in names]
    assert controller.asked == []


@pytest.mark.parametrize(
    ("name", "allowed", "code"),
    [
        ("__transaction_state", True, INVALID_TOPIC_EXCEPTION),
        ("__transaction_state", False, UNKNOWN_TOPIC_OR_PARTITION),
        (OFFSETS_TOPIC, True, UNKNOWN_TOPIC_OR_PARTITION),
        (OFFSETS_TOPIC, False, UNKNOWN_TOPIC_OR_PARTITION),
    ],
)
async def test_internal_topics_are_not_created_by_asking(
    controller: Controller, name: str, allowed: bool, code: int
) -> None:
    assert await codes(requests(controller), name, allowed=allowed) == [(name, code)]
    assert controller.asked == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        # the client asks again
        (NotEnoughReplicasError("no broker is live"), UNKNOWN_TOPIC_OR_PARTITION),
        (TopicExistsError("made by another broker"), UNKNOWN_TOPIC_OR_PARTITION),
        # asking again does not help
        (TopicAuthorizationFailedError("not you"), 29),
        (InvalidReplicationFactorError("default.replication.factor is 9"), 38),
    ],
)
async def test_a_refusal_reaches_the_client_if_it_is_final(
    controller: Controller, error: QuorateError, code: int
) -> None:
    controller.errors["new"] = error
    found = await codes(requests(controller), "new", "newer")
    assert found == [("new", code), ("newer", NONE)]


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (NotEnoughReplicasError("2 of 3 brokers are unfenced"), "warning"),
        (InvalidReplicationFactorError("default.replication.factor is 9"), "warning"),
        (TopicExistsError("made by another broker"), "info"),
    ],
)
async def test_a_topic_that_cannot_be_made_is_one_line_however_often_it_is_asked_for(
    controller: Controller, error: QuorateError, level: str
) -> None:
    controller.errors |= {"new": error, "newer": error}
    once = Repeats(lambda: 0.0)
    with capture_logs(processors=[once]) as lines:
        for _ in range(3):
            await codes(requests(controller), "new", "newer")
    found = [(one["event"], one["topic"], one["log_level"]) for one in lines]
    assert found == [("topic_not_created", name, level) for name in ("new", "newer")]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (QuorumUnavailableError("no controller"), UNKNOWN_TOPIC_OR_PARTITION),
        (OutcomeUnknownError("no answer"), UNKNOWN_TOPIC_OR_PARTITION),
        (InvalidTopicError("never"), INVALID_TOPIC_EXCEPTION),
    ],
)
async def test_without_an_answer_of_the_controller_the_client_asks_again(
    controller: Controller, error: QuorateError, code: int
) -> None:
    controller.error = error
    assert await codes(requests(controller), "new") == [("new", code)]


# creations


async def test_clients_that_ask_for_one_topic_at_once_share_one_creation(
    controller: Controller,
) -> None:
    controller.may_go_on.clear()
    handlers = requests(controller)
    tasks = [asyncio.ensure_future(codes(handlers, "new")) for _ in range(50)]
    await settle()
    assert controller.asked == [["new"]]
    controller.may_go_on.set()
    assert await asyncio.gather(*tasks) == [[("new", NONE)]] * 50


async def test_a_refusal_is_for_the_client_that_was_refused(controller: Controller) -> None:
    controller.may_go_on.clear()
    controller.errors["new"] = TopicAuthorizationFailedError("not you")
    made = creation(controller)
    first = asyncio.ensure_future(create(made, "new"))
    await settle()
    second = asyncio.ensure_future(create(made, "new"))
    await settle()
    controller.may_go_on.set()
    assert list(await first) == ["new"]
    assert await second == {}


async def test_a_client_that_goes_leaves_the_name_free(controller: Controller) -> None:
    controller.may_go_on.clear()
    made = creation(controller)
    first = asyncio.ensure_future(create(made, "new"))
    await settle()
    second = asyncio.ensure_future(create(made, "new"))
    await settle()
    first.cancel()
    assert await second == {}
    controller.may_go_on.set()
    await create(made, "new")
    assert controller.asked == [["new"], ["new"]]


@pytest.mark.parametrize(("partitions", "most"), [(1, 100), (30, 33), (10_000, 1)])
async def test_one_request_creates_a_bounded_number_of_topics(
    controller: Controller, partitions: int, most: int
) -> None:
    names = [f"t{i}" for i in range(250)]
    await create(creation(controller), "a b", *names, partitions=partitions)
    assert controller.asked == [names[:most]]


async def test_the_creations_of_all_clients_are_bounded(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_creation, "UNDER_WAY_MAX", 3)
    controller.may_go_on.clear()
    made = creation(controller)
    first = asyncio.ensure_future(create(made, "a", "b"))
    await settle()
    second = asyncio.ensure_future(create(made, "c", "d"))
    await settle()
    controller.may_go_on.set()
    await asyncio.gather(first, second)
    assert controller.asked == [["a", "b"], ["c"]]
    await create(made, "d")
    assert controller.asked[2:] == [["d"]]
