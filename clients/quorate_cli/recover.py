"""`quorate quorum recover`: begins again after a majority of the voters' disks is lost.

The command works on one voter's disk while this voter is stopped. It asks the other voters only for
their identity.
"""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from quorate.cluster.brokers import default_network
from quorate.errors import QuorateError
from quorate_cli.inspect.node_files import is_locked
from quorate_cli.output import SAID_NO, Output, check_output, fail, print_json
from quorate_cli.session import Timeout, milliseconds, run
from quorate_quorum.log.real_disk import ReadOnlyDisk, RealDisk
from quorate_quorum.node.config import ConfigError, QuorumConfig
from quorate_quorum.node.config_sources import load
from quorate_quorum.node.features import SUPPORTED
from quorate_quorum.recover import recover as recovering
from quorate_quorum.recover.decision import Peer, Plan, plan, refusals
from quorate_quorum.recover.survivor import Survivor, read_survivor


def recover(
    config: Annotated[Path, typer.Option(help="The surviving voter's configuration.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what this disk has, and what would be done.")
    ] = False,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Begin a new generation of the metadata from this stopped voter's disk.

    The lost voters leave the quorum. Use this command only when a majority of the voters' disks is
    gone for good. First run it with --dry-run on every surviving disk, and then recover the disk
    whose log ends furthest. Exit status 1: refused.
    """
    as_json = check_output(output)
    document = run(
        lambda: _recover(str(config), dry_run=dry_run, timeout_ms=milliseconds(timeout)),
        timeout=timeout,
        bounded=False,
    )
    if as_json:
        print_json(document)
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _lines(document)))
    if document["refused"]:
        fail("refused: " + "\n  and ".join(document["refused"]), SAID_NO)


async def _recover(path: str, *, dry_run: bool, timeout_ms: int) -> dict[str, Any]:
    try:
        config = load(QuorumConfig, path, os.environ)
        async with AsyncExitStack() as stack:
            disk = ReadOnlyDisk() if dry_run else RealDisk()
            stack.callback(disk.close)
            in_use = await _claim(stack, disk, config.log_dirs[0], dry_run=dry_run)
            survivor = await read_survivor(disk, config, SUPPORTED)
            network = default_network()
            stack.push_async_callback(network.close)
            asked = recovering.endpoints(survivor, config.quorum_bootstrap_servers)
            peers = await recovering.ask(network, asked, timeout_ms=timeout_ms)
            refused = [*in_use, *refusals(survivor, peers)]
            begins = None if refused else plan(survivor, peers)
            if begins is not None and not dry_run:
                await recovering.carry_out(disk, survivor, begins)
            return _document(survivor, peers, refused, begins, dry_run=dry_run)
    except ConfigError as error:
        fail(str(error), SAID_NO)
    except QuorateError as error:
        fail(f"this disk can't be recovered from: {error}", SAID_NO)
    except OSError as error:
        fail(f"the disk: {error}", SAID_NO)


async def _claim(
    stack: AsyncExitStack, disk: RealDisk, directory: str, *, dry_run: bool
) -> list[str]:
    """Lock the directory until `stack` ends. Return the reasons to refuse.

    A dry run takes no lock. It only checks whether another process has the lock, because then the
    content may change while it is read.
    """
    in_use = f"{directory} is in use by another process: stop this node first"
    if dry_run:
        return [in_use] if is_locked(directory) else []
    try:
        lock = await disk.lock(directory)
    except BlockingIOError:
        raise ConfigError(in_use) from None
    except FileNotFoundError:
        raise ConfigError(
            f"{directory} is not there: name the log.dirs of a voter whose disk survived"
        ) from None
    stack.callback(lock.release)
    return []


def _document(
    survivor: Survivor,
    peers: list[Peer],
    refused: list[str],
    begins: Plan | None,
    *,
    dry_run: bool,
) -> dict[str, Any]:
    return {
        "done": begins is not None and not dry_run,
        "dry_run": dry_run,
        "refused": refused,
        "disk": _disk(survivor),
        "peers": [_peer(peer) for peer in peers],
        "new": None if begins is None else _new(survivor, begins),
    }


def _disk(survivor: Survivor) -> dict[str, Any]:
    identity, image, snapshot = survivor.identity, survivor.image, survivor.snapshot
    return {
        "directory": survivor.log_dir,
        "cluster_id": identity.cluster_id,
        "id": identity.node_id,
        "directory_id": identity.directory_id.hex(),
        "quorum_generation": identity.quorum_generation,
        "epoch": survivor.hard_state.epoch,
        "last_epoch": image.epoch,
        "log_start_offset": survivor.log_start_offset,
        "log_end_offset": image.offset,
        "high_watermark": survivor.high_watermark,
        "snapshot": None if snapshot is None else snapshot._asdict(),
        "is_voter": survivor.is_voter,
        "voters": [
            {"id": v.id, "directory_id": v.directory_id.hex(), "endpoint": v.endpoint}
            for v in image.voters
        ],
        "brokers": [broker.id for broker in image.sorted_brokers()],
        "topics": len(image.topics),
        "partitions": sum(len(topic.partitions) for topic in image.sorted_topics()),
        "begun": survivor.begun is not None,
    }


def _peer(peer: Peer) -> dict[str, Any]:
    said = peer.said
    if said is None:
        return {"endpoint": peer.endpoint, "answered": False}
    return {
        "endpoint": peer.endpoint,
        "answered": True,
        "cluster_id": said.cluster_id,
        "id": said.node_id,
        "directory_id": said.directory_id.hex(),
        "quorum_generation": said.quorum_generation,
        "epoch": said.epoch,
        "leader": said.leader_id,
        "last_epoch": said.last_epoch,
        "log_end_offset": said.log_end_offset,
    }


def _new(survivor: Survivor, begins: Plan) -> dict[str, Any]:
    return {
        "quorum_generation": begins.quorum_generation,
        "offset": begins.snapshot.offset,
        "epoch": begins.snapshot.epoch,
        "voters": [
            {
                "id": survivor.identity.node_id,
                "directory_id": survivor.identity.directory_id.hex(),
                "endpoint": survivor.endpoint,
            }
        ],
    }


def _lines(document: dict[str, Any]) -> list[str]:
    """Return the document as lines of text."""
    disk, new = document["disk"], document["new"]
    snapshot = disk["snapshot"]
    lines = [
        f"{disk['directory']}: voter {disk['id']} of cluster {disk['cluster_id']},"
        f" directory {disk['directory_id']}, quorum_generation {disk['quorum_generation']}",
        f"  its log ends at {disk['log_end_offset']} with epoch {disk['last_epoch']}; epoch"
        f" {disk['epoch']} was met; known to be committed: below {disk['high_watermark']}",
        "  no snapshot"
        if snapshot is None
        else f"  snapshot at {snapshot['offset']}, epoch {snapshot['epoch']}",
        "  voters: " + ", ".join(f"{v['id']} at {v['endpoint']}" for v in disk["voters"]),
        f"  {len(disk['brokers'])} brokers, {disk['topics']} topics, {disk['partitions']}"
        " partitions",
    ]
    if not disk["is_voter"]:
        lines.append("  it is none of these voters: others may have more")
    lines += [f"{peer['endpoint']}: {_told(peer)}" for peer in document["peers"]]
    if new is not None:
        would = "would begin" if document["dry_run"] else "began"
        again = " (completing a recover that was cut short)" if disk["begun"] else ""
        lines.append(
            f"{would} quorum_generation {new['quorum_generation']} at offset {new['offset']},"
            f" epoch {new['epoch']}, with this node as the only voter{again}"
        )
        if document["done"]:
            lines.append(
                "Start this node, then the brokers, all of them. Recover no other voter: give each"
                " an empty disk, format it with --new-voter, and add it with"
                " `quorate quorum add-voter`"
            )
    return lines


def _told(peer: dict[str, Any]) -> str:
    if not peer["answered"]:
        return "no answer: taken for lost"
    leader = f"leader {peer['leader']}" if peer["leader"] >= 0 else "no leader known"
    return (
        f"node {peer['id']} of cluster {peer['cluster_id']}, quorum_generation"
        f" {peer['quorum_generation']}, epoch {peer['epoch']}, {leader}; its log ends at"
        f" {peer['log_end_offset']} with epoch {peer['last_epoch']}"
    )
