"""Writes the table of requests in docs/kafka-clients.md from the listener's own: `make docs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quorate_broker.listeners.kafka.listener import KafkaListeners
from quorate_broker.listeners.kafka.messages.apis import APIS
from quorate_broker.listeners.kafka.versions import DIFFERS

PAGE = Path(__file__).parents[2] / "docs" / "kafka-clients.md"
BEGIN, END = "<!-- requests -->\n", "<!-- end of requests -->\n"


class _Nothing:
    """Stands for all that a listener needs to answer, but not to have its table."""

    def __getattr__(self, name: str) -> Any:
        return _Nothing()


def table() -> str:
    """Return the table of all requests that clients are told of."""
    nothing: Any = _Nothing()
    told = KafkaListeners(nothing, nothing, nothing, "").dispatcher.told
    rows = [
        f"| {APIS[key].name} | {key} | {versions.start} to {versions.stop - 1}"
        f" | {DIFFERS.get(key, '')} |\n"
        for key, versions in told.items()
    ]
    head = "| request | key | versions | what differs from Kafka 4.3 |\n|---|---|---|---|\n"
    return "".join([head, *rows])


def page() -> str:
    """Return the page with the table in it."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page())
