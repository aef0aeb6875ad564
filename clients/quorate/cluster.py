"""A client's view of the cluster: brokers, topics, leaders, and when to look again.

Producer, consumer and admin each own one. It never goes back to an older leader_epoch, whatever
a broker that lags behind answers, and learns leaders from error answers too (KIP-951).
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from quorate.errors import (
    ClosedError,
    InvalidRequestError,
    NetworkError,
    PeerError,
    PeerRefusedError,
    QuorateError,
    QuorumUnavailableError,
    UnknownTopicError,
    WrongClusterError,
    WrongLoopError,
    from_wire,
)
from quorate.methods import METADATA
from quorate.network import (
    Connection,
    Method,
    Network,
    Purpose,
    Q,
    R,
    current_chance,
    current_network,
    current_wall_clock_ms,
)
from quorate.owner import Owner
from quorate.settings import SERVERS, TOPIC
from quorate.v1.admin_pb2 import MetadataRequest, MetadataResponse, PartitionMetadata, TopicMetadata
from quorate.v1.common_pb2 import ErrorCode, LeaderHint
from quorate.wrong_address import knows_no_such_call, what_listens

log = logging.getLogger(__name__)

METADATA_TIMEOUT_MS = 1000  # one broker's time to answer before the next is asked
REFRESH_TIMEOUT_MS = 30_000  # of one look, over all brokers
METADATA_AGE_MAX_S = 30.0
RETRY_BACKOFF_S = (0.02, 0.05, 0.1, 0.2)  # between rounds over all known brokers
UNKNOWN_TOPIC_WAIT_S = 3.0  # a topic made just now may not be known everywhere
NOBODY_ANSWERS_WAIT_S = 30.0
#: Between looks that bring no news; the first one after news, or after a quiet time, is at once.
LOOK_INTERVALS_S = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)
QUIET_S = 2.0


class _Known(NamedTuple):
    """What was asked for, and the image that told it: offset and epoch."""

    asked_for: tuple[tuple[str, ...], bool]
    offset: int
    epoch: int


@dataclass(slots=True)
class PartitionView:
    """What this client knows of one partition's leader."""

    partition: int
    leader: int = -1
    leader_epoch: int = -1
    endpoint: str = ""
    replicas: tuple[int, ...] = ()
    isr: tuple[int, ...] = ()


@dataclass(slots=True)
class TopicView:
    """What this client knows of one topic."""

    name: str
    topic_id: bytes
    partitions: list[PartitionView] = field(default_factory=list)
    is_internal: bool = False
    #: Deleted, or made again under its name: another view has its place.
    is_gone: bool = False
    #: When it was made, as time of the event loop, not too early; infinity: not known.
    created_at: float = math.inf
    #: All partition numbers, and those that have a leader; replaced when that changes.
    numbers: tuple[int, ...] = ()
    available: tuple[int, ...] = ()

    def leaders_changed(self) -> None:
        """Work out again what follows from the partitions."""
        numbers = tuple(view.partition for view in self.partitions)
        available = tuple(view.partition for view in self.partitions if view.leader >= 0)
        if numbers != self.numbers:
            self.numbers = numbers
        if available != self.available:
            self.available = available


def default_network() -> Network:
    """Return the network of the context, by default a new gRPC one."""
    network = current_network.get()
    if network is not None:
        return network
    from quorate.grpc_network import GrpcNetwork

    return GrpcNetwork()


def system_wall_clock_ms() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Cluster:
    """Brokers, topics and leaders as one client knows them."""

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        *,
        client_id: str,
        owner: Owner | None = None,
    ) -> None:
        #: Of the client that this view belongs to; it sees the ends of our tasks too.
        self.owner = owner or Owner("client")
        self.bootstrap = SERVERS.check("Cluster", "bootstrap_servers", bootstrap_servers)
        self.client_id = client_id
        self.network = default_network()
        self.owns_network = current_network.get() is None
        self.chance = current_chance.get() or random.Random()
        self.wall_clock_ms = current_wall_clock_ms.get() or system_wall_clock_ms
        self.cluster_id = ""
        self.controller = -1
        self.image_offset = -1
        self.brokers: dict[int, str] = {}
        self.racks: dict[int, str] = {}
        self.topics: dict[str, TopicView] = {}
        self.topic_errors: dict[str, QuorateError] = {}
        self.all_topics = False
        self._wanted: dict[str, None] = {}
        self._names: dict[bytes, str] = {}
        self._connections: dict[tuple[str, Purpose], Connection] = {}
        self._refresh: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._changed: list[Callable[[], None]] = []
        self._last_answer = ""
        self._avoided: dict[str, None] = {}
        #: What came of the last call to each broker that has not answered since.
        self._said: dict[str, NetworkError] = {}
        self._looked_at = -QUIET_S
        self._looks_without_news = 0
        self._last_error: QuorateError | None = None
        self._closed = False
        #: Requests for metadata, numbered as they are sent, and the latest one answered.
        self.asked = 0
        self.answered = 0
        #: The latest one answered before that.
        self.answered_before = 0
        #: The last answer that told all that was asked for.
        self._known: _Known | None = None
        #: The clock of the broker whose answer is taken.
        self._answered_ms = 0

    async def start(self, *, timeout_ms: int = 30000) -> None:
        """Ask the bootstrap servers until one answers; QuorumUnavailableError after timeout_ms."""
        self.owner.bind()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_ms / 1000
        while True:
            try:
                left_ms = max(1, int((deadline - loop.time()) * 1000))
                await self.refresh(timeout_ms=left_ms)
                break
            except (ClosedError, InvalidRequestError, WrongClusterError, WrongLoopError):
                raise
            except QuorateError as error:
                if loop.time() + RETRY_BACKOFF_S[-1] >= deadline:
                    raise QuorumUnavailableError(
                        f"none of {', '.join(self.bootstrap)} answered within {timeout_ms} ms "
                        f"({error}); is the cluster running, is the address right?"
                    ) from error
                await asyncio.sleep(RETRY_BACKOFF_S[-1])
        self._keeper = self.owner.spawn(self._keep_fresh(), "metadata")

    async def stop(self) -> None:
        """Close every connection."""
        self._closed = True
        await self.owner.end(self._refresh, self._keeper)
        connections, self._connections = list(self._connections.values()), {}
        if self.owns_network:
            await self.network.close()  # and all connections with it
        else:
            await asyncio.gather(*(one.close() for one in connections))

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back after each answer that changed a leader, a topic or a broker."""
        self._changed.append(callback)

    def connection(self, endpoint: str, purpose: Purpose = "data") -> Connection:
        """Return the one connection to an endpoint for a purpose."""
        self._check_open()
        found = self._connections.get((endpoint, purpose))
        if found is None:
            found = self.network.connect(
                endpoint, purpose=purpose, cluster_id=lambda: self.cluster_id
            )
            self._connections[endpoint, purpose] = found
        return found

    # -- topics and leaders ------------------------------------------------------------------

    def want(self, names: Iterable[str]) -> bool:
        """Keep these topics fresh from now on; True if one of them is new to us.

        TypeError if a name is no string: every later look at the cluster would fail on it.
        """
        fresh = [name for name in names if name not in self._wanted]
        for name in fresh:
            TOPIC.check("a call", "a topic's name", name)
        self._wanted.update(dict.fromkeys(fresh))
        return bool(fresh)

    async def topic(self, name: str) -> TopicView:
        """Return a topic, asking for a while if it is unknown; then raise UnknownTopicError."""
        found = self.topics.get(name)
        if found is not None:
            return found
        was_wanted = name in self._wanted
        try:
            return await self._find_topic(name)
        except UnknownTopicError:
            self.release(name)
            raise
        finally:
            if name not in self.topics and not was_wanted:
                self.release(name)

    async def _find_topic(self, name: str) -> TopicView:
        loop = asyncio.get_running_loop()
        started = loop.time()
        while True:
            self.want((name,))
            await self.look()
            found = self.topics.get(name)
            if found is not None:
                return found
            self._check_open()
            waited = loop.time() - started
            error = self.topic_errors.get(name)
            if error is not None and not error.retriable:
                self.release(name)
                raise error
            if self._last_error is not None:
                if waited >= NOBODY_ANSWERS_WAIT_S:
                    raise QuorumUnavailableError(
                        f"topic {name!r} could not be looked up: no broker answered for "
                        f"{waited:.0f} s (last: {self._last_error})"
                    )
            elif waited >= UNKNOWN_TOPIC_WAIT_S:
                raise UnknownTopicError(
                    f"topic {name!r} is not known to the cluster; create it with "
                    f"Admin.create_topic({name!r}) or `quorate topic create {name}`"
                )

    def release(self, name: str) -> None:
        """Forget a topic that is not in use any more; it is looked up again when it is."""
        self._wanted.pop(name, None)
        self.topic_errors.pop(name, None)
        self._known = None
        self._forget(name)

    def keep(self, names: Collection[str]) -> None:
        """Release all topics but these."""
        for name in [name for name in self._wanted if name not in names]:
            self.release(name)

    def partition(self, name: str, partition: int) -> PartitionView | None:
        """Return what is known of a partition, None if the topic or number is not known."""
        topic = self.topics.get(name)
        if topic is None or not 0 <= partition < len(topic.partitions):
            return None
        return topic.partitions[partition]

    def learn(self, name: str, partition: int, hint: LeaderHint) -> bool:
        """Take a leader from an error answer; True if it is newer than what we knew."""
        view = self.partition(name, partition)
        if view is None or hint.leader < 0 or hint.leader_epoch <= view.leader_epoch:
            return False
        endpoint = hint.endpoint or self.brokers.get(hint.leader, "")
        if not endpoint:
            return False
        view.leader, view.leader_epoch, view.endpoint = hint.leader, hint.leader_epoch, endpoint
        self.topics[name].leaders_changed()
        self._looks_without_news = 0
        self._tell()
        return True

    # -- looking again -----------------------------------------------------------------------

    def request_refresh(self) -> None:
        """Look again soon, in the background.

        At most one look is under way or planned, and looks that bring no news get rarer.
        """
        if self._closed or self.owner.failure is not None:
            return
        if self._refresh is not None and not self._refresh.done():
            return
        self._refresh = self.owner.spawn(self._refresh_soon(), "refresh")

    async def refresh(self, *, timeout_ms: int = REFRESH_TIMEOUT_MS) -> None:
        """Ask brokers in turn until one answers; raise what each said if none does."""
        self._check_open()
        self.asked = number = self.asked + 1
        asked_for = (tuple(self._wanted), self.all_topics)
        request = MetadataRequest(topics=asked_for[0], all_topics=self.all_topics)
        if self._known is not None and self._known.asked_for == asked_for:
            request.known_image_offset = self._known.offset
            request.known_image_epoch = self._known.epoch
        try:
            response = await self.ask_any(
                METADATA, request, timeout_ms=timeout_ms, one_broker_ms=METADATA_TIMEOUT_MS
            )
        except PeerError as error:
            if not knows_no_such_call(error):
                raise
            wrong = [one for one, said in self._said.items() if knows_no_such_call(said)]
            raise InvalidRequestError(
                await what_listens(self.network, wrong[0], "broker")
            ) from error
        if not self._closed:
            self.answered_before, self.answered = self.answered, max(self.answered, number)
            self._take(response)
            # What was released or wanted meanwhile is in no answer to this.
            if asked_for == (tuple(self._wanted), self.all_topics):
                self._known = _Known(asked_for, response.image_offset, response.image_epoch)

    def avoid(self, endpoint: str) -> None:
        """Ask this broker last from now on: it is silent, or does not answer."""
        self._avoided[endpoint] = None

    async def ask_any(
        self,
        method: Method[Q, R],
        request: Q,
        *,
        timeout_ms: int,
        one_broker_ms: int | None = None,
        safe_to_repeat: bool = True,
    ) -> R:
        """Call one known broker after another until one answers, for `timeout_ms` in all.

        One that is silent for `one_broker_ms` does not use up the time of the others. A call that
        may not be repeated goes on to the next broker only while it was surely not carried out
        (nobody listened there). If none answers, the error says what came of each.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_ms / 1000
        last: NetworkError | None = None
        others: dict[str, WrongClusterError] = {}
        for endpoint in self._candidates():
            left_ms = int((deadline - loop.time()) * 1000)
            if left_ms <= 0:
                break
            try:
                response = await self.connection(endpoint, "control").unary(
                    method, request, timeout_ms=min(left_ms, one_broker_ms or left_ms)
                )
            except WrongClusterError as error:
                self.avoid(endpoint)
                others[endpoint] = error
            except NetworkError as error:
                self.avoid(endpoint)
                if not safe_to_repeat and not isinstance(error, PeerRefusedError):
                    raise
                last = self._said[endpoint] = error
            else:
                self._avoided.pop(endpoint, None)
                self._said.pop(endpoint, None)
                self._last_answer = endpoint
                return response
        if others:
            self._found_another_cluster(", ".join(others), str(next(iter(others.values()))))
        if isinstance(last, PeerError):
            raise last
        listed = self._candidates()
        self._said = {one: self._said[one] for one in listed if one in self._said}
        if len(self._said) == 1 and last is not None:
            raise last
        answers = "; ".join(f"{endpoint}: {error}" for endpoint, error in self._said.items())
        raise QuorumUnavailableError(
            f"no broker answered {method.path}: {answers or 'there was no time to ask one'}"
        )

    def _found_another_cluster(self, where: str, found: str) -> NoReturn:
        """None of ours answers, and another cluster listens where ours did: go on no more.

        What was learnt of our cluster (producer id, positions, epochs, topic ids) means something
        else there: a producer id that both clusters gave makes a broker take new records for
        copies of others, and acknowledge what it never wrote.
        """
        error = WrongClusterError(
            f"this {self.owner.what} works with cluster {self.cluster_id}, and another cluster "
            f"answers at {where} ({found}): it may have been formatted anew, or the address is "
            f"wrong; to work with the other cluster make a new {self.owner.what}"
        )
        self.owner.fail(error)
        raise error

    def _candidates(self) -> list[str]:
        """Known endpoints: who answered last, then the others by chance, then the bootstrap."""
        known = list(dict.fromkeys(self.brokers.values()))
        self.chance.shuffle(known)
        first = [self._last_answer] if self._last_answer else []
        listed = dict.fromkeys((*first, *known, *self.bootstrap))
        self._avoided = {one: None for one in self._avoided if one in listed}
        return sorted(listed, key=self._avoided.__contains__)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"this {self.owner.what} was stopped; make a new one")
        self.owner.check_alive()

    async def look(self) -> None:
        """Wait for the look that is under way or planned, or for a new one."""
        self._check_open()
        self.request_refresh()
        assert self._refresh is not None
        await asyncio.wait([self._refresh])

    async def _refresh_soon(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - self._looked_at >= QUIET_S:
            self._looks_without_news = 0
        interval = LOOK_INTERVALS_S[min(self._looks_without_news, len(LOOK_INTERVALS_S) - 1)]
        await asyncio.sleep(max(0.0, self._looked_at + interval - loop.time()))
        self._looks_without_news += 1  # _take() sets it back if there is news
        try:
            await self.refresh()
            self._last_error = None
        except QuorateError as error:
            self._last_error = error
            log.debug("a look at the cluster failed: %s", error)
        finally:
            self._looked_at = loop.time()

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(METADATA_AGE_MAX_S)
            self.request_refresh()

    def _take(self, response: MetadataResponse) -> None:
        if self.cluster_id and response.cluster_id != self.cluster_id:
            self._found_another_cluster(self._last_answer, f"cluster {response.cluster_id}")
        if response.unchanged:
            self.controller = response.controller
            return
        self._answered_ms = response.now_ms
        is_stale = response.image_offset < self.image_offset
        self.image_offset = max(self.image_offset, response.image_offset)
        self.cluster_id = response.cluster_id
        self.controller = response.controller
        self.brokers = {one.broker_id: one.endpoint for one in response.brokers}
        self.racks = {one.broker_id: one.rack for one in response.brokers}
        has_news = False
        if self.all_topics and not is_stale:
            present = {topic.name for topic in response.topics}
            for name in [name for name in self.topics if name not in present]:
                has_news |= self._forget(name)
        for topic in response.topics:
            if topic.error.code == ErrorCode.ERROR_CODE_NONE:
                has_news |= self._take_topic(topic, is_stale)
            else:
                self.topic_errors[topic.name] = from_wire(topic.error)
                if topic.error.code == ErrorCode.ERROR_CODE_UNKNOWN_TOPIC and not is_stale:
                    has_news |= self._forget(topic.name)
        if has_news:
            self._looks_without_news = 0
        self._tell()

    def _take_topic(self, topic: TopicMetadata, is_stale: bool) -> bool:
        """Take what an answer says of a topic; return whether it is news."""
        known = self.topics.get(topic.name)
        has_news = False
        if known is None or known.topic_id != topic.topic_id:
            if known is not None and is_stale:
                return False  # that topic was deleted since, and made again
            self._forget(topic.name)
            known = TopicView(topic.name, topic.topic_id, is_internal=topic.internal)
            if topic.created_ms:
                # The cluster's clocks say how old it is, so ours may be wrong.
                age_s = (self._answered_ms - topic.created_ms + 1) / 1000
                known.created_at = asyncio.get_running_loop().time() - age_s
            self.topics[topic.name] = known
            self._names[topic.topic_id] = topic.name
            has_news = True
        self.topic_errors.pop(topic.name, None)
        while len(known.partitions) < len(topic.partitions):
            known.partitions.append(PartitionView(len(known.partitions)))
            has_news = True
        for told in topic.partitions:
            if 0 <= told.partition < len(known.partitions):
                has_news |= self._take_partition(known.partitions[told.partition], told)
        known.leaders_changed()
        return has_news

    def _take_partition(self, view: PartitionView, told: PartitionMetadata) -> bool:
        if told.leader_epoch < view.leader_epoch:
            return False  # a broker that lags behind: never back to an older leader
        before = (view.leader, view.leader_epoch, view.endpoint)
        kept = view.endpoint if told.leader == view.leader >= 0 else ""
        view.leader, view.leader_epoch = told.leader, told.leader_epoch
        view.endpoint = self.brokers.get(told.leader, kept)
        view.replicas, view.isr = tuple(told.replicas), tuple(told.isr)
        return before != (view.leader, view.leader_epoch, view.endpoint)

    def _forget(self, name: str) -> bool:
        gone = self.topics.pop(name, None)
        if gone is None:
            return False
        gone.is_gone = True
        self._names.pop(gone.topic_id, None)
        for view in gone.partitions:
            view.leader, view.endpoint = -1, ""
        return True

    def name_of(self, topic_id: bytes) -> str | None:
        """Return the name of a topic id that we know."""
        return self._names.get(topic_id)

    def _tell(self) -> None:
        for callback in list(self._changed):
            callback()
