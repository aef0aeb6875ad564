"""Random schedules for the machine of consumer groups: clients, a coordinator, and what must hold.

A schedule is a number of acts, drawn by a seed: members join, leave, crash, pause and lose their
streams; topics are created, grown, deleted; subscriptions change; messages arrive late; commits
race with revocations; coordinators change, and what was not committed is partly lost. After each
act the rules are checked. Then all is let go: every client must have its share, and all of it.

`make sim-group-machine SEEDS=2000 FIRST_SEED=0` runs more than `make test`; `SEED=7` prints one.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from quorate.errors import QuorateError
from quorate_broker.groups.embedded import in_words
from quorate_broker.groups.machine.classic.values import (
    DescribedClassicGroup,
    JoinGroup,
    LeaveGroup,
    MemberRequest,
    SyncGroup,
)
from quorate_broker.groups.machine.config import GroupsConfig
from quorate_broker.groups.machine.topics import Topic, TopicChanges
from quorate_broker.groups.machine.values import (
    LEAVE,
    LEAVE_STATIC,
    PARKED,
    CommitOffsets,
    Committed,
    DescribedGroup,
    FetchedOffset,
    FetchOffsets,
    Heartbeat,
    OffsetCommit,
    Push,
    Step,
    Subscription,
)
from quorate_broker.groups.records.values import Partition
from tests.harness.group_classic_consumers import ClassicClient, Request
from tests.harness.group_consumers import Client, Stream
from tests.harness.group_coordinators import Coordinator
from tests.harness.group_desk import WALL_MS, FakeTopics
from tests.harness.invariants import Violation

GROUPS = ("g", "h")
NAMES = ("a1", "a2", "b1", "b2")
PATTERNS = ("a.*", ".*1", "b.|a2", ".*")
KINDS = ("add", "add", "add-polling", "add-eager", "add-cooperative")
ASSIGNORS = ("", "", "uniform", "range", "rack-uniform", "client")
ACTS_MAX = 500
SESSION_MS = 10_000
#: How long all are left alone at the end, in rounds, and how much time a round takes.
CALM_ROUNDS = 400
CALM_STEP_MS = 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened in a schedule: how often, and the trace of it."""

    counts: Counter[str]
    trace: tuple[str, ...]


class World:
    """Clients of two groups, one coordinator at a time, topics, and the clock."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.trace: list[str] = []
        self.counts: Counter[str] = Counter()
        self.now_ms = 0
        self._ids_made = 0
        self._clients_made = 0
        self._racks: dict[str, list[str]] = {}
        #: The topics, and those of the last image that the coordinator has seen.
        self.topics = self.seen = FakeTopics([], {})
        config = GroupsConfig(
            session_timeout_ms=SESSION_MS,
            initial_rebalance_delay_ms=chance.choice((0, 500)),
            names_per_step=chance.choice((1, 3, 2_000)),
            assignment_interval_ms=chance.choice((0, 100, 1_000)),
            members_per_step=chance.choice((1, 250)),
            cleanup_records_max=chance.choice((1, 500)),
            proposal_timeout_ms=2_000,
        )
        self.coordinator = Coordinator(config, self.topics, self._pushed)
        #: By member: the stream that the coordinator has, and whether its end was noticed.
        self._streams: dict[tuple[str, str], Stream] = {}
        self._broken: list[tuple[tuple[str, str], Stream]] = []
        #: Images that the coordinator has not seen yet.
        self._images: list[tuple[FakeTopics, str]] = []
        #: Commits and reads on their way to the coordinator.
        self._requests: list[Callable[[], None]] = []
        #: Those of them that take long.
        self._slow_requests: list[Callable[[], None]] = []
        self.clients: list[Client] = []
        #: By group and partition: up to where records were processed, and surely committed.
        self.processed: Counter[tuple[str, Partition]] = Counter()
        self.acknowledged: Counter[tuple[str, Partition]] = Counter()
        for _ in range(2):
            self.create_topic()

    @property
    def wall_ms(self) -> int:
        return WALL_MS + self.now_ms

    def tell(self, what: str) -> None:
        self.counts[what.split()[0]] += 1
        self.trace.append(f"{self.now_ms:7} {what}")

    # Messages.

    def _pushed(self, push: Push) -> None:
        stream = self._streams.get((push.group_id, push.member_id))
        if stream is not None and not stream.is_cut:
            stream.down.append(push.state)

    def deliver_up(self, client: Client, stream: Stream) -> None:
        """A heartbeat reaches the coordinator."""
        heartbeat = stream.up.popleft()
        name = (client.group_id, client.id)
        machine = self.coordinator.machine
        if not client.polls and self._streams.get(name) is not stream:
            self._streams[name] = stream
            machine.stream_opened(*name, self.now_ms)

        ticket = next(self.coordinator.tickets)

        def reply(answer: object) -> None:
            if answer is PARKED:
                self.counts["parked"] += 1
                self.coordinator.waiting[ticket] = reply
            elif not stream.is_cut:
                stream.down.append(answer)  # type: ignore[arg-type]

        answer = self.coordinator.take(self._asked(heartbeat, ticket), reply)
        if isinstance(answer, QuorateError):
            self.tell(f"{type(answer).__name__} for {client.id}")

    def _asked(self, request: Heartbeat | Request, ticket: int) -> Step[Any]:
        """Return what the machine decides on a request of a member."""
        machine, times = self.coordinator.machine, (self.now_ms, self.wall_ms)
        match request:
            case Heartbeat():
                return machine.heartbeat(request, *times)
            case JoinGroup():
                return machine.join_group(request, ticket, *times)
            case SyncGroup():
                return machine.sync_group(request, ticket, *times)
            case LeaveGroup():
                return machine.leave_group(request, *times)
            case MemberRequest():
                return machine.classic_heartbeat(request, *times)

    def cut(self, client: Client) -> None:
        """A client's stream breaks. Each side notices in its time; what was on its way is lost."""
        stream = client.stream
        if stream is None:
            return
        stream.is_cut = True
        if client.polls:
            self._slow_requests.extend(partial(self._take_late, one) for one in stream.up)
        stream.up.clear()
        stream.down.clear()
        name = (client.group_id, client.id)
        if self._streams.get(name) is stream:
            self._broken.append((name, stream))

    def _take_late(self, request: Heartbeat | Request) -> None:
        """The coordinator reads a call from a connection that the client has given up."""
        self.coordinator.take(self._asked(request, next(self.coordinator.tickets)))
        self.counts["late"] += 1

    def notice_break(self) -> None:
        """The coordinator notices that a stream broke, unless there is a newer one."""
        if not self._broken:
            return
        name, stream = self._broken.pop(self.chance.randrange(len(self._broken)))
        if self._streams.get(name) is stream:
            del self._streams[name]
            self.coordinator.machine.stream_broken(*name, self.now_ms)

    def tick(self) -> None:
        """Let the machine do what is due."""
        deadline = self.coordinator.machine.deadline()
        if deadline is not None and deadline <= self.now_ms:
            self.coordinator.take(self.coordinator.machine.tick(self.now_ms, self.wall_ms))

    # Topics.

    def _change(self, topics: list[Topic], name: str, what: str) -> None:
        self.topics = FakeTopics(topics, self._racks)
        self._images.append((self.topics, name))
        self.tell(f"{what} {name}")

    def see_image(self) -> None:
        """The coordinator sees the next image."""
        if self._images:
            topics, name = self._images.pop(0)
            self.seen = topics
            changes = TopicChanges(frozenset({name}))
            machine = self.coordinator.machine
            step = machine.topics_changed(topics, changes, self.now_ms, self.wall_ms)
            self.coordinator.take(step)

    def create_topic(self) -> None:
        name = self.chance.choice(NAMES)
        if self.topics.named(name) is None:
            self._ids_made += 1
            topic_id = self._ids_made.to_bytes(16, "big")
            made = Topic(topic_id, name, self.chance.randint(1, 4))
            self._racks[name] = self.chance.choices("xy", k=12)
            self._change([*self.topics.every(), made], name, "create")

    def delete_topic(self) -> None:
        name = self.chance.choice(NAMES)
        if self.topics.named(name) is not None:
            self._change([one for one in self.topics.every() if one.name != name], name, "delete")

    def grow_topic(self) -> None:
        name = self.chance.choice(NAMES)
        if self.topics.named(name) is not None:
            topics = [
                replace(one, partitions=min(12, one.partitions + 2)) if one.name == name else one
                for one in self.topics.every()
            ]
            self._change(topics, name, "grow")

    # Clients.

    def subscription(self) -> Subscription:
        names = frozenset(name for name in NAMES if self.chance.random() < 0.4)
        pattern = self.chance.choice(PATTERNS) if self.chance.random() < 0.3 else ""
        return Subscription(names, pattern)

    def add_client(self) -> None:
        group_id = self.chance.choice(GROUPS)
        if sum(one.group_id == group_id for one in self.clients) >= 5:
            return
        self._clients_made += 1
        number = self._clients_made
        instance_id = f"i{number}" if self.chance.random() < 0.3 else ""
        kind = self.chance.choice(KINDS)
        client = self._made(kind, group_id, f"m{number}", instance_id)
        client.subscription = self.subscription()
        client.assignor = self.chance.choice(ASSIGNORS[:-1] if client.polls else ASSIGNORS)
        client.rack = self.chance.choice("xy")
        self.clients.append(client)
        self.tell(f"{kind} {client.id}")

    def _made(self, kind: str, group_id: str, name: str, instance_id: str) -> Client:
        if kind not in ("add-eager", "add-cooperative"):
            return Client(group_id, name, instance_id, SESSION_MS, polls=kind == "add-polling")
        return ClassicClient(
            group_id,
            name,
            instance_id,
            SESSION_MS,
            lambda: self.seen,
            is_wanted,
            is_cooperative=kind == "add-cooperative",
        )

    def run_client(self, client: Client) -> None:
        """A client does the next thing that it has to do."""
        if client.is_paused:
            return
        stream = client.stream
        if stream is None or stream.is_cut:
            client.open()
            client.last_sent_ms = self.now_ms
        elif stream.down and self.chance.random() < 0.7:
            client.receive(stream.down.popleft())
        elif client.has_news and self.chance.random() < 0.7:
            self._follow_target(client)
        elif self.now_ms - client.last_sent_ms >= 3_000:
            client.send()
            client.last_sent_ms = self.now_ms
        else:
            self.process(client)

    def _follow_target(self, client: Client) -> None:
        """Give back first. A commit may be on its way while the partitions are given back."""
        if client.owned - client.target:
            if self.chance.random() < 0.7:
                self.commit(client, is_slow=self.chance.random() < 0.5)
            client.give_back()
        else:
            self.read_positions(client, *sorted(client.begin()))

    def process(self, client: Client) -> None:
        """Process some records of each partition whose position is known; perhaps commit."""
        for partition, position in client.positions.items():
            if partition in client.owned:
                client.positions[partition] = position + self.chance.randint(0, 9)
                key = (client.group_id, partition)
                self.processed[key] = max(self.processed[key], client.positions[partition])
        if self.chance.random() < 0.4:
            self.commit(client)

    def read_positions(self, client: Client, *partitions: Partition) -> None:
        """Ask for the committed offsets of partitions that begin."""
        for partition in partitions:
            client.reading[partition] = partitions

        def reply(answer: tuple[FetchedOffset, ...] | QuorateError) -> None:
            assert not isinstance(answer, QuorateError)
            for one in answer:
                # It may have given the partition back in the meantime, and begun it again.
                if client.reading.get(one.partition) is partitions:
                    position = 0 if one.committed is None else one.committed.offset
                    self._check_start(client, one.partition, position)
                    del client.reading[one.partition]
                    client.positions[one.partition] = position

        def ask() -> None:
            request = FetchOffsets(client.group_id, partitions)
            self.coordinator.take(self.coordinator.machine.fetch_offsets(request), reply)

        if partitions:
            self._requests.append(ask)

    def commit(self, client: Client, *, is_slow: bool = False) -> None:
        """Commit where it stands."""
        if client.committing is not None or not client.positions:
            return
        sent = client.committing = dict(client.positions)
        offsets = [OffsetCommit(partition, at) for partition, at in sent.items()]
        request = CommitOffsets(client.group_id, offsets, client.id, client.epoch)

        def reply(answer: Committed | QuorateError) -> None:
            if client.committing is not sent:
                return
            for partition, at in client.committed(answer).items():
                key = (client.group_id, partition)
                self.acknowledged[key] = max(self.acknowledged[key], at)
                self.counts["committed"] += 1

        def ask() -> None:
            if client.committing is sent:
                self._take_commit(request, reply)

        (self._slow_requests if is_slow else self._requests).append(ask)

    def _take_commit(
        self, request: CommitOffsets, reply: Callable[[Committed | QuorateError], None]
    ) -> None:
        machine = self.coordinator.machine
        partitions = [one.partition for one in request.offsets]
        before = machine.fetch_offsets(FetchOffsets(request.group_id, partitions)).answer
        answer = self.coordinator.take(
            machine.commit_offsets(request, self.now_ms, self.wall_ms), reply
        )
        assert not isinstance(before, QuorateError)
        if isinstance(answer, QuorateError):
            self.tell(f"refused commit of {request.member_id}: {type(answer).__name__}")
            return
        self.counts["refused-partition"] += len(answer.refused)
        for one, old in zip(request.offsets, before, strict=True):
            assert one.offset is not None, "no schedule takes an offset away"
            is_taken = one.partition not in answer.refused
            if is_taken and old.committed is not None and old.committed.offset > one.offset:
                raise Violation(
                    f"{request.member_id} set partition {one.partition[1]} back from "
                    f"{old.committed.offset} to {one.offset}"
                )

    def deliver_request(self) -> None:
        if self._requests:
            self._requests.pop(self.chance.randrange(len(self._requests)))()

    def deliver_slow_request(self) -> None:
        if self._slow_requests:
            self._slow_requests.pop(0)()

    def deliver_all(self) -> None:
        """All calls that are on their way arrive."""
        while self._requests or self._slow_requests:
            self.deliver_request()
            self.deliver_slow_request()

    def fail_over(self) -> None:
        """Another coordinator, with the newest image. All streams break, all calls are unknown."""
        surviving = self.chance.randint(0, len(self.coordinator.queue))
        self.tell(f"failover, {surviving} of {len(self.coordinator.queue)} steps survive")
        for client in self.clients:
            self.cut(client)
            client.committing = None
        self._streams.clear()
        self._broken.clear()
        self._images.clear()
        self.seen = self.topics
        self._requests.clear()
        self._slow_requests.clear()
        self.coordinator.fail_over(surviving, self.topics, self.now_ms, self.wall_ms)
        for client in self.clients:
            self.read_positions(client, *sorted(client.reading))

    # Rules.

    def _check_start(self, client: Client, partition: Partition, position: int) -> None:
        key = (client.group_id, partition)
        if position > self.processed[key]:
            raise Violation(f"{client.id} skips records of {partition[1]} before {position}")
        topic = self.topics.with_id(partition[0])
        if topic is not None and position < self.acknowledged[key]:
            raise Violation(
                f"{client.id} begins {topic.name}/{partition[1]} at {position}; "
                f"{self.acknowledged[key]} was committed"
            )

    def described(self, group_id: str) -> DescribedGroup | None:
        answer = self.coordinator.machine.describe_group(group_id).answer
        return answer if isinstance(answer, DescribedGroup) else None

    def _in_words(self, group_id: str) -> DescribedGroup | None:
        """Return the description of a group, of a classic one as well."""
        answer = self.coordinator.machine.describe_group(group_id).answer
        if isinstance(answer, DescribedClassicGroup):
            return in_words(answer, self.topics)
        return None if isinstance(answer, QuorateError) else answer

    def check(self) -> None:
        """Whoever is a member owns only what the coordinator knows that it has, and it alone."""
        for group_id in GROUPS:
            group = self.described(group_id)
            if group is None:
                continue
            owners: dict[Partition, str] = {}
            for member in group.members:
                for partition in member.assignment:
                    other = owners.setdefault(partition, member.member_id)
                    if other != member.member_id:
                        raise Violation(f"{other} and {member.member_id} have {partition[1]}")
            for client in self.clients:
                if client.group_id != group_id:
                    continue
                mine = next((m for m in group.members if m.member_id == client.id), None)
                extra = set() if mine is None else client.owned - mine.assignment
                if isinstance(client, ClassicClient):
                    # It cannot name a topic that is deleted, and says nothing of it.
                    extra = {one for one in extra if self.seen.with_id(one[0]) is not None}
                if extra:
                    raise Violation(f"{client.id} owns {sorted(extra)}, which it does not have")

    def why_not_shared_out(self) -> str | None:
        """Return what is not as it must be in the end; None: each client has its share."""
        return next((why for why in map(self._why_not, GROUPS) if why is not None), None)

    def _why_not(self, group_id: str) -> str | None:
        group = self._in_words(group_id)
        clients = [one for one in self.clients if one.group_id == group_id]
        if not clients:
            return None
        if group is None or group.state != "Stable":
            return f"group {group_id} is not stable: {group}"
        if {one.member_id for one in group.members} != {one.id for one in clients}:
            return f"group {group_id} has other members than clients: {group}"
        wanted: set[Partition] = set()
        for client in clients:
            topics = [one for one in self.topics.every() if is_wanted(one, client)]
            wanted |= {(one.id, at) for one in topics for at in range(one.partitions)}
            if {topic_id for topic_id, _ in client.owned} - {one.id for one in topics}:
                return f"{client.id} has partitions that it does not want"
            if client.owned - client.positions.keys():
                return f"{client.id} does not know where to begin"
        given = Counter(one for client in clients for one in client.owned)
        return None if given == Counter(wanted) else f"{group_id} has {given}, not {wanted}"


def is_wanted(topic: Topic, client: Client) -> bool:
    """Return whether a client subscribes to a topic; the patterns here mean the same to `re`."""
    subscription = client.subscription
    return topic.name in subscription.topics or bool(
        subscription.pattern and re.fullmatch(subscription.pattern, topic.name)
    )


def _client(world: World) -> Client | None:
    return world.chance.choice(world.clients) if world.clients else None


def _run_some(world: World) -> None:
    for client in world.clients:
        if world.chance.random() < 0.6:
            world.run_client(client)
        stream = client.stream
        if stream is not None and stream.up and world.chance.random() < 0.7:
            world.deliver_up(client, stream)


def _commit_some(world: World) -> None:
    world.coordinator.commit(world.chance.randint(1, 6))


def _pass_time(world: World) -> None:
    world.now_ms += world.chance.choice((1, 20, 100, 400, 1_500, 4_000))
    world.tick()


def _leave(world: World) -> None:
    """A client gives all back, leaves, and is gone."""
    client = _client(world)
    if client is None or client.stream is None or client.stream.is_cut or not client.epoch:
        return
    client.owned = frozenset()
    may_come_back = client.instance_id and not isinstance(client, ClassicClient)
    epoch = LEAVE_STATIC if may_come_back and world.chance.random() < 0.7 else LEAVE
    client.send(member_epoch=epoch)
    world.tell(f"leave {client.id} {epoch}")
    while client.stream.up:
        world.deliver_up(client, client.stream)
    world.cut(client)
    if epoch == LEAVE_STATIC:
        client.restart()
    else:
        world.clients.remove(client)


def _crash(world: World) -> None:
    client = _client(world)
    if client is not None:
        world.tell(f"crash {client.id}")
        world.cut(client)
        client.restart()


def _pause(world: World) -> None:
    client = _client(world)
    if client is not None:
        client.is_paused = not client.is_paused
        world.tell(f"{'pause' if client.is_paused else 'wake'} {client.id}")


def _cut(world: World) -> None:
    client = _client(world)
    if client is not None:
        world.tell(f"cut {client.id}")
        world.cut(client)


def _give_up(world: World) -> None:
    """A client that polls waits no longer for an answer. Its call may be read later."""
    asking = [one for one in world.clients if one.polls and one.stream and one.stream.is_asked]
    if asking:
        client = world.chance.choice(asking)
        world.tell(f"give-up {client.id}")
        world.cut(client)


def _subscribe(world: World) -> None:
    client = _client(world)
    if client is not None and client.stream is not None and not client.stream.is_cut:
        client.subscription = world.subscription()
        names, pattern = sorted(client.subscription.topics), client.subscription.pattern
        world.tell(f"subscribe {client.id} {names} {pattern!r}")
        client.send()


ACTS: dict[Callable[[World], None], int] = {
    _run_some: 140,
    _commit_some: 90,
    World.deliver_request: 60,
    World.deliver_slow_request: 6,
    _pass_time: 20,
    World.notice_break: 6,
    World.see_image: 8,
    World.add_client: 6,
    _leave: 2,
    _crash: 2,
    _pause: 2,
    _cut: 3,
    _give_up: 12,
    _subscribe: 3,
    World.create_topic: 2,
    World.delete_topic: 1,
    World.grow_topic: 2,
    World.fail_over: 2,
}


def run_schedule(seed: int, *, lines_told: int = 40) -> Outcome:
    """Run the schedule of a seed; Violation names the seed and holds the end of the trace."""
    world = World(random.Random(seed))
    try:
        for at in range(world.chance.randint(100, ACTS_MAX)):
            (act,) = world.chance.choices(tuple(ACTS), tuple(ACTS.values()))
            act(world)
            world.check()
            if at % 20 == 0:
                world.coordinator.check_replay(world.topics)
        _calm_down(world)
    except Exception as error:
        told = "\n".join(world.trace[-lines_told:])
        raise Violation(f"seed {seed}: {type(error).__name__} {error}\n{told}") from error
    return Outcome(world.counts, tuple(world.trace))


def _calm_down(world: World) -> None:
    """No more faults: all messages arrive, all is committed, all clients work."""
    world.tell("calm")
    for client in world.clients:
        client.is_paused = False
    for left in reversed(range(CALM_ROUNDS)):
        world.now_ms += CALM_STEP_MS
        world.notice_break()
        world.see_image()
        world.tick()
        for client in [*world.clients]:
            world.run_client(client)
            while client.stream is not None and client.stream.up:
                world.deliver_up(client, client.stream)
        world.deliver_all()
        world.coordinator.commit(1_000)
        world.check()
        why = world.why_not_shared_out()
        if why is None:
            return
        if not left:
            raise Violation(why)
