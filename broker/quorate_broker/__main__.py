"""`quorate-broker --config FILE [--set NAME=VALUE ...]`: one broker in the foreground."""

from __future__ import annotations

import gc

from quorate_quorum.node import process
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.environment import Environment


async def start(config: BrokerConfig) -> process.Server:
    """Start a broker on this machine's network and disks."""
    # grpc reads environment variables when it is imported. By now the process has set them.
    from quorate.net.grpc_network import GrpcNetwork, GrpcOptions
    from quorate_broker.server import BrokerServer
    from quorate_quorum.log.real_disk import RealDisk
    from quorate_quorum.node.programs import RealPrograms

    gc.collect()  # sets the imported modules aside: see GarbagePasses
    network = GrpcNetwork(GrpcOptions(message_bytes_max=config.socket_request_max_bytes))
    disk = RealDisk(open_max=config.log_open_files_max)
    environment = Environment(network=network, disk=disk, programs=RealPrograms())
    server = BrokerServer(config, environment)
    await server.start()
    return server


def main() -> None:
    """Run a broker, and exit with its status."""
    process.leave(process.main(BrokerConfig, start))


if __name__ == "__main__":
    main()
