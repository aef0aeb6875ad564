"""A range without survivors has none; a range with one is never passed over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quorate_broker.compaction.survivors import MARKS_MAX, Survivors

SPANS = st.sampled_from([1, 7, 1000, MARKS_MAX, MARKS_MAX + 1, 5 * MARKS_MAX + 3])


@given(st.data(), SPANS)
def test_a_range_with_a_survivor_is_never_passed_over(data: st.DataObject, span: int) -> None:
    first = data.draw(st.integers(0, 1 << 40))
    place = st.integers(first, first + span - 1)
    offset, one, other = data.draw(place), data.draw(place), data.draw(place)
    base, end = min(offset, one, other), max(offset, one, other) + 1
    survivors = Survivors(first, first + span)
    survivors.mark_all([offset])
    assert not survivors.has_none(base, end)
    survivors = Survivors(first, first + span)
    survivors.mark(base, end)
    assert not any(survivors.has_none(at, at + 1) for at in (base, offset, end - 1))


def test_a_range_without_a_survivor_has_none() -> None:
    survivors = Survivors(10, 20)
    survivors.mark_all([3, 12, 19])
    assert [at for at in range(10, 20) if not survivors.has_none(at, at + 1)] == [12, 19]
    assert survivors.has_none(13, 19)


def test_nothing_is_known_of_offsets_that_are_not_in_the_map() -> None:
    survivors = Survivors(10, 20)
    assert not survivors.has_none(9, 12)
    assert not survivors.has_none(18, 21)
    assert survivors.has_none(10, 20)
