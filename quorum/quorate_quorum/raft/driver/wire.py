"""The machine's messages as protobuf, and back; a peer's history is checked here."""

from __future__ import annotations

from quorate.errors import (
    WrongClusterError,
)
from quorate.net.frame import Frame
from quorate.v1.common_pb2 import Error, ErrorCode
from quorate_quorum.node.history import History
from quorate_quorum.raft.driver.batches import parse_batches
from quorate_quorum.raft.machine.messages import (
    DivergingEpoch,
    EpochResponse,
    FetchRequest,
    FetchResponse,
    Refusal,
)
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.v1 import raft_pb2

_CODES: dict[Refusal, ErrorCode.ValueType] = {
    Refusal.FENCED_EPOCH: ErrorCode.ERROR_CODE_FENCED_LEADER_EPOCH,
    Refusal.NOT_LEADER: ErrorCode.ERROR_CODE_NOT_CONTROLLER,
    Refusal.OLD_STREAM: ErrorCode.ERROR_CODE_FENCED,
    Refusal.INVALID: ErrorCode.ERROR_CODE_INVALID_REQUEST,
    Refusal.OVERLOADED: ErrorCode.ERROR_CODE_OVERLOADED,
}
_REFUSALS = {code: refusal for refusal, code in _CODES.items()}
#: Errors whose answer still tells epoch and leader.
KNOWN = (ErrorCode.ERROR_CODE_NONE, *_CODES.values())


def to_history(history: History) -> raft_pb2.History:
    """Return the wire's form."""
    return raft_pb2.History(
        cluster_id=history.cluster_id,
        quorum_generation=history.quorum_generation,
        bootstrap_hash=history.bootstrap_hash,
    )


def check_history(ours: History, theirs: raft_pb2.History) -> None:
    """Raise WrongClusterError unless a peer is of our history."""
    other = History(theirs.cluster_id, theirs.quorum_generation, theirs.bootstrap_hash)
    refusal = ours.refusal_of(other)
    if refusal is not None:
        raise WrongClusterError(refusal)


def error_of(refusal: Refusal | None) -> Error:
    """Return the wire's form."""
    return Error() if refusal is None else Error(code=_CODES[refusal], message=refusal.value)


def _refusal(error: Error) -> Refusal | None:
    if error.code == ErrorCode.ERROR_CODE_NONE:
        return None
    return _REFUSALS.get(error.code, Refusal.INVALID)


def fetch_request(request: FetchRequest) -> raft_pb2.RaftFetchRequest:
    """Return the wire's form, without what opens a stream."""
    return raft_pb2.RaftFetchRequest(
        epoch=request.epoch,
        fetch_offset=request.fetch_offset,
        last_fetched_epoch=request.last_fetched_epoch,
        log_start_offset=request.log_start_offset,
        high_watermark=request.high_watermark,
        round=request.round,
        is_behind=request.is_behind,
    )


def fetch_response(frame: Frame[raft_pb2.RaftFetchHeader]) -> FetchResponse:
    """Return the machine's form; CorruptRecordError if the batches are damaged."""
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


def fetch_header(response: FetchResponse) -> raft_pb2.RaftFetchHeader:
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


def epoch_response(
    answer: raft_pb2.BeginEpochResponse | raft_pb2.EndEpochResponse,
) -> EpochResponse:
    """Return the machine's form of an answer to BeginEpoch or EndEpoch."""
    return EpochResponse(
        answer.epoch, answer.leader_id, leader_directory_id=answer.leader_directory_id
    )
