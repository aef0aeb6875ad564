"""All errors of Quorate, as a tree.

    QuorateError
      InvalidRequestError         a field is impossible; asking again will not help
        InvalidTopicError  InvalidPartitionsError  InvalidReplicationFactorError
        InvalidConfigError  InvalidTimestampError  RecordTooLargeError  PolicyViolationError
        InvalidGroupIdError  InvalidPatternError  OffsetMetadataTooLargeError
        InvalidReplicaAssignmentError
        UnsupportedAssignorError  InvalidAssignmentError  InvalidSessionTimeoutError
        InvalidSchemaError  IncompatibleSchemaError
      UnknownTopicError           retriable: metadata may be behind
      TopicExistsError  UnknownBrokerError
      NotLeaderError              retriable; the caller's view of the leaders is stale
        FencedLeaderEpochError  UnknownLeaderEpochError
      ListenerNotFoundError       retriable: the leader has no listener for this client
      NotEnoughReplicasError      retriable: nothing was written
      NotEnoughReplicasAfterAppendError   retriable: written, and may yet commit
      CorruptRecordError          bytes that contradict their checksum or header
        InvalidRecordError        the checksum is right, and the records are impossible
      DeserializationError        bytes that the consumer's deserializer refuses
      UnknownSchemaError          the schema of a value's writer is not known
      OffsetOutOfRangeError       no such offset is held
        LogTruncatedError         records that were read before the position are gone
      OffsetNotAvailableError  OutOfOrderSequenceError  UnknownProducerIdError  ProducerFencedError
      OutcomeUnknownError         the request may have been carried out, or not
        DeliveryTimeoutError
      RequestTimedOutError        retriable
      QuorumUnavailableError      retriable: no controller answers; NotControllerError below it
      FencedError                 an old broker_epoch or incarnation
        DuplicateBrokerError  IneligibleReplicaError  StalePartitionEpochError
      CoordinatorNotAvailableError      retriable: look the group's coordinator up again
        NotCoordinatorError     another broker coordinates the group
      CoordinatorLoadingError   retriable: the coordinator still reads its log
      NotMemberError              the caller must join the group anew
        UnknownMemberIdError  FencedMemberEpochError
        FencedInstanceIdError  IllegalGenerationError
      RebalanceInProgressError    a classic member must join the next generation
      InconsistentGroupProtocolError    the members of a group cannot agree
      StaleMemberEpochError       the member has a newer epoch by now
      UnreleasedInstanceIdError   another member holds the name of a static member
      GroupNotFoundError  NonEmptyGroupError  GroupMaxSizeError
      GroupSubscribedToTopicError members read the topic
      WrongClusterError  WrongLoopError (used from another event loop, thread or process)
      StorageError                the disk failed, or is full
      OverloadedError             retriable: a bound was reached
      AuthorizationError          the principal may not do this
        TopicAuthorizationFailedError  ClusterAuthorizationFailedError
        GroupAuthorizationFailedError
      ElectionNotNeededError      the leader need not change
      LeaderNotElectableError     no replica that was asked for may lead now
        PreferredLeaderNotAvailableError  EligibleLeadersNotAvailableError
      NoReassignmentInProgressError   the replicas of the partition are not being moved
      UnsupportedError  StoppingError  SnapshotNotFoundError  ClosedError
      NetworkError                errors of the network
        PeerRefusedError  StreamBrokenError  DeadlineExceededError  PeerError
          UnresolvedHostError       the host's name has no address

Two flags say what a caller may do: ``retriable`` (the same call may succeed later) and
``stale_metadata`` (look up the leaders first). A message says what was asked, what was found and
what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

from quorate.errors.base import (
    AuthorizationError as AuthorizationError,
    InvalidRequestError as InvalidRequestError,
    QuorateError as QuorateError,
    UnknownServerError as UnknownServerError,
    from_wire as from_wire,
    raise_if_error as raise_if_error,
    to_wire as to_wire,
)
from quorate.errors.elections import (
    ElectionNotNeededError as ElectionNotNeededError,
    EligibleLeadersNotAvailableError as EligibleLeadersNotAvailableError,
    LeaderNotElectableError as LeaderNotElectableError,
    PreferredLeaderNotAvailableError as PreferredLeaderNotAvailableError,
)
from quorate.errors.groups import (
    CoordinatorLoadingError as CoordinatorLoadingError,
    CoordinatorNotAvailableError as CoordinatorNotAvailableError,
    FencedInstanceIdError as FencedInstanceIdError,
    FencedMemberEpochError as FencedMemberEpochError,
    GroupAuthorizationFailedError as GroupAuthorizationFailedError,
    GroupMaxSizeError as GroupMaxSizeError,
    GroupNotFoundError as GroupNotFoundError,
    IllegalGenerationError as IllegalGenerationError,
    InconsistentGroupProtocolError as InconsistentGroupProtocolError,
    InvalidAssignmentError as InvalidAssignmentError,
    InvalidGroupIdError as InvalidGroupIdError,
    InvalidPatternError as InvalidPatternError,
    InvalidSessionTimeoutError as InvalidSessionTimeoutError,
    GroupSubscribedToTopicError as GroupSubscribedToTopicError,
    NonEmptyGroupError as NonEmptyGroupError,
    NotCoordinatorError as NotCoordinatorError,
    NotMemberError as NotMemberError,
    OffsetMetadataTooLargeError as OffsetMetadataTooLargeError,
    RebalanceInProgressError as RebalanceInProgressError,
    StaleMemberEpochError as StaleMemberEpochError,
    UnknownMemberIdError as UnknownMemberIdError,
    UnreleasedInstanceIdError as UnreleasedInstanceIdError,
    UnsupportedAssignorError as UnsupportedAssignorError,
)
from quorate.errors.reassignment import (
    InvalidReplicaAssignmentError as InvalidReplicaAssignmentError,
    NoReassignmentInProgressError as NoReassignmentInProgressError,
)
from quorate.errors.schemas import (
    IncompatibleSchemaError as IncompatibleSchemaError,
    InvalidSchemaError as InvalidSchemaError,
    UnknownSchemaError as UnknownSchemaError,
)


class InvalidTopicError(InvalidRequestError):
    """A topic's name is not 1 to 249 of the characters a-z A-Z 0-9 . _ -."""

    advice = "Choose another name."


class InvalidPartitionsError(InvalidRequestError):
    """A number of partitions or the number of a partition is impossible."""

    advice = "Use a partition, or a number of partitions, within the range that the message names."


class InvalidReplicationFactorError(InvalidRequestError):
    """The replication factor is below 1 or above the number of brokers."""

    advice = "Give 1 to the number of brokers, or start more brokers."


class InvalidConfigError(InvalidRequestError):
    """A configuration's name or value is unknown, or not allowed here."""

    advice = "Correct the name or the value; describe_configs() lists those that there are."


class InvalidTimestampError(InvalidRequestError):
    """A record's timestamp is further in the future than the topic allows."""

    advice = "Correct the record's timestamp or the clock that it comes from."


class RecordTooLargeError(InvalidRequestError):
    """A record or batch is larger than ``max.message.bytes`` or the producer's buffer."""

    advice = "Send less in one record, or raise the limit that the message names."


class PolicyViolationError(InvalidRequestError):
    """The request is well formed, but the cluster's rules forbid it."""

    advice = "Keep to the rule that the message names, or have it changed."


class UnknownTopicError(QuorateError):
    """The node that was asked knows no topic or partition with that name or id."""

    advice = "Create the topic, or correct its name; list_topics() shows all."
    retriable = True
    stale_metadata = True


class TopicExistsError(QuorateError):
    """There is already a topic with this name."""

    advice = "Choose another name, or delete that topic first."


class UnknownBrokerError(QuorateError):
    """No broker with this id is registered."""

    advice = "Correct the id; `quorate cluster info` lists the brokers."


class NotLeaderError(QuorateError):
    """The node does not lead the partition. The leader hint in the answer names the leader."""

    advice = "Look the leader up and ask it; producers and consumers do so themselves."
    retriable = True
    stale_metadata = True


class FencedLeaderEpochError(NotLeaderError):
    """The caller's leader_epoch is older than the leader's (KIP-320)."""

    advice = "Look the leader up again: there is a newer epoch."


class UnknownLeaderEpochError(NotLeaderError):
    """The caller's leader_epoch is newer than the one that the node knows: retry (KIP-320)."""

    advice = "Ask again: that node has not heard of the epoch yet."


class ListenerNotFoundError(QuorateError):
    """The leader's broker has no listener with the name of the listener that this client used."""

    advice = "Give that broker a listener of that name, or use one that every broker has."
    retriable = True
    stale_metadata = True


class NotEnoughReplicasError(QuorateError):
    """The ISR is smaller than min.insync.replicas, so nothing was written."""

    advice = "Send again when more replicas are in sync; `quorate cluster health` says which lack."
    retriable = True


class NotEnoughReplicasAfterAppendError(QuorateError):
    """The leader wrote the batch, but then the ISR fell below min.insync.replicas.

    The batch may still be committed.
    """

    advice = "Read whether it was kept, or send again if a copy does no harm."
    retriable = True


class CorruptRecordError(QuorateError):
    """The bytes do not agree with their checksum, header or length."""

    advice = "Check the disk (`quorate storage verify`), or the program that wrote the bytes."


class InvalidRecordError(CorruptRecordError):
    """The bytes agree with their checksum, and are no records: their writer made them so."""

    advice = "Correct the program that wrote the bytes; sending them again fails again."


class DeserializationError(QuorateError):
    """A consumer's deserializer refused a record. The deserializer's error is the __cause__.

    `key` and `value` are the record's bytes. The next read begins with the same record. To pass it,
    seek to `offset` + 1.
    """

    advice = "Seek behind the record to go on without it, or read its raw bytes from the error."

    def __init__(
        self,
        message: str,
        *,
        topic: str,
        partition: int,
        offset: int,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
    ) -> None:
        super().__init__(message)
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.timestamp_ms = timestamp_ms
        self.key = key
        self.value = value
        self.headers = headers


class OffsetOutOfRangeError(QuorateError):
    """The offset is below log_start_offset or above log_end_offset."""

    advice = "Seek to an offset that is held; beginning_offsets() and end_offsets() tell."


class LogTruncatedError(OffsetOutOfRangeError):
    """The log was cut below the position. Records that were read are gone (KIP-320).

    `safe_offset` is the first offset that may now have another record than the one that was read;
    -1 if it is not known. After a seek to `safe_offset`, the consumer reads the records that
    replaced the lost ones.
    """

    advice = "Seek to safe_offset to read on from where the log was cut."

    def __init__(self, message: str, *, safe_offset: int = -1) -> None:
        super().__init__(message)
        self.safe_offset = safe_offset


class OffsetNotAvailableError(QuorateError):
    """A new leader does not know its high watermark yet: retry."""

    advice = "Ask again: the leader was elected just now."
    retriable = True


class OutOfOrderSequenceError(QuorateError):
    """A batch of an idempotent producer does not follow the one before it."""

    advice = "Make a new producer; what was sent before that is acknowledged stands."


class UnknownProducerIdError(QuorateError):
    """The partition has no state of this producer_id, which can start only at sequence 0."""

    advice = "Make a new producer; what was sent before that is acknowledged stands."


class ProducerFencedError(QuorateError):
    """A producer with the same producer_id and a newer producer_epoch has written."""

    advice = "Stop this producer: a newer one goes on in its place."


class OutcomeUnknownError(QuorateError):
    """The request may or may not have been carried out. Check this before you repeat it."""

    advice = "Look whether it was carried out before you repeat it."


class DeliveryTimeoutError(OutcomeUnknownError):
    """A record was not acknowledged within delivery_timeout_ms.

    ``may_be_written`` is False if the record was certainly not written: it was never sent, or every
    broker that was asked refused it before the append. Then the record can safely be sent again.
    """

    advice = (
        "Unless may_be_written is False, look whether the record is there before you repeat it."
    )
    may_be_written = True


class RequestTimedOutError(QuorateError):
    """No answer came in time."""

    advice = "Ask again, or give it more time."
    retriable = True


class QuorumUnavailableError(QuorateError):
    """No controller answers. A controller needs a majority of the voters."""

    advice = "Ask again; if it lasts, see that a majority of the voters run and reach each other."
    retriable = True


class NotControllerError(QuorumUnavailableError):
    """The voter that was asked is not the controller."""

    advice = "Ask the voter that leads."


class FencedError(QuorateError):
    """The caller is fenced, or uses an old broker_epoch or incarnation."""

    advice = "Register again, or stop: another one has this place."


class DuplicateBrokerError(FencedError):
    """Another living process has this broker id."""

    advice = "Stop the other process, or give this one a node.id of its own."


class IneligibleReplicaError(FencedError):
    """A proposed ISR member is fenced, shutting down or of another incarnation (KIP-841)."""

    advice = "Propose the ISR again without it, or wait until it is back."


class StalePartitionEpochError(FencedError):
    """The proposed change starts from an old state of the partition."""

    advice = "Read the partition's present state, and decide anew."


class WrongClusterError(QuorateError):
    """The node that was asked belongs to another cluster or another quorum_generation."""

    advice = "Correct the address, or make a new client for that cluster."


class StorageError(QuorateError):
    """The disk failed, or is full."""

    advice = "Make room on the node's disk, or replace it; its log says more."


class OverloadedError(QuorateError):
    """A bound was reached. Try again later."""

    advice = "Ask again later, or ask for less at once."
    retriable = True


class UnsupportedError(QuorateError):
    """Quorate knows the request, but cannot carry it out yet."""

    advice = "Do without it, or use a version that has it."


class TopicAuthorizationFailedError(AuthorizationError):
    """The principal is not allowed to do this with the topic."""

    advice = "Have the principal allowed to do this with the topic."


class ClusterAuthorizationFailedError(AuthorizationError):
    """The principal is not allowed to do this with the cluster."""

    advice = "Have the principal allowed to do this with the cluster."


class StoppingError(QuorateError):
    """The node is stopping. Ask another node."""

    advice = "Ask another node."
    retriable = True
    stale_metadata = True


class SnapshotNotFoundError(QuorateError):
    """The requested snapshot does not exist any more."""

    advice = "Ask for the newest snapshot."


class ClosedError(QuorateError):
    """The client was stopped, or was never started."""

    advice = "Call start() before the first use; after stop(), make a new client."


class WrongLoopError(QuorateError, RuntimeError):
    """The client can't be used here: it belongs to another event loop, thread or process.

    Also raised for a blocking call in a callback that runs in the thread that the call waits for,
    and for the first use of any client in a child that was forked from a process that used one.
    """

    advice = (
        "Use a client in the event loop and process in which it was started, and wait for it in no "
        'callback; start child processes with "spawn", or fork before the first client is started.'
    )


class NetworkError(QuorateError):
    """The base class of the errors of quorate.net.network."""

    advice = "See that the node runs and can be reached."
    retriable = True
    stale_metadata = True


class PeerRefusedError(NetworkError):
    """No process listens at the address. The call was certainly not carried out."""

    advice = "See that a node runs at that address."


class UnresolvedHostError(PeerRefusedError):
    """The name of the host has no address here. The call was certainly not carried out."""

    advice = "Correct the name of the host, or see that this machine can look it up."


class StreamBrokenError(NetworkError):
    """The connection broke. The call may have been carried out."""

    advice = "Ask again, if a repetition does no harm."


class DeadlineExceededError(NetworkError):
    """No answer came within the call's timeout. The call may have been carried out."""

    advice = "Ask again, if a repetition does no harm, or give it more time."


class PeerError(NetworkError):
    """The peer answered with an error of gRPC (unknown method, too large), not one of Quorate."""

    advice = "Look into that node's log."
    retriable = False

    def __init__(self, status: str, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
