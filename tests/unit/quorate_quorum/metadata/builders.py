"""Builders of events and images, in the words of the tests."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions.config_change import ConfigChange
from quorate_quorum.controller.decisions.creation import Creation
from quorate_quorum.controller.decisions.free_space import FreeSpace
from quorate_quorum.controller.decisions.internal_topics import Raising
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.decisions.sweep import Sweep
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.metadata.watch import Watch
from quorate_quorum.v1 import events_pb2 as ev
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.addresses import listening_at
from tests.harness.configs import voter_config
from tests.harness.fake_raft import FakeRaft

RACKS: Mapping[int, str] = {0: "R1", 1: "R1", 2: "R1", 3: "R2", 4: "R2", 5: "R2"}

CLUSTER = "c1"


def directory_id(broker_id: int, index: int = 0) -> bytes:
    return bytes([0xD0, broker_id, index]).ljust(16, b"d")


def topic_id(number: int) -> bytes:
    return bytes([0x70, number]).ljust(16, b"t")


def incarnation(broker_id: int, run: int = 1) -> bytes:
    return bytes([0x10, broker_id, run]).ljust(16, b"i")


def register_event(
    broker_id: int,
    epoch: int,
    *,
    fenced: bool = True,
    rack: str = "",
    host: str = "",
    disks: int = 1,
) -> ev.MetadataEvent:
    return ev.MetadataEvent(
        register_broker=ev.RegisterBroker(
            broker_id=broker_id,
            broker_epoch=epoch,
            incarnation=incarnation(broker_id),
            **listening_at(f"b{broker_id}:9092"),
            rack=rack,
            host=host or f"h{broker_id}",
            directories=[
                ev.Directory(directory_id=directory_id(broker_id, i), tail_intact=True)
                for i in range(disks)
            ],
            fenced=fenced,
        )
    )


def unfence_event(broker_id: int, epoch: int) -> ev.MetadataEvent:
    return ev.MetadataEvent(
        broker_change=ev.BrokerChange(broker_id=broker_id, broker_epoch=epoch, fenced=False)
    )


def topic_event(number: int, name: str) -> ev.MetadataEvent:
    return ev.MetadataEvent(topic=ev.Topic(topic_id=topic_id(number), name=name))


def config_event(name: str, value: str | None, topic: int | None = None) -> ev.MetadataEvent:
    event = ev.Config(name=name, topic_id=b"" if topic is None else topic_id(topic))
    if value is not None:
        event.value = value
    return ev.MetadataEvent(config=event)


def partition_made(
    number: int,
    index: int,
    replicas: Iterable[int],
    *,
    isr: Iterable[int] | None = None,
    elr: Iterable[int] = (),
    last_isr: Iterable[int] = (),
    leader: int | None = None,
    leader_epoch: int = 0,
) -> ev.MetadataEvent:
    ids = list(replicas)
    in_sync = ids if isr is None else list(isr)
    return ev.MetadataEvent(
        partition=ev.Partition(
            topic_id=topic_id(number),
            partition=index,
            replicas=[ev.Replica(broker_id=b, directory_id=directory_id(b)) for b in ids],
            isr=in_sync,
            elr=elr,
            last_isr=last_isr,
            leader=(in_sync[0] if in_sync else -1) if leader is None else leader,
            leader_epoch=leader_epoch,
            recovered_epoch=-1,
        )
    )


def create_topics(
    image: MetadataImage,
    request: admin.CreateTopicsRequest,
    context: Context,
    *,
    internal: bool = False,
) -> Outcome[admin.CreateTopicsResponse]:
    """Decide a request for topics in one turn."""
    creation = Creation(request, internal=internal, events_max=1 << 30)
    outcome = creation.next(image, context)
    assert outcome.response
    return Outcome(outcome.events, creation.response)


def alter_configs(
    image: MetadataImage, request: admin.AlterConfigsRequest
) -> Outcome[admin.AlterConfigsResponse]:
    """Decide a change of configs to its end, in as many turns as it takes."""
    change, is_done = ConfigChange(request), False
    events: list[ev.MetadataEvent] = []
    while not is_done:
        outcome = change.next(image, context(image))
        image, is_done = replayed(image, outcome.events), outcome.response
        change.proposed(outcome.events)
        events += outcome.events
    return Outcome(tuple(events), change.response)


def permitted(name: str, topic_id: bytes) -> None:
    """Refuse no deletion of a topic."""


def every_partition(image: MetadataImage) -> list[tuple[bytes, int]]:
    """The keys of all partitions, by topic's name."""
    return [
        (topic.id, index)
        for topic in image.sorted_topics()
        for index in range(len(topic.partitions))
    ]


def settled(image: MetadataImage, *brokers: int) -> MetadataImage:
    """Return the image after the sweep of these brokers has changed all their partitions."""
    sweep = Sweep(changed_max=2)
    sweep.begin(brokers)
    while sweep.is_busy:
        part = sweep.next(image, FreeSpace())
        image = replayed(image, part.events)
        sweep.took(part)
    return image


def decided(image: MetadataImage, broker: int, outcome: Outcome[Any]) -> MetadataImage:
    """Return the image after a decision about a broker and its changes of partitions."""
    return settled(replayed(image, outcome.events), broker)


def built(*events: ev.MetadataEvent, on: MetadataImage = EMPTY) -> MetadataImage:
    """The image after these events, as one batch of epoch 1."""
    return replayed(on, events, epoch=1)


def raised(
    image: MetadataImage, given: Context | None = None, turns: list[int] | None = None
) -> MetadataImage:
    """The image after a look at the internal topics. `turns` gets the number of events of each."""
    raising, is_done = Raising(), False
    while not is_done:
        outcome = raising.next(image, context(image) if given is None else given)
        image, is_done = replayed(image, outcome.events), outcome.response
        if turns is not None:
            turns.append(len(outcome.events))
    return image


def brokers(
    ids: Iterable[int],
    *,
    racks: Mapping[int, str] | None = None,
    fenced: Iterable[int] = (),
    disks: int = 1,
    on: MetadataImage = EMPTY,
) -> MetadataImage:
    """Register brokers, and unfence all but some."""
    image = on
    for broker_id in ids:
        rack = (racks or {}).get(broker_id, "")
        epoch = image.offset
        image = built(register_event(broker_id, epoch, rack=rack, disks=disks), on=image)
        if broker_id not in fenced:
            image = built(unfence_event(broker_id, epoch), on=image)
    return image


def with_partition(
    image: MetadataImage,
    replicas: Iterable[int],
    *,
    configs: Mapping[str, str] | None = None,
    isr: Iterable[int] | None = None,
    elr: Iterable[int] = (),
    last_isr: Iterable[int] = (),
    leader: int | None = None,
    number: int = 1,
    name: str = "orders",
) -> MetadataImage:
    """Add topic `number` of one partition in that state."""
    events = [topic_event(number, name)]
    events += [config_event(key, value, number) for key, value in (configs or {}).items()]
    events.append(
        partition_made(number, 0, replicas, isr=isr, elr=elr, last_isr=last_isr, leader=leader)
    )
    return built(*events, on=image)


def world() -> MetadataImage:
    """An image that has something of each aspect."""
    image = brokers([0, 1, 2], fenced=[2], disks=2)
    image = with_partition(image, [0, 1], configs={"retention.ms": "5"}, name="a", number=1)
    image = with_partition(image, [1, 2], isr=[1], elr=[2], name="b", number=2)
    image = with_partition(image, [0], name="gone", number=3)
    return built(
        ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=topic_id(3))),
        ev.MetadataEvent(feature=ev.Feature(name="metadata.version", level=1)),
        ev.MetadataEvent(
            voters=ev.Voters(voters=[ev.Voter(id=100, directory_id=b"v" * 16, endpoint="q:1")])
        ),
        config_event("min.insync.replicas", "1"),
        ev.MetadataEvent(producer_ids=ev.ProducerIds(next_producer_id=2000)),
        on=image,
    )


def the_partition(image: MetadataImage, number: int = 1, index: int = 0) -> PartitionImage:
    found = image.partition(topic_id(number), index)
    assert found is not None
    return found


def leads(image: MetadataImage, broker: int) -> int:
    """How many partitions a broker leads."""
    return sum(p.leader == broker for t in image.sorted_topics() for p in t.partitions)


def context(image: MetadataImage) -> Context:
    """A context in which ids count up from 1."""
    counter = [0]

    def new_id() -> bytes:
        counter[0] += 1
        return b"new" + counter[0].to_bytes(13, "big")

    return Context(now_ms=1_000, next_offset=image.offset, new_id=new_id)


def in_virtual_time(program: Callable[[SimulatedLoop], Coroutine[Any, Any, None]]) -> None:
    simulate(program, seed=1, time_max_s=60)


def a_voter(**config: int) -> tuple[FakeRaft, Watch]:
    raft = FakeRaft(commits_soon=False)
    raft.format()
    raft.lead(1)
    watch = Watch(CLUSTER, 1, raft, raft.epoch_at, voter_config(**config))
    return raft, watch
