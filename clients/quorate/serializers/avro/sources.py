"""Where the schemas of writers are found."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Any, Generic, Protocol, TypeVar

from quorate.errors import InvalidSchemaError
from quorate.object_rules import FilePath, Object
from quorate.serializers.avro.compatibility import check_fingerprint
from quorate.serializers.avro.schema import AvroSchema, as_schema
from quorate.settings import FINGERPRINT, checked, listed

K = TypeVar("K")

Given = AvroSchema | str | Mapping[str, Any] | list[Any]


class SchemaSource(Protocol):
    """Finds schemas by their fingerprints. All threads may call it."""

    def find(self, fingerprint: int) -> AvroSchema | None:
        """Return a schema that is known here. Do not wait."""

    def look_up(self, fingerprint: int) -> Future[None] | None:
        """Look for a schema elsewhere; None: there is nowhere to look.

        The future is done when `find` finds it. Its exception says why it was not found.
        """

    def check_may_write(self, schema: AvroSchema) -> None:
        """Raise UnknownSchemaError if no other program could find the schema here."""


class SchemaStore:
    """Schemas in memory, and in a file if wished: readers need no cluster for them.

    >>> store = SchemaStore(["int", {"type": "array", "items": "int"}])
    >>> store.find(AvroSchema("int").fingerprint)
    AvroSchema("int")
    """

    def __init__(self, schemas: Iterable[Given] = ()) -> None:
        self._lock = threading.Lock()
        self._found: dict[int, AvroSchema] = {}
        for schema in listed("SchemaStore", "schemas", "a list of schemas", schemas):
            self.add(schema)

    def add(self, schema: Given) -> AvroSchema:
        """Keep a schema. Of several with one fingerprint, the first stays: all read the same.

        Raises IncompatibleSchemaError if the two have other logical types, and do not.
        """
        added = as_schema(schema)
        with self._lock:
            known = self._found.setdefault(added.fingerprint, added)
        check_fingerprint(added, [known], "SchemaStore.add")
        return known

    @checked
    def find(self, fingerprint: Annotated[int, FINGERPRINT]) -> AvroSchema | None:
        """Return the schema with this fingerprint, or None."""
        return self._found.get(fingerprint)

    @checked
    def look_up(self, fingerprint: Annotated[int, FINGERPRINT]) -> Future[None] | None:
        """Return None: there is nowhere else to look."""
        return None

    @checked
    def check_may_write(self, schema: Annotated[AvroSchema, Object(AvroSchema)]) -> None:
        """Allow all: the program sees to it that readers have the schema."""

    def __iter__(self) -> Iterator[AvroSchema]:
        return iter(list(self._found.values()))

    def __len__(self) -> int:
        return len(self._found)

    @checked
    def save(self, path: Annotated[str | os.PathLike[str], FilePath()]) -> None:
        """Write all schemas into a file, as a JSON list. A crash leaves the old file or the new."""
        target = Path(path)
        written = target.with_name(f"{target.name}.new")
        text = ",\n".join(one.text for one in self)
        written.write_text(f"[\n{text}\n]\n", encoding="utf-8")
        written.replace(target)

    @classmethod
    @checked
    def load(cls, path: Annotated[str | os.PathLike[str], FilePath()]) -> SchemaStore:
        """Return the schemas of a file that save() wrote, or that has a JSON list of schemas."""
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InvalidSchemaError(f"{path} is not JSON: {error}") from None
        if not isinstance(found, list):
            raise InvalidSchemaError(f"{path} must have a JSON list of schemas")
        return cls(found)


class Lookups(Generic[K]):
    """What is looked for now, so that two readers of one schema ask once. For all threads.

    The failure of a look-up is told once. Who asks after that begins a new one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[K, Future[None]] = {}

    def begin(self, key: K, start: Callable[[], Future[None]]) -> Future[None]:
        """Return the look-up of a key that is under way or has failed, or a new one."""
        with self._lock:
            future = self._under_way.get(key)
            if future is not None:
                if future.done():
                    del self._under_way[key]
                return future
            future = self._under_way[key] = start()
        future.add_done_callback(lambda done: self._ended(key, done))
        return future

    def _ended(self, key: K, future: Future[None]) -> None:
        if not future.cancelled() and future.exception() is None:
            with self._lock:
                self._under_way.pop(key, None)
