"""What the members of a simulated group did, and the rules that hold for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.harness.group_clients import Key
from tests.harness.invariants import Violation


@dataclass(slots=True)
class Claim:
    """A member has a partition, as far as the member knows. Times are of the world's clock."""

    member_id: str
    since: float
    until: float | None = None


@dataclass(slots=True)
class Commits:
    """The commits of one partition."""

    #: The highest offset that was acknowledged.
    acked: int = -1
    #: The newest claim of which a commit was acknowledged, and when.
    confirmed: Claim | None = None
    confirmed_at: float = 0.0
    #: Every offset that was sent. The outcome of some is not known.
    sent: set[int] = field(default_factory=set)


class GroupHistory:
    """Takes note of claims and commits, and raises Violation when a rule does not hold:

    * Once a commit of a member was acknowledged, nobody with an older claim on the partition gets
      a commit acknowledged that was sent later. (A claim alone proves nothing: a member that was
      paused may take in an old message, and claims what is another's by then.)
    * A member that gets a partition reads an offset that was sent, and none below an acknowledged
      one.
    """

    def __init__(self) -> None:
        self.claims: dict[Key, list[Claim]] = {}
        self.commits: dict[Key, Commits] = {}
        #: The ids of topics whose deletion began: their offsets go.
        self.deleted: set[bytes] = set()
        self.floors: Counter[str] = Counter()

    def claimed(self, key: Key, member_id: str, now: float) -> None:
        self.claims.setdefault(key, []).append(Claim(member_id, now))
        self.floors["claims"] += 1

    def released(self, key: Key, member_id: str, now: float) -> None:
        for claim in reversed(self.claims.get(key, [])):
            if claim.member_id == member_id and claim.until is None:
                claim.until = now
                return

    def owners(self, key: Key) -> list[str]:
        """Return the members that think that they have the partition, the oldest first."""
        return [claim.member_id for claim in self.claims.get(key, []) if claim.until is None]

    def sent(self, key: Key, offset: int) -> None:
        self.commits.setdefault(key, Commits()).sent.add(offset)

    def acknowledged(
        self, key: Key, offset: int, member_id: str, *, sent_at: float, now: float
    ) -> None:
        """Take note of a commit that was acknowledged; `sent_at` is when the member began it."""
        claim = next(
            one
            for one in reversed(self.claims[key])
            if one.member_id == member_id and one.since <= sent_at
        )
        commits = self.commits[key]
        confirmed = commits.confirmed
        if confirmed is None or confirmed.since <= claim.since:
            commits.confirmed, commits.confirmed_at = claim, now
        elif commits.confirmed_at < sent_at:
            raise Violation(
                f"{member_id} committed {offset} of {_name(key)} at {sent_at:.3f} by its claim of "
                f"{claim.since:.3f}; {confirmed.member_id} has had it since {confirmed.since:.3f}, "
                f"and has committed at {commits.confirmed_at:.3f}"
            )
        commits.acked = max(commits.acked, offset)
        self.floors["commits"] += 1

    def acked_before(self, key: Key) -> int:
        """Return the highest offset that is acknowledged by now: a later read finds it."""
        return self.commits.setdefault(key, Commits()).acked

    def read(self, key: Key, offset: int, acked_before: int) -> None:
        """Take note of what was read; `acked_before` is of the moment at which the read began."""
        commits = self.commits.setdefault(key, Commits())
        if key[0] in self.deleted:
            return
        if offset < acked_before:
            raise Violation(
                f"{_name(key)}: {offset} was read, and {acked_before} was acknowledged before"
            )
        if offset != -1 and offset not in commits.sent:
            raise Violation(f"{_name(key)}: {offset} was read, and nobody sent it")
        self.floors["reads"] += 1


def _name(key: Key) -> str:
    return f"{key[0].hex()[:8]}-{key[1]}"
