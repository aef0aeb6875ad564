"""What a node knows of the other replicas: the history that they share, and their programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quorate_quorum.node.features import Known
from quorate_quorum.node.history import History
from quorate_quorum.raft.machine.voters import ReplicaKey

#: Of how many replicas it is remembered which features they know; the oldest go first.
REPLICAS_KNOWN_MAX = 256


class Peers:
    """The history that a peer must be of, and the feature levels that peers know."""

    def __init__(self, me: ReplicaKey, history: History, own: Known) -> None:
        self.history = history
        self._me = me
        self._known: dict[tuple[int, bytes], Known] = {me: own}

    @property
    def known_features(self) -> Mapping[tuple[int, bytes], Known]:
        """Which feature levels this node knows, and those that have fetched from this run of it."""
        return self._known

    def learn_bootstrap_hash(self, bootstrap_hash: bytes) -> None:
        """A disk that joined later begins without the hash."""
        if not self.history.bootstrap_hash:
            self.history = replace(self.history, bootstrap_hash=bootstrap_hash)

    def learn_features(self, replica: ReplicaKey, known: Known) -> None:
        """A replica said with which program it fetches from now on."""
        if replica == self._me:
            return
        self._known.pop(replica, None)
        self._known[replica] = known
        while len(self._known) > REPLICAS_KNOWN_MAX:
            del self._known[next(one for one in self._known if one != self._me)]
