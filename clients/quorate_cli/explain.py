"""`quorate explain`: why a partition has this leader, ISR and ELR."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
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
    last: Annotated[
        int | None,
        typer.Option("--last", metavar="N", min=1, help="The newest N events alone."),
    ] = None,
) -> None:
    """Tell why a partition has this leader, ISR and ELR: the events that led here.

    Each event has its time, its offset in the metadata log, and its cause. The cluster keeps the
    last 30 or so of each partition.
    """
    topic, number = parsed(named)
    if number is None:
        name, _, index = topic.rpartition("-")
        meant = f": did you mean {name}/{index}?" if name and index.isdecimal() else ""
        usage_error(f"explain takes TOPIC/PARTITION, as in {topic}/0; not {named!r}{meant}")
    found = session.ask(lambda admin: admin.explain_partition(topic, number))
    events = found.events if last is None else found.events[-last:]
    is_cut = len(events) < len(found.events)
    shown = replace(found, events=events, complete=found.complete and not is_cut)
    text = "".join(f"{line}\n" for line in _lines(shown, is_cut=is_cut))
    session.answer(_document(shown), text)


def _lines(found: PartitionExplanation, *, is_cut: bool) -> Iterator[str]:
    state = found.state
    leads = "no broker leads" if state.leader < 0 else f"broker {state.leader} leads"
    yield (
        f"{found.topic}/{state.partition}: {leads} in leader epoch {state.leader_epoch}; replicas"
        f" {ids(state.replicas)}; ISR {ids(state.isr)}; ELR {ids(state.elr)}; min ISR"
        f" {found.min_isr}"
    )
    if found.waits_for:
        yield f"{found.topic}/{state.partition} {found.waits_for}"
    yield from out_of_sync_lines(state)
    yield ""
    if not found.events:
        yield "No event is kept: the metadata log was written by an older release."
    elif not found.complete:
        yield "Earlier events are not shown." if is_cut else "Earlier events are not kept."
    for event in found.events:
        yield f"At {moment(event.time_ms)} (offset {event.offset}) {event.sentence}."


def _document(found: PartitionExplanation) -> dict[str, object]:
    document = asdict(found)
    return {"topic": document["topic"], **document.pop("state"), **document}
