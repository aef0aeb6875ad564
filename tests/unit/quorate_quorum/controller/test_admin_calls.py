"""Admin calls that brokers pass on: each topic is judged as the decision sees it."""

from __future__ import annotations

import asyncio

from quorate.net.methods import DELETE_TOPICS
from quorate.net.principal import Principal
from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.driver.admin_calls import ADMIN_CALLS
from quorate_quorum.node.authorizer import Caller, Operation, Resource, ResourceType
from tests.unit.quorate_quorum.controller.builders import World, in_a_world

HERS = b"hers".ljust(16, b"\0")


class MayDeleteMine:
    """Every principal may delete the topic `mine`, and do nothing else."""

    def authorize(self, principal: Principal, operation: Operation, resource: Resource) -> bool:
        return (operation, resource) == (Operation.DELETE, Resource(ResourceType.TOPIC, "mine"))


CALLER = Caller(Principal("User", "mallory"), MayDeleteMine())


async def deleted(world: World, request: admin.DeleteTopicsRequest) -> admin.DeleteTopicsResponse:
    call = ADMIN_CALLS[DELETE_TOPICS.path]
    answered = await call.answer(CALLER, world.controller.active(), request)
    response: admin.DeleteTopicsResponse = answered.response
    return response


def test_a_topic_that_is_proposed_and_not_committed_is_deleted_only_with_the_right() -> None:
    """The decision sees it, though the committed image does not have its id."""

    async def program(world: World) -> None:
        await world.unfenced(1)
        world.raft.commits_soon = False
        creating = asyncio.ensure_future(world.create("hers"))
        await asyncio.sleep(0.05)
        reign = world.controller.active().reign
        assert (HERS in reign.image.topics, HERS in reign.pending.topics) == (False, True)
        request = admin.DeleteTopicsRequest(topic_ids=[HERS])
        deleting = asyncio.ensure_future(deleted(world, request))
        await asyncio.sleep(0.05)
        world.raft.commit()
        world.raft.commits_soon = True
        (result,) = (await deleting).topics
        await creating
        assert result.error.code == ErrorCode.ERROR_CODE_TOPIC_AUTHORIZATION_FAILED
        assert (result.name, result.topic_id) == ("", HERS)
        assert "hers" not in result.error.message
        assert HERS in world.controller.image.topics

    in_a_world(program)


def test_a_refused_topic_keeps_its_place_among_the_results() -> None:
    async def program(world: World) -> None:
        await world.unfenced(1)
        mine = await world.create("mine")
        await world.create("hers")
        request = admin.DeleteTopicsRequest(topics=["hers", "mine"], topic_ids=[HERS, mine])
        refused = ErrorCode.ERROR_CODE_TOPIC_AUTHORIZATION_FAILED
        unknown = ErrorCode.ERROR_CODE_UNKNOWN_TOPIC
        told = [(one.name, one.error.code) for one in (await deleted(world, request)).topics]
        assert told == [("hers", refused), ("mine", 0), ("", refused), ("", unknown)]
        assert set(world.controller.image.topic_ids) == {"hers"}

    in_a_world(program)


def test_topics_beyond_the_bound_of_a_request_are_not_named() -> None:
    async def program(world: World) -> None:
        await world.unfenced(1)
        await world.create("hers")
        request = admin.DeleteTopicsRequest(topic_ids=[*[b"x" * 16] * 1000, HERS])
        last = (await deleted(world, request)).topics[-1]
        assert (last.name, last.error.code) == ("", ErrorCode.ERROR_CODE_INVALID_REQUEST)

    in_a_world(program)
