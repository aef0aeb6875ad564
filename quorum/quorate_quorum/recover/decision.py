"""Decides whether a survivor may begin a new history, and how that history begins.

The new history comes from the survivor's disk alone. It is forbidden if a peer that answers has
more records, or still has a quorum. A voter that does not answer counts as lost, and can't come
back into the new history.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.recovered import EPOCHS_PASSED, recovered
from quorate_quorum.raft.machine.hard_state import EPOCH_LEAP_MAX, EPOCH_MAX
from quorate_quorum.raft.machine.voters import majority
from quorate_quorum.recover.survivor import Survivor
from quorate_quorum.snapshots.file import SnapshotId


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A node's answer to DescribeNode."""

    cluster_id: str
    node_id: int
    directory_id: bytes
    quorum_generation: int
    epoch: int
    leader_id: int
    last_epoch: int
    log_end_offset: int
    past_bootstrap: bool


@dataclass(frozen=True, slots=True)
class Peer:
    """A node that may be a voter: its endpoint and its answer; None if it did not answer."""

    endpoint: str
    said: Said | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The way in which the new history begins."""

    quorum_generation: int
    snapshot: SnapshotId
    bootstrap_hash: bytes
    #: The image to write as the snapshot; None: an earlier run has written the whole snapshot.
    image: MetadataImage | None


def refusals(survivor: Survivor, peers: Sequence[Peer]) -> list[str]:
    """Return the reasons why this disk must not begin a new history; empty if it may."""
    found = [*_own(survivor)]
    for peer in peers:
        if peer.said is not None and peer.said.cluster_id == survivor.identity.cluster_id:
            found.extend(_of_peer(survivor, peer.endpoint, peer.said))
    alive = sum(1 for v in survivor.image.voters if _answers(survivor, peers, v.id, v.directory_id))
    voters = len(survivor.image.voters)
    if not found and survivor.is_voter and alive + 1 >= majority(voters) and voters > 1:
        found.append(
            f"{alive} other voters of {voters} answer: with this node they are a majority, and"
            " nothing is lost. Start it"
        )
    if not found and not survivor.is_voter and alive >= majority(voters):
        found.append(
            f"{alive} of {voters} voters answer, and this node is none: they are a majority, and"
            " about to elect a leader"
        )
    return found


def _own(survivor: Survivor) -> list[str]:
    image, me = survivor.image, survivor.identity
    if image.offset <= survivor.bootstrap_end:
        return [
            f"{survivor.log_dir} holds no history, only what `storage format` wrote: recover"
            " another disk, or format a new cluster"
        ]
    if survivor.begun is None and [(v.id, v.directory_id) for v in image.voters] == [survivor.key]:
        return [f"node {me.node_id} is the only voter already: start it"]
    if _epoch_seen(survivor, ()) + EPOCHS_PASSED >= EPOCH_MAX:
        return [f"epoch {_epoch_seen(survivor, ())} leaves no epochs for another history"]
    return []


def _of_peer(survivor: Survivor, endpoint: str, said: Said) -> list[str]:
    mine = survivor.identity
    name = f"node {said.node_id} at {endpoint}"
    if said.directory_id == mine.directory_id:
        return [f"{name} runs on a copy of this disk: there must be one only. Stop it"]
    if said.quorum_generation > mine.quorum_generation:
        return [
            f"{name} is of quorum_generation {said.quorum_generation}, this disk of"
            f" {mine.quorum_generation}: the quorum was recovered without it. Format this disk"
            " with --new-voter, and add it there"
        ]
    if 0 < said.quorum_generation < mine.quorum_generation:
        return []  # no reason: that node's history is over already
    if said.leader_id >= 0:
        return [
            f"{name} knows a leader, voter {said.leader_id} in epoch {said.epoch}: the quorum"
            " lives. Start this node; replace lost voters with add-voter and remove-voter"
        ]
    theirs, ours = (said.last_epoch, said.log_end_offset), _end(survivor)
    if theirs > ours:
        return [
            f"{name} has more: its log ends at {theirs[1]} with epoch {theirs[0]}, this one at"
            f" {ours[1]} with epoch {ours[0]}. Stop it, and recover there"
        ]
    return []


def _end(survivor: Survivor) -> tuple[int, int]:
    return survivor.image.epoch, survivor.image.offset


def _answers(survivor: Survivor, peers: Sequence[Peer], voter_id: int, directory_id: bytes) -> bool:
    """Return whether another voter answers, has its own disk, and shares this history."""
    mine = survivor.identity
    return any(
        said is not None
        and (said.cluster_id, said.quorum_generation) == (mine.cluster_id, mine.quorum_generation)
        and (said.node_id, said.directory_id) == (voter_id, directory_id) != survivor.key
        and said.past_bootstrap
        for said in (peer.said for peer in peers)
    )


def plan(survivor: Survivor, peers: Sequence[Peer]) -> Plan:
    """Return how the new history begins. Call this only if `refusals` returns none."""
    if survivor.begun is not None:
        begun = survivor.begun
        return Plan(
            begun.quorum_generation,
            SnapshotId(begun.offset, begun.epoch),
            begun.bootstrap_hash,
            None,
        )
    image = recovered(survivor.image, survivor.me, epoch_seen=_epoch_seen(survivor, peers))
    generation = survivor.identity.quorum_generation + 1
    snapshot = SnapshotId(image.offset, image.epoch)
    return Plan(generation, snapshot, _new_hash(survivor, generation, snapshot), image)


def _epoch_seen(survivor: Survivor, peers: Sequence[Peer]) -> int:
    """Return the highest epoch of this disk and its peers. Epochs too far ahead are ignored."""
    own = max(survivor.hard_state.epoch, survivor.image.epoch, 0)
    mine = survivor.identity
    heard = [
        said.epoch
        for said in (peer.said for peer in peers)
        if said is not None
        and (said.cluster_id, said.quorum_generation) == (mine.cluster_id, mine.quorum_generation)
        and said.epoch <= own + EPOCH_LEAP_MAX
    ]
    return max([own, *heard])


def _new_hash(survivor: Survivor, generation: int, snapshot: SnapshotId) -> bytes:
    """Return the bootstrap hash of the new history. Voters refuse peers with another hash.

    The hash differs from disk to disk: two disks that recover to the same generation begin
    different histories, and their nodes must refuse each other.
    """
    return hashlib.sha256(
        survivor.bootstrap_hash
        + survivor.identity.directory_id
        + struct.pack(">qqi", generation, *snapshot)
    ).digest()
