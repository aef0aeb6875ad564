"""`quorate cluster drain` and `undrain`: take the work away from a broker, and give it back."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import typer

from quorate import TopicPartition
from quorate_cli.output import (
    SAID_NO,
    counted,
    fail,
    print_json,
    print_table,
    usage_error,
)
from quorate_cli.session import Session, in_session
from quorate_cli.throttle import Throttle, limit

#: The most partitions that are named for one reason. -o json has all.
SHOWN_MAX: Final = 6
Broker = Annotated[int, typer.Argument(metavar="ID", min=0, help="The broker.")]


@in_session
def drain(
    session: Session,
    broker: Broker,
    replicas: Annotated[
        bool, typer.Option("--replicas", help="Also give its replicas to other brokers.")
    ] = False,
    throttle: Throttle = "",
) -> None:
    """Take the leaderships away from a broker, for maintenance.

    Other in-sync replicas lead; nothing is lost. The broker gets no new replicas until `quorate
    cluster undrain`. With --replicas, other brokers also get its replicas: `quorate partition
    list-moves` shows how far they are. An empty broker can be stopped and unregistered. The command
    exits with 1 if it had to leave something on the broker, and says why.

    --throttle limits the copies as that of `quorate partition move` does. Without it, a move whose
    target the drain changes keeps its limit.
    """
    if throttle and not replicas:
        usage_error("--throttle is for the moves that --replicas begins: give both")
    rate = limit(throttle)
    found = session.ask(lambda admin: admin.drain_broker(broker, replicas=replicas, throttle=rate))
    if session.as_json:
        left = [{"topic": key.topic, "partition": key.partition, "reason": why}
                for key, why in found.left.items()]  # fmt: skip
        print_json({"broker": broker, **found._asdict(), "left": left})
    else:
        begun = f"; {counted(found.replicas_moved, 'move of replicas')} begun" if replicas else ""
        sys.stdout.write(
            f"broker {broker} is drained: {counted(found.leaders_moved, 'leader')} moved{begun}\n"
        )
        if found.left:
            print_table(("left", "because"), _by_reason(found.left))
    if found.left_count:
        what = "leader or replica is" if found.left_count == 1 else "leaders or replicas are"
        fail(f"{found.left_count} {what} left on broker {broker}", SAID_NO)


def _by_reason(left: Mapping[TopicPartition, str]) -> list[tuple[str, str]]:
    """Return a row for each reason, with the partitions that it is about."""
    groups: dict[str, list[str]] = {}
    for key, why in left.items():
        groups.setdefault(why, []).append(f"{key.topic}/{key.partition}")
    return [(_shown(names), why) for why, names in groups.items()]


def _shown(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN_MAX])
    return shown if len(names) <= SHOWN_MAX else f"{shown} and {len(names) - SHOWN_MAX} more"


@in_session
def undrain(session: Session, broker: Broker) -> None:
    """Let a drained broker have replicas and leaderships again. Nothing is moved back by this."""
    was = session.ask(lambda admin: admin.undrain_broker(broker))
    session.answer(
        {"broker": broker, "was_drained": was},
        f"broker {broker} is undrained; `quorate partition elect --all` lets it lead what it led;"
        " if it has no replicas any more, `quorate cluster rebalance` gives it some\n"
        if was
        else f"broker {broker} was not drained\n",
    )
