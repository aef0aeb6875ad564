"""The error tree of Quorate, drawn whole.

    QuorateError
      InvalidRequestError         a field is impossible; asking again will not help
        InvalidTopicError  InvalidPartitionsError  InvalidReplicationFactorError
        InvalidConfigError  InvalidTimestampError  RecordTooLargeError  PolicyViolationError
      UnknownTopicError           retriable: metadata may be behind
      TopicExistsError
      UnknownBrokerError
      NotLeaderError              retriable, and what we know of the leaders is stale
        FencedLeaderEpochError  UnknownLeaderEpochError
      NotEnoughReplicasError      retriable: nothing was written
      NotEnoughReplicasAfterAppendError   retriable: written, and may yet commit
      CorruptRecordError          bytes that are not what their checksum or header says
      DeserializationError        bytes that the consumer's deserializer refuses
      OffsetOutOfRangeError       no such offset is held
        LogTruncatedError         what was read before the position is gone
      OffsetNotAvailableError
      OutOfOrderSequenceError  UnknownProducerIdError  ProducerFencedError
      OutcomeUnknownError         it may have happened, or not
        DeliveryTimeoutError
      RequestTimedOutError        retriable
      QuorumUnavailableError      retriable: no controller answers
        NotControllerError
      FencedError                 an old broker_epoch or incarnation
        DuplicateBrokerError  IneligibleReplicaError  StalePartitionEpochError
      WrongClusterError
      StorageError                the disk failed, or is full
      OverloadedError             retriable: a bound was reached
      UnsupportedError  AuthorizationError  StoppingError  SnapshotNotFoundError
      ClosedError                 the client was stopped
      WrongLoopError              used from another event loop, thread or process (a RuntimeError)
      NetworkError                below: what the seam to the wire raises, and nothing else
        PeerRefusedError  StreamBrokenError  DeadlineExceededError  PeerError

Two flags say what a caller may do: ``retriable`` (the same call may succeed later) and
``stale_metadata`` (look up the leaders first). A message says what was asked, what was found,
what is allowed and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from quorate.v1 import common_pb2
from quorate.v1.common_pb2 import ErrorCode


class QuorateError(Exception):
    """Whatever Quorate raises on purpose."""

    code: ClassVar[ErrorCode.ValueType] = ErrorCode.ERROR_CODE_UNKNOWN
    retriable: ClassVar[bool] = False
    stale_metadata: ClassVar[bool] = False


class UnknownServerError(QuorateError):
    """The server failed in a way that it did not foresee; its log says more."""


class InvalidRequestError(QuorateError):
    """A field is impossible; the message names it and what is allowed."""

    code = ErrorCode.ERROR_CODE_INVALID_REQUEST


class InvalidTopicError(InvalidRequestError):
    """A topic's name is not 1 to 249 of the characters a-z A-Z 0-9 . _ -."""

    code = ErrorCode.ERROR_CODE_INVALID_TOPIC


class InvalidPartitionsError(InvalidRequestError):
    """A number of partitions, or a partition, that cannot be."""

    code = ErrorCode.ERROR_CODE_INVALID_PARTITIONS


class InvalidReplicationFactorError(InvalidRequestError):
    """A replication factor below 1 or above the number of brokers."""

    code = ErrorCode.ERROR_CODE_INVALID_REPLICATION_FACTOR


class InvalidConfigError(InvalidRequestError):
    """A configuration name or value that is not known or not allowed here."""

    code = ErrorCode.ERROR_CODE_INVALID_CONFIG


class InvalidTimestampError(InvalidRequestError):
    """A record's timestamp lies further in the future than the topic allows."""

    code = ErrorCode.ERROR_CODE_INVALID_TIMESTAMP


class RecordTooLargeError(InvalidRequestError):
    """A record or batch is larger than ``max.message.bytes`` or the producer's buffer."""

    code = ErrorCode.ERROR_CODE_RECORD_TOO_LARGE


class PolicyViolationError(InvalidRequestError):
    """The request is well formed, but the cluster's rules forbid it."""

    code = ErrorCode.ERROR_CODE_POLICY_VIOLATION


class UnknownTopicError(QuorateError):
    """No topic or partition of that name or id is known to the node asked."""

    code = ErrorCode.ERROR_CODE_UNKNOWN_TOPIC
    retriable = True
    stale_metadata = True


class TopicExistsError(QuorateError):
    """A topic of that name exists already."""

    code = ErrorCode.ERROR_CODE_TOPIC_EXISTS


class UnknownBrokerError(QuorateError):
    """No broker of that id is registered."""

    code = ErrorCode.ERROR_CODE_UNKNOWN_BROKER


class NotLeaderError(QuorateError):
    """The node asked does not lead that partition; the leader hint says who does."""

    code = ErrorCode.ERROR_CODE_NOT_LEADER
    retriable = True
    stale_metadata = True


class FencedLeaderEpochError(NotLeaderError):
    """The caller's leader_epoch is older than the leader's (KIP-320)."""

    code = ErrorCode.ERROR_CODE_FENCED_LEADER_EPOCH


class UnknownLeaderEpochError(NotLeaderError):
    """The caller's leader_epoch is newer than that of the node asked: retry (KIP-320)."""

    code = ErrorCode.ERROR_CODE_UNKNOWN_LEADER_EPOCH


class NotEnoughReplicasError(QuorateError):
    """The ISR is smaller than min.insync.replicas: nothing was written."""

    code = ErrorCode.ERROR_CODE_NOT_ENOUGH_REPLICAS
    retriable = True


class NotEnoughReplicasAfterAppendError(QuorateError):
    """Written by the leader, then the ISR shrank below min.insync.replicas: it may yet commit."""

    code = ErrorCode.ERROR_CODE_NOT_ENOUGH_REPLICAS_AFTER_APPEND
    retriable = True


class CorruptRecordError(QuorateError):
    """Bytes that are not what their checksum, header or length says."""

    code = ErrorCode.ERROR_CODE_CORRUPT_RECORD


class DeserializationError(QuorateError):
    """A consumer's deserializer refused a record; what it raised is the cause.

    `key` and `value` are the record's bytes. The record is next again: seek to `offset` + 1 to go
    past it.
    """

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
    """The offset lies below log_start_offset or above log_end_offset."""

    code = ErrorCode.ERROR_CODE_OFFSET_OUT_OF_RANGE


class LogTruncatedError(OffsetOutOfRangeError):
    """The log was cut below the position: records that were read are gone (KIP-320).

    `safe_offset` is the first offset that may hold another record than the one read there, -1 if
    it is not known. Seek to it, and what was written in the place of the lost records is read.
    """

    code = ErrorCode.ERROR_CODE_LOG_TRUNCATED

    def __init__(self, message: str, *, safe_offset: int = -1) -> None:
        super().__init__(message)
        self.safe_offset = safe_offset


class OffsetNotAvailableError(QuorateError):
    """A new leader does not know its high watermark yet: retry."""

    code = ErrorCode.ERROR_CODE_OFFSET_NOT_AVAILABLE
    retriable = True


class OutOfOrderSequenceError(QuorateError):
    """A batch of an idempotent producer does not follow the one before it."""

    code = ErrorCode.ERROR_CODE_OUT_OF_ORDER_SEQUENCE


class UnknownProducerIdError(QuorateError):
    """The partition holds no state of that producer_id; it may start at sequence 0 only."""

    code = ErrorCode.ERROR_CODE_UNKNOWN_PRODUCER_ID


class ProducerFencedError(QuorateError):
    """A newer producer_epoch of the same producer_id has written."""

    code = ErrorCode.ERROR_CODE_PRODUCER_FENCED


class OutcomeUnknownError(QuorateError):
    """The request may have been carried out, or not: look before you repeat it."""

    code = ErrorCode.ERROR_CODE_OUTCOME_UNKNOWN


class DeliveryTimeoutError(OutcomeUnknownError):
    """A record was not acknowledged within delivery_timeout_ms; it may have been written."""


class RequestTimedOutError(QuorateError):
    """No answer in time."""

    code = ErrorCode.ERROR_CODE_REQUEST_TIMED_OUT
    retriable = True


class QuorumUnavailableError(QuorateError):
    """No controller answers: a majority of voters is needed."""

    code = ErrorCode.ERROR_CODE_QUORUM_UNAVAILABLE
    retriable = True


class NotControllerError(QuorumUnavailableError):
    """The voter asked is not the controller."""

    code = ErrorCode.ERROR_CODE_NOT_CONTROLLER


class FencedError(QuorateError):
    """The caller's broker_epoch, incarnation or fencing forbids this."""

    code = ErrorCode.ERROR_CODE_FENCED


class DuplicateBrokerError(FencedError):
    """Another living process holds this broker id."""

    code = ErrorCode.ERROR_CODE_DUPLICATE_BROKER


class IneligibleReplicaError(FencedError):
    """A proposed ISR member is fenced, shutting down or of another incarnation (KIP-841)."""

    code = ErrorCode.ERROR_CODE_INELIGIBLE_REPLICA


class StalePartitionEpochError(FencedError):
    """The change was proposed on an older state of the partition."""

    code = ErrorCode.ERROR_CODE_STALE_PARTITION_EPOCH


class WrongClusterError(QuorateError):
    """The node asked belongs to another cluster or quorum_generation."""

    code = ErrorCode.ERROR_CODE_WRONG_CLUSTER


class StorageError(QuorateError):
    """The disk failed, or is full."""

    code = ErrorCode.ERROR_CODE_STORAGE


class OverloadedError(QuorateError):
    """A bound was reached: try again later."""

    code = ErrorCode.ERROR_CODE_OVERLOADED
    retriable = True


class UnsupportedError(QuorateError):
    """Known, but not there yet."""

    code = ErrorCode.ERROR_CODE_UNSUPPORTED


class AuthorizationError(QuorateError):
    """The principal may not do this."""

    code = ErrorCode.ERROR_CODE_AUTHORIZATION


class StoppingError(QuorateError):
    """The node is stopping: ask another."""

    code = ErrorCode.ERROR_CODE_STOPPING
    retriable = True
    stale_metadata = True


class SnapshotNotFoundError(QuorateError):
    """The snapshot asked for is not there any more."""

    code = ErrorCode.ERROR_CODE_SNAPSHOT_NOT_FOUND


class ClosedError(QuorateError):
    """The client was stopped, or was never started."""


class WrongLoopError(QuorateError, RuntimeError):
    """The client is used from another event loop, thread or process than it was started in."""


class NetworkError(QuorateError):
    """What the seam to the wire raises (quorate.network), and nothing else."""

    retriable = True
    stale_metadata = True


class PeerRefusedError(NetworkError):
    """Nobody listens there: the call was surely not carried out."""


class StreamBrokenError(NetworkError):
    """The connection broke: the call may have been carried out."""


class DeadlineExceededError(NetworkError):
    """No answer within the call's timeout: it may have been carried out."""


class PeerError(NetworkError):
    """The peer answered with a status of the wire, not of ours (unknown method, too large...)."""

    retriable = False

    def __init__(self, status: str, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


def _by_code() -> dict[ErrorCode.ValueType, type[QuorateError]]:
    found: dict[ErrorCode.ValueType, type[QuorateError]] = {}
    stack: list[type[QuorateError]] = [QuorateError]
    while stack:
        kind = stack.pop()
        if "code" in vars(kind) and kind is not QuorateError:
            found[kind.code] = kind
        stack.extend(kind.__subclasses__())
    return found


BY_CODE = _by_code()


def to_wire(error: Exception) -> common_pb2.Error:
    """Return the wire's form of an error; one that is not ours becomes UNKNOWN with its text."""
    if isinstance(error, QuorateError):
        return common_pb2.Error(code=error.code, message=str(error))
    return common_pb2.Error(
        code=ErrorCode.ERROR_CODE_UNKNOWN, message=f"{type(error).__name__}: {error}"
    )


def from_wire(error: common_pb2.Error) -> QuorateError:
    """Return the error that a peer sent; an unknown code becomes UnknownServerError."""
    return BY_CODE.get(error.code, UnknownServerError)(error.message)


def raise_if_error(error: common_pb2.Error) -> None:
    """Raise what the peer sent, if it sent an error."""
    if error.code != ErrorCode.ERROR_CODE_NONE:
        raise from_wire(error)
