"""The page for users of Kafka clients tells the requests that the listener tells."""

from __future__ import annotations

from tests.house.kafka_requests import PAGE, page


def test_the_table_of_requests_is_what_the_listener_tells() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"
