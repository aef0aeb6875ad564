"""What waits for a member on its stream."""

from __future__ import annotations

from quorate.errors import OverloadedError
from quorate_broker.groups.machine.values import MemberState
from quorate_broker.groups.member_stream import WAITING_MAX, MemberStream


async def test_a_stream_ends_whose_client_does_not_read_what_is_pushed() -> None:
    stream = MemberStream()
    for number in range(1, 10 * WAITING_MAX):
        stream.tell(MemberState(1, number, 1000))
    told = [await stream.next() for _ in range(WAITING_MAX + 1)]
    assert told[:-1] == [MemberState(1, number, 1000) for number in range(1, WAITING_MAX + 1)]
    assert isinstance(told[-1], OverloadedError)
    assert await stream.next() is None
