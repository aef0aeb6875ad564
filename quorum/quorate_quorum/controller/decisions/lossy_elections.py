"""Elections that may lose records, for partitions without a replica that surely has all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from quorate_quorum.controller.decisions.free_space import DirectoryChoice, FreeSpace
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.controller.decisions.partitions import (
    moved,
    redirected,
    steps,
)
from quorate_quorum.metadata.brokers import BrokerImage
from quorate_quorum.metadata.history import Cause
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import NO_LEADER, Key, PartitionImage, ReplicaImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev

#: The time after which a broker is asked again for the ends of its logs.
ASK_AGAIN_MS = 1_000
#: The time after which an election may go on without the answer of a broker.
ANSWERS_WAIT_MS = 5_000
#: The most leaderless partitions that one tick checks, and the most that get a leader in one tick.
LEADERLESS_PER_TICK = 1_000
ELECTED_PER_TICK = 50

#: The last epoch and the end of a log.
End = tuple[int, int]


def elect_lossy(
    image: MetadataImage,
    topic_id: bytes,
    partition: int,
    leader: int,
    choice: DirectoryChoice,
    because: ev.CauseKind.ValueType = ev.CAUSE_KIND_UNSPECIFIED,
) -> Outcome[bool]:
    """Let `leader` lead although acknowledged records may be lost. recovered_epoch marks the loss.

    A reassignment goes on, and no replica is removed: the originals may hold more than the leader.

    `because`: the cause, which is about the new leader. Response: whether the election was made. It
    is not made if the partition is gone, has a leader by now, or the chosen broker is not eligible.
    """
    topic = image.topics.get(topic_id)
    old = image.partition(topic_id, partition)
    if topic is None or old is None or old.leader != NO_LEADER:
        return Outcome((), False)
    placed = replace(old, replicas=_placed(image, old, choice))
    if not image.is_eligible(placed, leader):
        return Outcome((), False)
    nothing_left = replace(placed, isr=(), elr=())
    causes = (Cause(because, leader),)
    new = moved(image, topic, nothing_left, isr=(leader,), leader=leader, because=causes)
    new = replace(new, recovered_epoch=new.leader_epoch)
    return Outcome(tuple(steps(topic.id, partition, [old, new])), True)


def _placed(
    image: MetadataImage, old: PartitionImage, choice: DirectoryChoice
) -> tuple[ReplicaImage, ...]:
    """Return the replicas. Those whose directory is gone are in another one of their broker."""
    for broker_id in old.broker_ids:
        broker = image.brokers.get(broker_id)
        if broker is not None and broker.directory(old.directory_of(broker_id) or b"") is None:
            old = replace(old, replicas=redirected(old, broker, choice))
    return old.replicas


def elect_all(
    image: MetadataImage, chosen: Sequence[LossyElection], free_space: FreeSpace
) -> Outcome[bool]:
    """Decide `elect_lossy` for several partitions. Response: whether any election was made."""
    choice = DirectoryChoice(image, free_space)
    outcomes = [
        elect_lossy(image, c.topic_id, c.partition, c.leader, choice, c.because) for c in chosen
    ]
    events = tuple(event for outcome in outcomes for event in outcome.events)
    return Outcome(events, bool(events))


@dataclass(frozen=True, slots=True)
class AskEnds:
    """Ask a broker on its heartbeat stream for the last epoch and the end of these logs."""

    broker_id: int
    partitions: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class LossyElection:
    """Decide `elect_lossy` for this partition, and log the reason."""

    topic_id: bytes
    partition: int
    leader: int
    reason: str
    because: ev.CauseKind.ValueType = ev.CAUSE_KIND_UNSPECIFIED


@dataclass(slots=True)
class _Waiting:
    """A partition that no replica can lead without loss."""

    #: The time at which the first original replica was back, and the wait for the others began.
    since_ms: int
    #: The questions, by broker: (the broker_epoch asked, time of the first, time of the last one).
    asked: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    #: The answers, by broker: (the broker_epoch that answered, (last_epoch, log_end_offset)).
    ends: dict[int, tuple[int, End]] = field(default_factory=dict)

    def must_ask(self, broker: BrokerImage, now_ms: int) -> bool:
        """Return whether to ask a broker now. If True, the question is noted.

        True if the broker was not asked yet, or was last asked ASK_AGAIN_MS ago.
        """
        epoch, first_ms, last_ms = self.asked.get(broker.id, (-1, now_ms, now_ms))
        if epoch == broker.epoch and now_ms - last_ms < ASK_AGAIN_MS:
            return False
        self.asked[broker.id] = (
            broker.epoch,
            first_ms if epoch == broker.epoch else now_ms,
            now_ms,
        )
        return True

    def is_hopeless(self, broker: BrokerImage, now_ms: int) -> bool:
        """Return whether the first question to the broker is ANSWERS_WAIT_MS old."""
        epoch, first_ms, _ = self.asked.get(broker.id, (-1, now_ms, now_ms))
        return epoch == broker.epoch and now_ms - first_ms >= ANSWERS_WAIT_MS


@dataclass(slots=True)
class _Request:
    """An operator's request to elect a leader although records may be lost."""

    #: The time until which it counts.
    until_ms: int
    #: The replicas that were live at any time since the request was accepted.
    seen: set[int]


class LossyElections:
    """Decides when a leaderless partition gets a leader that may lack records, and which one.

    It decides for leaderless partitions whose ISR and ELR are empty, or whose topic allows unclean
    elections. It waits until all replicas are back and have told the ends of their logs, or until
    one replica has been back for unclean.recovery.wait.ms. If unclean elections are allowed, it
    does not wait for absent replicas. Then the replica with the furthest end leads; among equal
    ends, the first in the order of assignment.

    It does not wait for the replicas of last_isr alone. At min ISR 1, last_isr may be one wiped
    disk, while a replica that had left the ISR holds nearly everything. A replica that is back and
    does not answer may be under repair: the wait for it is as long as for an absent replica. A
    replica with an empty log may be a wiped disk. It leads only after every assigned replica has
    answered, however long that takes: a replica that had left the ISR may hold nearly everything.
    Only if unclean elections are allowed may it lead after unclean.recovery.wait.ms.

    A replica that a reassignment adds, and that was never in sync, may hold a few of the records.
    It leads only after every original replica has answered, and has no more: an original that is
    absent may hold all. If an operator asks, it may also lead where no original that has answered
    holds a record.

    An operator may ask for the election of a partition (`ask_for`). It counts as allowed, and as
    having waited long enough, for the time that the operator gives it. But it waits for each
    replica that was live at any time since the request was accepted: one whose broker was fenced
    for a moment may hold all records. If no replica was live, one whose directory is gone leads: it
    begins with an empty log in another directory. It never does so by itself, because the disk may
    come back.

    The machine lives as long as a reign. Every image passed in is the pending one.
    """

    def __init__(self, unclean_recovery_wait_ms: int = 60_000) -> None:
        self._wait_ms = unclean_recovery_wait_ms
        self._leaderless: dict[Key, _Waiting | None] = {}
        #: Elections that an operator asked for: the newest request for each partition.
        self._requested: dict[Key, _Request] = {}

    def changed(self, image: MetadataImage, partitions: Iterable[Key]) -> None:
        """Take in partitions that changed or are new to this reign. Note those without a leader."""
        for key in partitions:
            partition = image.partition(*key)
            if partition is not None and partition.leader == NO_LEADER:
                self._leaderless.setdefault(key, None)
            elif self._leaderless:
                self._leaderless.pop(key, None)
                self._requested.pop(key, None)

    def ask_for(self, partitions: Mapping[Key, Collection[int]], until_ms: int) -> None:
        """Elect leaders of these partitions although records may be lost, if it can be until then.

        Each tick elects some. A partition that has a leader by then is left alone. `partitions`:
        with the replicas of each that were live when the request was accepted.
        """
        for key, live in partitions.items():
            self._leaderless.setdefault(key, None)
            self._requested[key] = _Request(until_ms, set(live))

    def answered(self, broker_id: int, broker_epoch: int, ends: Iterable[wire.ReplicaEnd]) -> None:
        """Take in the log ends that a broker told. An end that was not asked for is ignored."""
        for end in ends:
            waiting = self._leaderless.get((end.topic_id, end.partition))
            if waiting is not None and broker_id in waiting.asked:
                waiting.ends[broker_id] = (broker_epoch, (end.last_epoch, end.log_end_offset))

    def tick(self, image: MetadataImage, now_ms: int) -> list[AskEnds | LossyElection]:
        """Return the questions and elections of this tick.

        If there are more leaderless partitions than one tick checks, later ticks check the others.
        """
        questions: dict[int, list[Key]] = {}
        elections: list[AskEnds | LossyElection] = []
        for key in list(islice(self._leaderless, LEADERLESS_PER_TICK)):
            topic, partition = image.topics.get(key[0]), image.partition(*key)
            if topic is None or partition is None or partition.leader != NO_LEADER:
                del self._leaderless[key]
                self._requested.pop(key, None)
                continue
            # Move the partition to the end of the queue.
            self._leaderless[key] = self._leaderless.pop(key)
            found = self._look(image, topic, key, partition, now_ms)
            if isinstance(found, LossyElection):
                elections.append(found)
                if len(elections) == ELECTED_PER_TICK:
                    break
            else:
                for broker_id in found:
                    questions.setdefault(broker_id, []).append(key)
        asks = [AskEnds(broker_id, tuple(questions[broker_id])) for broker_id in sorted(questions)]
        return [*asks, *elections]

    def _look(
        self,
        image: MetadataImage,
        topic: TopicImage,
        key: Key,
        partition: PartitionImage,
        now_ms: int,
    ) -> LossyElection | list[int]:
        """Return the election of one partition, or the ids of the brokers to ask before it."""
        request = self._request(key, now_ms)
        is_requested = request is not None
        unclean = is_requested or bool(image.config_value(topic, "unclean.leader.election.enable"))
        if (partition.isr or partition.elr) and not unclean:
            self._leaderless[key] = None  # wait: a replica with all records may come back
            return []
        waiting = self._leaderless[key]
        if waiting is None:
            waiting = self._leaderless[key] = _Waiting(now_ms)
        back = [b for b in partition.broker_ids if image.is_eligible(partition, b)]
        if request is not None:
            request.seen.update(live_replicas(image, partition))
            if not request.seen:
                return _emptied(image, topic, key, partition) or []
        if _newcomers(partition).issuperset(back):
            # The wait for the others begins when the first replica is back that may lead after it.
            waiting.since_ms = now_ms
        has_waited = is_requested or now_ms - waiting.since_ms >= self._wait_ms
        waited = unclean or has_waited
        if not back or not (waited or all(b in back for b in partition.broker_ids)):
            return []
        told = {
            b: waiting.ends[b][1]
            for b in back
            if b in waiting.ends and waiting.ends[b][0] == image.brokers[b].epoch
        }
        silent = [image.brokers[b] for b in back if b not in told]
        ask = [broker.id for broker in silent if waiting.must_ask(broker, now_ms)]
        if not all(waited and waiting.is_hopeless(broker, now_ms) for broker in silent):
            return ask
        if request is not None and not request.seen.issubset(back):
            return ask  # it was live a moment ago, and may have most records
        ends = _candidates(partition, told, asked=is_requested)
        has_all = len(told) == len(partition.broker_ids)
        if not ((unclean and has_waited) or has_all):
            # An empty log may be of a wiped disk.
            ends = {b: end for b, end in ends.items() if end[1] > 0}
        if not ends:
            return ask
        because = _why_now(has_all=has_all, asked=is_requested, unclean=unclean)
        return self._furthest(topic, key, partition, ends, because)

    def _request(self, key: Key, now_ms: int) -> _Request | None:
        request = self._requested.get(key)
        if request is not None and now_ms > request.until_ms:
            del self._requested[key]
            return None
        return request

    def _furthest(
        self,
        topic: TopicImage,
        key: Key,
        partition: PartitionImage,
        ends: dict[int, End],
        because: ev.CauseKind.ValueType,
    ) -> LossyElection:
        """Return the election of the furthest replica."""
        newcomers = _newcomers(partition)

        def rank(broker: int) -> tuple[bool, End, bool, int]:
            """Rank a replica by its end; lowest if its epoch is above the partition's.

            Such an epoch is damage. A batch's CRC does not show it, because the CRC does not cover
            the epoch.
            """
            epoch_has_been = ends[broker][0] <= partition.leader_epoch
            order = -partition.broker_ids.index(broker)
            return epoch_has_been, ends[broker], broker not in newcomers, order

        leader = max(ends, key=rank)
        told = ", ".join(f"broker {b}: epoch {e}, end {o}" for b, (e, o) in ends.items())
        return LossyElection(
            key[0],
            key[1],
            leader,
            f"{topic.name}-{key[1]} may have lost acknowledged records: ISR"
            f" {list(partition.isr)}, ELR {list(partition.elr)} and last ISR"
            f" {list(partition.last_isr)} could not lead; of {told}, broker {leader} has most",
            because,
        )


def live_replicas(image: MetadataImage, partition: PartitionImage) -> tuple[int, ...]:
    """Return the brokers of the replicas that are live, those that are shutting down included."""
    return tuple(b for b in partition.broker_ids if image.is_live(partition, b))


def can_begin_empty(image: MetadataImage, partition: PartitionImage, broker_id: int) -> bool:
    """Return whether a replica's directory is gone, and its broker is up and has another one."""
    broker = image.brokers.get(broker_id)
    if broker is None or broker.fenced or broker.shutting_down:
        return False
    is_gone = broker.directory(partition.directory_of(broker_id) or b"") is None
    return is_gone and any(not directory.failed for directory in broker.directories)


def _emptied(
    image: MetadataImage, topic: TopicImage, key: Key, partition: PartitionImage
) -> LossyElection | None:
    """Return the election of a replica that begins with an empty log; None if there is none."""
    able = [b for b in partition.broker_ids if can_begin_empty(image, partition, b)]
    if not able:
        return None
    newcomers = _newcomers(partition)
    leader = next((b for b in able if b not in newcomers), able[0])
    return LossyElection(
        key[0],
        key[1],
        leader,
        f"{topic.name}-{key[1]} has lost its records as far as they were on broker {leader}: the"
        " log directory of its replica is gone, no other replica is alive, and an operator asked"
        " for a leader; it begins with an empty log in another directory",
        ev.CAUSE_KIND_LOSSY_ASKED,
    )


def _newcomers(partition: PartitionImage) -> set[int]:
    """Return the replicas that a reassignment adds and that were never in sync."""
    in_sync = {*partition.isr, *partition.elr, *partition.last_isr}
    return set(partition.adding) - in_sync


def _candidates(
    partition: PartitionImage, told: Mapping[int, End], *, asked: bool
) -> dict[int, End]:
    """Return the ends of the replicas that may lead, of those that have told their end.

    `asked`: whether an operator asked for the election. See LossyElections about newcomers.
    """
    newcomers = _newcomers(partition)
    if newcomers.issuperset(b for b in partition.broker_ids if b not in told):
        return dict(told)
    originals = {b: end for b, end in told.items() if b not in newcomers}
    if any(end > 0 for _, end in originals.values()):
        return originals
    if asked:
        return dict(told)
    # An empty original must not lead, either: the newcomers would be cut to nothing.
    return {} if any(end > 0 for _, end in told.values()) else originals


def _why_now(*, has_all: bool, asked: bool, unclean: bool) -> ev.CauseKind.ValueType:
    """Return why an election need not wait for more replicas."""
    if asked:
        return ev.CAUSE_KIND_LOSSY_ASKED
    if has_all:
        return ev.CAUSE_KIND_LOSSY_TOLD
    return ev.CAUSE_KIND_LOSSY_ALLOWED if unclean else ev.CAUSE_KIND_LOSSY_WAITED
