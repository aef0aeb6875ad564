"""The pytest plugin that comes with Quorate: `quorate_cluster` and `quorate_topic`.

It costs a run that uses neither nothing: the servers are imported when a fixture is used first.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from quorate_testing import EmbeddedCluster

#: Of a test's name in that of its topic.
NAME_CHARACTERS_MAX = 60


@pytest.fixture(scope="session")
def quorate_cluster() -> Iterator[EmbeddedCluster]:
    """Return a cluster of one voter and one broker in this process, with its data in memory.

    All tests of the session share it, and tests that crash nodes should make their own
    (`quorate_testing.EmbeddedCluster`). `.bootstrap_servers` and `.kafka_bootstrap_servers` are its
    addresses.
    """
    from quorate_testing import EmbeddedCluster

    with EmbeddedCluster() as cluster:
        yield cluster


@pytest.fixture
def quorate_topic(
    quorate_cluster: EmbeddedCluster, request: pytest.FixtureRequest
) -> Iterator[str]:
    """Return the name of a new topic of one partition on `quorate_cluster`.

    It is deleted after the test, if the test has not deleted it.
    """
    from quorate.errors import UnknownTopicError

    test = re.sub(r"[^a-zA-Z0-9._-]", "-", request.node.name)[:NAME_CHARACTERS_MAX]
    name = f"{test}-{uuid.uuid4().hex[:8]}"
    quorate_cluster.create_topic(name)
    yield name
    try:
        quorate_cluster.delete_topic(name)
    except UnknownTopicError:
        return
