"""The page about all errors says what the classes themselves say."""

from __future__ import annotations

from quorate.errors import QuorateError
from tests.docs.errors_page import PAGE, classes, page


def test_the_page_of_all_errors_is_what_the_classes_give() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


def test_every_class_has_its_part_of_the_page() -> None:
    def below(kind: type[QuorateError]) -> set[type[QuorateError]]:
        return {kind}.union(*(below(one) for one in kind.__subclasses__()))

    assert {
        one for one in below(QuorateError) if one.__module__.startswith("quorate.errors")
    } == set(classes())
