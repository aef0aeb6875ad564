"""Throttles the copies to replicas that are out of sync (KIP-73), on one side of this broker.

The leader's side limits what this broker sends, the follower's side what it takes. An operator sets
the rate of a move, or of a broker for the replicas that topics list. A replica in the ISR is never
throttled: commits wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Generic, Literal, TypeVar

from quorate_broker.replica.partition import Partition
from quorate_broker.replicas.replicas import Replicas
from quorate_broker.replication.rate_limit import RateLimit
from quorate_quorum.config_kinds import throttled_replicas
from quorate_quorum.configs import NO_RATE, ThrottleConfig, TopicConfig
from quorate_quorum.metadata.partitions import PartitionImage

K = TypeVar("K")
Side = Literal["leader", "follower"]

#: The shortest wait for a grant: a timer of the loop can be early by the loop's resolution.
WAIT_MIN_S = 0.001


def rate_of(
    side: Side,
    state: PartitionImage,
    topic: TopicConfig,
    broker: ThrottleConfig,
    *,
    number: int,
    broker_id: int,
    follower: int,
) -> int | None:
    """Return the bytes a second at which a follower may be sent, or take, a partition; None: any.

    `state`, `topic` and `number` are the partition's, `broker` and `broker_id` those of the broker
    on this side. If a move and the topic's list throttle the replica, the lower rate counts.
    """
    if follower in state.isr:
        return None
    rates = [state.throttle] if state.throttle and follower in state.adding else []
    if side == "leader":
        rate, listed = (
            broker.leader_replication_throttled_rate,
            topic.leader_replication_throttled_replicas,
        )
    else:
        rate, listed = (
            broker.follower_replication_throttled_rate,
            topic.follower_replication_throttled_replicas,
        )
    if listed and rate != NO_RATE:
        pairs = throttled_replicas(listed)
        if pairs is None or (number, broker_id) in pairs:
            rates.append(rate)
    return min(rates, default=None)


class Throttle(Generic[K]):
    """The limits of one side, one for each rate. Copies at the same rate share its limit.

    `K` identifies a copy: one partition to one follower. Each copy must `leave` in the end, so that
    no timer is left.
    """

    def __init__(self, side: Side, replicas: Replicas) -> None:
        self._side: Side = side
        self._replicas = replicas
        #: By rate. A limit is dropped when it is idle, and another one begins.
        self._limits: dict[int, RateLimit[K]] = {}
        self._limit_of: dict[K, RateLimit[K]] = {}
        self._wakes: dict[K, Callable[[], None]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def ask(
        self, key: K, partition: Partition, follower: int, size: int, wake: Callable[[], None]
    ) -> int | None:
        """Return how many bytes of a partition may be copied now; None: any number of them.

        0: the copy waits, and `wake` is called when it should ask again.
        """
        rate = self._rate(partition, follower)
        if rate is None:
            self.leave(key)
            return None
        limit = self._limit_of.get(key)
        if limit is None or limit.rate != rate:
            self.leave(key)
            limit = self._limit_of[key] = self._limit(rate)
        self._wakes[key] = wake
        granted = limit.ask(key, size, self._now_ms())
        self._set_timer(limit)
        return granted

    def used(self, key: K, size: int) -> None:
        """Take note that a copy has copied `size` bytes. They count if it had a grant."""
        self._end(key, lambda limit: limit.used(key, size))

    def leave(self, key: K) -> None:
        """Forget a copy that will not be made, or needs no grant."""
        self._end(key, lambda limit: limit.leave(key))

    def _end(self, key: K, end: Callable[[RateLimit[K]], None]) -> None:
        limit = self._limit_of.pop(key, None)
        self._wakes.pop(key, None)
        if limit is not None:
            end(limit)
            self._set_timer(limit)

    def _rate(self, partition: Partition, follower: int) -> int | None:
        state, image = partition.state, self._replicas.image
        if state is None:
            return None
        broker_id = self._replicas.broker_id
        broker = image.brokers.get(broker_id)
        own = {} if broker is None else dict(broker.configs)
        return rate_of(
            self._side,
            state,
            partition.config,
            ThrottleConfig.of(own, image.configs),
            number=partition.partition,
            broker_id=broker_id,
            follower=follower,
        )

    def _limit(self, rate: int) -> RateLimit[K]:
        limit = self._limits.get(rate)
        if limit is None:
            now_ms = self._now_ms()
            self._limits = {r: one for r, one in self._limits.items() if not one.is_idle(now_ms)}
            limit = self._limits[rate] = RateLimit(rate, now_ms)
        return limit

    def _set_timer(self, limit: RateLimit[K]) -> None:
        """Wake the first of the line when its turn comes."""
        timer = self._timers.pop(limit.rate, None)
        if timer is not None:
            timer.cancel()
        if limit.next_ms is not None:
            wait_s = max(WAIT_MIN_S, (limit.next_ms - self._now_ms()) / 1000)
            loop = asyncio.get_running_loop()
            self._timers[limit.rate] = loop.call_later(wait_s, partial(self._turn, limit))

    def _turn(self, limit: RateLimit[K]) -> None:
        del self._timers[limit.rate]
        key = limit.grant(self._now_ms())
        self._set_timer(limit)
        if key is not None:
            self._wakes[key]()

    def _now_ms(self) -> float:
        return asyncio.get_running_loop().time() * 1000
