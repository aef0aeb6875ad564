"""The parts of the world that a node gets from outside: networks, disk, clock and randomness.

A real process passes the real ones; tests and simulations pass simulated ones.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from quorate.net.network import Network
from quorate_quorum.disk import Disk
from quorate_quorum.node.authorizer import ALLOW_ALL, Authorizer
from quorate_quorum.node.features import SUPPORTED, Known
from quorate_quorum.node.programs import Programs
from quorate_quorum.node.sockets import RealSockets, Sockets


@dataclass(frozen=True, slots=True)
class Environment:
    """The world of one node. For waits, the node uses only the clock of the running event loop."""

    network: Network
    disk: Disk
    #: The clock for timestamps: milliseconds since 1970. It may jump, so no timeout depends on it.
    wall_clock_ms: Callable[[], int] = field(default=lambda: int(time.time() * 1000))
    #: The source of all random numbers of the node: timeouts, jitter, ids.
    chance: random.Random = field(default_factory=random.SystemRandom)
    #: The feature levels that this program knows.
    features: Known = field(default_factory=lambda: SUPPORTED)
    #: Starts other processes; None: there are none, and the node does all work itself.
    programs: Programs | None = None
    #: Accepts the connections of listeners whose protocol is not gRPC.
    sockets: Sockets = field(default_factory=RealSockets)
    #: Decides what the callers of the node may do.
    authorizer: Authorizer = ALLOW_ALL

    def new_id(self) -> bytes:
        """Return 16 random bytes: an incarnation, directory, topic or request id."""
        return self.chance.randbytes(16)
