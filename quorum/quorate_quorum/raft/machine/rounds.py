"""By rounds a leader knows that a majority still hears it, for check-quorum and for reads.

A leader numbers rounds, and every answer to a fetch has the newest number. A replica echoes this
number in its next fetch. The echo proves that the replica was in the leader's epoch after the
leader issued that round.
"""

from __future__ import annotations

from quorate.errors import OverloadedError
from quorate_quorum.raft.machine.state import State

READS_MAX = 10_000


class Rounds:
    """The rounds of one reign. Their numbers continue those of this process's earlier reigns."""

    def __init__(self, state: State) -> None:
        self._state = state
        #: The time at which the leader issued the newest check round that a majority has echoed. So
        #: a majority heard this leader at this time or later. The time at which the echo arrived
        #: would be too late, because an echo may travel for long.
        self.heard_ms = state.now_ms
        #: A fetch with an older round than this one is answered at once.
        self.urgent_round = 0
        #: Reads that wait for their round, oldest first.
        self.reads: list[int] = []
        self._issue_check()

    def _issue_check(self) -> None:
        self._state.round += 1
        #: A majority that echoes this round has heard the leader at check_since_ms or later.
        self.check_round = self._state.round
        self.check_since_ms = self._state.now_ms

    def check_may_read(self) -> None:
        """Raise OverloadedError if too many reads wait."""
        if len(self.reads) >= READS_MAX:
            raise OverloadedError(f"{READS_MAX} reads wait for the voters already")

    def begin_read(self) -> int:
        """Issue a round for a linearizable read, and return it as the read's id.

        A majority that echoes this round heard the leader after the read began. So no newer leader
        was elected before the read began (Raft dissertation, 6.4).
        """
        self._state.round += 1
        read = self.urgent_round = self._state.round
        self.reads.append(read)
        return read

    def heard(self, heard: int, *, may_confirm: bool) -> None:
        """Note the newest round that a majority has heard, and confirm the reads up to it.

        Without `may_confirm`, reads go on waiting. Before the first record of this epoch is
        committed, the leader may not know which records its predecessors committed (Raft, section
        8).
        """
        state = self._state
        if heard >= self.check_round:
            self.heard_ms = max(self.heard_ms, self.check_since_ms)
            if self.check_since_ms < state.now_ms:
                self._issue_check()
        while may_confirm and self.reads and self.reads[0] <= heard:
            read = self.reads.pop(0)
            state.outbox.confirmed_reads.append((read, state.ledger.high_watermark))
