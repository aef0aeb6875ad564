"""quorate partition elect: which partitions it asks for, what it says, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from quorate import Admin, LeaderElection, TopicPartition
from quorate.errors import ElectionNotNeededError, PreferredLeaderNotAvailableError
from tests.cluster.support import Answer, run_here

NOT_NEEDED = LeaderElection(1, ElectionNotNeededError("broker 1 leads already"))
REFUSED = LeaderElection(2, PreferredLeaderNotAvailableError("broker 1 is fenced"))


class Elections:
    """Stands for the cluster: topic t has two partitions; partition 1 has the result `second`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[list[TopicPartition] | None, bool]] = []
        self.second = NOT_NEEDED
        self.is_balanced = False
        monkeypatch.setattr(Admin, "start", self._nothing)
        monkeypatch.setattr(Admin, "describe_topics", self._describe)
        monkeypatch.setattr(Admin, "elect_leaders", self._elect)

    async def _nothing(self) -> None:
        return None

    async def _describe(self, names: Iterable[str]) -> dict[str, Any]:
        return {name: SimpleNamespace(partitions=[0, 1]) for name in names}

    async def _elect(
        self, partitions: list[TopicPartition] | None = None, *, unclean: bool = False
    ) -> dict[TopicPartition, LeaderElection]:
        self.asked.append((partitions, unclean))
        if self.is_balanced:
            return {}
        results = {0: LeaderElection(1, None), 1: self.second}
        return {
            key: results[key.partition]
            for key in partitions or [TopicPartition("t", 0), TopicPartition("t", 1)]
        }


@pytest.fixture
def elections(monkeypatch: pytest.MonkeyPatch) -> Elections:
    return Elections(monkeypatch)


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> Answer:
    return run_here(["partition", "elect", *arguments], capfd, b"")


def test_a_topic_stands_for_all_its_partitions(
    elections: Elections, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run(capfd, "t", "u/1")
    both = [TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("u", 1)]
    assert elections.asked == [(both, False)]
    assert said.status == 0
    assert "elected" in said.out
    assert "broker 1 leads already [ELECTION_NOT_NEEDED]" in said.out


def test_an_election_that_is_refused_is_a_failure(
    elections: Elections, capfd: pytest.CaptureFixture[str]
) -> None:
    elections.second = REFUSED
    said = run(capfd, "--all", "-o", "json")
    assert elections.asked == [(None, False)]
    assert said.status == 1
    assert "1 of 2 partitions had no election" in said.err
    shared = {
        "topic": "t",
        "elected": True,
        "may_have_lost": False,
        "error": None,
        "message": "",
    }
    assert json.loads(said.out) == [
        {**shared, "partition": 0, "leader": 1},
        {
            "topic": "t",
            "partition": 1,
            "leader": 2,
            "elected": False,
            "may_have_lost": False,
            "error": "PREFERRED_LEADER_NOT_AVAILABLE",
            "message": "broker 1 is fenced",
        },
    ]


def test_a_loss_must_be_accepted(elections: Elections, capfd: pytest.CaptureFixture[str]) -> None:
    said = run(capfd, "t/0", "--unclean")
    assert said.status == 2
    assert "may lose acknowledged records for good: give --accept-loss" in said.err
    assert elections.asked == []
    assert run(capfd, "t/0", "--unclean", "--accept-loss").status == 0
    assert elections.asked == [([TopicPartition("t", 0)], True)]


def test_a_possible_loss_is_said(elections: Elections, capfd: pytest.CaptureFixture[str]) -> None:
    elections.second = LeaderElection(2, None, may_have_lost=True)
    said = run(capfd, "t", "--unclean", "--accept-loss")
    assert [line.split(maxsplit=2) for line in said.out.splitlines()[1:]] == [
        ["t/0", "1", "elected"],
        ["t/1", "2", "elected; acknowledged records may be lost"],
    ]
    said = run(capfd, "t", "--unclean", "--accept-loss", "-o", "json")
    assert [one["may_have_lost"] for one in json.loads(said.out)] == [False, True]


def test_no_leader_is_shown_as_none(
    elections: Elections, capfd: pytest.CaptureFixture[str]
) -> None:
    elections.second = LeaderElection(-1, PreferredLeaderNotAvailableError("start it"))
    line = run(capfd, "t/1").out.splitlines()[1]
    assert line.split(maxsplit=2)[:2] == ["t/1", "none"]


def test_that_no_partition_needs_an_election_is_said(
    elections: Elections, capfd: pytest.CaptureFixture[str]
) -> None:
    elections.is_balanced = True
    assert run(capfd, "--all") == Answer(0, "no partition needs an election\n", "")
    assert json.loads(run(capfd, "--all", "-o", "json").out) == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["t", "--all"], ["t/x"], ["t/"], ["/1"], ["t/1/2"], ["t", "--accept-loss"]],
    ids=" ".join,
)
def test_wrong_usage_asks_nothing(
    arguments: list[str], elections: Elections, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(capfd, *arguments).status == 2
    assert elections.asked == []
