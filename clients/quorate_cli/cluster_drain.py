"""`quorate cluster drain` and `undrain`: take the work away from a broker, and give it back."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from quorate_cli.output import SAID_NO, fail, print_json, print_table, usage_error
from quorate_cli.session import Session, in_session
from quorate_cli.throttle import Throttle, limit

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
        begun = f"; {found.replicas_moved} moves of replicas begun" if replicas else ""
        sys.stdout.write(
            f"broker {broker} is drained: {found.leaders_moved} leaders moved{begun}\n"
        )
        if found.left:
            rows = [(f"{key.topic}/{key.partition}", why) for key, why in found.left.items()]
            print_table(("left", "because"), rows)
    if found.left_count:
        fail(f"{found.left_count} leaders or replicas are left on broker {broker}", SAID_NO)


@in_session
def undrain(session: Session, broker: Broker) -> None:
    """Let a drained broker have replicas and leaderships again. Nothing is moved back by this."""
    was = session.ask(lambda admin: admin.undrain_broker(broker))
    session.answer(
        {"broker": broker, "was_drained": was},
        f"broker {broker} is undrained; `quorate partition elect --all` lets it lead what it led\n"
        if was
        else f"broker {broker} was not drained\n",
    )
