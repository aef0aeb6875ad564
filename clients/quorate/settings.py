"""Rules for the arguments of a call. Each rule is declared once, in the signature.

    @checked
    def __init__(
        self,
        *,
        linger_ms: Annotated[float, Number(0, DAY_MS, doc="how long a record may wait")] = 5,
    ) -> None: ...

`checked` checks every argument that has a rule, and gives it to the call in its plain form (a whole
float as an int). So the call itself refuses a value that has no place on the wire. Otherwise a
background task would find the value later, and the whole client would fail. None is allowed if the
type allows it. A wrong type is a TypeError; a wrong value is a ValueError or the rule's own error.
Both name the call, the argument, the given value and the allowed values.

On a hot path a rule is called by hand: ``PARTITION.check("send", "partition", value)``.
"""

from __future__ import annotations

import functools
import inspect
import ipaddress
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ParamSpec, Protocol, TypeVar, Union, get_args, get_origin
from typing import get_type_hints as type_hints

from quorate import argument_names
from quorate.errors import InvalidPartitionsError, InvalidRequestError, InvalidTimestampError
from quorate.model import TIMESTAMP_MIN, TopicPartition
from quorate.plain_values import UTF8_TEXT, has_utf8, whole_number

P = ParamSpec("P")
T = TypeVar("T")

INT32_MAX = (1 << 31) - 1
UINT32_MAX = (1 << 32) - 1
INT64_MAX = (1 << 63) - 1
DAY_MS = 24 * 3600 * 1000
GIVEN_CHARS_MAX = 120


class Rule(Protocol):
    """The allowed values of one argument."""

    def check(self, call: str, name: str, given: Any) -> Any:
        """Return the value in its plain form.

        Raise TypeError or ValueError if it is not allowed.
        """


def refused(call: str, name: str, allowed: str, given: object) -> str:
    """Return the sentence that refuses an argument, for all rules.

    >>> refused("Producer", "acks", '"all", 1 or 0', 2)
    'Producer: acks must be "all", 1 or 0, not 2'
    """
    text = repr(given)
    if len(text) > GIVEN_CHARS_MAX:
        text = text[:GIVEN_CHARS_MAX] + "..."
    if not isinstance(given, str | int | float | bytes | type(None)):
        text += f" ({type(given).__name__})"
    return f"{call}: {name} must be {allowed}, not {text}"


def listed(call: str, name: str, said: str, given: Any) -> list[Any]:
    """Return the elements of a list. Strings, bytes and mappings are refused."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise TypeError(refused(call, name, said, given))
    return list(given)


def _each(kind: type[T], found: list[Any], call: str, name: str, said: str) -> list[T]:
    for one in found:
        if not isinstance(one, kind):
            raise TypeError(refused(call, name, said, one))
        if isinstance(one, str) and not has_utf8(one):
            raise ValueError(refused(call, name, f"{said}, of {UTF8_TEXT}", one))
    return found


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number in a range, both ends included. True and False are no numbers.

    >>> Whole(1, 5).check("call", "n", 2.0)
    2
    """

    least: int
    most: int
    doc: str = ""
    #: The allowed values in words, for errors; empty: the range.
    allowed: str = ""
    error: type[Exception] = ValueError

    def check(self, call: str, name: str, given: Any) -> int:
        if given.__class__ is int and self.least <= given <= self.most:
            return int(given)
        value = whole_number(given)
        if value is None:
            raise TypeError(refused(call, name, self._said, given))
        if not self.least <= value <= self.most:
            raise self.error(refused(call, name, self._said, given))
        return value

    @property
    def _said(self) -> str:
        return self.allowed or f"a whole number from {self.least} to {self.most}"


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a range, both ends included. Infinity and NaN are in no range."""

    least: float
    most: float
    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> float:
        said = f"a number from {self.least:g} to {self.most:.16g}"
        if isinstance(given, bool) or not isinstance(given, int | float):
            whole = whole_number(given)
            if whole is None:
                raise TypeError(refused(call, name, said, given))
            given = whole
        if not self.least <= given <= self.most:
            raise ValueError(refused(call, name, said, given))
        return given  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Flag:
    """True or False. Other values that Python takes for true or false are refused."""

    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> bool:
        if not isinstance(given, bool):
            raise TypeError(refused(call, name, "True or False", given))
        return given


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few values. 1, 1.0 and True are different values."""

    values: tuple[Any, ...]
    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> Any:
        for value in self.values:
            if given.__class__ is value.__class__ and given == value:
                return given
        *most, last = [f'"{one}"' if isinstance(one, str) else repr(one) for one in self.values]
        said = f"{', '.join(most)} or {last}" if most else last
        raise ValueError(refused(call, name, said, given))


@dataclass(frozen=True, slots=True)
class Text:
    """A string. Unless `may_be_empty`, it has a character or more."""

    doc: str = ""
    chars_max: int = 1000
    may_be_empty: bool = False
    #: A regular expression for the whole string, and the same rule in words.
    pattern: str = ""
    allowed: str = ""
    error: type[Exception] = ValueError

    def check(self, call: str, name: str, given: Any) -> str:
        said = f"a string of {0 if self.may_be_empty else 1} to {self.chars_max} characters"
        if not isinstance(given, str):
            raise TypeError(refused(call, name, self.allowed or said, given))
        if len(given) > self.chars_max or not (given or self.may_be_empty):
            raise self.error(refused(call, name, self.allowed or said, given))
        if not has_utf8(given):
            raise ValueError(refused(call, name, UTF8_TEXT, given))
        if self.pattern and re.fullmatch(self.pattern, given) is None:
            raise self.error(refused(call, name, self.allowed or said, given))
        return given


@dataclass(frozen=True, slots=True)
class Names:
    """Several strings. A single string is refused, because its letters would count as names."""

    doc: str = ""
    what: str = "names"

    def check(self, call: str, name: str, given: Any) -> list[str]:
        if isinstance(given, str):
            raise TypeError(
                f"{call}: {name} must be a list of {self.what}, not the string {given!r}"
            )
        said = f"a list of {self.what}, each a string"
        return _each(str, listed(call, name, said, given), call, name, said)


#: Characters of URLs, which no host has. Without this check the lookup would fail after the
#: timeout.
NOT_IN_A_HOST = frozenset("/@?# \t\r\n")


def _is_bracketed_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return host[0] == "[" and host[-1] == "]"


@dataclass(frozen=True, slots=True)
class Servers:
    """Addresses: "host:port", several with commas between them, or a list of them."""

    doc: str = "brokers to ask first"

    def check(self, call: str, name: str, given: Any) -> tuple[str, ...]:
        said = '"HOST:PORT", several as "HOST:PORT,HOST:PORT" or a list of them'
        text = given.split(",") if isinstance(given, str) else listed(call, name, said, given)
        named = _each(str, text, call, name, said)
        endpoints = tuple(one.strip() for one in named if one.strip())
        if not endpoints:
            raise ValueError(refused(call, name, said, given))
        for endpoint in endpoints:
            host, _, port = endpoint.rpartition(":")
            if set(host) & set(":[]") and not _is_bracketed_ipv6(host):
                brackets = "an IPv6 address in brackets, as [::1]:7092"
                raise ValueError(refused(call, name, f"{said}, {brackets}", endpoint))
            if (
                not host
                or set(host) & NOT_IN_A_HOST
                or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)
            ):
                raise ValueError(refused(call, name, f"{said}, with ports of 1 to 65535", endpoint))
        return endpoints


@dataclass(frozen=True, slots=True)
class Coder:
    """A serializer or deserializer: an object with the method, or a function.

    A class is refused, although it can be called: the caller meant an object of the class.
    """

    method: str  # "serialize" or "deserialize"
    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> Any:
        arguments = "topic, value" if self.method == "serialize" else "topic, data"
        said = f"an object with {self.method}({arguments}), or a function"
        if isinstance(given, type) and hasattr(given, self.method):
            said = f"an object, as {given.__name__}(), and not the class"
            raise TypeError(refused(call, name, said, given))
        if not (callable(given) or callable(getattr(given, self.method, None))):
            raise TypeError(refused(call, name, said, given))
        return given


@dataclass(frozen=True, slots=True)
class Function:
    """A callable object."""

    doc: str = ""
    takes: str = ""

    def check(self, call: str, name: str, given: Any) -> Any:
        if not callable(given):
            raise TypeError(refused(call, name, f"a function ({self.takes})", given))
        return given


@dataclass(frozen=True, slots=True)
class NotThereYet:
    """A setting that a later release will have. Only None is allowed."""

    why: str
    error: type[Exception] = InvalidRequestError

    def check(self, call: str, name: str, given: Any) -> None:
        raise self.error(f"{call}: {name} {self.why}")


@dataclass(frozen=True, slots=True)
class Partition:
    """A TopicPartition, or a pair of a topic's name and a partition's number."""

    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> TopicPartition:
        match given:
            case (str() as topic, number) if topic and has_utf8(topic):
                return TopicPartition(
                    topic, PARTITION.check(call, f"the partition in {name}", number)
                )
        raise TypeError(refused(call, name, 'TopicPartition("topic", number)', given))


@dataclass(frozen=True, slots=True)
class Partitions:
    """Several TopicPartitions."""

    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> list[TopicPartition]:
        if isinstance(given, str | bytes | TopicPartition) or not isinstance(given, Iterable):
            raise TypeError(refused(call, name, "a list of TopicPartition", given))
        return [Partition().check(call, name, one) for one in given]


@dataclass(frozen=True, slots=True)
class ByPartition:
    """A mapping of TopicPartitions to values."""

    of: Rule
    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> dict[TopicPartition, Any]:
        if not isinstance(given, Mapping):
            raise TypeError(refused(call, name, "a mapping by TopicPartition", given))
        return {
            Partition().check(call, f"a key of {name}", key): self.of.check(
                call, f"{name}[{key!r}]", value
            )
            for key, value in given.items()
        }


@dataclass(frozen=True, slots=True)
class SeveralOf:
    """A list of objects of one class."""

    kind: type
    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> list[Any]:
        said = f"a list of {self.kind.__name__}"
        return _each(self.kind, listed(call, name, said, given), call, name, said)


#: Rules for arguments that several calls have.
PARTITION = Whole(0, INT32_MAX, "number of a partition", error=InvalidPartitionsError)
OFFSET = Whole(0, INT64_MAX, "offset of a record")
TIMESTAMP_MS = Whole(0, INT64_MAX, "milliseconds since 1970")
#: Below 0: before 1970. A program that copies records gets such times, and -1 (none), from Kafka's.
RECORD_TIMESTAMP_MS = Whole(
    TIMESTAMP_MIN, INT64_MAX, allowed="whole milliseconds since 1970", error=InvalidTimestampError
)
TIMEOUT_MS = Whole(1, INT32_MAX, "milliseconds")
BYTES_MAX = Whole(1, INT32_MAX, "bytes")
CALLBACK = Function(takes="delivery")
#: The topic of schemas, unless a program names another.
SCHEMAS_TOPIC = "_quorate_schemas"
SUBJECT = Text("what the schemas are of, as orders-value", chars_max=1000)
FINGERPRINT = Whole(0, (1 << 64) - 1, "of a schema of Avro")
SERVERS = Servers()
CLIENT_ID = Text("names the program in the logs of brokers")
TOPIC = Text("a topic's name", chars_max=249)
SECURITY = NotThereYet(
    "is not there yet: TLS and authentication come with a later release; leave it None, and keep "
    "the cluster on a network that you trust"
)


def checked(call: Callable[P, T]) -> Callable[P, T]:
    """Return `call` with a check of its arguments. The rules are in its signature."""
    if inspect.iscoroutinefunction(call):

        @functools.wraps(call)
        async def wait(*args: P.args, **kwargs: P.kwargs) -> Any:
            plain, named = _checked(call, args, kwargs)
            return await call(*plain, **named)

        return wait  # type: ignore[return-value]

    @functools.wraps(call)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        plain, named = _checked(call, args, kwargs)
        return call(*plain, **named)

    return run


def check_fields(value: Any) -> None:
    """Check the fields of a new frozen dataclass by the rules in its annotations."""
    kind: Any = type(value)
    for name, (rule, is_optional) in _rules(kind).items():
        given = getattr(value, name)
        if given is not None or not is_optional:
            object.__setattr__(value, name, rule.check(kind.__name__, name, given))


def settings_of(call: Callable[..., Any]) -> dict[str, tuple[Rule, Any]]:
    """Return, for each argument that has a rule, the rule and the default."""
    parameters = inspect.signature(call).parameters
    rules = _rules(inspect.unwrap(call))
    return {name: (rule, parameters[name].default) for name, (rule, _) in rules.items()}


def _checked(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    signature = _signature(call)
    rules = _rules(call)
    kind: Any = type(args[0]) if args else None
    where = argument_names.name_of(call, kind)
    bound = argument_names.bound(where, signature, args, kwargs)
    arguments = bound.arguments
    for name in arguments:
        found = rules.get(name)
        if found is None:
            continue
        rule, is_optional = found
        given = arguments[name]
        if given is None and is_optional:
            continue
        if name in _many(call):
            arguments[name] = tuple(rule.check(where, name, one) for one in given)
        else:
            arguments[name] = rule.check(where, name, given)
    return bound.args, bound.kwargs


@functools.cache
def _signature(call: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(call)


@functools.cache
def _many(call: Callable[..., Any]) -> frozenset[str]:
    """Return the names of arguments like *topics, whose rule applies to each value."""
    return frozenset(
        name
        for name, one in _signature(call).parameters.items()
        if one.kind is inspect.Parameter.VAR_POSITIONAL
    )


@functools.cache
def _rules(call: Any) -> dict[str, tuple[Rule, bool]]:
    """Return each argument's rule, and whether the argument may be None."""
    found = {}
    for name, hint in type_hints(call, include_extras=True).items():
        if get_origin(hint) is not Annotated:
            continue
        kind, *notes = get_args(hint)
        is_optional = get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)
        for note in notes:
            if hasattr(note, "check"):
                found[name] = (note, is_optional)
    return found
