"""`quorate cluster health`: can the next machine be taken down?"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from quorate import Admin, ClusterHealth, PartitionTrouble
from quorate.errors import (
    DeadlineExceededError,
    QuorateError,
    QuorumUnavailableError,
    RequestTimedOutError,
)
from quorate_cli.output import SAID_NO
from quorate_cli.session import TIMEOUT_SLACK_S, Session, in_session, run

NO_CONTROLLER = "no controller (a majority of the voters must run and reach each other)"
ASK_AGAIN_S = 0.5
EXAMPLES_SHOWN = 10
WAIT_MAX_S = 24 * 3600
#: The troubles of partitions: their names in ClusterHealth and JSON -> their names in text.
TROUBLES = {
    "offline": "without a leader",
    "under_min_isr": "under min ISR",
    "under_replicated": "under-replicated",
}


#: A disk with less room takes no new segment, and soon no batch.
FULL_BYTES = 1 << 20
#: The longest wait for the brokers' log directories.
DISKS_TIMEOUT_S = 2.0
OFFSETS_TOPIC = "__consumer_offsets"


@dataclass(frozen=True, slots=True)
class Found:
    """The controller's answer, why there is none, and the log directories whose disk is full."""

    health: ClusterHealth
    why: str
    full: list[str]

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is wrong."""
        return self.health.healthy and not self.full


@in_session
def health(
    session: Session,
    wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, max=WAIT_MAX_S, help="Wait up to so long for health."
        ),
    ] = 0.0,
) -> None:
    """Exit with 0 only if the cluster is healthy; else say what is wrong.

    Healthy means: there is a controller, it hears every voter, and each has caught up; no broker is
    fenced or shutting down, and none has a full disk; no partition is offline, under min ISR or
    under-replicated.
    """

    async def ask() -> Found:
        async with session.admin() as admin:
            return await _found(admin, session.timeout)

    async def main() -> Found:
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            try:
                found = await asyncio.wait_for(ask(), session.timeout + TIMEOUT_SLACK_S)
            except (QuorateError, TimeoutError):
                # no broker answers: try again until the timeout
                if loop.time() >= until:
                    raise
            else:
                if found.is_healthy or loop.time() >= until:
                    return found
            await asyncio.sleep(min(ASK_AGAIN_S, max(0.0, until - loop.time())))

    found = run(main, timeout=session.timeout, bounded=False)
    reasons = [*_reasons(found.health, found.why), *found.full]
    text = "".join(f"{line}\n" for line in _lines(found, reasons))
    session.answer(_json(found, reasons), text)
    if not found.is_healthy:
        raise typer.Exit(SAID_NO)


async def _found(admin: Admin, timeout: float) -> Found:
    asked = asyncio.ensure_future(_full_disks(admin, min(DISKS_TIMEOUT_S, timeout / 2)))
    try:
        health, why = await _health(admin, timeout)
        return Found(health, why, await asked)
    finally:
        asked.cancel()


async def _full_disks(admin: Admin, timeout: float) -> list[str]:
    """Return a sentence for each log directory whose disk is full, as far as brokers answer."""
    try:
        async with asyncio.timeout(timeout):
            # the replicas of one topic: those of all would make a long answer
            described = await admin.describe_log_dirs([OFFSETS_TOPIC])
    except (QuorateError, TimeoutError):
        return []
    return [
        f"broker {one.broker_id}: the disk of {one.path} is full: {one.free_bytes} bytes are free"
        for one in described
        if one.path and 0 <= one.free_bytes < FULL_BYTES
    ]


async def _health(admin: Admin, timeout: float) -> tuple[ClusterHealth, str]:
    """Return the controller's answer and "". Without a controller, return an empty answer and why.

    Raises an error if no broker answers.
    """
    await admin.describe_cluster()
    try:
        async with asyncio.timeout(timeout / 2):
            return await admin.describe_health(), ""
    except (QuorumUnavailableError, RequestTimedOutError, DeadlineExceededError) as error:
        return ClusterHealth(controller=-1), str(error)
    except TimeoutError:
        return ClusterHealth(controller=-1), ""


def _lines(found: Found, reasons: list[str]) -> list[str]:
    """Return the lines to print: the verdict, then one line for each reason."""
    if found.health.controller < 0:
        return reasons
    word = "healthy" if found.is_healthy else "not healthy"
    return [f"{word}, controller {found.health.controller}", *reasons]


def _reasons(found: ClusterHealth, why: str) -> list[str]:
    if found.controller < 0:
        return [
            NO_CONTROLLER,
            *([why] if why else []),
            "what else is wrong only a controller knows",
        ]
    reasons = [str(one) for one in found.nodes]
    for name, what in TROUBLES.items():
        trouble: PartitionTrouble = getattr(found, name)
        if trouble.count:
            # no examples if the caller is not allowed to describe the topics
            shown = trouble.examples[:EXAMPLES_SHOWN]
            more = trouble.count - len(shown)
            noun = "partition" if trouble.count == 1 else "partitions"
            names = f": {', '.join(shown)}" if shown else ""
            tail = f" and {more} more" if shown and more > 0 else ""
            reasons.append(f"{trouble.count} {noun} {what}{names}{tail}")
            reasons.extend(map(" ".join, zip(shown, trouble.waits_for, strict=False)))
    return reasons


def _json(answer: Found, reasons: list[str]) -> dict[str, Any]:
    """Return the JSON document. Its lists have at most 100 partitions; `counts` covers all."""
    found = answer.health
    troubles: dict[str, PartitionTrouble] = {name: getattr(found, name) for name in TROUBLES}
    return {
        "healthy": answer.is_healthy,
        "controller": found.controller,
        "reasons": reasons,
        "nodes": [asdict(one) for one in found.nodes],
        "full_disks": answer.full,
        "fenced_brokers": [one.id for one in found.nodes if one.state == "fenced"],
        **{name: list(one.examples) for name, one in troubles.items()},
        "counts": {name: one.count for name, one in troubles.items()},
    }
