"""Batches of one writer of which none may be written after one before it was not."""

from __future__ import annotations

from quorate.errors import QuorateError


class Chain:
    """A row of batches that build on each other: a failed one takes all later ones with it.

    The writer computes each batch from what the batches before it say. If one of them was refused
    and the next one was still appended, the log would contradict itself. ProduceQueue breaks the
    chain in the same turn in which it refuses a batch, and appends no batch of a broken chain.
    """

    def __init__(self) -> None:
        #: Why the first refused batch was refused; None: none was.
        self.failure: QuorateError | None = None

    def fail(self, error: QuorateError) -> None:
        """Break the chain, unless it is broken already."""
        if self.failure is None:
            self.failure = error

    def check(self) -> None:
        """Raise the failure, if the chain is broken."""
        if self.failure is not None:
            raise self.failure.with_traceback(None)
