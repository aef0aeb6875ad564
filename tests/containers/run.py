"""`make container-test`: build the image, and run compose.yaml with it.

It needs Docker with Compose of version 2, or Podman with podman-compose; a registry, or the
Containerfile's base as a local image; the ports of compose.yaml; and a package index for the build.
It makes a project of its own, and removes it at the end.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.cluster.compose_page import (
    COMPOSE,
    CONTAINERFILE,
    ROOT,
    first_program,
    healthcheck,
    services,
    through_kafka,
)

#: The longest time of one step; only a hang takes so long.
STEP_S = 900
#: How long nodes may take to get healthy, and the wait between two questions.
HEALTHY_S = 240
PAUSE_S = 2
PROJECT = "quorate-test"
SERVERS, KAFKA = "127.0.0.1:7092", "127.0.0.1:9192"
#: Prints the user, and the capabilities that are left; then it tries to write beside the volume.
LIMITS = "id -u; sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status; ! touch /x 2>/dev/null"


class Failed(Exception):
    """A step went wrong; the text says which, and what it printed."""


def run(*command: str, is_tried: bool = False) -> str:
    """Return what a program printed. Raises Failed if it fails and is not only tried."""
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=STEP_S, check=False,
    )  # fmt: skip
    if done.returncode != 0 and not is_tried:
        raise Failed(
            f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout if done.returncode == 0 else ""


class Engine:
    """The container engine of this machine, and its Compose."""

    def __init__(self) -> None:
        """Raise Failed if there is none that runs."""
        if shutil.which("docker") and run("docker", "compose", "version", is_tried=True):
            self._build = ["docker", "build"]
            compose = ["docker", "compose"]
        elif shutil.which("podman") and shutil.which("podman-compose"):
            # the OCI format, which is Podman's default, has no health check
            self._build = ["podman", "build", "--format", "docker"]
            compose = ["podman-compose"]
        else:
            raise Failed(
                "this needs `docker compose` (version 2), or podman and podman-compose, in PATH"
            )
        self._compose = [*compose, "-p", PROJECT, "-f", str(COMPOSE)]

    def build(self, options: Sequence[str]) -> None:
        """Build the image `quorate`."""
        run(*self._build, *options, "-f", str(CONTAINERFILE), "-t", "quorate", str(ROOT))

    def compose(self, *words: str, is_tried: bool = False) -> str:
        """Run a command of Compose for the project."""
        return run(*self._compose, *words, is_tried=is_tried)

    @contextmanager
    def project(self) -> Iterator[None]:
        """Remove the containers and the volume at the end."""
        try:
            yield
        finally:
            self.compose("down", "--volumes", is_tried=True)

    def up(self) -> None:
        """Start all services, and wait until each node is healthy by its own check."""
        self.compose("up", "-d", "--no-build")
        end = time.monotonic() + HEALTHY_S
        for name, service in services().items():
            if name == "format":
                continue
            check = " ".join(healthcheck(service))
            while not self.compose(
                "exec", "-T", name, "sh", "-c", f"{check} >&2 && echo healthy", is_tried=True
            ):
                if time.monotonic() > end:
                    raise Failed(f"{name} is not healthy after {HEALTHY_S} s")
                time.sleep(PAUSE_S)


def check(engine: Engine, build_options: Sequence[str]) -> None:
    """Run all steps."""
    say("build the image")
    engine.build(build_options)
    with engine.project():
        say("start all services; wait until each is healthy")
        engine.up()
        say("a node is not root, has no capability, and cannot write beside its volume")
        found = engine.compose("exec", "-T", "broker-0", "sh", "-c", LIMITS).split()
        if found != ["10001", "0" * 16]:
            raise Failed(f"the user and the capabilities of broker-0 are {found}")
        say("the first program of the README, and a Kafka client")
        printed = run(sys.executable, "-c", first_program(SERVERS))
        if not printed.startswith("invoice "):
            raise Failed(f"the first program of the README printed {printed!r}")
        if (value := through_kafka(KAFKA)) != b"9.50":
            raise Failed(f"written through Kafka was 9.50, and read was {value!r}")
        say("remove the containers; start new ones on the same volume")
        engine.compose("down")
        engine.up()
        read = ("quorate", "topic", "consume", "invoice", "--from-beginning", "--until-end")
        words = (*read, "--bootstrap", "broker-0:7090")
        printed = engine.compose("exec", "-T", "broker-0", *words)
        if "customer-42" not in printed:
            raise Failed(f"the record is gone: {printed!r} was read")
    say("done")


def say(step: str) -> None:
    """Print what is done next."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {step}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; return the exit status."""
    parser = argparse.ArgumentParser(description=textwrap.dedent(__doc__ or ""))
    parser.add_argument(
        "--build-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="for the engine's build, as --build-option=--network=host; may be repeated",
    )
    options = parser.parse_args(arguments)
    try:
        check(Engine(), options.build_option)
    except Failed as failed:
        sys.stderr.write(f"{failed}\n")
        return 1
    sys.stdout.write("1 passed, 0 failed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
