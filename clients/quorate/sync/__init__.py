"""The clients for programs without an event loop: the same names and arguments, and no await.

    from quorate.sync import Producer

    with Producer(bootstrap_servers="localhost:7092") as producer:
        producer.send_and_wait("invoice", b"9.50", key=b"customer-42")

All blocking clients of a process share one background thread with one event loop. Any thread may
use a client.

gRPC does not survive a fork: a child that is forked after its parent has used any client of Quorate
can't use one, and every client raises WrongLoopError there. Start children with "spawn" or
"forkserver" of multiprocessing, or fork before the first client is made.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quorate.sync.admin import Admin
    from quorate.sync.consumer import Consumer
    from quorate.sync.delivery import Delivery
    from quorate.sync.producer import Producer
    from quorate.sync.schema_registry import SchemaRegistry

__all__ = ["Admin", "Consumer", "Delivery", "Producer", "SchemaRegistry"]

#: Name -> module. A name is imported at its first use, as in quorate itself.
_HOMES = {
    "Admin": "quorate.sync.admin",
    "Consumer": "quorate.sync.consumer",
    "Delivery": "quorate.sync.delivery",
    "Producer": "quorate.sync.producer",
    "SchemaRegistry": "quorate.sync.schema_registry",
}


def __getattr__(name: str) -> Any:
    """Import a name of `__all__` at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
