"""Work beside a block: the reader of a stream while its answers are written, for example."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None], name: str) -> AsyncGenerator[None, None]:
    """Run `work` in the background for as long as the block, and cancel it at the block's end.

    What `work` raised is raised at the end of the block, unless the block raises.
    """
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
