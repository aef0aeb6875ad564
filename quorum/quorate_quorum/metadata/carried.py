"""Converts the dataclasses of the image to protobuf messages of the metadata log, and back.

The dataclass names each field once. The message has a field of the same name, unless
`field(metadata=carried(...))` names another one. So a new field needs two lines: one in the
dataclass, one in the message.

The conversions are compiled from the names of the fields, as the dataclass's own methods are. A
loop over the fields at each conversion would make the replay of a large log slower by a fifth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, ClassVar, Final, Generic, NamedTuple, Protocol, TypeVar

from google.protobuf.message import Message


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


Image = TypeVar("Image", bound=_Dataclass)
Wire = TypeVar("Wire", bound=Message)


class Codec(NamedTuple):
    """The two conversions of one value: from its form in the message, and to that form."""

    from_wire: Callable[[Any], Any]
    to_wire: Callable[[Any], Any]


_AS_IT_IS: Final = Codec(lambda value: value, lambda value: value)
_TUPLE: Final = Codec(tuple, list)


def carried(name: str = "", *, codec: Codec | None = None) -> dict[str, Any]:
    """Mark a dataclass field (`field(metadata=carried(...))`).

    The message has this field under another name, or in another form.
    """
    return {"name": name, "codec": codec}


#: Marks a dataclass field, `field(metadata=NOT_CARRIED)`, that is not in the message, because other
#: events carry it.
NOT_CARRIED: Final = {"not_carried": True}


class _Field(NamedTuple):
    """A field of an image, and the same field in the message."""

    name: str
    wire: str
    codec: Codec

    def read(self, value: str) -> str:
        """Return the code that converts the message's value to the image's value."""
        return value if self.codec is _AS_IT_IS else f"codecs['{self.name}'].from_wire({value})"

    def written(self, value: str) -> str:
        """Return the code that converts the image's value to the message's value."""
        return value if self.codec is _AS_IT_IS else f"codecs['{self.name}'].to_wire({value})"


class Carrier(Generic[Image, Wire]):
    """Converts images to messages, and messages to images.

    image(message, **rest) returns the image; `rest` are the fields that the message leaves out.
    message(image, **rest) returns the message; `rest` are the fields that the image does not have.
    """

    def __init__(self, image: type[Image], message: type[Wire]) -> None:
        self.fields: Final = {one.name: one for one in _fields(image, message)}
        carried = self.fields.values()
        read = ", ".join(f"{one.name}={one.read('one.' + one.wire)}" for one in carried)
        written = ", ".join(f"{one.wire}={one.written('one.' + one.name)}" for one in carried)
        names = {
            "make_image": image,
            "make_message": message,
            "codecs": {one.name: one.codec for one in carried},
        }
        self.image: Callable[..., Image] = eval(
            f"lambda one, **rest: make_image({read}, **rest)", names
        )
        self.message: Callable[..., Wire] = eval(
            f"lambda one, **rest: make_message({written}, **rest)", names
        )
        #: Converts a tuple of such images to a repeated field of such messages, and back.
        self.codec: Final = Codec(
            eval(f"lambda told: tuple([make_image({read}) for one in told])", names),
            eval(f"lambda images: [make_message({written}) for one in images]", names),
        )


def _fields(image: type[_Dataclass], message: type[Message]) -> Iterator[_Field]:
    for one in fields(image):
        if not one.metadata.get("not_carried"):
            wire = message.DESCRIPTOR.fields_by_name[one.metadata.get("name") or one.name]
            plain = _TUPLE if wire.is_repeated else _AS_IT_IS
            yield _Field(one.name, wire.name, one.metadata.get("codec") or plain)


class ChangeCarrier(Generic[Image, Wire]):
    """Converts a change of an image to a message, in which an absent field is unchanged.

    A list is wrapped in a message of its own, so that an empty list differs from an absent one. A
    field of the message that can't be absent has the new value even if nothing changed. `whole`
    converts the whole image.

    changed(old, message) returns the image after a change.
    """

    def __init__(self, image: type[Image], message: type[Wire], whole: Carrier[Image, Any]) -> None:
        self._message: Callable[..., Wire] = message
        self._always: list[str] = []
        #: The fields that may be absent, each with the only field of its wrapper message; "" if
        #: there is no wrapper.
        self._optional: list[tuple[_Field, str]] = []
        values: list[str] = []
        for one in fields(image):
            name, wire = one.name, message.DESCRIPTOR.fields_by_name.get(one.name)
            if wire is None or one.metadata.get("not_carried"):
                values.append(f"{name}=old.{name}")
            elif not wire.has_presence:
                self._always.append(name)
                values.append(f"{name}=message.{name}")
            else:
                wrapper = wire.message_type
                wrapped = "" if wrapper is None else wrapper.fields[0].name
                self._optional.append((whole.fields[name], wrapped))
                new = f"message.{name}.{wrapped}" if wrapped else f"message.{name}"
                new = whole.fields[name].read(new)
                values.append(f"{name}={new} if message.HasField('{name}') else old.{name}")
        codecs = {one.name: one.codec for one in whole.fields.values()}
        self.changed: Callable[[Image, Wire], Image] = eval(
            f"lambda old, message: make({', '.join(values)})", {"make": image, "codecs": codecs}
        )

    def change(self, old: Image, new: Image, **rest: Any) -> Wire:
        """Return the message of a change. `rest` are its other fields, such as a topic id."""
        message = self._message(**rest, **{name: getattr(new, name) for name in self._always})
        for one, wrapped in self._optional:
            value = getattr(new, one.name)
            if value == getattr(old, one.name):
                continue
            value = one.codec.to_wire(value)
            if wrapped:
                getattr(message, one.name).SetInParent()
                getattr(getattr(message, one.name), wrapped).extend(value)
            else:
                setattr(message, one.name, value)
        return message
