"""What must hold of the partitions of a simulated cluster after every event, beside invariants.py.

These rules need more than one node: the metadata that the quorum has committed, what clients were
told, and the bytes on the disks of other replicas. On the way they count what happens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple
from unittest.mock import patch

from quorate_broker.replica.leader import Leader
from quorate_broker.replica.leader_replica import LeaderReplica
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.producers import Remembered, Sequenced, Staging
from quorate_broker.server import BrokerServer
from quorate_quorum.log.log import Log
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.partitions import NEVER, NO_LEADER, PartitionImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_testing.simulated.cluster import SimulatedCluster, SimulatedNode
from tests.harness.committed_batches import CommittedBatches, Past
from tests.harness.invariants import Run, Violation, has_started


class _Look(NamedTuple):
    """What was seen of a replica. As long as it is the same, nothing can be wrong."""

    machine: Leader | None
    role: object
    log: Log
    high_watermark: int
    truncations: int
    cleaned_end: int
    #: The leader's largest ISR, and what the quorum has committed.
    maximal: tuple[int, ...]
    state: PartitionImage | None


@dataclass(slots=True)
class PartitionRules:
    """Remembers what was seen of one topic, and compares what is seen now with it."""

    cluster: SimulatedCluster
    topic: str
    is_intact: Callable[[SimulatedNode, Partition], bool] = lambda _node, _partition: True
    counts: Counter[str] = field(default_factory=Counter)
    batches: CommittedBatches = field(default_factory=CommittedBatches)
    image: MetadataImage = EMPTY
    _topic: TopicImage | None = None
    #: Partition -> the highest leader_epoch that was committed. A newest image may be older: voters
    #: that have more are dead.
    _epochs: dict[int, int] = field(default_factory=dict)
    _looks: dict[Partition, _Look] = field(default_factory=dict)
    #: Past -> leader_epoch -> the first and the last high watermark that clients could see.
    _served: dict[Past, dict[int, tuple[int, int]]] = field(default_factory=dict)
    #: Partition -> one past the last offset that was acknowledged since the topic was made.
    _acknowledged: dict[int, int] = field(default_factory=dict)
    _lossy: dict[Run, int] = field(default_factory=dict)

    def check(self) -> None:
        """Look at every node that did anything in this instant; raise Violation."""
        nodes = self.cluster.nodes
        ran = [nodes[name] for name in self.cluster.loop.ran if name in nodes]
        for node in ran:
            if node.is_voter:
                self._take_image()
                break
        for node in ran:
            server = node.server
            if node.is_voter or server is None or not node.is_running or not has_started(server):
                continue
            assert isinstance(server, BrokerServer)
            self._check_broker(node, server)

    def acknowledged(self, partition: int, offset: int) -> None:
        """Note that a client was told that a record of the present topic is committed."""
        self._acknowledged[partition] = max(self._acknowledged.get(partition, 0), offset + 1)

    def topic_goes(self) -> None:
        """Forget what was acknowledged: the topic is about to be deleted."""
        self._acknowledged.clear()

    # the metadata

    def _take_image(self) -> None:
        image = self.cluster.image()
        if image is None or image is self.image:
            return
        self.image = image
        topic = image.topic_named(self.topic)
        before, self._topic = self._topic, topic
        if topic is None or topic is before:
            return
        is_same = before is not None and before.id == topic.id
        olds = before.partitions if is_same and before is not None else ()
        if not is_same:
            self._epochs.clear()
        for number, state in enumerate(topic.partitions):
            old = olds[number] if number < len(olds) else None
            self._epochs[number] = max(state.leader_epoch, self._epochs.get(number, 0))
            if state is not old:
                check_state(f"{self.topic}-{number}", state)
                if old is not None:
                    self._count_change(old, state)

    def _count_change(self, old: PartitionImage, new: PartitionImage) -> None:
        counts = self.counts
        if new.partition_epoch < old.partition_epoch:
            return  # the newest voter died, and another one is behind
        if new.leader_epoch < old.leader_epoch:
            raise Violation(f"{self.topic}: leader_epoch goes back: {old}, {new}")
        counts["partition leaders elected"] += (
            new.leader != NO_LEADER and new.leader_epoch > old.leader_epoch
        )
        counts["ISR shrinks"] += bool(set(old.isr) - set(new.isr))
        counts["ISR expansions"] += bool(set(new.isr) - set(old.isr))
        counts["lossy elections"] += new.recovered_epoch > old.recovered_epoch
        if old.is_reassigned and not new.is_reassigned:
            is_done = set(new.broker_ids) == set(old.target)
            counts["moves finished" if is_done else "moves cancelled"] += 1

    # brokers

    def _check_broker(self, node: SimulatedNode, server: BrokerServer) -> None:
        run = (node.name, node.starts)
        lossy = len(server.replicas.losses)
        if lossy != self._lossy.get(run, 0):
            self.counts["lossy returns"] += max(0, lossy - self._lossy.get(run, 0))
            self._lossy[run] = lossy
        for partition in server.replicas.all():
            if partition.topic == self.topic:
                self._check_replica(node, partition)

    def _check_replica(self, node: SimulatedNode, partition: Partition) -> None:
        log, role = partition.log, partition.role
        machine = role.machine if isinstance(role, LeaderReplica) else None
        mark = log.high_watermark
        # Nearly always this is what it was: make no _Look for the comparison.
        seen = (
            machine,
            role,
            log,
            mark,
            log.truncations,
            log.compaction.cleaned_end,
            () if machine is None else machine.in_sync.maximal,
            None if machine is None else self._state_of(partition),
        )
        before = self._looks.get(partition)
        is_above = machine is not None and mark < self._acknowledged.get(partition.partition, 0)
        if seen == before and not is_above:
            return
        look = self._looks[partition] = _Look._make(seen)
        is_same_log = before is not None and before.log is log
        if before is not None and is_same_log:
            self.counts["truncations"] += look.truncations - before.truncations
            self.counts["compactions"] += look.cleaned_end > before.cleaned_end
        if machine is not None:
            self._check_leader(node, partition, machine, look, before)
        has_moved = before is None or before[:4] != look[:4]
        is_whole = role is not None and partition.replica_log.started_again is None
        if has_moved and is_whole and self.is_intact(node, partition):
            self.batches.moved(node, partition)

    def _check_leader(
        self,
        node: SimulatedNode,
        partition: Partition,
        machine: Leader,
        look: _Look,
        before: _Look | None,
    ) -> None:
        number, mark, state = partition.partition, machine.high_watermark, look.state
        if before is None or before.machine is not machine:
            self.batches.check_leader(node, partition)
        # A leader may have the controller's answer before the voters that are left know it.
        is_known = state is not None and state.partition_epoch >= machine.in_sync.partition_epoch
        if state is not None and is_known and state.leader_epoch == machine.leader_epoch:
            check_maximal(node.name, partition.name, state, look.maximal)
        if machine.knows_high_watermark:
            self._clients_see(node, partition, machine.leader_epoch, mark)
            is_newest = state is not None and machine.leader_epoch >= self._epochs[number]
            if is_newest and mark < self._acknowledged.get(number, 0):
                self._check_acknowledged(node, partition, mark)

    def _state_of(self, partition: Partition) -> PartitionImage | None:
        """Return the state that the quorum has committed; None: the topic is another one."""
        topic = self._topic
        if topic is None or topic.id != partition.topic_id:
            return None
        states, number = topic.partitions, partition.partition
        return states[number] if number < len(states) else None

    def _clients_see(
        self, node: SimulatedNode, partition: Partition, leader_epoch: int, mark: int
    ) -> None:
        """Compare a high watermark that clients can see with those of other reigns."""
        recovered = NEVER if partition.state is None else partition.state.recovered_epoch
        served = self._served.setdefault((partition.topic_id, partition.partition, recovered), {})
        for epoch, (first, last) in served.items():
            is_back = mark < last if epoch < leader_epoch else epoch > leader_epoch and mark > first
            if is_back:
                raise Violation(
                    f"{node.name}: clients see the high watermark {mark} of {partition.name} in "
                    f"leader_epoch {leader_epoch}, and saw {first} to {last} in {epoch}"
                )
        first, last = served.get(leader_epoch, (mark, mark))
        served[leader_epoch] = first, max(last, mark)

    def _check_acknowledged(self, node: SimulatedNode, partition: Partition, mark: int) -> None:
        if partition.state is not None and partition.state.recovered_epoch != NEVER:
            return  # the loss is told: the judge looks at it
        acknowledged = self._acknowledged[partition.partition]
        raise Violation(
            f"{node.name} leads {partition.name} in leader_epoch {partition.leader_epoch}, and its "
            f"high watermark is {mark}: all below {acknowledged} was acknowledged"
        )


@contextmanager
def duplicates_counted(counts: Counter[str]) -> Iterator[None]:
    """Count the batches that leaders answer as duplicates of what they have."""
    check = Staging.check

    def counted(staging: Staging, batch: Sequenced, *, in_doubt_ms: int = 0) -> Remembered | None:
        original = check(staging, batch, in_doubt_ms=in_doubt_ms)
        counts["retried duplicates"] += original is not None
        return original

    with patch.object(Staging, "check", counted):
        yield


def check_state(name: str, state: PartitionImage) -> None:
    """Raise Violation unless the state of a partition is a possible one."""
    replicas, isr, elr = set(state.broker_ids), set(state.isr), set(state.elr)
    if not isr <= replicas or not elr <= replicas:
        raise Violation(f"{name}: ISR {state.isr} or ELR {state.elr} not in {state.broker_ids}")
    if isr & elr:
        raise Violation(f"{name}: {isr & elr} are in ISR and ELR")
    if state.leader != NO_LEADER and state.leader not in isr:
        raise Violation(f"{name}: leader {state.leader} is not in the ISR {state.isr}")


def check_maximal(node: str, name: str, state: PartitionImage, maximal: tuple[int, ...]) -> None:
    """Raise Violation unless a leader counts with all whom the controller may elect."""
    if not set(state.isr) <= set(maximal):
        raise Violation(
            f"{node}: the controller's ISR of {name} is {state.isr} in leader_epoch "
            f"{state.leader_epoch}, and the leader's largest is {maximal}"
        )
