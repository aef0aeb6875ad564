"""Requests checked at the door: what is impossible is refused before anything is decided."""

from __future__ import annotations

from typing import Final

from quorate.errors import (
    InvalidGroupIdError,
    InvalidPatternError,
    InvalidRequestError,
    InvalidSessionTimeoutError,
    UnsupportedAssignorError,
)
from quorate.topic_pattern import compiled
from quorate_broker.groups.assignors.table import ASSIGNORS, CLIENT
from quorate_broker.groups.machine.classic.values import JoinGroup
from quorate_broker.groups.machine.config import GroupsConfig
from quorate_broker.groups.machine.values import JOIN, LEAVE_STATIC, Heartbeat

#: Of the ids and names of classic members: what a record of Kafka's older encoding takes is more.
STRING_BYTES_MAX: Final = 1_024
#: The most protocols, which are assignors, that a member may support.
PROTOCOLS_MAX: Final = 100
#: Kafka's clients may ask for as much as 32 bits hold.
REBALANCE_TIMEOUT_MS_MAX: Final = 2**31 - 1


def check_group_id(group_id: str, config: GroupsConfig) -> None:
    """Raise InvalidGroupIdError for an id that no group can have."""
    size = len(group_id.encode())
    if not 1 <= size <= config.id_bytes_max:
        raise InvalidGroupIdError(
            f"the group id has {size} bytes of UTF-8; allowed are 1 to {config.id_bytes_max}"
        )


def check_heartbeat(heartbeat: Heartbeat, config: GroupsConfig) -> None:
    """Raise the error of the first field that is impossible."""
    check_group_id(heartbeat.group_id, config)
    if not heartbeat.member_id:
        raise InvalidRequestError("member_id is empty; a member chooses its id before it joins")
    for name in ("member_id", "instance_id", "rack", "client_id", "client_host"):
        size = len((getattr(heartbeat, name) or "").encode())
        if size > config.id_bytes_max:
            raise InvalidRequestError(
                f"{name} has {size} bytes of UTF-8; allowed are {config.id_bytes_max}"
            )
    if heartbeat.member_epoch < LEAVE_STATIC:
        raise InvalidRequestError(
            f"member_epoch is {heartbeat.member_epoch}; allowed are an epoch, 0 to join, -1 to "
            "leave, -2 for a static member that comes back"
        )
    _check_timeouts(heartbeat, config)
    _check_subscription(heartbeat, config)
    known = {*ASSIGNORS} if heartbeat.conversation is not None else {*ASSIGNORS, CLIENT}
    if heartbeat.assignor and heartbeat.assignor not in known:
        raise UnsupportedAssignorError(
            f"there is no assignor {heartbeat.assignor!r} for this member; there are "
            f"{sorted(ASSIGNORS)}, and for a member with a stream {CLIENT!r}, a function of the "
            "application"
        )
    if heartbeat.member_epoch == JOIN:
        _check_join(heartbeat)


def check_join_group(request: JoinGroup, config: GroupsConfig) -> None:
    """Raise the error of the first field of a classic member's JoinGroup that is impossible."""
    check_group_id(request.group_id, config)
    for name in ("member_id", "new_member_id", "instance_id", "client_id", "client_host"):
        size = len((getattr(request, name) or "").encode())
        if size > STRING_BYTES_MAX:
            raise InvalidRequestError(f"{name} has {size} bytes; allowed are {STRING_BYTES_MAX}")
    low, high = config.classic_session_timeout_ms_min, config.classic_session_timeout_ms_max
    if not low <= request.session_timeout_ms <= high:
        raise InvalidSessionTimeoutError(
            f"the session timeout is {request.session_timeout_ms} ms; this cluster allows {low} to "
            f"{high} (group.min.session.timeout.ms, group.max.session.timeout.ms)"
        )
    if not 1 <= request.rebalance_timeout_ms <= REBALANCE_TIMEOUT_MS_MAX:
        raise InvalidRequestError(
            f"the rebalance timeout is {request.rebalance_timeout_ms} ms; 1 is the least"
        )
    if len(request.protocols) > PROTOCOLS_MAX:
        raise InvalidRequestError(
            f"a member names {len(request.protocols)} protocols; {PROTOCOLS_MAX} are allowed"
        )
    for name in (request.protocol_type, *(name for name, _ in request.protocols)):
        if len(name.encode()) > STRING_BYTES_MAX:
            raise InvalidRequestError("the name of a protocol is too long")


def _check_join(heartbeat: Heartbeat) -> None:
    if heartbeat.topics is None and heartbeat.pattern is None:
        raise InvalidRequestError("a member that joins must give its subscription")
    if heartbeat.owned:
        raise InvalidRequestError(
            f"a member that joins has no partitions; this one says that it has "
            f"{len(heartbeat.owned)}. It must give them up before it joins."
        )


def _check_timeouts(heartbeat: Heartbeat, config: GroupsConfig) -> None:
    session = heartbeat.session_timeout_ms
    low, high = config.session_timeout_ms_min, config.session_timeout_ms_max
    if session is not None and not low <= session <= high:
        raise InvalidRequestError(
            f"session_timeout_ms is {session}; this cluster allows {low} to {high}"
        )
    rebalance, most = heartbeat.rebalance_timeout_ms, config.rebalance_timeout_ms_max
    if heartbeat.conversation is not None:
        most = REBALANCE_TIMEOUT_MS_MAX
    if rebalance is not None and not 1 <= rebalance <= most:
        raise InvalidRequestError(
            f"rebalance_timeout_ms is {rebalance}; this cluster allows 1 to {most}"
        )


def _check_subscription(heartbeat: Heartbeat, config: GroupsConfig) -> None:
    topics, most = len(heartbeat.topics or ()), config.subscription_topics_max
    if topics > most:
        raise InvalidRequestError(f"the subscription names {topics} topics; allowed are {most}")
    pattern = heartbeat.pattern or ""
    size = len(pattern.encode())
    if size > config.pattern_bytes_max:
        raise InvalidPatternError(
            f"the pattern has {size} bytes; allowed are {config.pattern_bytes_max}"
        )
    if pattern:
        compiled(pattern)
