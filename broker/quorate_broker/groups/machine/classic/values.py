"""What members of the classic protocol ask, and what they are answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from quorate.errors import QuorateError
from quorate_broker.groups.machine.values import FIRST_CONVERSATION, Conversation

#: The generation of a caller that is no member.
NO_GENERATION: Final = -1


@dataclass(frozen=True, slots=True)
class JoinGroup:
    """A member wants to be in the group's next generation (JoinGroup)."""

    group_id: str
    #: Empty: the member has no id yet.
    member_id: str
    #: The id that a member without one gets. The driver draws it by chance.
    new_member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    #: The protocols that the member supports, the dearest first, each with metadata for the leader.
    protocols: tuple[tuple[str, bytes], ...]
    #: A member without an id must come again with the one that it gets (KIP-394, version 4).
    is_id_required: bool = False
    #: The member understands that it leads, and need not assign (version 9).
    can_skip_assignment: bool = False
    #: The connection by which it came.
    conversation: Conversation = FIRST_CONVERSATION


class JoinedMember(NamedTuple):
    """A member of a generation, as its leader sees it."""

    member_id: str
    instance_id: str | None
    metadata: bytes


@dataclass(frozen=True, slots=True)
class Joined:
    """The answer to JoinGroup: a new generation, in which the leader assigns."""

    generation: int
    protocol_type: str
    protocol: str
    leader: str
    member_id: str
    #: All members, for the leader; for others none.
    members: tuple[JoinedMember, ...] = ()
    is_assignment_skipped: bool = False


class MemberIdRequired(NamedTuple):
    """The answer to JoinGroup of a member without an id: come again with this one."""

    member_id: str


@dataclass(frozen=True, slots=True)
class MemberRequest:
    """What each request of a member says of it."""

    group_id: str
    member_id: str
    generation: int
    instance_id: str | None = None


@dataclass(frozen=True, slots=True)
class SyncGroup(MemberRequest):
    """A member asks for its assignment; the leader brings those of all (SyncGroup)."""

    #: None: an older client does not say it.
    protocol_type: str | None = None
    protocol: str | None = None
    #: By member id; empty but for the leader.
    assignments: Mapping[str, bytes] = field(default_factory=dict)


class Synced(NamedTuple):
    """The answer to SyncGroup."""

    protocol_type: str
    protocol: str
    assignment: bytes


class Leaving(NamedTuple):
    """One member that leaves, named by its id, its instance, or both."""

    member_id: str
    instance_id: str | None = None


@dataclass(frozen=True, slots=True)
class LeaveGroup:
    """Members leave (LeaveGroup)."""

    group_id: str
    members: Sequence[Leaving]


#: The answer to LeaveGroup: for each member the error, or None.
Left = tuple[QuorateError | None, ...]


class DescribedClassicMember(NamedTuple):
    """A classic member in a description."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    metadata: bytes
    assignment: bytes


@dataclass(frozen=True, slots=True)
class DescribedClassicGroup:
    """A classic group, described."""

    group_id: str
    #: Empty, PreparingRebalance, CompletingRebalance or Stable.
    state: str
    generation: int
    protocol_type: str
    #: Empty, unless the group is stable.
    protocol: str
    members: tuple[DescribedClassicMember, ...]
