"""A peer of another history is refused."""

from __future__ import annotations

import pytest

from quorate_quorum.node.history import History


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (History("c", 1, b"h"), None),
        (History("c", 1, b""), None),
        (History("d", 1, b"h"), "cluster id"),
        (History("c", 2, b"h"), "generation"),
        (History("c", 1, b"x"), "bootstrap"),
    ],
)
def test_a_peer_of_another_history_is_refused(other: History, why: str | None) -> None:
    refusal = History("c", 1, b"h").refusal_of(other)
    assert refusal is None if why is None else why in (refusal or "")
