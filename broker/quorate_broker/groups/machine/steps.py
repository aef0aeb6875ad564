"""How a call of the machine becomes a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from quorate.errors import QuorateError
from quorate_broker.groups.machine.config import GroupsConfig
from quorate_broker.groups.machine.group import Shared
from quorate_broker.groups.machine.registry import Groups
from quorate_broker.groups.machine.subscriptions import MayDescribe, Subscriptions
from quorate_broker.groups.machine.topics import Topics
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import Step

T = TypeVar("T")


class Steps:
    """The groups of a shard, and the time of the last call."""

    def __init__(self, config: GroupsConfig, topics: Topics, may_describe: MayDescribe) -> None:
        self._config = config
        self._shared = Shared(config, Subscriptions(config, topics, may_describe))
        self._groups = Groups(self._shared)
        self._now_ms = 0

    def _turn(self, now_ms: int, wall_ms: int) -> Turn:
        self._now_ms = now_ms
        return Turn(now_ms, wall_ms)

    def _decided_for(
        self,
        group_id: str,
        decide: Callable[[Turn], T | QuorateError],
        now_ms: int,
        wall_ms: int,
    ) -> Step[T]:
        """Run a decision after which the group may have another protocol, or be gone."""
        turn = self._turn(now_ms, wall_ms)
        answer: T | QuorateError
        try:
            answer = decide(turn)
        except QuorateError as error:
            answer = error
        self._groups.tidy(group_id, turn)
        return turn.step(answer)

    def _decided(
        self, decide: Callable[[Turn], T | QuorateError], now_ms: int, wall_ms: int
    ) -> Step[T]:
        """Run a decision. An error that it raises is its answer."""
        turn = self._turn(now_ms, wall_ms)
        try:
            return turn.step(decide(turn))
        except QuorateError as error:
            return turn.step(error)
