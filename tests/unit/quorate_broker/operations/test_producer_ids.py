"""Producer ids: from blocks of the controller, each given once."""

from __future__ import annotations

import asyncio

import pytest

from quorate.errors import (
    ClusterAuthorizationFailedError,
    InvalidRequestError,
    QuorumUnavailableError,
)
from quorate_broker.operations.producer_ids import ProducerIds
from quorate_quorum.node.authorizer import ALLOW_ALL
from tests.unit.quorate_broker.operations.builders import (
    ANN,
    DenyAll,
    no_controller,
)


async def one_block() -> range:
    return range(7, 8)


async def test_ids_come_from_blocks_and_are_given_once() -> None:
    blocks = [range(10, 12), range(50, 52)]

    async def allocate() -> range:
        await asyncio.sleep(0)
        return blocks.pop(0)

    ids = ProducerIds(allocate, ALLOW_ALL)
    found = await asyncio.gather(*(ids.init(ANN, -1, -1) for _ in range(4)))
    assert found == [(10, 0), (11, 0), (50, 0), (51, 0)]


async def test_a_known_producer_raises_its_epoch_until_there_is_none_left() -> None:
    ids = ProducerIds(one_block, ALLOW_ALL)
    assert await ids.init(ANN, 3, 0) == (3, 1)
    assert await ids.init(ANN, 3, 32_766) == (3, 32_767)
    assert await ids.init(ANN, 3, 32_767) == (7, 0)


@pytest.mark.parametrize(("known", "epoch"), [(-2, 0), (1, -2), (1, 32_768)])
async def test_impossible_ids_are_refused(known: int, epoch: int) -> None:
    with pytest.raises(InvalidRequestError, match="can't be"):
        await ProducerIds(one_block, ALLOW_ALL).init(ANN, known, epoch)


async def test_without_a_controller_the_error_says_so() -> None:
    with pytest.raises(QuorumUnavailableError):
        await ProducerIds(no_controller, ALLOW_ALL).init(ANN, -1, -1)


async def test_whoever_may_not_write_gets_no_id() -> None:
    with pytest.raises(ClusterAuthorizationFailedError):
        await ProducerIds(one_block, DenyAll()).init(ANN, -1, -1)
