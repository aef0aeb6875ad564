"""Clients of a scene: an admin that asks one question, and a producer that writes all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from quorate import Admin, Producer
from tests.harness.cluster_scene import TOPIC, Scene

T = TypeVar("T")


async def ask(scene: Scene, question: Callable[[Admin], Awaitable[T]]) -> T:
    """Return the answer that an admin gets."""

    async def run() -> T:
        async with Admin(bootstrap_servers=scene.cluster.bootstrap_servers) as admin:
            return await question(admin)

    found: T = await scene.cluster.spawn_client(run)
    return found


async def flow(scene: Scene, gaps: list[float], is_over: asyncio.Event) -> None:
    """Write one record after another, and note the time between two acknowledgements."""
    async with Producer(bootstrap_servers=scene.cluster.bootstrap_servers, linger_ms=0) as producer:
        before = None
        while not is_over.is_set():
            value = b"%d" % scene.sent
            scene.sent += 1
            found = await producer.send_and_wait(TOPIC, value, partition=0)
            assert found.offset not in scene.acked
            scene.acked[found.offset] = value
            now = scene.loop.time()
            if before is not None:
                gaps.append(now - before)
            before = now
            await asyncio.sleep(0.001)
