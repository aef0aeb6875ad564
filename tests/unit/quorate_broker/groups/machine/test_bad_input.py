"""Impossible heartbeats are refused with a clear error, and the group goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quorate.errors import InvalidGroupIdError, InvalidRequestError
from quorate_broker.groups.machine.values import RemoveMembers
from tests.harness.group_desk import Desk


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"group_id": ""}, InvalidGroupIdError),
        ({"group_id": "g" * 300}, InvalidGroupIdError),
        ({"group_id": "ü" * 125}, InvalidGroupIdError),
        ({"member_id": ""}, InvalidRequestError),
        ({"member_id": "m" * 250}, InvalidRequestError),
        ({"instance_id": "i" * 250}, InvalidRequestError),
        ({"rack": "r" * 250}, InvalidRequestError),
        ({"client_id": "c" * 250}, InvalidRequestError),
        ({"member_epoch": -3}, InvalidRequestError),
        ({"session_timeout_ms": 999}, InvalidRequestError),
        ({"session_timeout_ms": 1_800_001}, InvalidRequestError),
        ({"rebalance_timeout_ms": 0}, InvalidRequestError),
        ({"rebalance_timeout_ms": 1_800_001}, InvalidRequestError),
        ({"member_epoch": 0, "topics": None, "pattern": None}, InvalidRequestError),
        ({"member_epoch": 0, "owned": frozenset({(bytes(16), 0)})}, InvalidRequestError),
        ({"topics": frozenset(f"t{at}" for at in range(10_001))}, InvalidRequestError),
    ],
)
def test_an_impossible_heartbeat_is_refused_and_changes_nothing(
    fields: dict[str, Any], error: type[Exception]
) -> None:
    d = Desk({"orders": 2})
    a = d.joined("a", "orders")
    d.settle(a)
    before = len(d.log)
    with pytest.raises(error):
        d.beat(a.heartbeat(**fields))
    a.send()
    assert len(d.log) == before
    assert a.owned == d.of("orders")


@pytest.mark.parametrize("group_id", ["", "g" * 300])
def test_every_other_call_refuses_an_impossible_group_id(group_id: str) -> None:
    d = Desk({"orders": 2})
    calls: list[Callable[[], object]] = [
        lambda: d.commit(dict.fromkeys(d.of("orders"), 1), group_id=group_id),
        lambda: d.every_offset(group_id=group_id),
        lambda: d.take(d.machine.describe_group(group_id)),
        lambda: d.take(d.machine.delete_group(group_id, d.now_ms, d.wall_ms)),
        lambda: d.take(
            d.machine.remove_members(RemoveMembers(group_id, all=True), d.now_ms, d.wall_ms)
        ),
    ]
    for call in calls:
        with pytest.raises(InvalidGroupIdError):
            call()
