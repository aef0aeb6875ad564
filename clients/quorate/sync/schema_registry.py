"""The blocking registry of schemas."""

from __future__ import annotations

import inspect
from concurrent.futures import Future
from typing import Annotated, Unpack

from quorate.argument_names import named
from quorate.object_rules import Object
from quorate.schema_registry import registry as asynchronous
from quorate.serializers.avro.schema import AvroSchema
from quorate.serializers.avro.sources import SchemaStore
from quorate.settings import FINGERPRINT, checked
from quorate.sync.client import BlockingClient, blocking
from quorate.sync.settings import SchemaRegistrySettings

_Registry = asynchronous.SchemaRegistry


class SchemaRegistry(BlockingClient[asynchronous.SchemaRegistry]):
    """Keeps the schemas of Avro; for programs without a loop. See quorate.SchemaRegistry.

    with SchemaRegistry(bootstrap_servers="localhost:7092") as registry:
        registry.register("orders-value", ORDER)
        orders = Avro(ORDER, schemas=registry)
    """

    def __init__(self, **settings: Unpack[SchemaRegistrySettings]) -> None:
        super().__init__(_Registry(**settings))

    register = blocking(_Registry.register)
    check = blocking(_Registry.check)
    subjects = blocking(_Registry.subjects)
    versions = blocking(_Registry.versions)
    compatibility = blocking(_Registry.compatibility)
    set_compatibility = blocking(_Registry.set_compatibility)
    delete = blocking(_Registry.delete)

    # serializers call these, also in the loop: they do not wait for it

    @named
    def store(self) -> SchemaStore:
        """Return the schemas that are known now, to save them in a file for offline use."""
        return self._client.store()

    @checked
    def find(self, fingerprint: Annotated[int, FINGERPRINT]) -> AvroSchema | None:
        """Return a schema that was read already. Do not wait."""
        return self._client.find(fingerprint)

    @checked
    def look_up(self, fingerprint: Annotated[int, FINGERPRINT]) -> Future[None]:
        """Read the topic to its end. The future is done when `find` finds the schema."""
        return self._client.look_up(fingerprint)

    @checked
    def check_may_write(self, schema: Annotated[AvroSchema, Object(AvroSchema)]) -> None:
        """Raise UnknownSchemaError if the schema is not registered."""
        self._client.check_may_write(schema)


SchemaRegistry.__signature__ = inspect.signature(_Registry)  # type: ignore[attr-defined]
