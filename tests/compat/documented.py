"""The programs of docs/kafka-clients.md in Java, Go and JavaScript, as they stand there.

Those in Python are run by `make test`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.compat import jars
from tests.compat.clients import HERE, bring_js
from tests.compat.results import Case
from tests.compat.servers import Servers

PAGE = Path(__file__).parents[2] / "docs" / "kafka-clients.md"
PROGRAM = re.compile(
    r"^## (\S+)\n\n(?:<!-- [^\n]* -->\n)?```(java|go|js)\n(.*?)```", re.MULTILINE | re.DOTALL
)
BUILD_S = 900
RUN_S = 180
EXPECTED = sorted(f"invoice {number}" for number in range(10))


def run(servers: Servers, folder: Path, only: list[str]) -> Iterator[Case]:
    """Run each program against the first broker, with a topic of its own."""
    for client, language, program in PROGRAM.findall(PAGE.read_text()):
        if only and client not in only:
            continue
        home = folder / client
        home.mkdir()
        command = BUILDS[language](program, home)
        yield _ran(client, [*command, servers.bootstrap.split(",")[0], f"documented-{client}"])


def _ran(client: str, command: Sequence[str]) -> Case:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)
    except subprocess.TimeoutExpired as error:
        return Case(client, "failed", f"it did not end within {RUN_S} s: {error.stdout!r}"[:1500])
    read = sorted(line.split(maxsplit=2)[-1] for line in done.stdout.splitlines())
    if done.returncode or read != EXPECTED:
        return Case(
            client, "failed", f"status {done.returncode}: {done.stdout}{done.stderr}"[:1500]
        )
    return Case(client, "passed")


def _java(program: str, home: Path) -> list[str]:
    source = home / "Invoices.java"
    source.write_text(program)
    build = ["javac", "-d", str(home), "-cp", f"{jars.LIB}/*", str(source)]
    subprocess.run(build, check=True, timeout=BUILD_S)
    return ["java", *jars.JVM, "-cp", f"{home}:{jars.LIB}/*", "Invoices"]


def _go(program: str, home: Path) -> list[str]:
    jars.need("go", "Go of 1.25 or newer")
    for name in ("go.mod", "go.sum"):
        shutil.copy(HERE / "go" / name, home)
    (home / "main.go").write_text(program)
    build = ["go", "build", "-mod=mod", "-o", "program", "."]
    subprocess.run(build, cwd=home, check=True, timeout=BUILD_S)
    return [str(home / "program")]


def _js(program: str, home: Path) -> list[str]:
    source = bring_js() / f"{home.name}.js"
    source.write_text(program)
    return ["node", str(source)]


BUILDS = {"java": _java, "go": _go, "js": _js}
