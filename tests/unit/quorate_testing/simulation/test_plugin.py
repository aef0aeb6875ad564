"""The fixture, the marker and the option of pytest for tests in virtual time."""

from __future__ import annotations

import re

import pytest

TESTS = """
import asyncio
import pytest
from quorate_testing import SimulatedCluster

async def test_the_fixture_makes_the_test_virtual(quorate_simulation, tmp_path):
    await asyncio.sleep(100)
    assert quorate_simulation.clock.now > 100

@pytest.mark.quorate_simulation(voters=3, brokers=3, seed=5)
async def test_the_marker_has_the_shape(quorate_simulation):
    assert quorate_simulation.running == (100, 101, 102, 0, 1, 2)
    assert quorate_simulation.seed == 5

@pytest.mark.quorate_simulation(seed=3)
@pytest.mark.parametrize("brokers", [1, 2])
async def test_the_marker_alone(brokers):
    async with SimulatedCluster(brokers=brokers) as cluster:
        assert cluster.seed == 3

class TestClass:
    async def test_a_method(self, quorate_simulation):
        assert isinstance(self, TestClass)
        quorate_simulation.faults.kill(0)
        await quorate_simulation.start_broker(0)

def test_a_test_that_blocks(quorate_simulation):
    quorate_simulation.clock.advance(5)
"""

FAILING = """
async def test_virtual(quorate_simulation):
    quorate_simulation.faults.kill(0)
    assert quorate_simulation.seed == 77

def test_blocking(quorate_simulation):
    assert quorate_simulation.seed == 77
"""

USUAL = ("-q", "-W", "error", "-p", "no:cacheprovider")
WITH_ASYNCIO = ("-o", "asyncio_default_fixture_loop_scope=function")


@pytest.mark.parametrize(
    "options",
    [
        ("-p", "no:asyncio"),
        (*WITH_ASYNCIO, "-o", "asyncio_mode=auto"),
        (*WITH_ASYNCIO, "-o", "asyncio_mode=strict"),
        ("-p", "no:asyncio", "-n", "2"),
    ],
    ids=" ".join,
)
def test_tests_in_virtual_time(options: tuple[str, ...], pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    done = pytester.runpytest_subprocess(*USUAL, "--strict-markers", *options)
    done.assert_outcomes(passed=6)


def test_a_failed_test_shows_its_seed_and_the_option_takes_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING)
    done = pytester.runpytest_subprocess(*USUAL, "-p", "no:asyncio")
    done.assert_outcomes(failed=2)
    seeds = re.findall(
        r"^E +simulated cluster: seed (\d+), .*--quorate-seed=\1$", done.stdout.str(), re.MULTILINE
    )
    assert len(set(seeds)) == 2
    assert "kill broker-0" in done.stdout.str()
    options = ("-p", "no:asyncio", "--quorate-seed=77")
    pytester.runpytest_subprocess(*USUAL, *options).assert_outcomes(passed=2)
    wrong = pytester.runpytest_subprocess(*USUAL, "-p", "no:asyncio", "--quorate-seed=x")
    wrong.stderr.fnmatch_lines(["*--quorate-seed must be a whole number from 0 to *, not 'x'*"])


def test_a_marker_with_wrong_arguments_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.quorate_simulation(7)
        async def test_by_place(quorate_simulation):
            pass

        @pytest.mark.quorate_simulation(brokers=3)
        async def test_without_the_fixture():
            pass
        """
    )
    done = pytester.runpytest_subprocess(*USUAL, "-p", "no:asyncio")
    done.assert_outcomes(failed=1, errors=1)
    said = done.stdout.str()
    assert "arguments must be given by name, as seed=7, not (7,)" in said
    assert "give brokers to SimulatedCluster in the test" in said
