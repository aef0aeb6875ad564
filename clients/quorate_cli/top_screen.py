"""Draws the view of `quorate top`: as JSON, as plain tables, or for a screen of some lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from quorate_cli.cluster_disks import readable
from quorate_cli.cluster_rates import BrokerRow, GroupRow, PartitionRow, TopicRow, View
from quorate_cli.output import aligned

if TYPE_CHECKING:
    from rich.console import RenderableType

#: The lines of a table that are no rows: its title, its head, three rules and a line "and n more".
TABLE_LINES: Final = 6
#: A table has so many rows at least, however low the screen is.
ROWS_MIN: Final = 3


class Table(NamedTuple):
    """A table: its title, the names of its columns, and its rows as text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


def document(shown: View) -> dict[str, Any]:
    """Return the view as a JSON document."""
    return asdict(shown)


def headline(shown: View) -> str:
    """Return the first line: the cluster in numbers."""
    partitions = sum(row.partitions for row in shown.topics)
    offline = sum(row.leader < 0 for row in shown.troubled)
    under = sum(row.under_replicated for row in shown.topics)
    controller = f"controller {shown.controller}" if shown.controller >= 0 else "no controller"
    return (
        f"cluster {shown.cluster_id}, {controller}; {len(shown.brokers)} brokers,"
        f" {partitions} partitions of {len(shown.topics)} topics;"
        f" {under} under-replicated, {offline} offline"
    )


def tables(shown: View, *, internal: bool) -> list[Table]:
    """Return the tables of a view. Internal topics are left out unless they are asked for."""
    topics = [row for row in shown.topics if internal or not row.internal]
    found = [
        Table(
            "Brokers",
            ("broker", "rack", "state", "leaders", "replicas", "in sync", "out of sync", "logs"),
            [_broker(row) for row in shown.brokers],
        ),
        Table(
            "Under-replicated and offline partitions",
            ("partition", "leader", "replicas", "ISR"),
            [_partition(row) for row in shown.troubled],
        ),
        Table(
            "Groups",
            ("group", "state", "members", "lag", "committed/s"),
            [_group(row) for row in shown.groups],
        ),
        Table(
            "Topics",
            ("topic", "partitions", "records/s", "bytes/s", "records", "size"),
            [_topic(row) for row in topics],
        ),
    ]
    return [table for table in found if table.rows]


def plain(shown: View, *, internal: bool) -> str:
    """Return the view as text without a terminal's colours."""
    head = [f"{headline(shown)}\n", *(f"note: {one}\n" for one in shown.missing)]
    body = [
        f"\n{table.title}\n{aligned([table.columns, *table.rows])}"
        for table in tables(shown, internal=internal)
    ]
    return "".join([*head, *body])


def screen(shown: View, *, internal: bool, lines: int, status: str) -> RenderableType:
    """Return the view for a screen of so many lines. `status` is its last line."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    found = tables(shown, internal=internal)
    room = lines - 3 - len(shown.missing)
    drawn: list[RenderableType] = [Text(headline(shown), style="bold")]
    drawn += [Text(f"note: {one}", style="yellow") for one in shown.missing]
    for table, count in zip(
        found, rows_that_fit([len(one.rows) for one in found], room), strict=True
    ):
        rich = RichTable(
            *table.columns, title=table.title, title_justify="left", header_style="bold"
        )
        for row in table.rows[:count]:
            rich.add_row(*(str(cell) if cell != "" else "-" for cell in row))
        drawn.append(rich)
        if count < len(table.rows):
            drawn.append(Text(f"and {len(table.rows) - count} more", style="dim"))
    drawn.append(Text(status, style="dim"))
    return Group(*drawn)


def rows_that_fit(rows: Sequence[int], lines: int) -> list[int]:
    """Return how many rows of each table a screen of so many lines shows.

    Each table gets its share of what those before it leave.

    >>> rows_that_fit([3, 0, 50, 50], 60)
    [3, 0, 16, 17]
    >>> rows_that_fit([3, 50], 5)
    [3, 3]
    """
    left = lines - TABLE_LINES * len(rows)
    found = []
    for index, count in enumerate(rows):
        share = max(ROWS_MIN, left // (len(rows) - index))
        found.append(min(count, share))
        left -= found[-1]
    return found


def _broker(row: BrokerRow) -> Sequence[object]:
    return (
        row.broker,
        row.rack,
        "fenced" if row.fenced else "alive",
        row.leaders,
        row.replicas,
        row.in_sync,
        row.out_of_sync,
        _or_nothing(row.size, readable),
    )


def _partition(row: PartitionRow) -> Sequence[object]:
    leader = row.leader if row.leader >= 0 else "none"
    return f"{row.topic}/{row.partition}", leader, _ids(row.replicas), _ids(row.isr)


def _ids(ids: Sequence[int]) -> str:
    return ",".join(map(str, ids))


def _group(row: GroupRow) -> Sequence[object]:
    lag = "" if row.lag is None else row.lag
    return row.group, row.state, row.members, lag, _or_nothing(row.records_per_s, _rate)


def _topic(row: TopicRow) -> Sequence[object]:
    return (
        row.topic,
        row.partitions,
        _or_nothing(row.records_per_s, _rate),
        _or_nothing(row.bytes_per_s, lambda size: f"{readable(round(size))}/s"),
        row.records,
        readable(row.size),
    )


def _rate(per_s: float) -> str:
    """Return a rate as text.

    >>> _rate(0.0), _rate(2.46), _rate(12345.6)
    ('0', '2.5', '12,346')
    """
    return f"{per_s:,.0f}" if per_s >= 100 or per_s == 0 else f"{per_s:.1f}"


def _or_nothing(number: float | None, shown: Callable[[Any], str]) -> str:
    return "" if number is None else shown(number)
