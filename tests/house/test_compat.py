"""The page of outside suites is made from their results, and explains every difference."""

from __future__ import annotations

from tests.compat.page import PAGE, page, unexplained


def test_the_page_is_what_the_results_say() -> None:
    """`make docs` writes it."""
    assert PAGE.read_text() == page()


def test_every_difference_from_apache_kafka_has_a_reason() -> None:
    assert unexplained() == []
