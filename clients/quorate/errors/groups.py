"""The errors of consumer groups. The tree of all errors stands in quorate.errors."""

from __future__ import annotations

from quorate.errors.base import AuthorizationError, InvalidRequestError, QuorateError


class InvalidGroupIdError(InvalidRequestError):
    """The id of a group is empty, or longer than 249 bytes of UTF-8."""

    advice = "Choose another group_id."


class InvalidPatternError(InvalidRequestError, ValueError):
    """A subscription's pattern does not compile as RE2, or matches too many topics."""

    advice = "Correct the pattern; its syntax is that of RE2."


class OffsetMetadataTooLargeError(InvalidRequestError):
    """The metadata of a committed offset is larger than ``offset.metadata.max.bytes``."""

    advice = "Commit with less metadata."


class UnsupportedAssignorError(InvalidRequestError):
    """The coordinator has no assignor of this name."""

    advice = "Choose an assignor that the message names."


class InvalidSessionTimeoutError(InvalidRequestError):
    """The session timeout of a classic member is outside of what the cluster allows."""

    advice = "Choose a session timeout within the range that the message names."


class InvalidAssignmentError(InvalidRequestError):
    """An assignor returned an assignment that is not possible."""

    advice = "Correct the assignor: each partition goes to one member that subscribes to its topic."


class CoordinatorNotAvailableError(QuorateError):
    """The group has no coordinator now: its partition of __consumer_offsets has no leader."""

    advice = "Ask again; if it lasts, `quorate cluster health` says what is missing."
    retriable = True
    stale_metadata = True


class NotCoordinatorError(CoordinatorNotAvailableError):
    """The broker does not coordinate the group. The hint in the answer names the coordinator."""

    advice = "Look the coordinator up and ask it; consumers do so themselves."


class CoordinatorLoadingError(QuorateError):
    """The coordinator was elected just now, and still reads the group's log."""

    advice = "Ask again."
    retriable = True


class NotMemberError(QuorateError):
    """The caller is not a member of the group, or was removed from it."""

    advice = "Join the group anew; consumers do so themselves."


class UnknownMemberIdError(NotMemberError):
    """The group has no member with this id."""


class FencedMemberEpochError(NotMemberError):
    """The member's epoch is not one that the group knows: the member was removed, or is old."""


class FencedInstanceIdError(NotMemberError):
    """Another member has taken over the static name of this one. It must end."""

    advice = "Stop one of the two programs that have the same group_instance_id."


class IllegalGenerationError(NotMemberError):
    """The group is in another generation than the classic member believes."""


class RebalanceInProgressError(QuorateError):
    """The members of the group join its next generation. The member is in the group still."""

    advice = "Join again; clients do so themselves."


class InconsistentGroupProtocolError(QuorateError):
    """The members of a group must use one protocol of membership, and agree on an assignor."""

    advice = "Use the same kind of client and the same assignor for all members, or another group."


class StaleMemberEpochError(QuorateError):
    """The member's epoch has passed. The member is still in the group, with a newer epoch."""

    advice = "Repeat the call with the epoch of the next heartbeat's answer."


class UnreleasedInstanceIdError(QuorateError):
    """Another living member has this group_instance_id."""

    advice = "Stop the other member, or give this one a group_instance_id of its own."


class GroupNotFoundError(QuorateError):
    """There is no group with this id."""

    advice = "Correct the id; `quorate group list` shows all."


class GroupSubscribedToTopicError(QuorateError):
    """Members of the group subscribe to the topic, so its committed offsets cannot be deleted."""

    advice = "Stop the members that read the topic, or let them subscribe to others."


class NonEmptyGroupError(QuorateError):
    """The group has members, so this cannot be done."""

    advice = "Stop the group's members first."


class GroupMaxSizeError(QuorateError):
    """The group has ``group.max.size`` members."""

    advice = "Use fewer members, or raise the limit that the message names."


class GroupAuthorizationFailedError(AuthorizationError):
    """The principal is not allowed to do this with the consumer group."""

    advice = "Have the principal allowed to do this with the group."
