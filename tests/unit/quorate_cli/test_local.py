"""A local cluster: what it says of itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape


def test_a_cluster_that_is_not_ready_says_how_long_it_was_waited_for(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path, Shape(voters=1, brokers=1, port=0))
    waits = [sys.executable, "-c", "input()"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE) as silent:
        cluster.processes[0] = silent
        with pytest.raises(TimeoutError, match=r"the cluster was not ready within 0\.1 s"):
            asyncio.run(cluster.wait_ready(timeout=0.1))


def test_kafka_clients_take_the_addresses_as_they_are_printed(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path, Shape(voters=1, brokers=2, port=0, kafka_port=0))
    ports = [broker.kafka for broker in cluster.brokers]
    assert cluster.kafka_servers == ",".join(ports)
    assert "//" not in cluster.kafka_servers
