"""`quorate-quorum --config FILE [--set NAME=VALUE ...]`: one voter in the foreground."""

from __future__ import annotations

import gc

from quorate_quorum.node import process
from quorate_quorum.node.config import QuorumConfig
from quorate_quorum.node.environment import Environment


async def start(config: QuorumConfig) -> process.Server:
    """Start a voter on this machine's network and disks."""
    # grpc is imported only here: the process first sets the environment that grpc reads.
    from quorate.net.grpc_network import GrpcNetwork, GrpcOptions
    from quorate_quorum.log.real_disk import RealDisk
    from quorate_quorum.server import QuorumServer

    gc.collect()  # sets the imported modules aside: see GarbagePasses
    network = GrpcNetwork(GrpcOptions(message_bytes_max=config.socket_request_max_bytes))
    server = QuorumServer(config, Environment(network=network, disk=RealDisk()))
    await server.start()
    return server


def main() -> None:
    """Run a voter, and end the process with its exit status."""
    process.leave(process.main(QuorumConfig, start))


if __name__ == "__main__":
    main()
