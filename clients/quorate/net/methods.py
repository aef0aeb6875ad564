"""The public calls of quorate.v1, each as a Method of the network seam."""

from __future__ import annotations

from quorate.net.network import framed_requests, framed_responses, message_method
from quorate.v1 import admin_pb2 as admin
from quorate.v1 import node_pb2 as node
from quorate.v1 import records_pb2 as records

#: Size limit of requests that name topics: 10,000 of the longest names fit.
NAMES_BYTES_MAX = 3 << 20

IDENTIFY = message_method("/quorate.v1.Node/Identify", node.IdentifyRequest, node.IdentifyResponse)

PRODUCE = framed_requests(
    "/quorate.v1.Records/Produce", records.ProduceHeader, records.ProduceResponse
)
FETCH = framed_responses("/quorate.v1.Records/Fetch", records.FetchRequest, records.FetchHeader)
LIST_OFFSETS = message_method(
    "/quorate.v1.Records/ListOffsets", records.ListOffsetsRequest, records.ListOffsetsResponse
)
INIT_PRODUCER_ID = message_method(
    "/quorate.v1.Records/InitProducerId",
    records.InitProducerIdRequest,
    records.InitProducerIdResponse,
)

METADATA = message_method(
    "/quorate.v1.Admin/Metadata",
    admin.MetadataRequest,
    admin.MetadataResponse,
    request_bytes_max=NAMES_BYTES_MAX,
)
CREATE_TOPICS = message_method(
    "/quorate.v1.Admin/CreateTopics",
    admin.CreateTopicsRequest,
    admin.CreateTopicsResponse,
    request_bytes_max=NAMES_BYTES_MAX,
)
DELETE_TOPICS = message_method(
    "/quorate.v1.Admin/DeleteTopics",
    admin.DeleteTopicsRequest,
    admin.DeleteTopicsResponse,
    request_bytes_max=NAMES_BYTES_MAX,
)
DESCRIBE_TOPICS = message_method(
    "/quorate.v1.Admin/DescribeTopics",
    admin.DescribeTopicsRequest,
    admin.DescribeTopicsResponse,
    request_bytes_max=NAMES_BYTES_MAX,
)
ALTER_CONFIGS = message_method(
    "/quorate.v1.Admin/AlterConfigs", admin.AlterConfigsRequest, admin.AlterConfigsResponse
)
DESCRIBE_CONFIGS = message_method(
    "/quorate.v1.Admin/DescribeConfigs",
    admin.DescribeConfigsRequest,
    admin.DescribeConfigsResponse,
)
DESCRIBE_CLUSTER = message_method(
    "/quorate.v1.Admin/DescribeCluster",
    admin.DescribeClusterRequest,
    admin.DescribeClusterResponse,
)
DESCRIBE_QUORUM = message_method(
    "/quorate.v1.Admin/DescribeQuorum", admin.DescribeQuorumRequest, admin.DescribeQuorumResponse
)
DESCRIBE_FEATURES = message_method(
    "/quorate.v1.Admin/DescribeFeatures",
    admin.DescribeFeaturesRequest,
    admin.DescribeFeaturesResponse,
)
UPDATE_FEATURE = message_method(
    "/quorate.v1.Admin/UpdateFeature", admin.UpdateFeatureRequest, admin.UpdateFeatureResponse
)
ADD_VOTER = message_method(
    "/quorate.v1.Admin/AddVoter", admin.AddVoterRequest, admin.AddVoterResponse
)
REMOVE_VOTER = message_method(
    "/quorate.v1.Admin/RemoveVoter", admin.RemoveVoterRequest, admin.RemoveVoterResponse
)
UNREGISTER_BROKER = message_method(
    "/quorate.v1.Admin/UnregisterBroker",
    admin.UnregisterBrokerRequest,
    admin.UnregisterBrokerResponse,
)
DESCRIBE_HEALTH = message_method(
    "/quorate.v1.Admin/DescribeHealth", admin.DescribeHealthRequest, admin.DescribeHealthResponse
)
TRANSFER_LEADERSHIP = message_method(
    "/quorate.v1.Admin/TransferLeadership",
    admin.TransferLeadershipRequest,
    admin.TransferLeadershipResponse,
)
