"""`make package-test`: build the wheel and the sdist, install the wheel alone, and use it.

The sdist is built from the repository, and the wheel from the sdist: so the sdist holds all that a
build needs; the sdist's own tests are started, too. Everything afterwards runs in new virtual
environments, in a folder outside the repository: one for the running Python, and one for each
other version of `pythons.VERSIONS` that this machine has. It needs a package index, as pip is
configured.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.package import archives, pythons, sizes

#: The longest time of one step; only a hang takes so long.
STEP_S = 600

IMPORTS = """
import pathlib, sys
import quorate, quorate.sync, quorate_broker, quorate_cli, quorate_quorum, quorate_testing
home = pathlib.Path(sys.prefix)
for package in (quorate, quorate_broker, quorate_cli, quorate_quorum, quorate_testing):
    assert home in pathlib.Path(package.__file__).parents, package.__file__
"""
EMBEDDED = """
from quorate.sync import Consumer, Producer
from quorate_testing import EmbeddedCluster

with EmbeddedCluster() as cluster:
    cluster.create_topic("invoice", 1)
    with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        producer.send_and_wait("invoice", b"9.50", key=b"customer-42")
    with Consumer(
        "invoice", bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        record = next(iter(consumer))
        assert (record.key, record.value) == (b"customer-42", b"9.50"), record
"""
#: Started from the unpacked sdist: tests that need little time, and Quorate of the sdist itself.
SDIST_TESTS = ("tests/house/test_make.py", "tests/unit/quorate/serializers")
SDIST_ROOTS = ("clients", "quorum", "broker")
PLUGIN = """
from quorate.sync import Producer


def test_it_writes(quorate_cluster, quorate_topic):
    with Producer(bootstrap_servers=quorate_cluster.bootstrap_servers) as producer:
        assert producer.send_and_wait(quorate_topic, b"9.50").offset == 0
"""


class Failed(Exception):
    """A step went wrong; the text says which, and what it printed."""


class Away:
    """A folder outside the repository, where programs run without its variables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "QUORATE_", "VIRTUAL_ENV"))
        }

    def run(self, *command: str | Path, stdin: str = "") -> str:
        """Run a program; return its standard output. Raises Failed if its status is not 0."""
        done = subprocess.run(
            command, cwd=self.folder, env=self._env, input=stdin,
            capture_output=True, text=True, timeout=STEP_S, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise Failed(f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def venv(self, python: str, name: str) -> Path:
        """Make a virtual environment; return its directory of programs."""
        self.run(python, "-m", "venv", self.folder / name)
        return self.folder / name / "bin"

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        """Start a program whose standard output is read."""
        return subprocess.Popen(
            command, cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip


def build(away: Away, python: str) -> tuple[Path, Path]:
    """Return the wheel and the sdist."""
    programs = away.venv(python, "build")
    away.run(programs / "pip", "install", "--quiet", "build")
    dist = away.folder / "dist"
    away.run(programs / "python", "-m", "build", "--outdir", dist, archives.ROOT)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    return wheel, sdist


def check_archives(wheel: Path, sdist: Path) -> None:
    """Raise Failed if a file is missing or too many."""
    faults = archives.wheel_faults(wheel) + archives.sdist_faults(sdist)
    if faults:
        raise Failed("\n".join(faults))


def check_sdist(away: Away, sdist: Path) -> None:
    """Unpack the sdist, and run some of its tests on its own sources, with this Python's tools."""
    unpacked = away.folder / "sdist"
    unpacked.mkdir()
    away.run("tar", "-xf", sdist, "-C", unpacked)
    (top,) = unpacked.iterdir()
    path = os.pathsep.join(str(top / one) for one in SDIST_ROOTS)
    pytest: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--rootdir",
        top,
        "-c",
        top / "pyproject.toml",
    ]
    imported = f"import quorate; assert quorate.__file__.startswith({str(top)!r}), quorate.__file__"
    away.run("env", f"PYTHONPATH={path}", sys.executable, "-c", imported)
    printed = away.run("env", f"PYTHONPATH={path}", *pytest, *(top / one for one in SDIST_TESTS))
    if " passed" not in printed:
        raise Failed(printed)


def check_up(away: Away, programs: Path) -> None:
    """Start `quorate up --embedded`; write and read a record with the command; stop it."""
    quorate = programs / "quorate"
    up = away.start(quorate, "up", "--embedded", "--port", "0", "--kafka-port", "off")
    watch = threading.Timer(STEP_S, up.kill)  # readline has no time-out of its own
    watch.start()
    try:
        assert up.stdout is not None
        ready = up.stdout.readline()
        if "are ready: " not in ready:
            raise Failed(f"`quorate up --embedded` did not get ready: {ready!r}")
        servers = ("--bootstrap", ready.rpartition(" ")[2].strip())
        away.run(quorate, "topic", "create", "events", *servers)
        away.run(quorate, "topic", "produce", "events", *servers, stdin="one\ntwo\n")
        wanted = ("topic", "consume", "events", "--from-beginning", "--until-end")
        found = away.run(quorate, *wanted, *servers)
        if [line.split()[-1] for line in found.splitlines()] != ["one", "two"]:
            raise Failed(f"two records were written, and read was {found!r}")
        up.send_signal(signal.SIGINT)
        if up.wait(STEP_S) != 0:
            raise Failed(f"`quorate up --embedded` ended with {up.returncode}")
    finally:
        watch.cancel()
        up.kill()
        up.wait()


def check_plugin(away: Away, programs: Path) -> None:
    """Install pytest beside it: the fixtures are found without any configuration."""
    away.run(programs / "pip", "install", "--quiet", "pytest")
    test = away.folder / "test_plugin.py"
    test.write_text(PLUGIN)
    printed = away.run(programs / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", test)
    if "1 passed" not in printed:
        raise Failed(printed)


def check(away: Away, python: str, others: Sequence[str]) -> str:
    """Run all steps; return the table of sizes of the first Python's environment."""
    say = Steps()
    say("build the sdist, and the wheel from it")
    wheel, sdist = build(away, python)
    say("compare their files with the repository's")
    check_archives(wheel, sdist)
    say("start tests of the sdist")
    check_sdist(away, sdist)
    table = check_wheel(away, say, wheel, python)
    for other in others:
        check_wheel(away, say, wheel, other)
    say("done")
    return table


class Steps:
    """Prints each step when it begins."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, step: str) -> None:
        sys.stdout.write(f"{time.monotonic() - self._started:5.0f} s  {step}\n")
        sys.stdout.flush()


def check_wheel(away: Away, say: Steps, wheel: Path, python: str) -> str:
    """Install the wheel for a Python, and use it; return the table of sizes."""
    version = pythons.version_of(python)
    if version is None:
        raise Failed(f"{python} does not run, or cannot build a virtual environment")
    say(f"Python {version}: install the wheel into an empty environment")
    programs = away.venv(python, f"installed-{version}")
    away.run(programs / "pip", "install", "--quiet", wheel)
    away.run(programs / "pip", "check")
    table = away.run(programs / "python", "-I", sizes.__file__)
    say("import it, and run its commands")
    away.run(programs / "python", "-c", IMPORTS)
    for command in ("quorate", "quorate-quorum", "quorate-broker"):
        away.run(programs / command, "--version")
    say("an embedded cluster: write and read a record")
    away.run(programs / "python", "-W", "error", "-c", EMBEDDED)
    say("quorate up --embedded: write and read with the command")
    check_up(away, programs)
    say("the plugin of pytest")
    check_plugin(away, programs)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; return the exit status."""
    parser = argparse.ArgumentParser(description=textwrap.dedent(__doc__ or ""))
    parser.add_argument("--python", help="build and run with this Python alone")
    options = parser.parse_args(arguments)
    others, missing = ([], []) if options.python else pythons.others()
    folder = Path(tempfile.mkdtemp(prefix="quorate-package-"))
    try:
        sys.stdout.write(check(Away(folder), options.python or sys.executable, others))
    except Failed as failed:
        sys.stderr.write(f"{failed}\n")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for version in missing:
        sys.stdout.write(
            f"NOT TRIED: Python {version}. It is neither in PATH nor a version of pyenv.\n"
        )
    sys.stdout.write("1 passed, 0 failed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
