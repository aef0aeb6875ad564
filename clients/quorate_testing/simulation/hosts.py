"""How a test names the hosts of a simulated cluster: nodes by id, programs by name."""

from __future__ import annotations

from collections.abc import Iterable

from quorate.settings import refused
from quorate_testing.simulated.cluster import SimulatedCluster as Nodes
from quorate_testing.simulated.cluster import SimulatedNode
from quorate_testing.simulated.loop import Process

#: The host of the test's own clients.
TEST = "test"
#: The host of what a cluster does for a test, such as create_topic(). No fault reaches it.
OPERATOR = "operator"


class Hosts:
    """The nodes of a cluster, and the programs that a test has started."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes.nodes
        self._by_id = {node.node_id: node for node in nodes.nodes.values()}
        #: The last process of each program, by name.
        self.programs: dict[str, Process] = {}

    def all(self) -> list[str]:
        """Return the names of all hosts that faults may reach."""
        return [*(node.name for node in self._by_id.values()), TEST, *self.programs]

    def node(self, call: str, name: str, given: object) -> SimulatedNode:
        """Return the node with this id. Raises TypeError or ValueError."""
        if isinstance(given, bool) or not isinstance(given, int):
            raise TypeError(refused(call, name, self._nodes_allowed, given))
        if given not in self._by_id:
            raise ValueError(refused(call, name, self._nodes_allowed, given))
        return self._by_id[given]

    def host(self, call: str, name: str, given: object) -> str:
        """Return the name of the host of a node or program. Raises TypeError or ValueError."""
        if isinstance(given, str):
            if given == TEST or given in self.programs:
                return given
            raise ValueError(refused(call, name, self._allowed, given))
        if isinstance(given, int) and not isinstance(given, bool) and given in self._by_id:
            return self._by_id[given].name
        kind = ValueError if isinstance(given, int) else TypeError
        raise kind(refused(call, name, self._allowed, given))

    def several(self, call: str, name: str, given: object) -> list[str]:
        """Return the names of several hosts; None: of all."""
        if given is None:
            return self.all()
        many = given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
        found = dict.fromkeys(self.host(call, name, one) for one in many)
        if not found:
            raise ValueError(refused(call, name, self._allowed, given))
        return list(found)

    def process(self, name: str) -> Process | None:
        """Return the living process of a node or program; None if it does not run."""
        node = self._nodes.get(name)
        found = self.programs.get(name) if node is None else node.process
        return found if found is not None and found.is_alive else None

    @property
    def _nodes_allowed(self) -> str:
        return f"the id of a node ({', '.join(map(str, sorted(self._by_id)))})"

    @property
    def _allowed(self) -> str:
        names = ", ".join(f'"{name}"' for name in (TEST, *self.programs))
        return f"{self._nodes_allowed}, or the name of a program ({names})"
