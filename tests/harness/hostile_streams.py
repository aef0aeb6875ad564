"""Requests of a follower's stream that are wrong in all ways, in any order."""

from __future__ import annotations

import random
from typing import Final

from quorate_broker.v1.replica_pb2 import ReplicaFetchPartition, ReplicaFetchRequest, ReplicaOpen

INT32: Final = (0, 0, 0, 1, 2, -1, 7, 2**31 - 1, -(2**31))
INT64: Final = (0, 0, 1, 2, 3, -1, -5, 100, 2**63 - 1, -(2**63))
UINT32: Final = (0, 1, 10, 1 << 20, 2**32 - 1)
UINT64: Final = (0, 1, 2, 2**64 - 1)


class HostileStreams:
    """Draws the requests of streams. Two with the same seed draw the same.

    Many requests name what is true (`opened`, the topics), for what is refused at the first field
    tests nothing behind it.
    """

    def __init__(self, chance: random.Random, opened: ReplicaOpen, topics: list[bytes]) -> None:
        self._chance = chance
        self._opened = opened
        self._topics = topics

    def stream(self) -> list[ReplicaFetchRequest]:
        """Return the requests of one stream."""
        count = self._chance.choice((1, 2, 5))
        return [self._request(is_first=number == 0) for number in range(count)]

    def _request(self, *, is_first: bool) -> ReplicaFetchRequest:
        chance = self._chance
        named = [self._partition() for _ in range(chance.choice((0, 1, 2, 20)))]
        return ReplicaFetchRequest(
            open=self._open() if is_first or chance.random() < 0.2 else None,
            partitions=named * chance.choice((1, 1, 1, 50)),
            forgotten=[self._partition() for _ in range(chance.choice((0, 0, 1, 3)))],
            max_bytes=chance.choice(UINT32),
            max_wait_ms=chance.choice(UINT32),
            request_number=chance.choice(UINT64),
        )

    def _open(self) -> ReplicaOpen | None:
        chance = self._chance
        opened = ReplicaOpen()
        opened.CopyFrom(self._opened)
        kind = chance.randrange(12)
        if kind == 0:
            return None
        if kind == 1:
            opened.cluster_id = chance.choice(("", "other", "x" * 10_000))
        elif kind == 2:
            opened.replica_id = chance.choice(INT32)
        elif kind == 3:
            opened.broker_epoch = chance.choice(INT64)
        elif kind == 4:
            opened.incarnation = chance.choice((b"", b"s" * 16, chance.randbytes(1000)))
        elif kind == 5:
            opened.quorum_generation = chance.choice(INT64)
        opened.stream_number = chance.choice((opened.stream_number, *UINT64[:3]))
        return opened

    def _partition(self) -> ReplicaFetchPartition:
        chance = self._chance
        return ReplicaFetchPartition(
            topic_id=chance.choice((*self._topics * 4, b"", b"x" * 16, chance.randbytes(99))),
            partition=chance.choice((0, 0, 0, *INT32)),
            leader_epoch=chance.choice((1, 1, 1, *INT32)),
            fetch_offset=chance.choice(INT64),
            last_fetched_epoch=chance.choice(INT32),
            log_start_offset=chance.choice(INT64),
            high_watermark=chance.choice(INT64),
            was_corrupt=chance.random() < 0.2,
        )
