"""`quorate explain`: why a partition has this leader, ISR and ELR."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from quorate import PartitionExplanation
from quorate_cli.completion import partition_names
from quorate_cli.output import usage_error
from quorate_cli.partition_names import parsed
from quorate_cli.partition_states import ids, moment, out_of_sync_lines
from quorate_cli.session import Session, in_session


@in_session
def explain(
    session: Session,
    named: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC/PARTITION", help="The partition.", autocompletion=partition_names
        ),
    ],
) -> None:
    """Tell why a partition has this leader, ISR and ELR: the events that led here.

    Each event has its time, its offset in the metadata log, and its cause. The cluster keeps the
    last 30 or so of each partition.
    """
    topic, number = parsed(named)
    if number is None:
        usage_error(f"explain takes TOPIC/PARTITION, as in {topic}/0; not {named!r}")
    found = session.ask(lambda admin: admin.explain_partition(topic, number))
    text = "".join(f"{line}\n" for line in _lines(found))
    session.answer(_document(found), text)


def _lines(found: PartitionExplanation) -> Iterator[str]:
    state = found.state
    leads = "no broker leads" if state.leader < 0 else f"broker {state.leader} leads"
    yield (
        f"{found.topic}/{state.partition}: {leads} in leader epoch {state.leader_epoch}; replicas"
        f" {ids(state.replicas)}; ISR {ids(state.isr)}; ELR {ids(state.elr)}; min ISR"
        f" {found.min_isr}"
    )
    yield from out_of_sync_lines(state)
    yield ""
    if not found.events:
        yield "No event is kept: the metadata log was written by an older release."
    elif not found.complete:
        yield "Earlier events are not kept."
    for event in found.events:
        yield f"At {moment(event.time_ms)} (offset {event.offset}) {event.sentence}."


def _document(found: PartitionExplanation) -> dict[str, object]:
    document = asdict(found)
    return {"topic": document["topic"], **document.pop("state"), **document}
