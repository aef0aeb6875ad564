"""A bad checksum below the last known sync is corruption; a voter neither votes nor leads.

NATS lost half a million acknowledged records to one flipped bit on a minority.
"""

from __future__ import annotations

import random

import pytest

from quorate.errors import StorageError
from quorate.record.batch import check
from quorate_quorum.disk import replace_whole
from quorate_quorum.log.events import encode_events
from quorate_quorum.log.identity import Identity
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.node.config import QuorumConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.raft.driver.bootstrap import format_voter, metadata_directory
from quorate_quorum.raft.driver.quorum_state import QUORUM_STATE, encode_state
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.voters import Voter
from quorate_quorum.server import QuorumServer
from quorate_quorum.v1.events_pb2 import Config, EpochStart, MetadataEvent
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from quorate_testing.simulated.network import SimulatedNetwork

DATA = "/data"


async def _grown_log(disk: SimulatedDisk) -> str:
    """Format a voter and let its metadata log grow by 50 synced batches; return the file."""
    voter = Voter(1, b"d" * 16, "voter:7093")
    await disk.make_directory(DATA)
    await format_voter(disk, DATA, Identity("c1", 1, voter.directory_id, 1), [voter], {})
    directory = metadata_directory(DATA)
    await replace_whole(disk, f"{directory}/{QUORUM_STATE}", encode_state(HardState(1)))
    log = await Log.open(disk, directory, LogConfig(track_synced=True))
    begin = MetadataEvent(epoch_start=EpochStart(epoch=1, leader_id=1))
    more = MetadataEvent(config=Config(name="n", value="x" * 100))
    for event in (begin, *(more for _ in range(49))):
        batch = encode_events([event], base_offset=log.log_end_offset, epoch=1, timestamp_ms=0)
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
        sound = _voter(loop, disk)
        await sound.start()
        await sound.stop()
        disk.flip_bit(path, int(len(disk.content(path)) * part), 3)
        with pytest.raises(StorageError, match="had survived a sync"):
            await _voter(loop, disk).start()

    simulate(program, 1)


def _voter(loop: SimulatedLoop, disk: SimulatedDisk) -> QuorumServer:
    process = loop.process("voter")
    network = SimulatedNetwork(loop, random.Random(1)).host("voter")
    config = QuorumConfig(
        node_id=1, listeners=("voter:7093",), log_dirs=(DATA,), allow_insecure_listeners=True
    )
    environment = Environment(
        network, disk, wall_clock_ms=process.wall_clock_ms, chance=random.Random(2)
    )
    return QuorumServer(config, environment)
