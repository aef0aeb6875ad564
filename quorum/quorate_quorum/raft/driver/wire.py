"""Converts the machine's messages to protobuf (`to_...`) and back (`from_...`).

No other module converts them. This module also refuses each message of a peer with another history.
"""

from __future__ import annotations

from typing import TypeVar

from quorate.errors import WrongClusterError
from quorate.net.frame import Frame
from quorate.v1.common_pb2 import Error, ErrorCode
from quorate_quorum.node.history import History
from quorate_quorum.raft.driver.batches import parse_batches
from quorate_quorum.raft.machine.messages import (
    BeginEpochRequest,
    DivergingEpoch,
    EndEpochRequest,
    EpochResponse,
    FetchRequest,
    FetchResponse,
    Refusal,
    VoteRequest,
    VoteResponse,
)
from quorate_quorum.raft.machine.voters import ReplicaKey
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.v1 import raft_pb2

EpochAnswer = TypeVar("EpochAnswer", raft_pb2.BeginEpochResponse, raft_pb2.EndEpochResponse)

_CODES: dict[Refusal, ErrorCode.ValueType] = {
    Refusal.FENCED_EPOCH: ErrorCode.ERROR_CODE_FENCED_LEADER_EPOCH,
    Refusal.NOT_LEADER: ErrorCode.ERROR_CODE_NOT_CONTROLLER,
    Refusal.OLD_STREAM: ErrorCode.ERROR_CODE_FENCED,
    Refusal.INVALID: ErrorCode.ERROR_CODE_INVALID_REQUEST,
    Refusal.OVERLOADED: ErrorCode.ERROR_CODE_OVERLOADED,
}
_REFUSALS = {code: refusal for refusal, code in _CODES.items()}
#: The codes of answers that have the epoch and the leader, even with an error.
KNOWN = (ErrorCode.ERROR_CODE_NONE, *_CODES.values())


def to_history(history: History) -> raft_pb2.History:
    """Return the protobuf message."""
    return raft_pb2.History(
        cluster_id=history.cluster_id,
        quorum_generation=history.quorum_generation,
        bootstrap_hash=history.bootstrap_hash,
    )


def check_history(ours: History, theirs: raft_pb2.History) -> None:
    """Raise WrongClusterError unless a peer shares this node's history."""
    other = History(theirs.cluster_id, theirs.quorum_generation, theirs.bootstrap_hash)
    refusal = ours.refusal_of(other)
    if refusal is not None:
        raise WrongClusterError(refusal)


def error_of(refusal: Refusal | None) -> Error:
    """Return the protobuf message."""
    return Error() if refusal is None else Error(code=_CODES[refusal], message=refusal.value)


def _refusal(error: Error) -> Refusal | None:
    if error.code == ErrorCode.ERROR_CODE_NONE:
        return None
    return _REFUSALS.get(error.code, Refusal.INVALID)


# --- votes --------------------------------------------------------------------------------------


def to_vote(history: History, request: VoteRequest) -> raft_pb2.VoteRequest:
    """Return the protobuf message."""
    return raft_pb2.VoteRequest(
        history=to_history(history),
        voter_id=request.voter.id,
        voter_directory_id=request.voter.directory_id,
        candidate_id=request.candidate.id,
        candidate_directory_id=request.candidate.directory_id,
        epoch=request.epoch,
        last_epoch=request.last_epoch,
        log_end_offset=request.log_end_offset,
        pre_vote=request.pre_vote,
        leadership_transfer=request.leadership_transfer,
    )


def from_vote(message: raft_pb2.VoteRequest) -> VoteRequest:
    """Return the machine's message."""
    return VoteRequest(
        ReplicaKey(message.voter_id, message.voter_directory_id),
        ReplicaKey(message.candidate_id, message.candidate_directory_id),
        message.epoch,
        message.last_epoch,
        message.log_end_offset,
        message.pre_vote,
        message.leadership_transfer,
    )


def to_vote_answer(response: VoteResponse) -> raft_pb2.VoteResponse:
    """Return the protobuf message."""
    return raft_pb2.VoteResponse(
        epoch=response.epoch,
        leader_id=response.leader_id,
        granted=response.granted,
        leader_directory_id=response.leader_directory_id,
    )


def from_vote_answer(answer: raft_pb2.VoteResponse) -> VoteResponse:
    """Return the machine's message."""
    return VoteResponse(answer.epoch, answer.leader_id, answer.granted, answer.leader_directory_id)


# --- epochs that begin and end ------------------------------------------------------------------


def to_begin_epoch(history: History, request: BeginEpochRequest) -> raft_pb2.BeginEpochRequest:
    """Return the protobuf message."""
    return raft_pb2.BeginEpochRequest(
        history=to_history(history),
        epoch=request.epoch,
        leader_id=request.leader.id,
        leader_directory_id=request.leader.directory_id,
        endpoint=request.endpoint,
    )


def from_begin_epoch(message: raft_pb2.BeginEpochRequest) -> BeginEpochRequest:
    """Return the machine's message."""
    leader = ReplicaKey(message.leader_id, message.leader_directory_id)
    return BeginEpochRequest(message.epoch, leader, message.endpoint)


def to_end_epoch(history: History, request: EndEpochRequest) -> raft_pb2.EndEpochRequest:
    """Return the protobuf message."""
    return raft_pb2.EndEpochRequest(
        history=to_history(history),
        epoch=request.epoch,
        leader_id=request.leader_id,
        preferred_successors=request.preferred_successors,
        handed_over_for_silence=request.handed_over_for_silence,
    )


def from_end_epoch(message: raft_pb2.EndEpochRequest) -> EndEpochRequest:
    """Return the machine's message."""
    return EndEpochRequest(
        message.epoch,
        message.leader_id,
        tuple(message.preferred_successors),
        message.handed_over_for_silence,
    )


def to_epoch_answer(kind: type[EpochAnswer], response: EpochResponse) -> EpochAnswer:
    """Return the answer to BeginEpoch or EndEpoch as protobuf."""
    return kind(
        error=error_of(response.refusal),
        epoch=response.epoch,
        leader_id=response.leader_id,
        leader_directory_id=response.leader_directory_id,
    )


def from_epoch_answer(
    answer: raft_pb2.BeginEpochResponse | raft_pb2.EndEpochResponse,
) -> EpochResponse:
    """Return the answer to BeginEpoch or EndEpoch as the machine's message."""
    return EpochResponse(
        answer.epoch, answer.leader_id, leader_directory_id=answer.leader_directory_id
    )


# --- fetches ------------------------------------------------------------------------------------


def to_fetch(request: FetchRequest) -> raft_pb2.RaftFetchRequest:
    """Return the protobuf message, without the fields that open a stream."""
    return raft_pb2.RaftFetchRequest(
        epoch=request.epoch,
        fetch_offset=request.fetch_offset,
        last_fetched_epoch=request.last_fetched_epoch,
        log_start_offset=request.log_start_offset,
        high_watermark=request.high_watermark,
        round=request.round,
        is_behind=request.is_behind,
    )


def from_fetch(message: raft_pb2.RaftFetchRequest) -> FetchRequest:
    """Return the machine's message."""
    return FetchRequest(
        message.epoch,
        message.fetch_offset,
        message.last_fetched_epoch,
        message.log_start_offset,
        message.high_watermark,
        message.round,
        message.is_behind,
    )


def from_fetch_answer(frame: Frame[raft_pb2.RaftFetchHeader]) -> FetchResponse:
    """Return the machine's message. CorruptRecordError if the batches are damaged."""
    header = frame.header
    diverging = None
    if header.HasField("diverging"):
        diverging = DivergingEpoch(header.diverging.epoch, header.diverging.end_offset)
    return FetchResponse(
        header.epoch,
        header.leader_id,
        header.base_offset,
        header.high_watermark,
        header.log_start_offset,
        header.round,
        parse_batches(frame.payload) if frame.pieces else (),
        diverging,
        _refusal(header.error),
        header.leader_directory_id,
        SnapshotId(header.snapshot.offset, header.snapshot.epoch)
        if header.HasField("snapshot")
        else None,
        header.interim,
    )


def to_fetch_header(response: FetchResponse) -> raft_pb2.RaftFetchHeader:
    """Return the header of a fetch answer."""
    header = raft_pb2.RaftFetchHeader(
        error=error_of(response.refusal),
        epoch=response.epoch,
        leader_id=response.leader_id,
        base_offset=response.base_offset,
        high_watermark=response.high_watermark,
        log_start_offset=response.log_start_offset,
        round=response.round,
        leader_directory_id=response.leader_directory_id,
        interim=response.interim,
    )
    if response.diverging is not None:
        header.diverging.epoch = response.diverging.epoch
        header.diverging.end_offset = response.diverging.end_offset
    if response.snapshot is not None:
        header.snapshot.offset, header.snapshot.epoch = response.snapshot
    return header
