"""The identity of the metadata log that a node belongs to, and the check of a peer's identity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class History:
    """The identity of the metadata log that a node belongs to: peers of another one are refused."""

    cluster_id: str
    quorum_generation: int
    bootstrap_hash: bytes  # empty: not known yet

    def refusal_of(self, other: History) -> str | None:
        """Return why a peer of the other history is refused; None if both are the same history."""
        if other.cluster_id != self.cluster_id:
            return f"cluster id {other.cluster_id!r} is not ours, {self.cluster_id!r}"
        if other.quorum_generation != self.quorum_generation:
            return (
                f"quorum generation {other.quorum_generation} is not ours, {self.quorum_generation}"
            )
        known = self.bootstrap_hash and other.bootstrap_hash
        if known and other.bootstrap_hash != self.bootstrap_hash:
            return (
                f"bootstrap batch {other.bootstrap_hash.hex()[:12]} is not ours,"
                f" {self.bootstrap_hash.hex()[:12]}: the voters were formatted differently"
            )
        return None
