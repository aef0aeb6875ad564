"""Values that are printed as they are."""

from __future__ import annotations

from quorate.model import NodeTrouble


def test_a_node_in_trouble_is_told_with_its_address() -> None:
    trouble = NodeTrouble("broker", 9, "b9:7092", "fenced", "is fenced: it does not run")
    assert str(trouble) == "broker 9 at b9:7092 is fenced: it does not run"


def test_a_node_without_a_listener_for_the_caller_is_told_as_such() -> None:
    trouble = NodeTrouble("broker", 9, "", "fenced", "is fenced: it does not run")
    assert str(trouble) == (
        "broker 9 (which has no listener for this client) is fenced: it does not run"
    )
