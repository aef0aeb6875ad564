"""`python -m bench.kafka_client produce|consume JSON`: one run of confluent-kafka, in a process.

It prints seconds and the CPU seconds of this client as JSON. bench/kafka.py runs it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from typing import Any

from confluent_kafka import Consumer, Producer

PATIENCE_S = 120.0
#: The keys of a run with keys: more than there are partitions.
KEYS = 10_000
#: The default of Quorate's own producer; that of librdkafka is 1,000,000.
BATCH_BYTES = 131_072
#: librdkafka stops to fetch for a second whenever so many records wait as it has by default.
TUNED = {
    "queued.min.messages": 1_000_000,
    "queued.max.messages.kbytes": 262_144,
    "fetch.queue.backoff.ms": 1,
}


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def produce(
    servers: str, topic: str, records: int, size: int, *, keyed: bool, batch: int = BATCH_BYTES
) -> dict[str, float]:
    """Write records as fast as the client can. The first one, which connects, is not timed."""
    failed: list[Any] = []
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "none",
            "batch.size": batch,
            "linger.ms": 5,
            "queue.buffering.max.kbytes": 32_768,
            "queue.buffering.max.messages": 1_000_000,
            "delivery.report.only.error": True,
            "on_delivery": lambda error, _: failed.append(error),
        }
    )
    value = os.urandom(size)
    keys: Iterator[bytes | None] = cycle([b"key-%d" % i for i in range(KEYS)] if keyed else [None])
    producer.produce(topic, value, next(keys))
    producer.flush(PATIENCE_S)
    began, cpu = time.perf_counter(), cpu_s()
    for _ in range(records):
        key = next(keys)
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.001)
    left = producer.flush(PATIENCE_S)
    took = time.perf_counter() - began
    if left or failed:
        raise SystemExit(f"{left} records are not acknowledged, and {len(failed)} failed")
    return {"s": took, "cpu": cpu_s() - cpu}


def consume(servers: str, topic: str, records: int) -> dict[str, float]:
    """Read records in a group. The first one, which joins, is not timed."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"bench-{os.getpid()}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **TUNED,
        }
    )
    consumer.subscribe([topic])
    if consumer.poll(PATIENCE_S) is None:
        raise SystemExit("no record came")
    began, cpu, got = time.perf_counter(), cpu_s(), 1
    while got < records:
        for message in consumer.consume(10_000, 0.1):
            if message.error():
                raise SystemExit(str(message.error()))
            got += 1
    took = time.perf_counter() - began
    used = cpu_s() - cpu
    consumer.close()
    return {"s": took, "cpu": used}


if __name__ == "__main__":
    kind, arguments = sys.argv[1], json.loads(sys.argv[2])
    run = produce(**arguments) if kind == "produce" else consume(**arguments)
    print(json.dumps(run))
