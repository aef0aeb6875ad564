"""The registry of schemas: a topic of the cluster, read by every program that uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, TypeVar
from uuid import UUID

from quorate.admin.admin import Admin
from quorate.aio.owner import Owner
from quorate.cluster.client import Client
from quorate.cluster.cluster import Cluster
from quorate.consumer.consumer import Consumer
from quorate.errors import (
    OverloadedError,
    UnknownSchemaError,
)
from quorate.object_rules import Object
from quorate.producer.producer import Producer
from quorate.schema_registry.catalog import Catalog, Proposal, SchemaVersion
from quorate.schema_registry.topic import SchemaTopic
from quorate.serializers.avro.compatibility import Compatibility
from quorate.serializers.avro.schema import AvroSchema, as_schema
from quorate.serializers.avro.sources import Given, Lookups, SchemaStore
from quorate.settings import (
    CLIENT_ID,
    FINGERPRINT,
    INT32_MAX,
    SCHEMAS_TOPIC,
    SECURITY,
    SERVERS,
    SUBJECT,
    TIMEOUT_MS,
    TOPIC,
    Whole,
    checked,
    refused,
)

T = TypeVar("T")

#: How often a change is proposed while other programs change the same subject.
PROPOSALS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Rule:
    """Rule of an argument: a Compatibility, or its name."""

    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> Compatibility:
        try:
            return Compatibility(given)
        except ValueError:
            allowed = ", ".join(Compatibility)
            raise ValueError(refused(call, name, f"one of {allowed}", given)) from None


class SchemaRegistry(Client):
    """Keeps the schemas of Avro, by subjects, in a compacted topic of the cluster.

    A started registry has read the topic, and follows it. Give it to serializers, which find in it
    what a value was written with. A schema must be registered before values are written with it.
    A schema that the subject's rule does not allow is refused. The topic is made at the first
    start.

        async with SchemaRegistry(bootstrap_servers="localhost:7092") as registry:
            await registry.register("orders-value", ORDER)
            orders = Avro(ORDER, schemas=registry)
    """

    _what: ClassVar[str] = "schema registry"

    @checked
    def __init__(
        self,
        *,
        bootstrap_servers: Annotated[str | Sequence[str], SERVERS] = "localhost:7092",
        client_id: Annotated[str, CLIENT_ID] = "quorate-python",
        topic: Annotated[str, TOPIC] = SCHEMAS_TOPIC,
        request_timeout_ms: Annotated[int, TIMEOUT_MS] = 30000,
        security: Annotated[object | None, SECURITY] = None,
    ) -> None:
        super().__init__(bootstrap_servers, client_id)
        self._topic_name = topic
        self._timeout_ms = request_timeout_ms
        self._catalog = Catalog()
        self._lookups: Lookups[int] = Lookups()
        #: A proposal that is written, and no other one of this program.
        self._proposing = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Set by start().
        self._topic: SchemaTopic

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, make the topic if there is none, and read it to its end.

        Raises QuorumUnavailableError if no broker answers, InvalidConfigError if the topic is not
        compacted or has several partitions, and RequestTimedOutError.
        """
        await self._start_once()

    async def stop(self) -> None:
        """Close the registry. Serializers still find the schemas that it knows."""
        await self._stop_once()

    async def _begin(self, cluster: Cluster, owner: Owner) -> None:
        servers, name, timeout_ms = self._bootstrap, self._client_id, self._timeout_ms
        topic = SchemaTopic(
            self._topic_name,
            Admin(bootstrap_servers=servers, client_id=name, request_timeout_ms=timeout_ms),
            Producer(
                bootstrap_servers=servers,
                client_id=name,
                request_timeout_ms=timeout_ms,
                delivery_timeout_ms=timeout_ms,
            ),
            Consumer(
                self._topic_name,
                bootstrap_servers=servers,
                client_id=name,
                auto_offset_reset="earliest",
            ),
        )
        try:
            await topic.start(timeout_ms)
            self._check_not_stopped(owner)
        except BaseException:
            await topic.stop()
            raise
        self._loop = asyncio.get_running_loop()
        self._topic, self._catalog = topic, topic.catalog
        self._cluster = cluster

    async def _end(self) -> None:
        await self._topic.stop()

    # -- subjects --------------------------------------------------------------------------------

    @checked
    async def register(self, subject: Annotated[str, SUBJECT], schema: Given) -> SchemaVersion:
        """Give a subject its next schema, and return its version.

        A schema that the subject has already keeps its version. Raises InvalidSchemaError,
        IncompatibleSchemaError (the rule of the subject does not allow it, and why), and the errors
        of Producer.send_and_wait, after which the call may be repeated.
        """
        wanted = as_schema(schema)

        def propose() -> SchemaVersion | Proposal:
            return self._catalog.propose_schema(subject, wanted, self._proposal_id())

        return await self._change(subject, propose)

    @checked
    async def check(self, subject: Annotated[str, SUBJECT], schema: Given) -> tuple[str, ...]:
        """Return why the subject's rule does not allow a schema; empty: it does."""
        wanted = as_schema(schema)
        await self._newest()
        return self._catalog.problems(subject, wanted)

    async def subjects(self) -> list[str]:
        """Return the names of all subjects, sorted."""
        await self._newest()
        return self._catalog.subjects()

    @checked
    async def versions(self, subject: Annotated[str, SUBJECT]) -> list[SchemaVersion]:
        """Return the schemas of a subject, the oldest first; an empty list: it has none."""
        await self._newest()
        return self._catalog.versions(subject)

    @checked
    async def compatibility(self, subject: Annotated[str | None, SUBJECT] = None) -> Compatibility:
        """Return the rule of a subject; None: the rule of all subjects that have none."""
        await self._newest()
        return self._catalog.rule(subject)

    @checked
    async def set_compatibility(
        self,
        rule: Annotated[Compatibility | str, Rule()],
        subject: Annotated[str | None, SUBJECT] = None,
    ) -> None:
        """Set the rule of a subject; None: the rule of all subjects that have none.

        It is for the next schemas. Those that are there stay.
        """
        wanted = Compatibility(rule)

        def propose() -> bool | Proposal:
            proposal = self._catalog.propose_rule(subject, wanted, self._proposal_id())
            return True if proposal is None else proposal

        await self._change(subject, propose)

    @checked
    async def delete(
        self,
        subject: Annotated[str, SUBJECT],
        version: Annotated[int | None, Whole(1, INT32_MAX, "one version")] = None,
    ) -> list[int]:
        """Delete a version of a subject; None: all of them. Return the numbers of those deleted.

        They no longer count for the subject's rule, and their numbers are not given again. Values
        that were written with such a schema are still read, and `store` still has it.
        """
        deleted: list[int] = []

        def propose() -> list[int] | Proposal:
            there = [one.version for one in self._catalog.versions(subject)]
            wanted = [one for one in there if version in (None, one)]
            if not wanted:
                return deleted
            deleted[:] = wanted
            return self._catalog.propose_deletion(subject, wanted, self._proposal_id())

        return await self._change(subject, propose)

    def store(self) -> SchemaStore:
        """Return the schemas that are known now, to save them in a file for offline use."""
        return SchemaStore(self._catalog.schemas())

    # -- what serializers call, from any thread --------------------------------------------------

    @checked
    def find(self, fingerprint: Annotated[int, FINGERPRINT]) -> AvroSchema | None:
        """Return a schema that was read already. Do not wait."""
        return self._catalog.find(fingerprint)

    @checked
    def look_up(self, fingerprint: Annotated[int, FINGERPRINT]) -> Future[None]:
        """Read the topic to its end. The future is done when `find` finds the schema.

        Its exception says why the schema was not found.
        """
        return self._lookups.begin(fingerprint, lambda: self._start_lookup(fingerprint))

    @checked
    def check_may_write(self, schema: Annotated[AvroSchema, Object(AvroSchema)]) -> None:
        """Raise UnknownSchemaError if the schema is not registered."""
        if self.find(schema.fingerprint) is None:
            raise UnknownSchemaError(
                f"the schema {schema.fingerprint:016x} is not registered in the topic "
                f"{self._topic_name}, so no reader would find it: call "
                "registry.register(SUBJECT, schema) before the first value is written"
            )

    # -- inside ----------------------------------------------------------------------------------

    def _proposal_id(self) -> str:
        return UUID(bytes=self._running().chance.randbytes(16), version=4).hex

    def _start_lookup(self, fingerprint: int) -> Future[None]:
        loop = self._loop
        if loop is None or loop.is_closed() or self._stopped is not None:
            failed: Future[None] = Future()
            failed.set_exception(self._not_running_error())
            return failed
        return asyncio.run_coroutine_threadsafe(self._look_up(fingerprint), loop)

    async def _look_up(self, fingerprint: int) -> None:
        if self.find(fingerprint) is None:
            await self._topic.catch_up(self._timeout_ms)
        if self.find(fingerprint) is None:
            raise UnknownSchemaError(
                f"no schema with the fingerprint {fingerprint:016x} is registered in the topic "
                f"{self._topic_name}"
            )

    async def _newest(self) -> None:
        self._owner.check()
        self._running()
        await self._topic.catch_up(self._timeout_ms)

    async def _change(self, subject: str | None, propose: Callable[[], T | Proposal]) -> T:
        """Propose a change until it is accepted, or is there. Return what `propose` then returns.

        The answer comes from the log: a proposal may lose against one of another program.
        """
        self._owner.check()
        self._running()
        async with self._proposing:
            for _ in range(PROPOSALS_MAX):
                await self._topic.catch_up(self._timeout_ms)
                found = propose()
                if not isinstance(found, Proposal):
                    return found
                await self._topic.write(found, self._timeout_ms)
        raise OverloadedError(
            f"{PROPOSALS_MAX} changes of {'the rule' if subject is None else repr(subject)} lost "
            "against those of other programs"
        )
