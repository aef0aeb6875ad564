"""Law 7: a bad checksum below the last known sync is corruption; a voter neither votes nor leads.

NATS lost half a million acknowledged records to one flipped bit on a minority (R7).
"""

from __future__ import annotations

import random

import pytest

from quorate.errors import StorageError
from quorate.record.batch import BatchBuilder, check
from quorate_quorum.log.identity import Identity
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.node.config import ConfigError, QuorumConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.process import NodeFailed
from quorate_quorum.raft.bootstrap import format_voter, metadata_directory
from quorate_quorum.raft.voters import Voter
from quorate_quorum.server import QuorumServer
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from quorate_testing.simulated.network import SimulatedNetwork

DATA = "/data"


async def _grown_log(disk: SimulatedDisk) -> str:
    """Format a voter and let its metadata log grow by 50 synced batches; return the file."""
    voter = Voter(1, b"d" * 16, "voter:7093")
    await disk.make_directory(DATA)
    await format_voter(disk, DATA, Identity("c1", 1, voter.directory_id, 1), [voter], {})
    log = await Log.open(disk, metadata_directory(DATA), LogConfig(track_synced=True))
    for _ in range(50):
        builder = BatchBuilder()
        builder.append(0, None, b"x" * 100)
        batch = builder.build(base_offset=log.log_end_offset, leader_epoch=1)
        await log.append([(check(batch), (batch,))])
    await log.sync()
    await log.close(clean=True)
    names = await disk.list(metadata_directory(DATA))
    return f"{metadata_directory(DATA)}/{next(name for name in names if name.endswith('.log'))}"


@pytest.mark.parametrize("part", [0.02, 0.5, 0.97], ids=["first", "middle", "last"])
def test_a_voter_with_a_bit_flipped_below_its_last_sync_refuses_to_start(part: float) -> None:
    async def program(loop: SimulatedLoop) -> None:
        disk = SimulatedDisk(random.Random(7))
        path = await _grown_log(disk)
        disk.flip_bit(path, int(len(disk.content(path)) * part), 3)
        process = loop.process("voter")
        network = SimulatedNetwork(loop, random.Random(1)).host("voter")
        config = QuorumConfig(
            node_id=1, listeners=("voter:7093",), log_dirs=(DATA,), allow_insecure_listeners=True
        )
        environment = Environment(
            network, disk, wall_clock_ms=process.wall_clock_ms, chance=random.Random(2)
        )
        server = QuorumServer(config, environment)
        with pytest.raises((StorageError, NodeFailed, ConfigError)):
            await server.start()

    simulate(program, 1)
