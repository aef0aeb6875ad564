"""Random decisions, and the invariants after each of them.

A ghost keeps, for each partition, the brokers that hold all acknowledged records in the worst case:
each time an ISR of at least min ISR has a leader, records are acknowledged that only its members
hold. A broker that returns lossy, or whose disk is wiped or fails, holds nothing. ISR and ELR must
always be among the holders, until a lossy election says that records may be lost.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions import brokers as decide
from quorate_quorum.controller.decisions.config_change import ConfigChange
from quorate_quorum.controller.decisions.creation import Creation, abandon
from quorate_quorum.controller.decisions.drain import Drain, cordon
from quorate_quorum.controller.decisions.free_space import FreeSpace
from quorate_quorum.controller.decisions.growth import Growth
from quorate_quorum.controller.decisions.internal_topics import Raising
from quorate_quorum.controller.decisions.lossy_elections import (
    LossyElection,
    LossyElections,
    elect_all,
)
from quorate_quorum.controller.decisions.lossy_replicas import LOSSY_PER_MESSAGE_MAX, replicas_lossy
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.decisions.partitions import alter_partitions
from quorate_quorum.controller.decisions.reassignment import Reassignments
from quorate_quorum.controller.decisions.requested_elections import RequestedElections
from quorate_quorum.controller.decisions.sweep import Sweep
from quorate_quorum.controller.decisions.topics import (
    delete_topics,
)
from quorate_quorum.metadata.delta import MetadataDelta, replayed
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.v1 import controller_pb2 as wire
from tests.harness.addresses import listening_at
from tests.unit.quorate_quorum.metadata.builders import (
    context,
    create_topics,
    directory_id,
    every_partition,
    incarnation,
    permitted,
    topic_id,
)

Key = tuple[bytes, int]
BROKERS = 5
FIRST_TOPICS = 4
TOPICS_MAX = 9
PARTITIONS_MAX = 8


class Cluster:
    """A controller that decides at random, and the ghost."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.image = EMPTY
        self.runs = [0] * BROKERS
        self.disks = [0] * BROKERS
        self.holders: dict[Key, set[int]] = {}
        self.recovery = LossyElections(unclean_recovery_wait_ms=3)
        self.sweep = Sweep(looked_max=4, changed_max=1)
        #: A topic that is made in several turns, with other decisions between them.
        self.creation: Creation | None = None
        #: A topic that gets more partitions, as slowly.
        self.growth: Growth | None = None
        #: A change of min.insync.replicas, as slowly; and how many there were.
        self.change: ConfigChange | None = None
        self.configured = 0
        #: Whether ELRs are emptied now, before a lower min.insync.replicas.
        self.empties_elrs = False
        #: The number of partitions that growths have made.
        self.grown = 0
        #: The number of reassignments that were begun, cancelled, and that ended at their target.
        self.reassigned = self.cancelled = self.completed = 0
        self.drains: list[Drain] = []
        #: The numbers of changes that drains and elections on request have made.
        self.drained = self.elected = 0
        self.now_ms = 0
        for broker in range(BROKERS):
            self.register(broker)
            self.settle(1_000)
            self.unfence(broker)
        flushed = {"flush.on.ack": "true"}
        assert not any(broker.fenced for broker in self.image.brokers.values())
        self.create("a", 1, {})
        self.create("b", 2, flushed)
        self.create("c", 3, {"unclean.leader.election.enable": "true"})
        self.create("__transaction_state", 4, {"min.insync.replicas": "3"}, factor=1)

    def create(self, name: str, number: int, configs: dict[str, str], factor: int = 3) -> None:
        new = admin.NewTopic(
            name=name,
            topic_id=topic_id(number),
            num_partitions=3,
            replication_factor=factor,
            configs=configs,
        )
        request = admin.CreateTopicsRequest(topics=[new])
        self.take(create_topics(self.image, request, context(self.image), internal=True))

    # One decision: replay, check, let the ghost look.

    def take_of(self, broker: int, outcome: Outcome[Any]) -> None:
        """Take a decision about a broker. Its changes of partitions follow later, among others.

        Now and then a new controller takes over, which knows only the image.
        """
        if outcome.events:
            self.sweep.begin([broker])
        self.take(outcome)
        if self.chance.random() < 0.2:
            self.sweep = Sweep(looked_max=4, changed_max=1)
            self.sweep.begin(sorted(self.image.brokers))
            self.creation = self.growth = self.change = None
            self.take(abandon(self.image, self.context()))
        self.settle(self.chance.randint(0, 6))

    def settle(self, steps: int) -> None:
        while self.sweep.is_busy and steps:
            part = self.sweep.next(self.image, FreeSpace())
            for event in part.events:  # each is right by itself
                self.take(Outcome((event,), None))
            self.sweep.took(part)
            steps -= 1

    def take(self, outcome: Outcome[Any]) -> None:
        before = self.image
        self.image = replayed(before, outcome.events)
        if self.change is not None:
            self.change.proposed(outcome.events)
        self.completed += len([k for k in before.reassigned if k not in self.image.reassigned])
        assert set(self.image.reassigned) == {
            (topic.id, index)
            for topic in self.image.sorted_topics()
            for index, partition in enumerate(topic.partitions)
            if partition.is_reassigned
        }
        for topic in self.image.sorted_topics():
            for index, partition in enumerate(topic.partitions):
                old = before.partition(topic.id, index)
                self.check((topic.id, index), topic, old, partition)
        for forming in self.image.sorted_forming():
            for partition in forming.topic.partitions:
                self.check_members(partition)

    def check(
        self, key: Key, topic: TopicImage, old: PartitionImage | None, new: PartitionImage
    ) -> None:
        settled = self.check_members(new)
        if old is not None:
            assert new.leader_epoch >= old.leader_epoch
            assert new.partition_epoch >= old.partition_epoch
            assert (new == old) == (new.partition_epoch == old.partition_epoch)
            if new.leader != old.leader:
                assert new.leader_epoch > old.leader_epoch
        holders = self.holders.setdefault(key, {*new.isr, *new.elr})
        if old is not None and new.recovered_epoch != old.recovered_epoch:
            holders.clear()
            holders.update(new.isr)
        if old is not None:
            removed = set(old.broker_ids) - set(new.broker_ids)
            had_holders = bool(holders)
            holders.difference_update(removed)  # the broker deletes the replica
            assert holders or not (removed and had_holders), (
                "a replica that is kept has all that was acknowledged"
            )
        min_isr = self.image.min_isr(topic, new)
        # One that came back lossy may stay there until its registration is settled, and can't lead.
        assert set(new.isr) & settled <= holders, (key, new, holders)
        assert set(new.elr) & settled <= holders, (key, new, holders)
        if new.leader in settled:
            assert new.leader in holders, (key, new, holders)
        if (
            old is not None
            and not self.empties_elrs
            and new.partition_epoch == old.partition_epoch + 1  # AlterPartition may step twice
            and len(new.isr) < min_isr
            and new.recovered_epoch == old.recovered_epoch
        ):
            removed = set(old.broker_ids) - set(new.broker_ids)
            kept = {*new.isr, *new.elr, *new.last_isr, *removed}
            assert {*old.isr, *old.elr} <= kept, (
                "under min ISR no replica that held all is forgotten"
            )
        if len(new.isr) >= min_isr:
            assert not new.elr, "an ISR that is enough has no ELR"
            if new.leader >= 0:
                holders.intersection_update(new.isr)

    def check_members(self, new: PartitionImage) -> set[int]:
        """Check an ISR; return the brokers that are settled."""
        new.check()
        settled = {b for b in range(BROKERS) if self.sweep.is_swept(b)}
        for member in new.isr:
            fenced = member not in self.image.brokers or self.image.brokers[member].fenced
            assert not (fenced and member in settled), "a fenced broker is in no ISR, once settled"
        return settled

    def loses(self, broker: int, *, unsynced_only: bool) -> None:
        for key, holders in self.holders.items():
            topic = self.image.topics[key[0]]
            if not (unsynced_only and self.image.topic_config(topic).flush_on_ack):
                holders.discard(broker)

    # What may happen.

    def register(self, broker: int) -> None:
        self.runs[broker] += 1
        kind = self.chance.choice(["clean", "clean", "lossy", "failed", "wiped"])
        if kind == "wiped":
            self.disks[broker] += 1
        if kind != "clean":
            self.loses(broker, unsynced_only=kind == "lossy")
        request = wire.RegisterRequest(
            broker_id=broker,
            incarnation=incarnation(broker, self.runs[broker] % 250),
            **listening_at(f"b{broker}:1"),
            host=f"h{broker}",
        )
        request.directories.add(
            directory_id=directory_id(broker, self.disks[broker] % 250),
            tail_intact=kind == "clean",
            sync_failed=kind == "failed",
        )
        outcome = decide.register(
            self.image, request, self.context(), session_lives=lambda _: False
        )
        self.take_of(broker, outcome)

    def context(self) -> Context:
        return context(self.image)

    def unfence(self, broker: int) -> None:
        end = 0 if self.sweep.is_swept(broker) else None
        if decide.may_unfence(self.image, broker, self.image.offset, outcome_end=end) is None:
            self.take_of(broker, decide.unfence(self.image, broker))

    def fence(self, broker: int) -> None:
        self.take_of(broker, decide.fence(self.image, broker))

    def shut_down(self, broker: int) -> None:
        self.take_of(broker, decide.shut_down(self.image, broker))
        if self.sweep.is_swept(broker) and self.image.brokers[broker].shutting_down:
            self.sweep.begin([broker])

    def disk_fails(self, broker: int) -> None:
        if self.chance.random() < 0.2:
            self.loses(broker, unsynced_only=False)
            ids = [d.id for d in self.image.brokers[broker].directories]
            self.take_of(broker, decide.directories_failed(self.image, broker, ids))

    def alter(self, broker: int) -> None:
        """A leader proposes an ISR: members that join have caught up with it."""
        request = wire.AlterPartitionsRequest(
            broker_id=broker, broker_epoch=self.image.brokers[broker].epoch
        )
        joined: list[tuple[Key, list[int]]] = []
        for topic in self.image.sorted_topics():
            for index, partition in enumerate(topic.partitions):
                if partition.leader != broker or self.chance.random() < 0.3:
                    continue
                others = [b for b in partition.broker_ids if b != broker]
                isr = [broker, *self.chance.sample(others, self.chance.randint(0, len(others)))]
                request.partitions.add(
                    topic_id=topic.id,
                    partition=index,
                    leader_epoch=partition.leader_epoch,
                    partition_epoch=partition.partition_epoch,
                    isr=[
                        wire.IsrMember(broker_id=b, broker_epoch=self.image.brokers[b].epoch)
                        for b in isr
                    ],
                )
                joined.append(((topic.id, index), isr))
        outcome = alter_partitions(self.image, request, self.context())
        for (key, isr), result in zip(joined, outcome.response.partitions, strict=False):
            if not result.error.code:
                self.holders[key].update(isr)
        self.take(outcome)

    def configure(self, broker: int) -> None:
        del broker
        if self.change is None:
            request = admin.AlterConfigsRequest(
                topic=self.chance.choice(["", "a", "c"]),
                set={"min.insync.replicas": self.chance.choice(["1", "2", "3"])},
            )
            self.change = ConfigChange(request, looked_max=3, changed_max=1)
        for _ in range(self.chance.randint(1, 4)):
            outcome = self.change.next(self.image, self.context())
            self.empties_elrs = True
            self.take(outcome)
            self.empties_elrs = False
            if outcome.response:
                self.change = None
                self.configured += 1
                return

    def raise_internal(self, broker: int) -> None:
        del broker
        self.take(Raising().next(self.image, self.context()))

    def make(self, broker: int) -> None:
        """Make a topic, two events in a turn, before or behind the place where a sweep stands."""
        del broker
        if self.creation is None and len(self.image.topics) < TOPICS_MAX:
            number = self.chance.randrange(FIRST_TOPICS + 1, 250)
            new = admin.NewTopic(
                name=f"n{number}",
                topic_id=topic_id(number),
                num_partitions=self.chance.randint(1, 4),
                replication_factor=3,
            )
            self.creation = Creation(admin.CreateTopicsRequest(topics=[new]), events_max=2)
        if self.creation is not None:
            outcome = self.creation.next(self.image, self.context())
            self.take(outcome)
            if outcome.response:
                self.creation = None

    def grow(self, broker: int) -> None:
        """Give a topic more partitions, one in a turn."""
        del broker
        if self.growth is None:
            topic = self.chance.choice(self.image.sorted_topics())
            count = len(topic.partitions) + self.chance.randint(1, 3)
            if count <= PARTITIONS_MAX:
                request = admin.CreatePartitionsRequest(topic=topic.name, count=count)
                self.growth = Growth(request, events_max=1)
        if self.growth is not None:
            outcome = self.growth.next(self.image, self.context())
            self.take(outcome)
            self.grown += len(outcome.events)
            if outcome.response:
                self.growth = None

    def reassign(self, broker: int) -> None:
        """Ask for other replicas of a partition, or cancel a reassignment."""
        moving = sorted(self.image.reassigned)
        cancel = bool(moving) and self.chance.random() < 0.4
        if cancel:
            topic_id, index = self.chance.choice(moving)
            topic = self.image.topics[topic_id]
        else:
            topic = self.chance.choice(self.image.sorted_topics())
            index = self.chance.randrange(len(topic.partitions))
        target = self.chance.sample(range(BROKERS), self.chance.randint(1, 4))
        asked = admin.ReassignedPartition(
            partition=index, replicas=[] if cancel else target, cancel=cancel
        )
        request = admin.ReassignPartitionsRequest()
        request.topics.add(topic=topic.name, partitions=[asked])
        requested = Reassignments(request)
        outcome = requested.next(self.image, self.context())
        assert outcome.response
        self.take(outcome)
        if outcome.events and cancel:
            self.cancelled += 1
        elif outcome.events:
            self.reassigned += 1

    def delete(self, broker: int) -> None:
        del broker
        gone = [name for name in self.image.topic_ids if name.startswith("n")]
        if gone:
            name = self.chance.choice(sorted(gone))
            topic_id = self.image.topic_ids[name]
            self.holders = {key: held for key, held in self.holders.items() if key[0] != topic_id}
            request = admin.DeleteTopicsRequest(topics=[name])
            self.take(delete_topics(self.image, request, permitted))

    def recover(self, broker: int) -> None:
        del broker
        self.now_ms += 1
        self.recovery.changed(self.image, every_partition(self.image))
        for effect in self.recovery.tick(self.image, self.now_ms):
            if isinstance(effect, LossyElection):
                self.take(elect_all(self.image, [effect], FreeSpace()))
                continue
            ends = [
                wire.ReplicaEnd(topic_id=t, partition=p, last_epoch=1, log_end_offset=5)
                for t, p in effect.partitions
            ]
            epoch = self.image.brokers[effect.broker_id].epoch
            self.recovery.answered(effect.broker_id, epoch, ends)

    def drain(self, broker: int) -> None:
        """Drain a broker, a few of its partitions in a turn; or let it take part again."""
        if broker not in self.image.brokers:
            return
        if self.chance.random() < 0.5:
            self.take(cordon(self.image, broker, cordoned=False))
            return
        self.take(cordon(self.image, broker, cordoned=True))
        self.drains.append(Drain(broker, replicas=self.chance.random() < 0.6))

    def drain_on(self, broker: int) -> None:
        del broker
        if self.drains:
            drain = self.chance.choice(self.drains)
            outcome = drain.next(self.image, self.context())
            self.take(outcome)
            self.drained += len(outcome.events)
            if outcome.response:
                self.drains.remove(drain)

    def elect(self, broker: int) -> None:
        """Elect preferred leaders; or any leaders, with a possible loss."""
        del broker
        request = admin.ElectLeadersRequest(all_topics=True, unclean=self.chance.random() < 0.3)
        requested = RequestedElections(request)
        outcome = requested.next(self.image, self.context())
        for event in outcome.events:  # each is right by itself
            self.take(Outcome((event,), None))
        self.elected += len(outcome.events)
        self.recovery.ask_for(requested.lossy, self.now_ms + 3)

    def report_lossy(self, broker: int) -> None:
        """Let a broker report that some of its replicas are damaged."""
        if broker not in self.image.brokers:
            return
        told = []
        for key in every_partition(self.image):
            partition = self.image.partition(*key)
            assert partition is not None
            if broker in partition.broker_ids and self.chance.random() < 0.3:
                epoch = partition.partition_epoch
                told.append(
                    wire.LossyReplica(topic_id=key[0], partition=key[1], partition_epoch=epoch)
                )
                self.holders[key].discard(broker)
        self.take(replicas_lossy(self.image, broker, told[:LOSSY_PER_MESSAGE_MAX]))

    def settle_on(self, broker: int) -> None:
        self.settle(5 * broker)

    def happen(self) -> None:
        what = self.chance.choice(
            [
                self.register,
                self.unfence,
                self.unfence,
                self.unfence,
                self.fence,
                self.shut_down,
                self.disk_fails,
                self.alter,
                self.alter,
                self.alter,
                self.configure,
                self.raise_internal,
                self.recover,
                self.recover,
                self.make,
                self.make,
                self.make,
                self.grow,
                self.grow,
                self.reassign,
                self.reassign,
                self.delete,
                self.drain,
                self.drain_on,
                self.drain_on,
                self.elect,
                self.report_lossy,
                self.settle_on,
                self.settle_on,
            ]
        )
        what(self.chance.randrange(BROKERS))


def snapshot_of(image: MetadataImage) -> MetadataImage:
    delta = MetadataDelta(EMPTY)
    for event in image.to_events():
        delta.replay(event)
    return delta.finish(image.offset, image.epoch)


@pytest.mark.parametrize("seed", range(40))
def test_nothing_acknowledged_is_elected_away(seed: int) -> None:
    cluster = Cluster(seed)
    for _ in range(200):
        cluster.happen()
    assert snapshot_of(cluster.image) == cluster.image
    # All brokers come back: every partition has a leader again.
    for broker in range(BROKERS):
        cluster.register(broker)
        cluster.settle(1_000)
        cluster.unfence(broker)
        cluster.settle(1_000)
    for _ in range(10):
        cluster.recover(0)
    for key in every_partition(cluster.image):
        partition = cluster.image.partition(*key)
        assert partition is not None
        if partition.leader < 0 and partition.adding:
            # An original's disk is gone: what is only being added leads if an operator asks.
            eligible = [b for b in partition.broker_ids if cluster.image.is_eligible(partition, b)]
            assert not set(partition.broker_ids) - set(partition.adding) <= set(eligible)
            cluster.recovery.ask_for({key: ()}, cluster.now_ms + 20)
    for _ in range(10):
        cluster.recover(0)
    for topic in cluster.image.sorted_topics():
        for partition in topic.partitions:
            assert partition.leader >= 0 or not any(
                cluster.image.is_eligible(partition, b) for b in partition.broker_ids
            ), (topic.name, partition)


def test_the_random_decisions_make_topics_move_them_drain_brokers_and_elect_leaders() -> None:
    """Without this floor, a rule that refuses all of them would leave nothing to check."""
    made = grown = reassigned = cancelled = completed = drained = elected = configured = 0
    for seed in range(10):
        cluster = Cluster(seed)
        for _ in range(200):
            cluster.happen()
        made += cluster.image.topics_created - FIRST_TOPICS
        grown += cluster.grown
        reassigned += cluster.reassigned
        cancelled += cluster.cancelled
        completed += cluster.completed
        drained += cluster.drained
        elected += cluster.elected
        configured += cluster.configured
    assert reassigned >= 20, reassigned
    assert cancelled >= 5, cancelled
    assert completed >= 10, completed
    assert made >= 5, made
    assert grown >= 10, grown
    assert drained >= 10, drained
    assert elected >= 3, elected
    assert configured >= 10, configured


def test_a_seed_gives_the_same_events() -> None:
    first, second = Cluster(7), Cluster(7)
    for _ in range(100):
        first.happen()
        second.happen()
    assert list(first.image.to_events()) == list(second.image.to_events())
