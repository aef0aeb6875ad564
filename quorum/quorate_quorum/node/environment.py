"""What a node is given of the world: network, disk, clock and chance.

Tests and simulations give others than real processes do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quorate_quorum.node.authorizer import ALLOW_ALL, Authorizer
from quorate_quorum.node.features import SUPPORTED, Known

if TYPE_CHECKING:
    from quorate.net.network import Network
    from quorate_quorum.disk import Disk


@dataclass(frozen=True, slots=True)
class Environment:
    """The world of one node. Waiting uses the running event loop's clock, nothing else."""

    network: Network
    disk: Disk
    #: Milliseconds since 1970, for timestamps of records. No timeout depends on it: it may jump.
    wall_clock_ms: Callable[[], int] = field(default=lambda: int(time.time() * 1000))
    #: All chance of the node: timeouts, jitter, ids.
    chance: random.Random = field(default_factory=random.SystemRandom)
    #: The feature levels that this program knows.
    features: Known = field(default_factory=lambda: SUPPORTED)
    #: Decides what the node's callers may do.
    authorizer: Authorizer = ALLOW_ALL

    def new_id(self) -> bytes:
        """Return 16 random bytes: an incarnation, directory, topic or request id."""
        return self.chance.randbytes(16)
