"""quorate cluster health: what it says beside the controller's answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quorate import LogDirDescription
from quorate.errors import RequestTimedOutError
from quorate_cli.health import FULL_BYTES, _full_disks


class Brokers:
    """Answers for the log directories of all brokers."""

    def __init__(self, *free: int) -> None:
        self._free = free

    async def describe_log_dirs(self, topics: object) -> list[LogDirDescription]:
        if not self._free:
            raise RequestTimedOutError("no answer")
        return [
            LogDirDescription(number, f"/d{number}", "", "", free, ())
            for number, free in enumerate(self._free)
        ]


@pytest.mark.parametrize(
    ("free", "named"),
    [((FULL_BYTES, -1), []), ((FULL_BYTES, 0), ["broker 1: the disk of /d1 is full"]), ((), [])],
)
def test_a_broker_with_a_full_disk_is_named(free: tuple[int, ...], named: list[str]) -> None:
    brokers: Any = Brokers(*free)
    found = asyncio.run(_full_disks(brokers, 1))
    assert [line.partition(":")[0] + ":" + line.split(":")[1] for line in found] == named
