"""Serializer of pydantic's models. Needs the extra `quorate[pydantic]`."""

from __future__ import annotations

from typing import Generic, TypeVar

from quorate.object_rules import data_of
from quorate.serializers.extras import missing
from quorate.settings import refused

try:
    from pydantic import BaseModel
except ModuleNotFoundError as error:
    raise missing("Pydantic", "pydantic", "pydantic") from error

M = TypeVar("M", bound=BaseModel)


class Pydantic(Generic[M]):
    """Serializer for one model, as JSON; bytes are checked against the model.

    Fields are written by their aliases, which are the names that the model reads.

        Producer(value_serializer=Pydantic(Order))
    """

    def __init__(self, model: type[M]) -> None:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(refused("Pydantic", "model", "a subclass of pydantic.BaseModel", model))
        self._model = model

    def serialize(self, topic: str, value: M) -> bytes:
        """Return the model as JSON. Raise TypeError if it is of another type."""
        if not isinstance(value, self._model):
            allowed = f"of the type {self._model.__name__}"
            raise TypeError(refused("Pydantic.serialize", "value", allowed, value))
        return value.model_dump_json(by_alias=True).encode()

    def deserialize(self, topic: str, data: bytes) -> M:
        """Return the model. Raise pydantic.ValidationError (a ValueError)."""
        if data.__class__ is not bytes:
            data = data_of("Pydantic", data)
        return self._model.model_validate_json(data)
