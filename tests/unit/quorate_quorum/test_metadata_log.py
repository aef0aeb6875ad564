"""The epoch that a batch names lies outside its CRC; the EpochStart events prove it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest

from quorate.errors import CorruptRecordError, StorageError
from quorate.record.batch import check
from quorate_quorum.disk import replace_whole
from quorate_quorum.log.events import encode_events
from quorate_quorum.log.identity import Identity
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_quorum.metadata_log import EpochChain, open_metadata_log
from quorate_quorum.node.config import QuorumConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.raft.driver.batches import parse_batches
from quorate_quorum.raft.driver.bootstrap import format_voter, metadata_directory
from quorate_quorum.raft.driver.quorum_state import QUORUM_STATE, check_state, encode_state
from quorate_quorum.raft.driver.storage import read_ledger
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.ledger import Batch, Below
from quorate_quorum.raft.machine.messages import FetchResponse
from quorate_quorum.raft.machine.voters import Voter, VoterSet
from quorate_quorum.server import QuorumServer
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.v1.events_pb2 import Config, EpochStart, MetadataEvent
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from quorate_testing.simulated.network import SimulatedNetwork
from tests.harness.raft_machines import batch, follower

DATA = "/data"
DIRECTORY = metadata_directory(DATA)
CONFIG = LogConfig(track_synced=True, verify_all=True)
#: One batch each after the bootstrap batch (offsets 0 and 1): its epoch, and whether it begins it.
EPOCHS = ((1, True), (1, False), (1, False), (4, True), (4, False), (5, True), (5, False))


def _batch(offset: int, epoch: int, *, begins: bool) -> bytes:
    if begins:
        event = MetadataEvent(epoch_start=EpochStart(epoch=epoch, leader_id=1))
    else:
        event = MetadataEvent(config=Config(name=f"n{offset}", value="v"))
    return encode_events([event], base_offset=offset, epoch=epoch, timestamp_ms=0)


async def _grown(disk: SimulatedDisk, *, synced: int = len(EPOCHS)) -> None:
    """Format a voter that is killed when its log has grown; `synced` batches of that are synced."""
    voter = Voter(1, b"d" * 16, "voter:7093")
    await disk.make_directory(DATA)
    await format_voter(disk, DATA, Identity("c1", 1, voter.directory_id, 1), [voter], {})
    await replace_whole(disk, f"{DIRECTORY}/{QUORUM_STATE}", encode_state(HardState(5)))
    log = await open_metadata_log(disk, DIRECTORY, CONFIG)
    for number, (epoch, begins) in enumerate(EPOCHS):
        data = _batch(log.log_end_offset, epoch, begins=begins)
        await log.append([(check(data), (data,))])
        if number + 1 == synced:
            await log.sync()
    await log.close(clean=False)


def _flip(disk: SimulatedDisk, number: int, bit: int) -> None:
    """Flip a bit of the leader_epoch of the batch of that number; the bootstrap batch is -1."""
    path = f"{DIRECTORY}/{0:020d}.log"
    content = disk.content(path)
    start = 0
    for _ in range(number + 1):
        start += 12 + int.from_bytes(content[start + 8 : start + 12], "big")
    disk.flip_bit(path, start + 12 + bit // 8, 7 - bit % 8)


def _run(program: Callable[[SimulatedLoop, SimulatedDisk], Awaitable[None]]) -> None:
    async def run(loop: SimulatedLoop) -> None:
        await program(loop, SimulatedDisk(random.Random(7)))

    simulate(run, 1)


@pytest.mark.parametrize("has_checkpoint", [True, False])
@pytest.mark.parametrize("number", range(-1, len(EPOCHS)))
def test_any_bit_of_a_synced_batchs_epoch_that_flips_is_corruption(
    number: int, has_checkpoint: bool
) -> None:
    """Below the last sync the log is not opened, with and without the file of epochs."""

    async def program(loop: SimulatedLoop, disk: SimulatedDisk) -> None:
        await _grown(disk)
        if not has_checkpoint:
            await disk.remove(f"{DIRECTORY}/leader-epoch-checkpoint")
        for bit in range(32):
            _flip(disk, number, bit)
            with pytest.raises(LogCorruptError, match=r"all below offset 9 had survived a sync"):
                await open_metadata_log(disk, DIRECTORY, CONFIG)
            _flip(disk, number, bit)
        log = await open_metadata_log(disk, DIRECTORY, CONFIG)
        ledger = await read_ledger(log)
        assert ledger.epochs() == ((0, 0), (1, 2), (4, 5), (5, 7))

    _run(program)


@pytest.mark.parametrize("number", range(2, len(EPOCHS)))
def test_above_the_last_sync_the_log_is_cut_where_an_epoch_has_flipped(number: int) -> None:
    """What is not synced was never acknowledged: the log ends before the damage, and opens."""

    async def program(loop: SimulatedLoop, disk: SimulatedDisk) -> None:
        for bit in range(32):
            disk = SimulatedDisk(random.Random(7))
            await _grown(disk, synced=2)
            disk.crash_process()
            _flip(disk, number, bit)
            log = await open_metadata_log(disk, DIRECTORY, CONFIG)
            assert log.log_end_offset == 2 + number
            assert log.recovered.cut_bytes
            ledger = await read_ledger(log)
            assert ledger.last_epoch == EPOCHS[number - 1][0]
            await log.close(clean=False)

    _run(program)


def test_a_voter_whose_log_names_a_flipped_epoch_does_not_start() -> None:
    async def program(loop: SimulatedLoop, disk: SimulatedDisk) -> None:
        await _grown(disk)
        server = _server(loop, disk)
        await server.start()
        await server.stop()
        _flip(disk, 6, 3)
        with pytest.raises(StorageError, match=r"it says epoch \d+, and no EpochStart since"):
            await _server(loop, disk).start()

    _run(program)


def _server(loop: SimulatedLoop, disk: SimulatedDisk) -> QuorumServer:
    process = loop.process("voter")
    network = SimulatedNetwork(loop, random.Random(1)).host("voter")
    config = QuorumConfig(
        node_id=1, listeners=("voter:7093",), log_dirs=(DATA,), allow_insecure_listeners=True
    )
    chance = random.Random(2)
    return QuorumServer(
        config,
        Environment(network, disk, wall_clock_ms=process.wall_clock_ms, chance=chance),
    )


@pytest.mark.parametrize("state", [None, HardState(4)], ids=["missing", "older"])
def test_a_voter_whose_state_is_older_than_its_log_does_not_start(state: HardState | None) -> None:
    """The state is on disk before a record of its epoch is: an older one has forgotten votes."""

    async def program(loop: SimulatedLoop, disk: SimulatedDisk) -> None:
        await _grown(disk)
        path = f"{DIRECTORY}/{QUORUM_STATE}"
        await disk.remove(path)
        if state is not None:
            await replace_whole(disk, path, encode_state(state))
        with pytest.raises(StorageError, match=r"holds records of epoch 5, and quorum-state"):
            await _server(loop, disk).start()

    _run(program)


def test_a_snapshot_may_be_of_a_newer_epoch_than_the_state() -> None:
    """What it holds is committed: a crash between a download and the state is no damage."""
    ledger_epochs = [_parsed(0, 0, begins=False), _parsed(1, 6, begins=True)]

    async def program(loop: SimulatedLoop, disk: SimulatedDisk) -> None:
        ledger = await read_ledger(await Log.open(disk, DIRECTORY, CONFIG))
        for one in ledger_epochs:
            ledger.append(one)
        with pytest.raises(StorageError):
            check_state(HardState(5), ledger, None)
        check_state(HardState(5), ledger, Below(2, 6, VoterSet()))
        check_state(HardState(6), ledger, None)

    _run(program)


def _parsed(offset: int, epoch: int, *, begins: bool) -> Batch:
    (one,) = parse_batches(_batch(offset, epoch, begins=begins))
    return one


# --- a log that begins above 0 ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "fits"),
    [
        ([(3, False), (3, False), (4, True)], True),
        ([(4, True), (4, False)], True),
        ([(2, False)], False),
        ([(4, False)], False),
        ([(3, True)], False),
    ],
)
def test_right_above_a_snapshot_the_epoch_is_the_snapshots(
    epochs: list[tuple[int, bool]], fits: bool
) -> None:
    async def program(loop: SimulatedLoop, disk: SimulatedDisk) -> None:
        log = await Log.open(disk, DIRECTORY, CONFIG)
        await log.truncate_fully_and_start_at(10)
        for epoch, begins in epochs:
            data = _batch(log.log_end_offset, epoch, begins=begins)
            await log.append([(check(data), (data,))])
        await log.sync()
        below = Below(10, 3, VoterSet())
        if fits:
            assert (await read_ledger(log, below)).last_epoch == epochs[-1][0]
        else:
            with pytest.raises(StorageError, match="the metadata log is damaged at offset 10"):
                await read_ledger(log, below)

    _run(program)


def test_a_log_that_begins_below_its_snapshot_takes_its_first_batch_as_it_is() -> None:
    chain = EpochChain(SnapshotId(14, 3))
    for offset, epoch, begins in ((10, 2, False), (11, 2, False), (12, 3, True), (13, 3, False)):
        data = _batch(offset, epoch, begins=begins)
        chain.inspect(check(data), data)
    data = _batch(14, 4, begins=False)
    with pytest.raises(CorruptRecordError, match=r"the batch at 14: it says epoch 4"):
        chain.inspect(check(data), data)


def test_an_epoch_start_stands_alone_and_begins_epoch_1_or_later() -> None:
    start = MetadataEvent(epoch_start=EpochStart(epoch=3, leader_id=1))
    config = MetadataEvent(config=Config(name="n", value="v"))
    for events in ([start, config], [config, start]):
        data = encode_events(events, base_offset=0, epoch=3, timestamp_ms=0)
        with pytest.raises(CorruptRecordError, match="among its 2 events"):
            parse_batches(data)
    with pytest.raises(CorruptRecordError, match="of epoch 0"):
        parse_batches(_batch(0, 0, begins=True))


# --- over the wire ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batches", "end"),
    [
        ([batch(2, 1), batch(3, 4, begins=True)], 4),
        ([batch(2, 2)], 2),
        ([batch(2, 0)], 2),
        ([batch(2, 4)], 2),
        ([batch(2, 1), batch(3, 4)], 2),
        ([batch(2, 1), Batch(3, 4, 4, b"x", epoch_start=3)], 2),
        ([batch(3, 1)], 2),
        ([batch(1, 1)], 2),
        ([batch(2, 1), batch(4, 1)], 2),
    ],
)
def test_a_follower_believes_offsets_and_epochs_only_if_they_follow_on_its_log(
    batches: list[Batch], end: int
) -> None:
    """Both lie outside the CRC: an answer with one that does not follow is refused as a whole."""
    one = follower(log=(0, 1), epoch=4)
    one.answered(FetchResponse(4, 2, 2, batches=tuple(batches)))
    assert one.raft.ledger.log_end_offset == end
