"""A node's knowledge of its peers: the history that all share, and their programs' features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quorate_quorum.node.features import Known
from quorate_quorum.node.history import History
from quorate_quorum.raft.machine.voters import ReplicaKey

#: How many replicas' feature levels are remembered. The oldest are forgotten first.
REPLICAS_KNOWN_MAX = 256


class Peers:
    """The history that every peer must share, and the feature levels that each peer knows."""

    def __init__(self, me: ReplicaKey, history: History, own: Known) -> None:
        self.history = history
        self._me = me
        self._known: dict[tuple[int, bytes], Known] = {me: own}

    @property
    def known_features(self) -> Mapping[tuple[int, bytes], Known]:
        """The feature levels of this node's program, and of each replica that fetched here."""
        return self._known

    def learn_bootstrap_hash(self, bootstrap_hash: bytes) -> None:
        """Keep the bootstrap hash if this node knows none: a new voter's disk lacks the hash."""
        if not self.history.bootstrap_hash:
            self.history = replace(self.history, bootstrap_hash=bootstrap_hash)

    def learn_features(self, replica: ReplicaKey, known: Known) -> None:
        """Note the feature levels of the program that a replica now runs."""
        if replica == self._me:
            return
        self._known.pop(replica, None)
        self._known[replica] = known
        while len(self._known) > REPLICAS_KNOWN_MAX:
            del self._known[next(one for one in self._known if one != self._me)]
