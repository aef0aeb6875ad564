"""What holds for every test of this folder."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from quorate_testing import EmbeddedCluster

# A busy machine draws slowly, and that is no fault.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")

# A shell starts what it runs in the background with SIGINT ignored, and programs that tests start
# would inherit that: Ctrl-C could not end them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def logging_of_its_own() -> Iterator[None]:
    """Begin and end with structlog's defaults, and with the standard library's loggers enabled.

    Both belong to the process. A command that a test ran here, the completion of the shell, or a
    scene that went quiet, would otherwise hide the lines that the next test looks for.
    """
    structlog.reset_defaults()
    logging.disable(logging.NOTSET)
    yield
    structlog.reset_defaults()
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def quorate_cluster() -> Iterator[EmbeddedCluster]:
    """Return the cluster of Quorate's pytest plugin, but for one module and not for the session.

    Its nodes run in a thread of this process. Other modules have tests that count what the process
    does, for example the batch headers that it parses in one turn.
    """
    with EmbeddedCluster() as cluster:
        yield cluster
