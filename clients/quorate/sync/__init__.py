"""The clients for programs without an event loop: the same names and arguments, and no await.

    from quorate.sync import Producer

    with Producer(bootstrap_servers="localhost:7092") as producer:
        producer.send_and_wait("invoice", b"9.50", key=b"customer-42")

All blocking clients of a process share one background thread with one event loop. Any thread may
use a client. A child that was forked needs clients of its own, as gRPC does not survive a fork.
"""

from quorate.sync.admin import Admin
from quorate.sync.consumer import Consumer
from quorate.sync.delivery import Delivery
from quorate.sync.producer import Producer
from quorate.sync.schema_registry import SchemaRegistry

__all__ = ["Admin", "Consumer", "Delivery", "Producer", "SchemaRegistry"]
