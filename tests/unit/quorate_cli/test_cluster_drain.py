"""quorate cluster drain, undrain: what they ask for, what they say, their exit status."""

from __future__ import annotations

import pytest

from quorate import Admin, BrokerDrain, TopicPartition
from quorate.errors import UnknownBrokerError
from tests.cluster.support import Answer, run_here

LEFT = {TopicPartition("t", 3): "no other replica is in the ISR and may lead"}


class Cluster:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[int, bool]] = []
        self.throttle = -1
        self.answer = BrokerDrain(False, 7, 9, 0, {})
        for name in ("start", "drain_broker", "undrain_broker"):
            monkeypatch.setattr(Admin, name, getattr(self, name))

    async def start(self) -> None:
        return None

    async def drain_broker(
        self, broker_id: int, *, replicas: bool = False, throttle: int = 0
    ) -> BrokerDrain:
        self.throttle = throttle
        self.asked.append((broker_id, replicas))
        if broker_id == 9:
            raise UnknownBrokerError("broker 9 is not registered; [0, 1] are")
        return self.answer

    async def undrain_broker(self, broker_id: int) -> bool:
        return broker_id == 1


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> Answer:
    return run_here(["cluster", *arguments], capfd, b"")


def test_what_was_moved_is_told(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    said = run(capfd, "drain", "1")
    assert (said.status, said.out) == (0, "broker 1 is drained: 7 leaders moved\n")
    said = run(capfd, "drain", "1", "--replicas")
    assert said.out == "broker 1 is drained: 7 leaders moved; 9 moves of replicas begun\n"
    assert cluster.asked == [(1, False), (1, True)]


def test_the_moves_of_a_drain_have_a_throttle(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(capfd, "drain", "1", "--replicas", "--throttle", "10MiB").status == 0
    assert cluster.throttle == 10 << 20
    assert run(capfd, "drain", "1", "--replicas").status == 0
    assert cluster.throttle == 0
    for wrong in (["--throttle", "10MiB"], ["--replicas", "--throttle", "fast"]):
        assert run(capfd, "drain", "1", *wrong).status == 2
    assert len(cluster.asked) == 2


def test_what_is_left_is_told_with_the_reason(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.answer = BrokerDrain(False, 0, 0, 1, LEFT)
    said = run(capfd, "drain", "1")
    assert said.status == 1
    assert "t/3" in said.out
    assert "no other replica is in the ISR" in said.out
    assert "1 leader or replica is left on broker 1" in said.err
    assert run(capfd, "drain", "1", "-o", "json").json == {
        "broker": 1,
        "was_drained": False,
        "leaders_moved": 0,
        "replicas_moved": 0,
        "left_count": 1,
        "left": [{"topic": "t", "partition": 3, "reason": LEFT[TopicPartition("t", 3)]}],
    }


def test_partitions_with_the_same_reason_share_a_line(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    left = {TopicPartition("t", number): "no other" for number in range(31)}
    cluster.answer = BrokerDrain(False, 1, 1, 32, {**left, TopicPartition("u", 0): "it moves"})
    said = run(capfd, "drain", "1", "--replicas")
    assert said.out.splitlines() == [
        "broker 1 is drained: 1 leader moved; 1 move of replicas begun",
        "left                                      because",
        "t/0, t/1, t/2, t/3, t/4, t/5 and 25 more  no other",
        "u/0                                       it moves",
    ]
    assert len(run(capfd, "drain", "1", "-o", "json").json["left"]) == 32


def test_an_undrain_says_how_the_broker_gets_work_again(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run(capfd, "undrain", "1").out
    assert "`quorate partition elect --all` lets it lead what it led" in said
    assert "if it has no replicas any more, `quorate cluster rebalance` gives it some" in said


def test_a_broker_that_is_not_there_is_refused(
    cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run(capfd, "drain", "9")
    assert said.status == 1
    assert "broker 9 is not registered" in said.err
    assert run(capfd, "drain", "-1").status == run(capfd, "drain").status == 2


@pytest.mark.parametrize(
    ("broker", "told"), [("1", "broker 1 is undrained;"), ("2", "broker 2 was not drained")]
)
def test_an_undrain_says_whether_it_was_drained(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], broker: str, told: str
) -> None:
    said = run(capfd, "undrain", broker)
    assert said.status == 0
    assert said.out.startswith(told)
    assert run(capfd, "undrain", broker, "-o", "json").json == {
        "broker": int(broker),
        "was_drained": broker == "1",
    }
