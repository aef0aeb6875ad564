"""`quorate quorum recover`: begins a new history from one voter's disk.

    read    the disk (survivor.py)
    ask     every voter that the disk names, and quorum.bootstrap.servers
    decide  whether the disk may begin a new history, and how (decision.py)
    write   snapshot of the new generation -> epoch and vote -> meta.properties

Each write is durable before the next one. The identity comes last. Until the identity has the new
generation, the node does not start ("run recover again"), and another run of recover finds the
snapshot and continues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from quorate.errors import QuorateError, raise_if_error
from quorate.net.network import Network
from quorate_quorum.disk import Disk, replace_whole
from quorate_quorum.log.identity import write_identity
from quorate_quorum.methods import DESCRIBE_NODE
from quorate_quorum.raft.driver.bootstrap import metadata_directory
from quorate_quorum.raft.driver.quorum_state import QUORUM_STATE, encode_state
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.recover.decision import Peer, Plan, Said
from quorate_quorum.recover.survivor import Survivor
from quorate_quorum.snapshots import file as files
from quorate_quorum.snapshots.file import VERSION as SNAPSHOT_VERSION
from quorate_quorum.v1.events_pb2 import SnapshotStart
from quorate_quorum.v1.raft_pb2 import DescribeNodeRequest

#: The most nodes that are asked. A disk may name more nodes.
PEERS_MAX = 64


def endpoints(survivor: Survivor, bootstrap: Sequence[str]) -> list[str]:
    """Return the endpoints of other nodes that may know more than this disk."""
    mine = [v.endpoint for v in survivor.voters_named if (v.id, v.directory_id) == survivor.key]
    others = [v.endpoint for v in survivor.voters_named]
    named = dict.fromkeys((*others, *bootstrap))
    return [one for one in named if one not in (*mine, survivor.endpoint)][:PEERS_MAX]


async def ask(network: Network, asked: Sequence[str], *, timeout_ms: int) -> list[Peer]:
    """Ask all nodes at once to describe themselves. A node that is too late counts as lost."""
    return list(await asyncio.gather(*(_ask(network, one, timeout_ms) for one in asked)))


async def _ask(network: Network, endpoint: str, timeout_ms: int) -> Peer:
    connection = network.connect(endpoint, purpose="control")
    try:
        answer = await connection.unary(DESCRIBE_NODE, DescribeNodeRequest(), timeout_ms=timeout_ms)
        raise_if_error(answer.error)
    except QuorateError:
        return Peer(endpoint, None)
    finally:
        await connection.close()
    return Peer(
        endpoint,
        Said(
            cluster_id=answer.cluster_id,
            node_id=answer.node_id,
            directory_id=answer.directory_id,
            quorum_generation=answer.quorum_generation,
            epoch=answer.epoch,
            leader_id=answer.leader_id,
            last_epoch=answer.last_epoch,
            log_end_offset=answer.log_end_offset,
            past_bootstrap=answer.past_bootstrap,
        ),
    )


async def carry_out(disk: Disk, survivor: Survivor, plan: Plan) -> None:
    """Write the beginning of the new history. The caller holds the directory's lock.

    OSError if the disk fails. After that, the same call or another run of recover completes the
    work.
    """
    directory = metadata_directory(survivor.log_dir)
    if plan.image is not None:
        await files.remove_parts(disk, directory)
        start = SnapshotStart(
            version=SNAPSHOT_VERSION,
            offset=plan.snapshot.offset,
            epoch=plan.snapshot.epoch,
            cluster_id=survivor.identity.cluster_id,
            quorum_generation=plan.quorum_generation,
            bootstrap_hash=plan.bootstrap_hash,
        )
        await files.write_snapshot(disk, directory, start, plan.image.to_events())
    # The new epoch has no vote yet, and the old history's hard state no longer counts.
    state = HardState(epoch=plan.snapshot.epoch)
    await replace_whole(disk, f"{directory}/{QUORUM_STATE}", encode_state(state))
    identity = replace(survivor.identity, quorum_generation=plan.quorum_generation)
    await write_identity(disk, survivor.log_dir, identity)
