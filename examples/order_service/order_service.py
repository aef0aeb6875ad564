"""An order service: POST /orders, GET /orders/ID. Each order becomes an event of a topic.

    uvicorn --factory order_service:from_environment

The environment has QUORATE_BOOTSTRAP (localhost:7092), ORDERS_FILE (orders.db) and ORDERS_TOPIC
(orders).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Response
from orders import Orders
from outbox_relay import relay
from pydantic import BaseModel, Field


class NewOrder(BaseModel):
    """What a client posts. The bounds keep every event far below the largest record."""

    customer: str = Field(min_length=1, max_length=100)
    item: str = Field(min_length=1, max_length=1000)
    cents: int = Field(gt=0, le=10_000_000)


RequestKey = Annotated[str | None, Header(alias="Idempotency-Key", max_length=100)]


def create_app(file: str, servers: str, topic: str) -> FastAPI:
    """Return the service. It takes orders while the cluster is away, too."""
    orders = Orders(file)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        relaying = asyncio.create_task(relay(orders, servers, topic))
        yield
        relaying.cancel()
        await asyncio.wait([relaying])

    app = FastAPI(title="Orders", lifespan=lifespan)

    # FastAPI runs a function that is not asynchronous in a thread, so SQLite holds up no request.
    @app.post("/orders", status_code=201)
    def place(new: NewOrder, response: Response, request_key: RequestKey = None) -> dict[str, Any]:
        order, is_new = orders.place(new.customer, new.item, new.cents, request_key)
        if not is_new:
            response.status_code = 200
        return order._asdict()

    @app.get("/orders/{order_id}")
    def find(order_id: str) -> dict[str, Any]:
        order = orders.find(order_id)
        if order is None:
            raise HTTPException(404, f"there is no order {order_id}")
        return order._asdict()

    return app


def from_environment() -> FastAPI:
    """Return the service that the environment describes."""
    return create_app(
        os.environ.get("ORDERS_FILE", "orders.db"),
        os.environ.get("QUORATE_BOOTSTRAP", "localhost:7092"),
        os.environ.get("ORDERS_TOPIC", "orders"),
    )
