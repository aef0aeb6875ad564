"""The voter's disk: the quorum-state file, the bootstrap batch, what is read back at start."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from itertools import count

import pytest
from crc32c import crc32c

from quorate.errors import CorruptRecordError, StorageError
from quorate.record.batch import check
from quorate_quorum.disk import read_whole, replace_whole
from quorate_quorum.log.events import decode_events, encode_events
from quorate_quorum.log.identity import Identity, read_identity
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.node.config import ConfigError
from quorate_quorum.raft.driver.batches import parse_batches
from quorate_quorum.raft.driver.bootstrap import (
    bootstrap_batch,
    bootstrap_hash,
    format_voter,
    metadata_directory,
    read_bootstrap_hash,
)
from quorate_quorum.raft.driver.quorum_state import (
    CRC,
    STATE,
    VERSION,
    decode_state,
    encode_state,
    read_state,
)
from quorate_quorum.raft.driver.storage import Storage, read_ledger
from quorate_quorum.raft.machine.events import Event, HardStateSaved, Saved, Written
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.ledger import Below
from quorate_quorum.raft.machine.ready import Save
from quorate_quorum.raft.machine.voters import ReplicaKey, Voter, VoterSet
from quorate_quorum.v1.events_pb2 import Config, EpochStart, MetadataEvent, Voters
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import SimulatedLoop, simulate

VOTERS = (Voter(2, b"b" * 16, "h2:1"), Voter(1, b"a" * 16, "h1:1"))
IDENTITY = Identity("c", 1, b"a" * 16, 1)


def disk() -> SimulatedDisk:
    return SimulatedDisk(random.Random(1))


@pytest.mark.parametrize(
    "state",
    [
        HardState(),
        HardState(7, ReplicaKey(3, b"d" * 16), True, 5),
        HardState(2**30, None, False),
    ],
)
def test_the_quorum_state_survives_being_written(state: HardState) -> None:
    assert decode_state(encode_state(state)) == state


def test_a_quorum_state_of_another_version_or_with_any_bit_flipped_is_refused() -> None:
    """A voter with a damaged state file does not guess its vote."""
    data = encode_state(HardState(7, ReplicaKey(3, b"d" * 16)))
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 1
        with pytest.raises(StorageError):
            decode_state(bytes(broken))
    for cut in range(len(data)):
        with pytest.raises(StorageError):
            decode_state(data[:cut])


def test_a_quorum_state_of_a_newer_version_is_refused_though_its_checksum_fits() -> None:
    """What a later release means by these bytes is not for us to guess."""
    body = bytes([VERSION + 1]) + encode_state(HardState(7))[1 : STATE.size]
    with pytest.raises(StorageError, match=f"has version {VERSION + 1}; this release reads"):
        decode_state(body + CRC.pack(crc32c(body)))


def test_the_bootstrap_batch_is_the_same_whoever_writes_it() -> None:
    one = bootstrap_batch(VOTERS, {"b": "2", "a": "1"})
    other = bootstrap_batch(tuple(reversed(VOTERS)), {"a": "1", "b": "2"})
    assert one == other
    assert [event.WhichOneof("event") for event in decode_events(one)] == [
        "feature",
        "voters",
        "config",
        "config",
    ]
    assert bootstrap_hash(one) != bootstrap_hash(bootstrap_batch(VOTERS, {}))


def test_formatting_survives_a_power_loss_and_is_done_once() -> None:
    async def program(loop: SimulatedLoop) -> None:
        kept = disk()
        written = await format_voter(kept, "/data/q", IDENTITY, VOTERS, {})
        kept.lose_power()
        assert await read_identity(kept, "/data/q") == IDENTITY
        log = await Log.open(kept, metadata_directory("/data/q"), LogConfig(track_synced=True))
        ledger = await read_ledger(log)
        assert (ledger.log_end_offset, ledger.high_watermark, ledger.last_epoch) == (2, 2, 0)
        assert ledger.holds_only_bootstrap
        assert [voter.id for voter in ledger.voters.voters] == [1, 2]
        assert await read_bootstrap_hash(log) == written
        await log.close(clean=True)
        with pytest.raises(ConfigError, match="formatted already"):
            await format_voter(kept, "/data/q", IDENTITY, VOTERS, {})

    simulate(program, 1)


@pytest.mark.parametrize("is_lost", [False, True], ids=["at the end", "in the middle"])
def test_a_small_file_is_replaced_whole_or_not_at_all(is_lost: bool) -> None:
    """A rename that outlives a power loss, of bytes that do not; or the other way round."""

    async def program(loop: SimulatedLoop) -> None:
        found: set[bytes] = set()
        for seed in range(60):
            kept = SimulatedDisk(random.Random(seed))
            await kept.make_directory("/q")
            await replace_whole(kept, "/q/state", b"old" * 400)
            if is_lost:
                kept.hook = _dark_at(kept, seed % 7)
            with contextlib.suppress(OSError):
                await replace_whole(kept, "/q/state", b"newer" * 400)
            kept.hook = None
            kept.lose_power()
            found.add(await read_whole(kept, "/q/state"))
        whole = {b"newer" * 400} | ({b"old" * 400} if is_lost else set())
        assert found == whole

    simulate(program, 1)


def _dark_at(kept: SimulatedDisk, number: int) -> Callable[[str, str], None]:
    operations = count()

    def hook(_operation: str, _path: str) -> None:
        if next(operations) == number:
            kept.lose_power()

    return hook


def test_a_format_that_was_interrupted_can_be_repeated() -> None:
    async def program(loop: SimulatedLoop) -> None:
        kept = disk()
        await format_voter(kept, "/q", IDENTITY, VOTERS, {})
        await kept.remove("/q/meta.properties")
        await format_voter(kept, "/q", IDENTITY, VOTERS, {})
        await kept.remove("/q/meta.properties")
        with pytest.raises(ConfigError, match="no empty disk"):
            await format_voter(kept, "/q", IDENTITY, VOTERS, {"a": "1"})

    simulate(program, 1)


def test_only_an_initial_voter_is_formatted_as_one() -> None:
    async def program(loop: SimulatedLoop) -> None:
        stranger = Identity("c", 1, b"z" * 16, 1)
        with pytest.raises(ConfigError, match="none of the initial voters"):
            await format_voter(disk(), "/q", stranger, VOTERS, {})

    simulate(program, 1)


@pytest.mark.parametrize(
    ("voter", "why"),
    [
        (Voter(2, b"b" * 16, "::1:7093"), "must be host:port"),
        (Voter(2, b"b" * 16, "h2:0"), "must be host:port, with a port from 1"),
        (Voter(2, b"b" * 16, "h2:99999"), "must be host:port, with a port from 1"),
        (Voter(2, b"b" * 16, "10.0.0.256:1"), "must be host:port"),
        (Voter(2, b"b" * 16, "[::]:1"), "is no address to dial"),
        (Voter(2, b"b" * 16, "H1:1"), "different addresses: 1@h1:1:6161"),
        (Voter(2, b"a" * 16, "h2:1"), "directory id of its own: 1@h1:1:6161"),
    ],
)
def test_voters_that_can_not_find_each_other_are_not_formatted(voter: Voter, why: str) -> None:
    """The first batch of the metadata log holds their addresses."""

    async def program(loop: SimulatedLoop) -> None:
        kept = disk()
        with pytest.raises(ConfigError, match=why):
            await format_voter(kept, "/q", IDENTITY, [VOTERS[1], voter], {})
        assert not await kept.exists("/q")

    simulate(program, 1)


def test_damaged_batches_are_corrupt_records_whatever_bit_flips() -> None:
    data = bootstrap_batch(VOTERS, {"a": "1"})
    assert len(parse_batches(data)) == 1
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 4
        if 0 <= position < 8 or 12 <= position < 16:
            continue  # base offset and epoch lie outside the CRC; the machine compares them
        with pytest.raises(CorruptRecordError):
            parse_batches(bytes(broken))


def test_a_voters_event_that_names_an_id_twice_is_corrupt() -> None:
    twice = Voters()
    twice.voters.add(id=1)
    twice.voters.add(id=1)
    data = encode_events([MetadataEvent(voters=twice)], base_offset=0, epoch=1, timestamp_ms=0)
    with pytest.raises(CorruptRecordError):
        parse_batches(data)


def test_saves_that_arrive_during_a_sync_share_the_next_one() -> None:
    async def program(loop: SimulatedLoop) -> None:
        kept = SimulatedDisk(random.Random(1), latency_max=0.01)
        await format_voter(kept, "/q", IDENTITY, VOTERS, {})
        directory = metadata_directory("/q")
        log = await Log.open(kept, directory, LogConfig(track_synced=True))
        events: list[Event] = []
        storage = Storage(kept, log, directory, events.append)
        task = loop.create_task(storage.run())
        vote = HardState(1, ReplicaKey(1, b"a" * 16))
        for offset in range(2, 7):
            event = MetadataEvent(config=Config(name=f"n{offset}", value="v"))
            (batch,) = parse_batches(
                encode_events([event], base_offset=offset, epoch=1, timestamp_ms=0)
            )
            first = offset == 2
            storage.submit(vote if first else None, 1, Save(1, offset + 1, 0, None, (batch,)))
        storage.end()
        await task
        assert events[0] == HardStateSaved(1)
        assert events[1:6] == [Written(end, 0) for end in range(3, 8)]
        assert events[6:] == [Saved(1, 7, 0)]
        assert log.synced_end == 7
        kept.lose_power()
        assert await read_state(kept, directory) == vote

    simulate(program, 1)


def test_a_cut_and_what_replaces_it_are_carried_out_in_order() -> None:
    async def program(loop: SimulatedLoop) -> None:
        kept = disk()
        await format_voter(kept, "/q", IDENTITY, VOTERS, {})
        directory = metadata_directory("/q")
        log = await Log.open(kept, directory, LogConfig(track_synced=True))
        events: list[Event] = []
        storage = Storage(kept, log, directory, events.append)
        (old,), (new,) = (
            parse_batches(
                encode_events(
                    [MetadataEvent(epoch_start=EpochStart(epoch=epoch))],
                    base_offset=2,
                    epoch=epoch,
                    timestamp_ms=0,
                )
            )
            for epoch in (1, 2)
        )
        storage.submit(None, 0, Save(1, 3, 0, None, (old,)))
        storage.submit(None, 0, Save(2, 3, 1, 2, (new,)))
        storage.end()
        await storage.run()
        assert events == [Written(3, 0), Written(3, 1), Saved(2, 3, 1)]
        assert (await read_ledger(log)).epochs() == ((0, 0), (2, 2))

    simulate(program, 1)


@pytest.mark.parametrize(("epoch", "start"), [(2, 0), (3, 3), (1, 3)])
def test_a_log_with_another_epoch_at_the_snapshots_end_begins_anew_there(
    epoch: int, start: int
) -> None:
    """The record before the snapshot's end is of its epoch, or the log has another past."""

    async def program(loop: SimulatedLoop) -> None:
        kept = disk()
        await format_voter(kept, "/q", IDENTITY, VOTERS, {})
        log = await Log.open(kept, metadata_directory("/q"), LogConfig(track_synced=True))
        for offset in (2, 3):
            event = MetadataEvent(epoch_start=EpochStart(epoch=offset))
            data = encode_events([event], base_offset=offset, epoch=offset, timestamp_ms=0)
            await log.append([(check(data), (data,))])
        ledger = await read_ledger(log, Below(3, epoch, VoterSet(VOTERS)))
        assert (log.log_start_offset, ledger.log_start_offset) == (start, start)
        assert ledger.log_end_offset == log.log_end_offset == (3 if start else 4)
        assert ledger.epoch_before(3) == (epoch if start else 2)
        assert ledger.high_watermark == 3

    simulate(program, 1)


def test_a_log_that_begins_above_its_newest_snapshot_is_refused_and_left_as_it_is() -> None:
    """What lies between is nowhere; to begin anew at an older snapshot would drop the rest."""

    async def program(loop: SimulatedLoop) -> None:
        kept = disk()
        log = await Log.open(kept, metadata_directory("/q"), LogConfig(track_synced=True))
        await log.truncate_fully_and_start_at(8)
        data = encode_events(
            [MetadataEvent(epoch_start=EpochStart(epoch=3))],
            base_offset=8,
            epoch=3,
            timestamp_ms=0,
        )
        await log.append([(check(data), (data,))])
        with pytest.raises(StorageError, match="begins at 8, and the newest snapshot ends 5"):
            await read_ledger(log, Below(5, 2, VoterSet(VOTERS)))
        assert (log.log_start_offset, log.log_end_offset) == (8, 9)

    simulate(program, 1)
