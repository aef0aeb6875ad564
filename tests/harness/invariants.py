"""What must hold in a simulated cluster after every event, and what is compared at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from quorate.errors import OffsetOutOfRangeError
from quorate.record.batch import records, split
from quorate.record.record import RawRecord
from quorate_broker.replica.partition import Partition
from quorate_broker.server import BrokerServer
from quorate_quorum.log.log import Log
from quorate_quorum.metadata.partitions import NEVER
from quorate_quorum.raft.driver.node import RaftNode
from quorate_quorum.server import QuorumServer
from quorate_testing.simulated.cluster import SimulatedCluster, SimulatedNode

#: Attempts to compare the copies of a partition while retention moves the starts of their logs.
COMPARISONS_MAX = 5
#: One run of one node: its name, and how many starts it had.
Run = tuple[str, int]


class Violation(AssertionError):
    """A rule of safety did not hold."""


@dataclass(slots=True)
class Invariants:
    """Remembers what was seen, and compares what is seen now with it."""

    cluster: SimulatedCluster
    #: Whether a fault is the reason why a node stopped itself.
    is_excused: Callable[[SimulatedNode], bool] = lambda _: False
    quorum_leaders: dict[int, Run] = field(default_factory=dict)
    leaders: dict[tuple[bytes, int, int], Run] = field(default_factory=dict)
    quorum_marks: dict[Run, int] = field(default_factory=dict)
    #: Log, its cuts, and high watermark of a replica, and the leader_epoch in which that was
    #: learnt; by run, topic id, partition and leader_epoch. A log that is opened again within the
    #: run, because it is damaged, is another one.
    marks: dict[tuple[Run, bytes, int, int], tuple[Log, int, int, int]] = field(
        default_factory=dict
    )
    committed_epochs: dict[int, int | None] = field(default_factory=dict)
    #: Epoch of the last record below a high watermark, whichever replica had it first.
    #: A lossy election, which is told, may begin another past.
    record_epochs: dict[tuple[bytes, int, int, int], int] = field(default_factory=dict)
    checks: int = 0
    #: What was seen of a replica at the last look. As long as it is the same, nothing can be wrong.
    _looks: dict[Partition, tuple[object, ...]] = field(default_factory=dict)

    def check(self) -> None:
        """Look at every node that did anything in this instant; raise Violation."""
        self.checks += 1
        nodes = self.cluster.nodes
        for name in self.cluster.loop.ran:
            node = nodes.get(name)
            if node is None:
                continue
            if node.failure is not None and not self.is_excused(node):
                raise Violation(f"{node.name} stopped itself: {node.failure}")
            server = node.server
            if server is None or not node.is_running or not has_started(server):
                continue
            if node.is_voter:
                assert isinstance(server, QuorumServer)
                self._check_voter(node, server)
            else:
                assert isinstance(server, BrokerServer)
                self._check_broker(node, server)

    def _check_voter(self, node: SimulatedNode, server: QuorumServer) -> None:
        raft = server.raft
        run = (node.name, node.starts)
        if raft.is_leader:
            first = self.quorum_leaders.setdefault(raft.epoch, run)
            if first != run:
                raise Violation(f"{first} and {run} both led the quorum in epoch {raft.epoch}")
        mark = raft.high_watermark
        before = self.quorum_marks.get(run, -1)
        if mark == before:
            return
        if mark < before:
            raise Violation(f"{run}: the quorum's high watermark went from {before} to {mark}")
        self.quorum_marks[run] = mark
        if mark > 0:
            epoch = raft.epoch_at(mark - 1)
            agreed = self.committed_epochs.setdefault(mark, epoch)
            if agreed != epoch:
                raise Violation(
                    f"{run}: committed offset {mark - 1} has epoch {epoch}, elsewhere {agreed}"
                )

    def _check_broker(self, node: SimulatedNode, server: BrokerServer) -> None:
        run = (node.name, node.starts)
        looks = self._looks
        for partition in server.replicas.all():
            log = partition.log
            look = (
                partition.role,
                partition.state,
                log,
                log.high_watermark,
                log.truncations,
                partition.replica_log.started_again,
            )
            if looks.get(partition) == look:
                continue
            looks[partition] = look
            key = (partition.topic_id, partition.partition, partition.leader_epoch)
            if partition.is_leader:
                first = self.leaders.setdefault(key, run)
                if first != run:
                    raise Violation(
                        f"{first} and {run} both led {partition.name} "
                        f"in leader_epoch {partition.leader_epoch}"
                    )
            mark = partition.high_watermark
            now = partition.log
            log, cuts, before, learnt = self.marks.get(
                (run, *key), (now, now.truncations, -1, now.hw_epoch)
            )
            if log is not now or (cuts != now.truncations and _may_begin_again(partition)):
                before = -1
            if mark < before and _may_drop_committed(partition, learnt):
                before = -1
            if partition.replica_log.started_again is not None:
                self.marks[(run, *key)] = now, now.truncations, -1, now.hw_epoch
            elif mark != before:
                self._high_watermark_moved(run, partition, before, mark)

    def _high_watermark_moved(self, run: Run, partition: Partition, before: int, mark: int) -> None:
        topic_id, number = partition.topic_id, partition.partition
        if mark < before:
            raise Violation(
                f"{run}: the high watermark of {partition.name} went from {before} to {mark} "
                f"within leader_epoch {partition.leader_epoch}"
            )
        log = partition.log
        self.marks[(run, topic_id, number, partition.leader_epoch)] = (
            log,
            log.truncations,
            mark,
            log.hw_epoch,
        )
        if log.log_start_offset < mark <= log.log_end_offset:
            # Two logs that agree on the epoch of a record agree on all before it.
            epoch = log.epochs.epoch_at(mark - 1)
            recovered = NEVER if partition.state is None else partition.state.recovered_epoch
            agreed = self.record_epochs.setdefault((topic_id, number, recovered, mark), epoch)
            if agreed != epoch:
                raise Violation(
                    f"{run}: committed offset {mark - 1} of {partition.name} has epoch {epoch}, "
                    f"elsewhere {agreed}"
                )

    async def check_logs_match(
        self,
        is_intact: Callable[[SimulatedNode, Partition], bool] = lambda _node, _partition: True,
        *,
        compacts: bool = False,
    ) -> None:
        """Compare, byte for byte, what all living replicas hold below their high watermarks.

        `compacts`: the topic was compacted at some time, although it may not be now. Then compare
        the last record of each key.
        """
        await self._compare_quorum_logs()
        replicas: dict[tuple[bytes, int], list[tuple[str, Partition]]] = {}
        for node in self.cluster.brokers:
            if isinstance(node.server, BrokerServer) and has_started(node.server):
                for partition in partitions_of(node.server):
                    key = (partition.topic_id, partition.partition)
                    if is_intact(node, partition):
                        replicas.setdefault(key, []).append((node.name, partition))
        for copies in replicas.values():
            for left in reversed(range(COMPARISONS_MAX)):
                try:
                    await _compare_copies(copies, compacts=compacts)
                    break
                except OffsetOutOfRangeError:  # retention moved a start meanwhile
                    if not left:
                        raise

    async def _compare_quorum_logs(self) -> None:
        histories: dict[int, list[tuple[str, RaftNode]]] = {}
        for node in self.cluster.voters:
            if isinstance(node.server, QuorumServer) and has_started(node.server):
                raft = node.server.raft
                histories.setdefault(raft.peers.history.quorum_generation, []).append(
                    (node.name, raft)
                )
        for rafts in histories.values():
            await self._compare_logs(rafts)

    async def _compare_logs(self, rafts: list[tuple[str, RaftNode]]) -> None:
        start = max(raft.log_start_offset for _, raft in rafts)
        end = min(raft.high_watermark for _, raft in rafts)
        contents = [(name, await _read_committed(raft, start, end)) for name, raft in rafts]
        for name, content in contents[1:]:
            if content != contents[0][1]:
                raise Violation(
                    f"the metadata logs of {name} and {contents[0][0]} differ below {end}"
                )


def has_started(server: QuorumServer | BrokerServer) -> bool:
    """Whether the server has built its rooms; before that there is nothing to look at."""
    return server._rooms is not None


async def _compare_copies(copies: list[tuple[str, Partition]], *, compacts: bool) -> None:
    end = min(copy.high_watermark for _, copy in copies)
    # A follower takes the start of its leader's log a moment later.
    start = max(copy.log_start_offset for _, copy in copies)
    contents = [(name, await _read_all(copy, start, end)) for name, copy in copies]
    first_name, first = contents[0]
    # A copy of a compacted log may have no gap between its batches, and fewer records in them.
    if compacts or any(copy.log.compaction.has_gaps or copy.config.compacts for _, copy in copies):
        await _compare_compacted([copy for _, copy in copies], start, end)
        return
    for name, content in contents[1:]:
        if content != first:
            raise Violation(
                f"{copies[0][1].name}: {name} and {first_name} differ below "
                f"their high watermarks ({end})"
            )


async def _read_committed(raft: RaftNode, offset: int, end: int) -> list[bytes]:
    batches: list[bytes] = []
    while offset < end:
        for header, batch in split(await raft.read_committed(offset, 1 << 20)):
            offset = header.end_offset
            if offset <= end:
                batches.append(bytes(batch))
    return batches


def partitions_of(server: BrokerServer) -> Iterator[Partition]:
    """Yield the partitions that a broker holds now."""
    if has_started(server):
        yield from list(server.replicas.all())


async def _read_all(partition: Partition, start: int, end: int) -> bytes:
    log = partition.log
    content = b""
    offset = start
    while offset < end:
        part = bytes(await log.read(offset, end=end, bytes_max=1 << 20))
        if not part:
            break
        content += part
        offset = _end_of(part)
    return content


def _may_drop_committed(partition: Partition, learnt: int) -> bool:
    """Return whether a follower may go back below a high watermark that it learnt in an epoch.

    It may if the controller says that a later election may have lost what was committed.
    """
    state = partition.state
    return state is not None and not partition.is_leader and learnt < state.recovered_epoch


def _may_begin_again(partition: Partition) -> bool:
    """Return whether a replica that lost records may remove all: see ReplicaLog.started_again."""
    is_compacted = partition.log.compaction.has_gaps or partition.config.compacts
    return is_compacted and not partition.is_leader


async def _compare_compacted(copies: list[Partition], start: int, end: int) -> None:
    """Compare the last record of each key: compacted copies may differ in all others.

    A copy with a higher high watermark may have dropped a record for one above `end`.
    """
    last = [_last_of_keys(await _read_all(one, start, one.high_watermark)) for one in copies]
    newer = {key for found in last for key, record in found.items() if record.offset >= end}
    below = [{key: one for key, one in found.items() if key not in newer} for found in last]
    for found in below:
        if found != below[0]:
            raise Violation(f"{copies[0].name}: last records differ: {found}, {below[0]}")


def _last_of_keys(batches: bytes) -> dict[bytes | None, RawRecord]:
    return {record.key: record for _, batch in split(batches) for record in records(batch)}


def _end_of(batches: bytes) -> int:
    end = 0
    for header, _ in split(batches):
        end = header.end_offset
    return end
