"""The quorum's private calls, as Method values for the network seam."""

from __future__ import annotations

from quorate.net.network import framed_responses, message_method
from quorate_quorum.v1 import controller_pb2 as controller
from quorate_quorum.v1 import raft_pb2 as raft

VOTE = message_method("/quorate_quorum.v1.Raft/Vote", raft.VoteRequest, raft.VoteResponse)
BEGIN_EPOCH = message_method(
    "/quorate_quorum.v1.Raft/BeginEpoch", raft.BeginEpochRequest, raft.BeginEpochResponse
)
END_EPOCH = message_method(
    "/quorate_quorum.v1.Raft/EndEpoch", raft.EndEpochRequest, raft.EndEpochResponse
)
RAFT_FETCH = framed_responses(
    "/quorate_quorum.v1.Raft/Fetch", raft.RaftFetchRequest, raft.RaftFetchHeader
)
FETCH_SNAPSHOT = message_method(
    "/quorate_quorum.v1.Raft/FetchSnapshot",
    raft.FetchSnapshotRequest,
    raft.FetchSnapshotResponse,
)
DESCRIBE_NODE = message_method(
    "/quorate_quorum.v1.Raft/Describe", raft.DescribeNodeRequest, raft.DescribeNodeResponse
)

REGISTER = message_method(
    "/quorate_quorum.v1.Controller/Register",
    controller.RegisterRequest,
    controller.RegisterResponse,
)
HEARTBEAT = message_method(
    "/quorate_quorum.v1.Controller/Heartbeat",
    controller.HeartbeatRequest,
    controller.HeartbeatResponse,
    streams_requests=True,
    streams_responses=True,
)
ALTER_PARTITIONS = message_method(
    "/quorate_quorum.v1.Controller/AlterPartitions",
    controller.AlterPartitionsRequest,
    controller.AlterPartitionsResponse,
    streams_requests=True,
    streams_responses=True,
)
FORWARD = message_method(
    "/quorate_quorum.v1.Controller/Forward",
    controller.ForwardRequests,
    controller.ForwardResponses,
    request_bytes_max=64 << 20,  # for the whole message: each request in it has a bound, too
    streams_requests=True,
    streams_responses=True,
)
ALLOCATE_PRODUCER_IDS = message_method(
    "/quorate_quorum.v1.Controller/AllocateProducerIds",
    controller.AllocateProducerIdsRequest,
    controller.AllocateProducerIdsResponse,
)
CREATE_INTERNAL_TOPIC = message_method(
    "/quorate_quorum.v1.Controller/CreateInternalTopic",
    controller.CreateInternalTopicRequest,
    controller.CreateInternalTopicResponse,
)
WATCH = framed_responses(
    "/quorate_quorum.v1.Metadata/Watch",
    controller.WatchRequest,
    controller.WatchHeader,
    streams_requests=False,
)
