"""Quorate's errors as Kafka's error codes.

Every class of quorate.errors is in CODES: a test walks the tree, so that a new class must choose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from quorate import errors

NONE: Final = 0
UNKNOWN_SERVER_ERROR: Final = -1
OFFSET_OUT_OF_RANGE: Final = 1
CORRUPT_MESSAGE: Final = 2
UNKNOWN_TOPIC_OR_PARTITION: Final = 3
LEADER_NOT_AVAILABLE: Final = 5
NOT_LEADER_OR_FOLLOWER: Final = 6
REQUEST_TIMED_OUT: Final = 7
REPLICA_NOT_AVAILABLE: Final = 9
MESSAGE_TOO_LARGE: Final = 10
OFFSET_METADATA_TOO_LARGE: Final = 12
COORDINATOR_LOAD_IN_PROGRESS: Final = 14
COORDINATOR_NOT_AVAILABLE: Final = 15
NOT_COORDINATOR: Final = 16
INVALID_TOPIC_EXCEPTION: Final = 17
NOT_ENOUGH_REPLICAS: Final = 19
NOT_ENOUGH_REPLICAS_AFTER_APPEND: Final = 20
INVALID_REQUIRED_ACKS: Final = 21
ILLEGAL_GENERATION: Final = 22
INCONSISTENT_GROUP_PROTOCOL: Final = 23
INVALID_GROUP_ID: Final = 24
UNKNOWN_MEMBER_ID: Final = 25
INVALID_SESSION_TIMEOUT: Final = 26
REBALANCE_IN_PROGRESS: Final = 27
INVALID_COMMIT_OFFSET_SIZE: Final = 28
TOPIC_AUTHORIZATION_FAILED: Final = 29
GROUP_AUTHORIZATION_FAILED: Final = 30
CLUSTER_AUTHORIZATION_FAILED: Final = 31
INVALID_TIMESTAMP: Final = 32
UNSUPPORTED_VERSION: Final = 35
TOPIC_ALREADY_EXISTS: Final = 36
INVALID_PARTITIONS: Final = 37
INVALID_REPLICATION_FACTOR: Final = 38
INVALID_REPLICA_ASSIGNMENT: Final = 39
INVALID_CONFIG: Final = 40
INVALID_REQUEST: Final = 42
POLICY_VIOLATION: Final = 44
OUT_OF_ORDER_SEQUENCE_NUMBER: Final = 45
INVALID_PRODUCER_EPOCH: Final = 47
TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Final = 53
SECURITY_DISABLED: Final = 54
KAFKA_STORAGE_ERROR: Final = 56
LOG_DIR_NOT_FOUND: Final = 57
UNKNOWN_PRODUCER_ID: Final = 59
NON_EMPTY_GROUP: Final = 68
GROUP_ID_NOT_FOUND: Final = 69
LISTENER_NOT_FOUND: Final = 72
FENCED_LEADER_EPOCH: Final = 74
UNKNOWN_LEADER_EPOCH: Final = 75
UNSUPPORTED_COMPRESSION_TYPE: Final = 76
STALE_BROKER_EPOCH: Final = 77
OFFSET_NOT_AVAILABLE: Final = 78
MEMBER_ID_REQUIRED: Final = 79
PREFERRED_LEADER_NOT_AVAILABLE: Final = 80
GROUP_MAX_SIZE_REACHED: Final = 81
FENCED_INSTANCE_ID: Final = 82
ELIGIBLE_LEADERS_NOT_AVAILABLE: Final = 83
ELECTION_NOT_NEEDED: Final = 84
NO_REASSIGNMENT_IN_PROGRESS: Final = 85
GROUP_SUBSCRIBED_TO_TOPIC: Final = 86
INVALID_RECORD: Final = 87
PRODUCER_FENCED: Final = 90
RESOURCE_NOT_FOUND: Final = 91
SNAPSHOT_NOT_FOUND: Final = 98
UNKNOWN_TOPIC_ID: Final = 100
DUPLICATE_BROKER_REGISTRATION: Final = 101
BROKER_ID_NOT_REGISTERED: Final = 102
INCONSISTENT_CLUSTER_ID: Final = 104
INELIGIBLE_REPLICA: Final = 107
FENCED_MEMBER_EPOCH: Final = 110
UNRELEASED_INSTANCE_ID: Final = 111
UNSUPPORTED_ASSIGNOR: Final = 112
STALE_MEMBER_EPOCH: Final = 113
MISMATCHED_ENDPOINT_TYPE: Final = 114
INVALID_REGULAR_EXPRESSION: Final = 128

CODES: Final[Mapping[type[errors.QuorateError], int]] = {
    errors.QuorateError: UNKNOWN_SERVER_ERROR,
    errors.UnknownServerError: UNKNOWN_SERVER_ERROR,
    errors.InvalidRequestError: INVALID_REQUEST,
    errors.InvalidTopicError: INVALID_TOPIC_EXCEPTION,
    errors.InvalidPartitionsError: INVALID_PARTITIONS,
    errors.InvalidReplicationFactorError: INVALID_REPLICATION_FACTOR,
    errors.InvalidConfigError: INVALID_CONFIG,
    errors.InvalidTimestampError: INVALID_TIMESTAMP,
    errors.RecordTooLargeError: MESSAGE_TOO_LARGE,
    errors.PolicyViolationError: POLICY_VIOLATION,
    errors.InvalidGroupIdError: INVALID_GROUP_ID,
    errors.InvalidPatternError: INVALID_REGULAR_EXPRESSION,
    errors.OffsetMetadataTooLargeError: OFFSET_METADATA_TOO_LARGE,
    errors.UnsupportedAssignorError: UNSUPPORTED_ASSIGNOR,
    errors.InvalidAssignmentError: INVALID_REQUEST,
    errors.InvalidSessionTimeoutError: INVALID_SESSION_TIMEOUT,
    errors.UnknownTopicError: UNKNOWN_TOPIC_OR_PARTITION,
    errors.TopicExistsError: TOPIC_ALREADY_EXISTS,
    errors.UnknownBrokerError: BROKER_ID_NOT_REGISTERED,
    errors.NotLeaderError: NOT_LEADER_OR_FOLLOWER,
    errors.FencedLeaderEpochError: FENCED_LEADER_EPOCH,
    errors.UnknownLeaderEpochError: UNKNOWN_LEADER_EPOCH,
    errors.ListenerNotFoundError: LISTENER_NOT_FOUND,
    errors.NotEnoughReplicasError: NOT_ENOUGH_REPLICAS,
    errors.NotEnoughReplicasAfterAppendError: NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    # Clients send the batch again: its bytes may have been changed on their way.
    errors.CorruptRecordError: CORRUPT_MESSAGE,
    errors.InvalidRecordError: INVALID_RECORD,
    # of clients alone
    errors.DeserializationError: UNKNOWN_SERVER_ERROR,
    errors.InvalidSchemaError: UNKNOWN_SERVER_ERROR,
    errors.IncompatibleSchemaError: UNKNOWN_SERVER_ERROR,
    errors.UnknownSchemaError: UNKNOWN_SERVER_ERROR,
    errors.OffsetOutOfRangeError: OFFSET_OUT_OF_RANGE,
    errors.LogTruncatedError: OFFSET_OUT_OF_RANGE,
    errors.OffsetNotAvailableError: OFFSET_NOT_AVAILABLE,
    errors.OutOfOrderSequenceError: OUT_OF_ORDER_SEQUENCE_NUMBER,
    errors.UnknownProducerIdError: UNKNOWN_PRODUCER_ID,
    errors.ProducerFencedError: PRODUCER_FENCED,
    # Not NOT_LEADER_OR_FOLLOWER: of that librdkafka says that the records were not written.
    errors.OutcomeUnknownError: REQUEST_TIMED_OUT,
    errors.DeliveryTimeoutError: REQUEST_TIMED_OUT,
    errors.RequestTimedOutError: REQUEST_TIMED_OUT,
    errors.QuorumUnavailableError: REQUEST_TIMED_OUT,
    errors.NotControllerError: REQUEST_TIMED_OUT,
    errors.FencedError: STALE_BROKER_EPOCH,
    errors.DuplicateBrokerError: DUPLICATE_BROKER_REGISTRATION,
    errors.IneligibleReplicaError: INELIGIBLE_REPLICA,
    errors.StalePartitionEpochError: STALE_BROKER_EPOCH,
    errors.CoordinatorNotAvailableError: COORDINATOR_NOT_AVAILABLE,
    errors.NotCoordinatorError: NOT_COORDINATOR,
    errors.CoordinatorLoadingError: COORDINATOR_LOAD_IN_PROGRESS,
    errors.NotMemberError: UNKNOWN_MEMBER_ID,
    errors.UnknownMemberIdError: UNKNOWN_MEMBER_ID,
    errors.FencedMemberEpochError: FENCED_MEMBER_EPOCH,
    errors.FencedInstanceIdError: FENCED_INSTANCE_ID,
    errors.IllegalGenerationError: ILLEGAL_GENERATION,
    errors.RebalanceInProgressError: REBALANCE_IN_PROGRESS,
    errors.InconsistentGroupProtocolError: INCONSISTENT_GROUP_PROTOCOL,
    errors.StaleMemberEpochError: STALE_MEMBER_EPOCH,
    errors.UnreleasedInstanceIdError: UNRELEASED_INSTANCE_ID,
    errors.GroupNotFoundError: GROUP_ID_NOT_FOUND,
    errors.NonEmptyGroupError: NON_EMPTY_GROUP,
    errors.GroupSubscribedToTopicError: GROUP_SUBSCRIBED_TO_TOPIC,
    errors.InvalidReplicaAssignmentError: INVALID_REPLICA_ASSIGNMENT,
    errors.NoReassignmentInProgressError: NO_REASSIGNMENT_IN_PROGRESS,
    errors.GroupMaxSizeError: GROUP_MAX_SIZE_REACHED,
    errors.WrongClusterError: INCONSISTENT_CLUSTER_ID,
    errors.WrongLoopError: UNKNOWN_SERVER_ERROR,
    errors.StorageError: KAFKA_STORAGE_ERROR,
    # Retriable for every client. Nothing was done, and REQUEST_TIMED_OUT promises nothing.
    errors.OverloadedError: REQUEST_TIMED_OUT,
    errors.AuthorizationError: CLUSTER_AUTHORIZATION_FAILED,
    errors.TopicAuthorizationFailedError: TOPIC_AUTHORIZATION_FAILED,
    errors.ClusterAuthorizationFailedError: CLUSTER_AUTHORIZATION_FAILED,
    errors.GroupAuthorizationFailedError: GROUP_AUTHORIZATION_FAILED,
    errors.UnsupportedError: UNSUPPORTED_VERSION,
    errors.ElectionNotNeededError: ELECTION_NOT_NEEDED,
    errors.LeaderNotElectableError: LEADER_NOT_AVAILABLE,
    errors.PreferredLeaderNotAvailableError: PREFERRED_LEADER_NOT_AVAILABLE,
    errors.EligibleLeadersNotAvailableError: ELIGIBLE_LEADERS_NOT_AVAILABLE,
    errors.StoppingError: NOT_LEADER_OR_FOLLOWER,
    errors.SnapshotNotFoundError: SNAPSHOT_NOT_FOUND,
    errors.ClosedError: UNKNOWN_SERVER_ERROR,
    # of the broker's way to the controller
    errors.NetworkError: REQUEST_TIMED_OUT,
    errors.PeerRefusedError: REQUEST_TIMED_OUT,
    errors.UnresolvedHostError: REQUEST_TIMED_OUT,
    errors.StreamBrokenError: REQUEST_TIMED_OUT,
    errors.DeadlineExceededError: REQUEST_TIMED_OUT,
    errors.PeerError: UNKNOWN_SERVER_ERROR,
}
#: In answers to Produce: an impossible request is one about records.
OF_PRODUCE: Final[Mapping[type[errors.QuorateError], int]] = {
    errors.InvalidRequestError: INVALID_RECORD,
    errors.ProducerFencedError: INVALID_PRODUCER_EPOCH,
}
#: In answers to requests about groups: clients know no other code for a coordinator that cannot
#: write now. They ask again, or look for another one.
OF_GROUPS: Final[Mapping[type[errors.QuorateError], int]] = {
    errors.NotEnoughReplicasError: COORDINATOR_NOT_AVAILABLE,
    errors.NotEnoughReplicasAfterAppendError: COORDINATOR_NOT_AVAILABLE,
    errors.RequestTimedOutError: COORDINATOR_NOT_AVAILABLE,
    errors.QuorumUnavailableError: COORDINATOR_NOT_AVAILABLE,
    errors.OverloadedError: COORDINATOR_LOAD_IN_PROGRESS,
    errors.StorageError: COORDINATOR_NOT_AVAILABLE,
    errors.StoppingError: NOT_COORDINATOR,
    errors.RecordTooLargeError: UNKNOWN_SERVER_ERROR,
}
#: In answers to ConsumerGroupHeartbeat.
OF_CONSUMER_HEARTBEATS: Final[Mapping[type[errors.QuorateError], int]] = {
    **OF_GROUPS,
    errors.InvalidGroupIdError: INVALID_REQUEST,
}
#: In answers to OffsetFetch: a member that is fenced learns it from its heartbeat.
OF_READS: Final[Mapping[type[errors.QuorateError], int]] = {
    **OF_GROUPS,
    errors.FencedMemberEpochError: STALE_MEMBER_EPOCH,
}
#: In answers to OffsetCommit.
OF_COMMITS: Final[Mapping[type[errors.QuorateError], int]] = {
    **OF_READS,
    errors.NonEmptyGroupError: UNKNOWN_MEMBER_ID,
    errors.RecordTooLargeError: INVALID_COMMIT_OFFSET_SIZE,
}
#: In answers to requests that name topics by their ids.
BY_ID: Final[Mapping[type[errors.QuorateError], int]] = {
    errors.UnknownTopicError: UNKNOWN_TOPIC_ID,
}
#: In answers to requests that say which brokers get the replicas.
OF_ASSIGNMENT: Final[Mapping[type[errors.QuorateError], int]] = {
    errors.InvalidRequestError: INVALID_REPLICA_ASSIGNMENT,
    errors.InvalidReplicationFactorError: INVALID_REPLICA_ASSIGNMENT,
}


def code_of(
    error: errors.QuorateError, *exceptions: Mapping[type[errors.QuorateError], int]
) -> int:
    """Return Kafka's code of an error. The first of `exceptions` that has its class goes first.

    A class that is not in the table has the code of its base class.

    >>> code_of(errors.UnknownTopicError("x")), code_of(errors.UnknownTopicError("x"), BY_ID)
    (3, 100)
    """
    for kind in type(error).__mro__:
        for table in (*exceptions, CODES):
            code = table.get(kind)
            if code is not None:
                return code
    return UNKNOWN_SERVER_ERROR
