"""The pytest plugin that comes with Quorate: clusters as fixtures, and tests in virtual time.

It costs a run that uses none of them nothing: the servers are imported when a fixture is used
first.
"""

from __future__ import annotations

import inspect
import re
import sys
import uuid
from argparse import ArgumentTypeError
from collections.abc import Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from quorate_testing import EmbeddedCluster, SimulatedCluster

#: Of a test's name in that of its topic.
NAME_CHARACTERS_MAX = 60
#: The name of the fixture and of the marker of tests in virtual time.
SIMULATION = "quorate_simulation"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that replays a simulation."""
    parser.getgroup("quorate").addoption(
        "--quorate-seed",
        type=_seed,
        metavar="SEED",
        help="the seed of simulated clusters that name none; a failed test prints its seed",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and take the seed of the command line."""
    config.addinivalue_line(
        "markers",
        f"{SIMULATION}(seed=None, voters=1, brokers=1, ...): run the test in virtual time; the"
        f" arguments are those of SimulatedCluster, for the fixture of the same name",
    )
    _use_seed(config.getoption("--quorate-seed"))


def pytest_unconfigure() -> None:
    """Forget the seed, for another run in this process."""
    _use_seed(None)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an asynchronous test in virtual time if it has the marker or the fixture."""
    marker = pyfuncitem.get_closest_marker(SIMULATION)
    if marker is None and SIMULATION not in pyfuncitem.fixturenames:
        return None
    # A plugin for asyncio may have wrapped the test, to run it in a real event loop.
    test = inspect.unwrap(pyfuncitem.obj, stop=inspect.iscoroutinefunction)
    if not inspect.iscoroutinefunction(test):
        return None
    arguments: dict[str, Any] = pyfuncitem.funcargs
    main = partial(test, **{name: arguments[name] for name in pyfuncitem._fixtureinfo.argnames})
    if SIMULATION in arguments:
        arguments[SIMULATION].run(main)
        return True
    from quorate_testing import run_simulated

    run_simulated(main, **_arguments(pyfuncitem, ("seed", "time_limit_s")))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Let the error of a test that has the fixture name the seed."""
    try:
        return (yield)
    except BaseException as error:
        cluster = getattr(item, "funcargs", {}).get(SIMULATION)
        if cluster is not None:
            cluster._world.explain(error)
        raise


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


@pytest.fixture
def quorate_simulation(request: pytest.FixtureRequest) -> Iterator[SimulatedCluster]:
    """Return a new SimulatedCluster that runs, of the shape that the marker names.

    A test that is asynchronous runs in its virtual time. Another one calls `.run()`.
    """
    from quorate_testing import SimulatedCluster

    with SimulatedCluster(**_arguments(request.node)) as cluster:
        yield cluster


def _arguments(item: Any, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the arguments of the marker; with `names`, only these are allowed."""
    marker = item.get_closest_marker(SIMULATION)
    if marker is None:
        return {}
    if marker.args:
        raise pytest.UsageError(
            f"@pytest.mark.{SIMULATION}: arguments must be given by name, as seed=7,"
            f" not {marker.args!r}"
        )
    wrong = sorted(set(marker.kwargs) - set(names)) if names else []
    if wrong:
        raise pytest.UsageError(
            f"@pytest.mark.{SIMULATION}: give {', '.join(wrong)} to SimulatedCluster in the test,"
            f" or let the test take the fixture {SIMULATION}"
        )
    return dict(marker.kwargs)


def _seed(text: str) -> int:
    from quorate_testing.seeds import SEED

    given = int(text) if text.isdecimal() else text
    try:
        return SEED.check("pytest", "--quorate-seed", given)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(error) from None


def _use_seed(seed: int | None) -> None:
    if seed is not None or "quorate_testing.seeds" in sys.modules:
        from quorate_testing.seeds import use_seed

        use_seed(seed)
