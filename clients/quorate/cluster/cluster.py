"""A client's view of the cluster: brokers, topics, leaders, and when to ask for metadata again.

A look is one request for metadata, sent to one broker after another until one answers. Producer,
consumer and admin each own one Cluster.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from quorate.aio.clock import Deadline
from quorate.aio.owner import Owner
from quorate.cluster.brokers import Brokers
from quorate.cluster.topic_views import Told, TopicView, TopicViews
from quorate.errors import (
    ClosedError,
    InvalidRequestError,
    PeerError,
    QuorateError,
    QuorumUnavailableError,
    UnknownTopicError,
    WrongClusterError,
    WrongLoopError,
)
from quorate.net.methods import METADATA
from quorate.net.network import current_wall_clock_ms
from quorate.net.unexpected_peer import knows_no_such_call, what_listens
from quorate.v1.admin_pb2 import MetadataRequest, MetadataResponse
from quorate.v1.common_pb2 import LeaderHint

log = logging.getLogger(__name__)

#: After this time without an answer, the next broker is asked.
METADATA_TIMEOUT_MS = 1000
#: The time limit of one look, over all brokers.
REFRESH_TIMEOUT_MS = 30_000
METADATA_AGE_MAX_S = 30.0
#: Pause at the start after no bootstrap server has answered, before all are asked again.
TRY_AGAIN_S = 0.2
#: A client waits this long at the start for the hosts of its addresses, if no name has an address:
#: a name may be known a moment after the node that has it.
UNRESOLVED_WAIT_S = 3.0
#: A client waits this long for an unknown topic: not every broker knows a new topic at once.
UNKNOWN_TOPIC_WAIT_S = 3.0
NO_ANSWER_WAIT_S = 30.0
#: Pauses before the 1st, 2nd ... look in a row that brings no news. The row begins again after
#: news, or after QUIET_S without a look.
LOOK_INTERVALS_S = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)
QUIET_S = 2.0


def system_wall_clock_ms() -> int:
    """Return the time of day, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class _Known(NamedTuple):
    """What the client asked for, and the offset and epoch of the image behind the answer."""

    asked_for: tuple[tuple[str, ...], bool]
    offset: int
    epoch: int


class Cluster(Brokers, TopicViews):
    """Brokers, topics and leaders, as far as one client knows them."""

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        *,
        client_id: str,
        owner: Owner | None = None,
    ) -> None:
        Brokers.__init__(self, bootstrap_servers, client_id=client_id, owner=owner)
        TopicViews.__init__(self)
        self.wall_clock_ms = current_wall_clock_ms.get() or system_wall_clock_ms
        self.controller = -1
        self.image_offset = -1
        self.racks: dict[int, str] = {}
        self._refresh: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._changed: list[Callable[[], None]] = []
        self._looked_at = -QUIET_S
        self._looks_without_news = 0
        self._last_error: QuorateError | None = None
        #: The numbers of the last metadata request that was sent and of the last that was answered.
        self.asked = 0
        self.answered = 0
        #: The value of `answered` before the last answer.
        self.answered_before = 0
        #: The last complete answer. The next request names its image. The broker then answers
        #: `unchanged` if nothing differs.
        self._known: _Known | None = None

    async def start(self, *, timeout_ms: int = 30000) -> None:
        """Ask the bootstrap servers until one answers.

        Raises QuorumUnavailableError if none answers within `timeout_ms`, or sooner if the host of
        no server can be looked up.
        """
        self.owner.bind()
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = Deadline(timeout_ms)
        while True:
            try:
                await self.refresh(timeout_ms=max(1, deadline.left_ms))
                break
            except (ClosedError, InvalidRequestError, WrongClusterError, WrongLoopError):
                raise
            except QuorateError as error:
                if self.has_no_address and loop.time() - started >= UNRESOLVED_WAIT_S:
                    raise QuorumUnavailableError(f"no broker can be asked: {error}") from error
                if deadline.left_s <= TRY_AGAIN_S:
                    raise QuorumUnavailableError(
                        f"no answer within {timeout_ms} ms: is the cluster running, is the address "
                        f"right? {error}"
                    ) from error
                await asyncio.sleep(TRY_AGAIN_S)
        self._keeper = self.owner.spawn(self._keep_fresh(), "metadata")

    async def stop(self) -> None:
        """Close every connection."""
        self._closed = True
        try:
            await self.owner.end(self._refresh, self._keeper)
        finally:
            # also if this stop is cancelled: only this closes the connections
            await self.close_connections()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each answer that may change a leader, a topic or a broker."""
        self._changed.append(callback)

    # -- topics and leaders ------------------------------------------------------------------

    async def topic(self, name: str) -> TopicView:
        """Return the view of a topic. If the topic is unknown, ask for some seconds.

        Then raises UnknownTopicError, or QuorumUnavailableError if no broker answers.
        """
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

    async def look_up(self, names: Iterable[str]) -> None:
        """Ask for all unknown topics of these together, where `topic` asks for one after another.

        A topic that no broker knows stays unknown.
        """
        unknown = [one for one in names if one not in self.topics and one not in self._wanted]
        if not unknown:
            return
        try:
            self.want(unknown)
            # The first answer may be that to an earlier question, without these topics.
            for _ in range(2):
                await self.look()
                if all(name in self.topics or name in self.topic_errors for name in unknown):
                    return
        finally:
            for name in unknown:
                if name not in self.topics:
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
                if waited >= NO_ANSWER_WAIT_S:
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
        """Forget a topic that is not in use any more.

        The client looks it up again at its next use.
        """
        self._known = None
        self.unwant(name)

    def keep(self, names: Collection[str]) -> None:
        """Release all topics except these."""
        for name in [name for name in self._wanted if name not in names]:
            self.release(name)

    def learn(self, name: str, partition: int, hint: LeaderHint) -> bool:
        """Learn a leader from an error answer. Return whether it is newer than the known one."""
        if not self.take_hint(name, partition, hint, self.brokers):
            return False
        self._looks_without_news = 0
        self._tell()
        return True

    # -- looking again -----------------------------------------------------------------------

    def request_refresh(self) -> None:
        """Ask for metadata soon, in the background.

        At most one look is under way or planned. Looks that bring no news become rarer.
        """
        if self._closed or self.owner.failure is not None:
            return
        if self._refresh is not None and not self._refresh.done():
            return
        self._refresh = self.owner.spawn(self._refresh_soon(), "refresh")

    async def refresh(self, *, timeout_ms: int = REFRESH_TIMEOUT_MS) -> None:
        """Ask brokers in turn until one answers.

        If none answers, raise an error that names each failure.
        """
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
            # Name this image in the next request only if the wanted topics are still the same: the
            # answer says nothing of topics that were added after the question.
            if asked_for == (tuple(self._wanted), self.all_topics):
                self._known = _Known(asked_for, response.image_offset, response.image_epoch)

    async def look(self) -> None:
        """Wait for the end of the look that is under way or planned, or else of a new one."""
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
        # _take() sets it to 0 if there is news
        self._looks_without_news += 1
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
        is_stale = response.image_offset < self.image_offset
        self.image_offset = max(self.image_offset, response.image_offset)
        self.cluster_id = response.cluster_id
        self.controller = response.controller
        self.brokers = {one.broker_id: one.listener.endpoint for one in response.brokers}
        self.racks = {one.broker_id: one.rack for one in response.brokers}
        now = asyncio.get_running_loop().time()
        told = Told(self.brokers, is_stale, now, response.now_ms)
        has_news = self.take_topics(response.topics, told)
        if has_news:
            self._looks_without_news = 0
        self._tell()

    def _tell(self) -> None:
        for callback in list(self._changed):
            callback()
