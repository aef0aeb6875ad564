"""Runs work in the background of a block, for example a stream's reader while answers are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None], name: str) -> AsyncGenerator[None, None]:
    """Run `work` in the background while the block runs, and cancel it at the block's end.

    An exception of `work` is raised at the end of the block, unless the block itself raises.
    """
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
