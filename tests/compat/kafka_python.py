"""kafka-python's integration suite, from its source distribution.

It is written for one broker. With three, some cases pass by chance, on both servers: one expects
the records of all brokers in one poll, others ask one broker for a topic that another has made.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from tests.compat import jars
from tests.compat.results import Case, Outcome
from tests.compat.servers import Servers, Setup

VERSION = "3.0.12"
NEEDS = ("pytest==9.2.0", "pytest-timeout==2.4.0", "pytest-mock==3.15.1")
CODECS = ("zstandard==0.25.0", "lz4==4.4.5", "python-snappy==0.7.3", "crc32c==2.9.post0")
BRING_S = 900
SUITE_S = 3600
FOLDER = "test/integration/"
#: By a signal: the other method, a thread, ends the whole run, and there is no report.
TIMEOUT = ("--timeout=120", "--timeout-method=signal")
#: As the suite's own broker: a test writes to partition 1 of a topic that it does not create.
SETUPS = (Setup({"num.partitions": "4"}, brokers=1),)
#: They start brokers of their own, with TLS and SASL.
LEAVES_OUT = ("test_sasl_integration.py", "test_ssl_integration.py")

#: Stands for a broker that runs already. The suite starts none.
SERVICE = """
class ExternalService:
    def __init__(self, host, port):
        self.host, self.port = host, port

    def close(self):
        pass


SpawnedService = None
"""


def run(servers: Servers, folder: Path, only: list[str]) -> Iterator[Case]:
    """Run pytest in the sources, and pass on what its report says."""
    sources, python = _bring()
    report = folder / "report.xml"
    address = servers.bootstrap.split(",")[0]
    environment = {
        **os.environ,
        "KAFKA_URI": f"kafka://{address}",
        "KAFKA_VERSION": "4.3.0",
        # It must be a folder; nothing of it is used.
        "KAFKA_ROOT": str(folder),
        "PYTHONPATH": str(sources),
    }
    ignored = [f"--ignore={FOLDER}{name}" for name in LEAVES_OUT]
    chosen = [FOLDER + name.replace("::", ".py::", 1) for name in only] or [FOLDER]
    with (folder / "pytest.log").open("wb") as output:
        subprocess.run(
            [str(python), "-m", "pytest", *chosen, *TIMEOUT, *ignored,
             f"--junitxml={report}", "-o", "junit_logging=no"],
            cwd=sources, env=environment, stdout=output, stderr=output, timeout=SUITE_S,
            check=False,
        )  # fmt: skip
    yield from cases_of(report)


def _bring() -> tuple[Path, Path]:
    """Return the folder of the sources, and a Python that has what they need."""
    sources = jars.BUILD / f"kafka_python-{VERSION}"
    python = jars.BUILD / "kafka-python" / "bin" / "python"
    if not sources.exists():
        wanted = ["--no-deps", "--no-binary", "kafka-python", f"kafka-python=={VERSION}"]
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
        download = [*pip, "download", "-d", str(jars.BUILD), *wanted]
        subprocess.run(download, check=True, timeout=BRING_S)
        shutil.unpack_archive(f"{sources}.tar.gz", jars.BUILD)
    # The distribution leaves these two files out.
    (sources / "test" / "__init__.py").touch()
    (sources / "test" / "service.py").write_text(SERVICE)
    if not python.exists():
        subprocess.run(
            [sys.executable, "-m", "venv", str(python.parents[1])], check=True, timeout=BRING_S
        )
        install = [str(python), "-m", "pip", "install", "-q", *NEEDS, *CODECS]
        subprocess.run(install, check=True, timeout=BRING_S)
    return sources, python


def cases_of(report: Path) -> Iterator[Case]:
    """Return the cases of a JUnit report."""
    for found in ElementTree.parse(report).iter("testcase"):
        name = f"{found.get('classname', '').rpartition('.')[2]}::{found.get('name')}"
        outcome: Outcome = "passed"
        note = ""
        for child in found:
            if child.tag in ("failure", "error"):
                outcome, note = "failed", (child.get("message") or "")[-1500:]
            elif child.tag == "skipped":
                outcome, note = "skipped", (child.get("message") or "")[-300:]
        yield Case(name, outcome, note)
