"""The public calls of quorate.v1, each as a Method of the network seam."""

from __future__ import annotations

from quorate.net.network import (
    MQ,
    MR,
    REQUEST_BYTES_MAX,
    Method,
    Network,
    framed_requests,
    framed_responses,
    message_method,
)
from quorate.v1 import admin_pb2 as admin
from quorate.v1 import groups_pb2 as groups
from quorate.v1 import node_pb2 as node
from quorate.v1 import records_pb2 as records

#: Largest size of a request that names topics. 10,000 of the longest names fit.
NAMES_BYTES_MAX = 3 << 20

IDENTIFY = message_method("/quorate.v1.Node/Identify", node.IdentifyRequest, node.IdentifyResponse)


async def identify(network: Network, endpoint: str, *, timeout_ms: int) -> node.IdentifyResponse:
    """Ask which node serves an endpoint. The call has a connection of its own."""
    connection = network.connect(endpoint, purpose="control")
    try:
        return await connection.unary(IDENTIFY, node.IdentifyRequest(), timeout_ms=timeout_ms)
    finally:
        await connection.close()


PRODUCE = framed_requests(
    "/quorate.v1.Records/Produce", records.ProduceHeader, records.ProduceResponse
)
FETCH = framed_responses("/quorate.v1.Records/Fetch", records.FetchRequest, records.FetchHeader)
LIST_OFFSETS = message_method(
    "/quorate.v1.Records/ListOffsets", records.ListOffsetsRequest, records.ListOffsetsResponse
)
DELETE_RECORDS = message_method(
    "/quorate.v1.Records/DeleteRecords",
    records.DeleteRecordsRequest,
    records.DeleteRecordsResponse,
)
INIT_PRODUCER_ID = message_method(
    "/quorate.v1.Records/InitProducerId",
    records.InitProducerIdRequest,
    records.InitProducerIdResponse,
)


def _admin(
    request: type[MQ], response: type[MR], *, request_bytes_max: int = REQUEST_BYTES_MAX
) -> Method[MQ, MR]:
    """Return the Admin call with these messages. The call's name is taken from the request's."""
    name = request.DESCRIPTOR.name.removesuffix("Request")
    path = f"/quorate.v1.Admin/{name}"
    return message_method(path, request, response, request_bytes_max=request_bytes_max)


METADATA = _admin(admin.MetadataRequest, admin.MetadataResponse, request_bytes_max=NAMES_BYTES_MAX)
CREATE_TOPICS = _admin(
    admin.CreateTopicsRequest, admin.CreateTopicsResponse, request_bytes_max=NAMES_BYTES_MAX
)
CREATE_PARTITIONS = _admin(admin.CreatePartitionsRequest, admin.CreatePartitionsResponse)
DELETE_TOPICS = _admin(
    admin.DeleteTopicsRequest, admin.DeleteTopicsResponse, request_bytes_max=NAMES_BYTES_MAX
)
DESCRIBE_TOPICS = _admin(
    admin.DescribeTopicsRequest, admin.DescribeTopicsResponse, request_bytes_max=NAMES_BYTES_MAX
)
ALTER_CONFIGS = _admin(admin.AlterConfigsRequest, admin.AlterConfigsResponse)
DESCRIBE_CONFIGS = _admin(admin.DescribeConfigsRequest, admin.DescribeConfigsResponse)
DESCRIBE_CLUSTER = _admin(admin.DescribeClusterRequest, admin.DescribeClusterResponse)
EXPLAIN_PARTITION = _admin(admin.ExplainPartitionRequest, admin.ExplainPartitionResponse)
DESCRIBE_QUORUM = _admin(admin.DescribeQuorumRequest, admin.DescribeQuorumResponse)
DESCRIBE_FEATURES = _admin(admin.DescribeFeaturesRequest, admin.DescribeFeaturesResponse)
UPDATE_FEATURE = _admin(admin.UpdateFeatureRequest, admin.UpdateFeatureResponse)
ADD_VOTER = _admin(admin.AddVoterRequest, admin.AddVoterResponse)
REMOVE_VOTER = _admin(admin.RemoveVoterRequest, admin.RemoveVoterResponse)
ELECT_LEADERS = _admin(
    admin.ElectLeadersRequest, admin.ElectLeadersResponse, request_bytes_max=NAMES_BYTES_MAX
)
REASSIGN_PARTITIONS = _admin(
    admin.ReassignPartitionsRequest,
    admin.ReassignPartitionsResponse,
    request_bytes_max=NAMES_BYTES_MAX,
)
LIST_REASSIGNMENTS = _admin(
    admin.ListReassignmentsRequest,
    admin.ListReassignmentsResponse,
    request_bytes_max=NAMES_BYTES_MAX,
)
DRAIN_BROKER = _admin(admin.DrainBrokerRequest, admin.DrainBrokerResponse)
UNREGISTER_BROKER = _admin(admin.UnregisterBrokerRequest, admin.UnregisterBrokerResponse)
DESCRIBE_HEALTH = _admin(admin.DescribeHealthRequest, admin.DescribeHealthResponse)
DESCRIBE_LOG_DIRS = _admin(
    admin.DescribeLogDirsRequest,
    admin.DescribeLogDirsResponse,
    request_bytes_max=NAMES_BYTES_MAX,
)
TRANSFER_LEADERSHIP = _admin(admin.TransferLeadershipRequest, admin.TransferLeadershipResponse)


def _groups(request: type[MQ], response: type[MR]) -> Method[MQ, MR]:
    """Return the Groups call with these messages. The call's name is taken from the request's."""
    name = request.DESCRIPTOR.name.removesuffix("Request")
    return message_method(f"/quorate.v1.Groups/{name}", request, response)


FIND_COORDINATORS = _groups(groups.FindCoordinatorsRequest, groups.FindCoordinatorsResponse)
MEMBERSHIP = message_method(
    "/quorate.v1.Groups/Membership",
    groups.MemberHeartbeat,
    groups.MemberState,
    streams_requests=True,
    streams_responses=True,
)
COMMIT_OFFSETS = _groups(groups.CommitOffsetsRequest, groups.CommitOffsetsResponse)
FETCH_OFFSETS = _groups(groups.FetchOffsetsRequest, groups.FetchOffsetsResponse)
LIST_GROUPS = _groups(groups.ListGroupsRequest, groups.ListGroupsResponse)
DESCRIBE_GROUPS = _groups(groups.DescribeGroupsRequest, groups.DescribeGroupsResponse)
DELETE_GROUPS = _groups(groups.DeleteGroupsRequest, groups.DeleteGroupsResponse)
REMOVE_MEMBERS = _groups(groups.RemoveMembersRequest, groups.RemoveMembersResponse)
