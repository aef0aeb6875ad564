"""All voters lose their power as a sync begins: what was committed is there afterwards."""

from __future__ import annotations

import asyncio

import pytest

from quorate import Admin
from quorate.errors import OutcomeUnknownError, QuorateError, TopicExistsError
from quorate_broker.server import BrokerServer
from quorate_quorum.server import QuorumServer
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.amounts import few_or_many
from tests.harness.invariants import Invariants, has_started
from tests.harness.world import logs

TOPICS = 4
#: More syncs than a run has.
SYNCS_MAX = 100
PER_TEST = 10
STEP = few_or_many(3, 1)


class _Run:
    def __init__(self, loop: SimulatedLoop, dark_at: int) -> None:
        self.loop = loop
        self.cluster = SimulatedCluster(loop, ClusterShape(voters=3, brokers=1))
        self.invariants = Invariants(self.cluster)
        self.dark_at = dark_at
        self.syncs = 0
        self.dark = asyncio.Event()
        self.created: dict[str, None] = {}
        self.started = False
        #: The furthest high watermark of any voter.
        self.committed = 0

    async def run(self) -> bool:
        """Return whether the power was lost at all."""
        await self.cluster.format()
        for voter in self.cluster.voters:
            voter.disk.hook = self._operation
        self.cluster.start_all()
        self.started = True
        self.loop.on_instant = self._look
        creating = self.cluster.spawn_client(self._create, "admin")
        restarting = asyncio.ensure_future(self._restart())
        await creating
        if self.dark.is_set():
            await restarting
        restarting.cancel()
        await asyncio.gather(restarting, return_exceptions=True)
        found = await self.cluster.spawn_client(self._list, "reader")
        assert [name for name in self.created if name not in found] == []
        await self.invariants.check_logs_match()
        self.loop.on_instant = None
        for voter in self.cluster.voters:
            assert isinstance(voter.server, QuorumServer)
            assert voter.server.raft.high_watermark >= self.committed
        return self.dark.is_set()

    def _operation(self, name: str, _path: str) -> None:
        if name not in ("sync", "sync_directory") or not self.started:
            return
        self.syncs += 1
        if self.syncs == self.dark_at and not self.dark.is_set():
            for voter in self.cluster.voters:
                self.cluster.lose_power(voter.name)
            self.dark.set()

    async def _restart(self) -> None:
        await self.dark.wait()
        await asyncio.sleep(0.3)
        for voter in self.cluster.voters:
            self.cluster.start(voter.name)

    def _look(self) -> None:
        self.invariants.check()
        for voter in self.cluster.voters:
            server = voter.server
            if isinstance(server, QuorumServer) and has_started(server):
                self.committed = max(self.committed, server.raft.high_watermark)

    async def _create(self) -> None:
        broker = self.cluster.brokers[0]
        while not isinstance(broker.server, BrokerServer) or broker.server.is_fenced:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        async with Admin(bootstrap_servers=self.cluster.bootstrap_servers) as admin:
            for number in range(TOPICS):
                await self._create_one(admin, f"topic-{number}")

    async def _create_one(self, admin: Admin, name: str) -> None:
        while True:
            try:
                await admin.create_topic(name, 1, 1)
            except TopicExistsError:
                break  # an earlier try, whose outcome was unknown
            except OutcomeUnknownError:
                continue
            except QuorateError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(0.1)
            else:
                break
        self.created[name] = None

    async def _list(self) -> list[str]:
        async with Admin(bootstrap_servers=self.cluster.bootstrap_servers) as admin:
            return await admin.list_topics()


@pytest.mark.simulation
@pytest.mark.timeout(120)
@pytest.mark.parametrize("first", range(1, SYNCS_MAX, PER_TEST))
def test_nothing_committed_is_lost_when_all_voters_lose_power(first: int) -> None:
    """At the n-th sync of any voter since they were started, for each n."""
    with logs(verbose=False):
        dark = [_went_dark(n) for n in range(first, first + PER_TEST, STEP)]
    assert dark[0] or first > 1, "no power was lost: the test tests nothing"
    assert first + PER_TEST < SYNCS_MAX or not dark[-1], "a run has more syncs than were tried"


def _went_dark(n: int) -> bool:
    return simulate(lambda loop: _Run(loop, n).run(), seed=n, time_max_s=120)
