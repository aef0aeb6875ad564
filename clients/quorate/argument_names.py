"""Errors for arguments whose name or place is wrong, and what users of Kafka's clients write.

The porting pages (docs/porting-*.md) have the names of `ELSEWHERE` in their tables, and a test
compares both. Names are written with underscores: kafka-python and aiokafka have
`max_request_size`, confluent-kafka and Java have `max.request.size`.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from inspect import BoundArguments, Parameter, Signature
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: The modules of classes that users know.
OF_QUORATE = ("quorate.", "quorate_testing.")

_BOUNDS_ARE_BYTES = "bounds are bytes: buffer_memory of all records, max_batch_size of a batch"
_NO_TRANSACTIONS = "there are no transactions"
_NOT_NEEDED = "leave it out, it is not needed here"
_NO_SECURITY = "there is no TLS and no authentication yet (security takes only None)"
_RETRIES = "a record is sent again until delivery_timeout_ms is over"
_IN_FLIGHT = "use max_in_flight: unacknowledged batches of one partition"
_BATCH_SIZE = "use max_batch_size, in bytes"
_FETCH_WAIT = "use fetch_max_wait_ms, with fetch_min_bytes and fetch_max_bytes"
_PREFETCH = "use fetch_max_bytes: the buffer of a consumer holds twice this"
_ASSIGNOR = 'use assignor: "uniform", "rack-uniform", "range" or a function'
_NO_AUTO_CREATION = "topics are not created by use: call Admin.create_topic"
_RECORD_SIZE = "a record's bound is the topic's config max.message.bytes"

#: A setting that has another name here, or none: name in Kafka's clients -> what to do here.
ELSEWHERE: Final = {
    "allow_auto_create_topics": _NO_AUTO_CREATION,
    "api_version": _NOT_NEEDED,
    "batch_num_messages": _BOUNDS_ARE_BYTES,
    "batch_size": _BATCH_SIZE,
    "check_crcs": "leave it out: CRCs are always checked",
    "connections_max_idle_ms": _NOT_NEEDED,
    "consumer_timeout_ms": "iteration does not end by itself: use getmany(timeout_ms=...)",
    "default_offset_commit_callback": _NOT_NEEDED,
    "enable_auto_offset_store": (
        "leave it out: a record counts as done when the program asks for the next one"
    ),
    "enable_incremental_fetch_sessions": _NOT_NEEDED,
    "enable_partition_eof": "compare position with end_offsets",
    "exclude_internal_topics": "leave it out: a pattern never matches an internal topic",
    "fetch_message_max_bytes": "use max_partition_fetch_bytes",
    "fetch_wait_max_ms": _FETCH_WAIT,
    "group_protocol": "leave it out: it is always the consumer protocol (KIP-848)",
    "group_remote_assignor": _ASSIGNOR,
    "heartbeat_interval_ms": "leave it out: the broker says how often a member sends heartbeats",
    "loop": "leave it out: a client belongs to the event loop in which start() is awaited",
    "max_block_ms": (
        "use delivery_timeout_ms: a full buffer raises OverloadedError after this time"
    ),
    "max_in_flight_requests_per_connection": _IN_FLIGHT,
    "max_request_size": f"{_RECORD_SIZE}, and buffer_memory is that of all records",
    "message_max_bytes": _RECORD_SIZE,
    "message_timeout_ms": "use delivery_timeout_ms",
    "metadata_max_age_ms": _NOT_NEEDED,
    "metric_reporters": _NOT_NEEDED,
    "partition_assignment_strategy": _ASSIGNOR,
    "queue_buffering_max_kbytes": "use buffer_memory, in bytes",
    "queue_buffering_max_messages": _BOUNDS_ARE_BYTES,
    "queue_buffering_max_ms": "use linger_ms",
    "queued_max_messages_kbytes": _PREFETCH,
    "queued_min_messages": _PREFETCH,
    "rebalance_timeout_ms": "use max_poll_interval_ms, one value for both",
    "receive_buffer_bytes": _NOT_NEEDED,
    "reconnect_backoff_ms": _NOT_NEEDED,
    "request_timeout_ms": _NOT_NEEDED,
    "retries": _RETRIES,
    "retry_backoff_ms": "leave it out: retries need no setting, and end with the time-out",
    "sasl_kerberos_domain_name": _NO_SECURITY,
    "sasl_kerberos_service_name": _NO_SECURITY,
    "sasl_mechanism": _NO_SECURITY,
    "sasl_oauth_token_provider": _NO_SECURITY,
    "sasl_password": _NO_SECURITY,
    "sasl_plain_password": _NO_SECURITY,
    "sasl_plain_username": _NO_SECURITY,
    "sasl_username": _NO_SECURITY,
    "security_protocol": _NO_SECURITY,
    "selector": _NOT_NEEDED,
    "send_buffer_bytes": _NOT_NEEDED,
    "socket_options": _NOT_NEEDED,
    "ssl_ca_location": _NO_SECURITY,
    "ssl_cafile": _NO_SECURITY,
    "ssl_certfile": _NO_SECURITY,
    "ssl_check_hostname": _NO_SECURITY,
    "ssl_context": _NO_SECURITY,
    "ssl_keyfile": _NO_SECURITY,
    "statistics_interval_ms": "there are no statistics of a client",
    "transaction_timeout_ms": _NO_TRANSACTIONS,
    "transactional_id": _NO_TRANSACTIONS,
}


def bound(
    call: str, signature: Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> BoundArguments:
    """Return the arguments by name. TypeError says how a call of this signature is written."""
    parameters = signature.parameters
    takes_any = any(one.kind is Parameter.VAR_KEYWORD for one in parameters.values())
    named = [one.name for one in parameters.values() if _has_name(one)]
    for name in kwargs:
        if name not in parameters and not takes_any:
            raise unknown(call, name, named)
    try:
        found = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{call}: {_misplaced(call, signature, args) or error}") from None
    if args and isinstance(args[-1], Mapping) and _is_of_class(call) and "topics" in parameters:
        raise TypeError(f"{call}: {_settings_are_named(call)}")
    return found


def named(call: Callable[P, T]) -> Callable[P, T]:
    """Return `call` with an error that names the nearest argument, for one that it does not have.

    For a call without rules, which `checked` does not check. Nothing is done before it has failed.
    """
    if inspect.iscoroutinefunction(call):

        @functools.wraps(call)
        async def wait(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                return await call(*args, **kwargs)
            except TypeError:
                _check_names(call, args, kwargs)
                raise

        return wait  # type: ignore[return-value]

    @functools.wraps(call)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except TypeError:
            _check_names(call, args, kwargs)
            raise

    return run


def name_arguments(kind: type) -> None:
    """Let every public method of a class be `named` that is not checked in another way."""
    for name, method in list(vars(kind).items()):
        is_checked = hasattr(method, "__wrapped__") or hasattr(method, "__signature__")
        if inspect.isfunction(method) and not name.startswith("_") and not is_checked:
            setattr(kind, name, named(method))


def takes_no_others(call: Callable[P, T]) -> Callable[P, T]:
    """Return `call`, whose signature hides its last argument, `**wrong: Never`.

    For hot calls, where `named` would cost too much. They raise unknown_in() if `wrong` has any.
    """
    signature = inspect.signature(call)
    parameters = [one for one in signature.parameters.values() if one.name != "wrong"]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call


def unknown_in(call: Callable[..., Any], this: object, wrong: Mapping[str, object]) -> TypeError:
    """Return the error for arguments that a method of `this` does not have."""
    named = [one.name for one in inspect.signature(call).parameters.values() if _has_name(one)]
    kind: Any = type(this)
    return unknown(name_of(call, kind), next(iter(wrong)), named)


def _check_names(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    known = inspect.signature(call).parameters
    wrong = {name: value for name, value in kwargs.items() if name not in known}
    if wrong:
        raise unknown_in(call, args[0] if args else None, wrong) from None


def unknown(call: str, name: str, named: Iterable[str]) -> TypeError:
    """Return the error for an argument that a call does not have. `named` are those that it has.

    >>> unknown("Producer", "linger", ["acks", "linger_ms"]).args
    ('Producer: there is no argument linger; did you mean linger_ms?',)
    """
    named = list(named)
    here = name.replace(".", "_").replace("-", "_")
    near = [here] if here in named else difflib.get_close_matches(here, named, 1)
    if here in ELSEWHERE and here not in named and _is_of_class(call):
        hint = ELSEWHERE[here]
    elif near:
        hint = f"did you mean {near[0]}?"
    else:
        hint = f"there are {', '.join(named)}" if named else "it takes none"
    return TypeError(f"{call}: there is no argument {name}; {hint}")


def _misplaced(call: str, signature: Signature, args: tuple[Any, ...]) -> str:
    """Return what to do with too many arguments without a name; empty: there are not too many."""
    parameters = list(signature.parameters.values())
    unnamed = [one.name for one in parameters if one.kind is Parameter.POSITIONAL_OR_KEYWORD]
    if len(args) <= len(unnamed):
        return ""
    if _is_of_class(call) and unnamed in ([], ["self"]):
        return _settings_are_named(call)
    own = [one for one in unnamed if one != "self"]
    others = [one.name for one in parameters if one.kind is Parameter.KEYWORD_ONLY]
    taken = f"only {', '.join(own)} may be given without a name" if own else "too many arguments"
    return f"{taken}; give by name: {', '.join(f'{one}=' for one in others)}" if others else taken


def _settings_are_named(call: str) -> str:
    example = "seed=7" if call == "SimulatedCluster" else "brokers=3"
    if not call.endswith("Cluster"):
        example = 'bootstrap_servers="localhost:7092"'
    return f"settings are keyword arguments: {call}({example})"


def _is_of_class(call: str) -> bool:
    """Return whether a call is of a constructor."""
    return "." not in call and call[:1].isupper()


def _has_name(one: Parameter) -> bool:
    return one.name != "self" and one.kind not in (
        Parameter.VAR_POSITIONAL,
        Parameter.VAR_KEYWORD,
    )


@functools.cache
def name_of(call: Callable[..., Any], kind: Any) -> str:
    """Return "Producer" for its constructor, "Admin.create_topic" for a method.

    `kind` is the class of the object. A method may stand in a base class, which no user knows.
    """
    owner, _, method = call.__qualname__.rpartition(".")
    bases = () if kind is None else kind.__mro__
    if owner in [one.__name__ for one in bases]:
        owner = next(one.__name__ for one in bases if one.__module__.startswith(OF_QUORATE))
    return owner if method == "__init__" else f"{owner}.{method}".removeprefix(".")
