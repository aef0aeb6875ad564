"""Apache Kafka's jars, by Maven, and the Java programs that run on them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

BUILD = Path(__file__).parents[2] / "build" / "compat"
POM = Path(__file__).parent / "java" / "pom.xml"
SOURCES = POM.parent
LIB = BUILD / "jars"
CLASSES = BUILD / "classes"
BRING_S = 900
#: Most of these programs are small and do not run for long.
JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")


def bring() -> None:
    """Copy the jars into build/compat, if they are not those of the pom yet, and compile."""
    stamp = LIB / ".pom"
    if not stamp.exists() or stamp.read_text() != POM.read_text():
        need("mvn", "Apache Maven")
        shutil.rmtree(LIB, ignore_errors=True)
        LIB.mkdir(parents=True)
        goal = [
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={LIB}",
        ]
        subprocess.run(["mvn", "-q", "-B", "-f", str(POM), *goal], check=True, timeout=BRING_S)
        stamp.write_text(POM.read_text())
    need("javac", "a JDK of 17 or newer")
    sources = sorted(map(str, SOURCES.glob("*.java")))
    subprocess.run(
        ["javac", "-d", str(CLASSES), "-cp", f"{LIB}/*", *sources], check=True, timeout=BRING_S
    )


def java(main: str, *arguments: object, heap: str = "256m", flags: Sequence[str] = ()) -> list[str]:
    """Return the command that runs a class of the jars, or one of ours."""
    path = f"{CLASSES}:{LIB}/*"
    return ["java", f"-Xmx{heap}", *JVM, *flags, "-cp", path, main, *map(str, arguments)]


def version() -> str:
    """Return the version of Kafka's jars, as the pom names it."""
    return POM.read_text().partition("<kafka.version>")[2].partition("<")[0]


def need(program: str, what: str) -> None:
    """End the run with a sentence if a program of this machine is missing."""
    if shutil.which(program) is None:
        raise SystemExit(f"{program} is not in PATH: this suite needs {what}; install it")
