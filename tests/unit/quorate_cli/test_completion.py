"""`quorate completion`: what a shell gets at Tab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quorate_cli import completion
from quorate_cli.completion import SHELLS
from tests.cluster.support import PATIENCE_S, run_here
from tests.unit.quorate_cli.commands import Quorate

RUN = (sys.executable, "-c", "from quorate_cli.app import main; main()")


def complete(line: str, shell: str = "zsh", **env: str) -> str:
    """Return what the script of zsh or fish gets for a line that ends at the cursor."""
    asked = {
        "_QUORATE_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        RUN,
        env={**os.environ, **asked, **env},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_asks_the_command(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    said = run_here(["completion", shell], capfd, b"")
    assert (said.status, said.err) == (0, "")
    assert f"_QUORATE_COMPLETE=complete_{shell}" in said.out


def test_another_shell_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    said = run_here(["completion", "csh"], capfd, b"")
    assert (said.status, said.out) == (2, "")
    assert said.err == "quorate: the shell must be bash, zsh or fish, not 'csh'\n"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_commands_that_are_imported_later_are_completed(shell: str) -> None:
    assert "quorum" in complete("quorate ", shell)
    found = complete("quorate topic t", shell)
    assert "tail" in found
    assert "trim" in found
    assert "copy" not in found
    assert "--from-bootstrap" in complete("quorate topic copy --from", shell)


def test_topics_and_groups_are_those_of_the_cluster(quorate: Quorate) -> None:
    topic = quorate.topic()
    at = f"--bootstrap {quorate.servers}"
    assert topic in complete(f"quorate topic describe {at} t-", "fish").split()
    assert complete(f"quorate topic describe {at} other-", "fish").strip() == ""
    quorate.write(topic, [{"value": b"x"}])
    read = ("--from-beginning", "--count", "1", "--group", f"g-{topic}")
    assert quorate("topic", "consume", topic, *read).status == 0
    found = complete("quorate group describe g-", "fish", QUORATE_BOOTSTRAP=quorate.servers)
    assert f"g-{topic}" in found.split()


def test_partitions_are_those_of_a_topic_after_its_slash(quorate: Quorate) -> None:
    topic = quorate.topic()
    for line in (
        *("partition move", "partition cancel", "partition elect"),
        *("group seek g --topic", "cluster config --topic"),
    ):
        found = complete(f"quorate {line} t-", "fish", QUORATE_BOOTSTRAP=quorate.servers)
        assert topic in found.split(), line
    line = f"quorate partition move {topic}/"
    assert complete(line, "fish", QUORATE_BOOTSTRAP=quorate.servers).split() == [f"{topic}/0"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("topic produce t --acks ", ["all", "1", "0"]),
        ("bench produce --acks a", ["all"]),
        ("topic produce t --compression ", ["none", "gzip", "snappy", "lz4", "zstd"]),
        ("topic copy a b --compression z", ["zstd"]),
        ("topic create t -c min.insync", ["min.insync.replicas="]),
        ("topic alter t --config retention.m", ["retention.ms="]),
        ("topic alter t --remove retention.m", ["retention.ms"]),
        ("topic create t -c auto.create", []),
        ("cluster config -c auto.create", ["auto.create.topics.enable="]),
    ],
)
def test_words_of_a_fixed_set_are_completed(line: str, found: list[str]) -> None:
    assert complete(f"quorate {line}", "fish").split() == found


def test_subjects_are_those_of_the_cluster_and_a_tab_makes_no_topic(
    quorate: Quorate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # here, and with time: a busy machine answers late
    monkeypatch.setattr(completion, "NAMES_TIMEOUT_MS", 60_000)
    context: Any = SimpleNamespace(params={"bootstrap": quorate.servers, "topic": tmp_path.name})
    assert completion.subject_names(context, "") == []
    assert tmp_path.name not in quorate("topic", "list", "--internal", "-o", "json").json
    words = ("schema", "register", "orders-value", "-", "--topic", tmp_path.name)
    assert quorate(*words, stdin=b'"int"').status == 0
    assert completion.subject_names(context, "ord") == ["orders-value"]
    assert completion.subject_names(context, "other") == []


def test_a_cluster_that_does_not_answer_gives_no_names() -> None:
    assert complete("quorate topic describe --bootstrap 127.0.0.1:1 t", "fish").strip() == ""


@pytest.mark.skipif(shutil.which("bash") is None, reason="this machine has no bash")
def test_bash_completes(tmp_path: Path) -> None:
    command = tmp_path / "quorate"
    command.write_text(f"#!/bin/sh\nexec '{RUN[0]}' {RUN[1]} '{RUN[2]}' \"$@\"\n")
    command.chmod(0o755)
    script = (
        'eval "$(quorate completion bash)"; COMP_WORDS=(quorate topic ta); COMP_CWORD=2;'
        ' _quorate_completion quorate; echo "${COMPREPLY[@]}"; complete -p quorate'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout == "tail\ncomplete -o default -F _quorate_completion quorate\n"
    assert done.stderr == ""
