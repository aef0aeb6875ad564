"""librdkafka's test suite, from the npm package that bundles its sources."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.compat import jars
from tests.compat.results import Case
from tests.compat.servers import Servers

PACKAGE = "@confluentinc/kafka-javascript"
VERSION = "1.10.1"
ARCHIVE = f"confluentinc-kafka-javascript-{VERSION}.tgz"
HOME = jars.BUILD / f"librdkafka-{VERSION}"
SOURCES = HOME / "package" / "deps" / "librdkafka"
TESTS = SOURCES / "tests"
CONFIGURE = ("--disable-ssl", "--disable-gssapi", "--disable-curl", "--disable-lz4-ext")
BRING_S = 1800
TEST_S = 180
#: What each of these needs, and neither cluster of this suite has.
LEAVES_OUT = {
    "0097_ssl_verify": "TLS",
    "0098_consumer_txn": "a Java program",
    "0103_transactions": "transactions",
    "0126_oauthbearer_oidc": "OAuth",
    "0129_fetch_aborted_msgs": "transactions",
    "0135_sasl_credentials": "SASL",
    "0142_reauthentication": "SASL",
}
SHARE = re.compile(r"_share_consumer_")
#: Tests that need no broker, are started by hand, or need a library that is not built.
NO_BROKER = re.compile(r"F_(LOCAL|MANUAL|SOCKEM)")
DECLARED = re.compile(r"^ {4}_TEST\((\d{4}_\w+),\s*([^,)]+)", re.MULTILINE)


def run(servers: Servers, folder: Path, only: list[str]) -> Iterator[Case]:
    """Run each test that needs a broker as a process of its own."""
    _bring()
    conf = folder / "test.conf"
    conf.write_text(f"bootstrap.servers={servers.bootstrap}\n")
    for name in _names():
        if only and not any(name.startswith(one) for one in only):
            continue
        reason = "share groups" if SHARE.search(name) else LEAVES_OUT.get(name)
        yield Case(name, "skipped", f"needs {reason}") if reason else _test(name, conf)


def _names() -> list[str]:
    """Return the tests that need a broker, in the order in which they are declared."""
    declared = DECLARED.findall((TESTS / "test.c").read_text())
    return [name for name, flags in declared if not NO_BROKER.search(flags)]


def _test(name: str, conf: Path) -> Case:
    environment = {
        **os.environ,
        "TESTS": name,
        "RDKAFKA_TEST_CONF": str(conf),
        "TEST_KAFKA_VERSION": "4.3.0",
        "LD_LIBRARY_PATH": f"{SOURCES / 'src'}:{SOURCES / 'src-cpp'}",
    }
    log = conf.parent / f"{name}.log"
    command = ["./test-runner", "-p1", "-Q", "-E", "-L"]
    with log.open("wb") as output:
        try:
            subprocess.run(
                command, cwd=TESTS, env=environment, stdout=output, stderr=output, timeout=TEST_S,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Case(name, "failed", f"it did not end within {TEST_S} s")
    text = log.read_text(errors="replace")
    outcome = re.search(rf"\|\s+{name}\s+\|\s+(\w+)", text)
    found = outcome[1] if outcome else "CRASHED"
    if found == "PASSED":
        return Case(name, "passed")
    if found == "SKIPPED":
        return Case(name, "skipped", _reason(text, "skip"))
    return Case(name, "failed", _reason(text, "fail"))


def _reason(text: str, word: str) -> str:
    """Return the first line of a log that tells why."""
    lines = [line for line in text.splitlines() if re.search(word, line, re.IGNORECASE)]
    return re.sub(r"\x1b\[[\d;]*m", "", lines[0])[:600] if lines else text[-300:]


def _bring() -> None:
    """Bring and build the sources, if they are not there."""
    if (TESTS / "test-runner").exists():
        return
    jars.need("npm", "Node.js of 18 or newer")
    jars.need("g++", "a C++ compiler and make")
    HOME.mkdir(parents=True, exist_ok=True)
    pack = ["npm", "pack", "-s", f"{PACKAGE}@{VERSION}"]
    subprocess.run(pack, cwd=HOME, check=True, timeout=BRING_S)
    shutil.unpack_archive(HOME / ARCHIVE, HOME, "gztar")
    for command in (
        ["./configure", *CONFIGURE],
        ["make", "-s", "-j2", "libs"],
        ["make", "-s", "-j2", "-C", "tests", "test-runner"],
    ):
        with (HOME / "build.log").open("ab") as output:
            subprocess.run(
                command, cwd=SOURCES, check=True, timeout=BRING_S, stdout=output, stderr=output
            )
