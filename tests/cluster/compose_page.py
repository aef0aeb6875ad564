"""What deploy/ promises, for tests with and without a container engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Consumer, Producer

from tests.cluster.support import PATIENCE_S

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
CONTAINERFILE = DEPLOY / "Containerfile"


def services() -> dict[str, Any]:
    """Return the services of compose.yaml, by name."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def healthcheck(service: dict[str, Any]) -> list[str]:
    """Return the command of a service's own health check, or else that of the image."""
    own = service.get("healthcheck")
    if own:
        return [str(one) for one in own["test"][1:]]
    found = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", CONTAINERFILE.read_text(), re.M)
    assert found is not None
    return [str(one) for one in yaml.safe_load(found[1])]


def first_program(servers: str) -> str:
    """Return the first program of the README, for this cluster."""
    (program,) = re.findall(
        r"```python\n(import asyncio\n.*?)```", (ROOT / "README.md").read_text(), re.S
    )
    assert 'bootstrap_servers="localhost:7092"' in program
    return str(program).replace("localhost:7092", servers)


def through_kafka(servers: str) -> bytes | None:
    """Write a record and read it in a group, with a client of Kafka."""
    producer = Producer({"bootstrap.servers": servers})
    producer.produce("events", b"9.50")
    assert producer.flush(PATIENCE_S) == 0
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": "billing", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["events"])
    message = consumer.poll(PATIENCE_S)
    consumer.close()
    assert message is not None
    assert message.error() is None, message.error()
    return message.value()
