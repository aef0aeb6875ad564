"""What a node is told: every setting with its type, its bounds, its default and what it means.

These are also the bounds of the node's queues, buffers and waits: no other module declares them
again. A setting has Kafka's dotted name, which is its field with underscores: `broker.rack` is
`broker_rack`.

Defaults of topics are not here: they are the cluster's, so that no two nodes can disagree.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from quorate_quorum.node.listeners import ListenerAddress, inter_broker, is_loopback, parse_all

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

NodeId = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
Milliseconds = Annotated[int, Meta(ge=1, le=7 * 24 * 3600 * 1000)]
#: 15 minutes to a year.
ExpirationMilliseconds = Annotated[int, Meta(ge=15 * 60 * 1000, le=365 * 24 * 3600 * 1000)]
Bytes = Annotated[int, Meta(ge=KIB, le=64 * GIB)]
#: A single message, so it must fit what both sides of a connection take.
MessageBytes = Annotated[int, Meta(ge=64 * KIB, le=GIB)]
Count = Annotated[int, Meta(ge=1, le=1 << 31)]
LogLevel = Literal["debug", "info", "warning", "error"]


class ConfigError(Exception):
    """What a node was told cannot be; it has touched nothing. The process exits with 78."""


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every node has."""

    #: Unique among brokers and voters alike.
    node_id: NodeId
    #: Where to listen, as [NAME=]PROTOCOL[+tls]://HOST:PORT; a bare HOST:PORT is grpc, NAME
    #: defaults to the protocol, port 0 takes a free one.
    listeners: tuple[str, ...]
    #: What others dial: of the same names as listeners, and these where empty.
    advertised_listeners: tuple[str, ...] = ()
    #: Directories, each made ready by `quorate storage format`.
    log_dirs: tuple[str, ...]
    #: Voters, as host:port; one that answers is enough.
    quorum_bootstrap_servers: tuple[str, ...] = ()
    #: Listen beyond this machine although nothing is encrypted.
    allow_insecure_listeners: bool = False
    #: The least severe lines of the log that are written.
    log_level: LogLevel = "info"
    #: All nodes are on this machine and of one user: process ids may be told.
    local_cluster: bool = False

    #: The longest silence of a broker on its heartbeat stream.
    broker_heartbeat_interval_ms: Milliseconds = 500
    #: For one call on another node.
    request_timeout_ms: Milliseconds = 2000
    #: The first wait between two attempts to reach another node; each further one is longer.
    reconnect_backoff_ms: Milliseconds = 20
    #: The longest of these waits.
    reconnect_backoff_max_ms: Milliseconds = 500
    #: The largest message that is taken from the wire.
    socket_request_max_bytes: MessageBytes = 64 * MIB
    #: Open streams of clients and other nodes.
    streams_max: Count = 10_000

    @property
    def listener_addresses(self) -> tuple[ListenerAddress, ...]:
        """Where to listen, in the order given."""
        return parse_all(self.listeners, port_min=0)

    @property
    def advertised_addresses(self) -> tuple[ListenerAddress, ...]:
        """What others dial, in the order of the listeners; a port may be 0 until it is bound."""
        told = {one.name: one for one in parse_all(self.advertised_listeners)}
        return tuple(told.get(one.name, one) for one in self.listener_addresses)

    @property
    def internal(self) -> ListenerAddress:
        """By which other nodes of the cluster reach this one; its port may be 0 until bound."""
        return inter_broker(self.advertised_addresses, "")

    @property
    def advertised(self) -> str:
        """The host:port by which other nodes reach this one."""
        return self.internal.endpoint

    @property
    def is_insecure(self) -> bool:
        """Whether it listens beyond this machine, which nothing encrypts."""
        return any(not is_loopback(one.host) for one in self.listener_addresses if not one.tls)


class QuorumConfig(NodeConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A voter. The first of log_dirs holds the metadata log."""

    #: A follower without a fetch answer for so long, to half as much again, asks for pre-votes.
    quorum_fetch_timeout_ms: Milliseconds = 1000
    #: An election without a result for so long, to twice as much, starts again.
    quorum_election_timeout_ms: Milliseconds = 500
    #: The leader answers a fetch without news after so long; a quarter of the fetch timeout.
    quorum_fetch_wait_max_ms: Milliseconds = 250
    #: Batches in one fetch answer; a single larger one goes alone.
    quorum_fetch_max_bytes: MessageBytes = 1 * MIB
    #: Of a snapshot, in one answer to a voter that downloads it.
    quorum_fetch_snapshot_max_bytes: MessageBytes = 1 * MIB
    #: The largest batch of metadata events.
    quorum_batch_max_bytes: MessageBytes = 8 * MIB
    #: Bytes of metadata events proposed and not yet committed; more is refused as overload.
    quorum_uncommitted_max_bytes: Bytes = 64 * MIB
    #: Batches proposed and not yet committed; more is refused as overload.
    quorum_uncommitted_batches_max: Count = 10_000
    #: The metadata log begins a new file when the last one has so many bytes.
    metadata_log_segment_bytes: Bytes = 64 * MIB
    #: A snapshot is taken after so many bytes of the log.
    metadata_log_max_record_bytes_between_snapshots: Bytes = 20 * MIB
    #: And after so long, if anything was committed since the last one.
    metadata_log_max_snapshot_interval_ms: Milliseconds = 3_600_000
    #: Watches, one a broker and some for tools.
    watches_max: Count = 1024
    #: A watch without news says so after so long, so that its voter is not taken for dead.
    watch_wait_max_ms: Milliseconds = 250
    #: Of batches in one message of a watch; a single larger batch goes alone.
    watch_frame_max_bytes: MessageBytes = 1 * MIB
    #: Requests of brokers and their clients that the controller has not answered.
    controller_requests_max: Count = 10_000

    #: A broker silent for so long is fenced.
    broker_session_timeout_ms: Milliseconds = 3000
    #: A broker whose stream broke, and that does not answer, is fenced after so long.
    broker_disconnect_grace_ms: Milliseconds = 500
    #: How long an election that may lose data waits for the rest of last_isr.
    unclean_recovery_wait_ms: Milliseconds = 60_000
    #: How long a voter holds its own exit while brokers are shutting down.
    shutdown_hold_max_ms: Milliseconds = 2000


class BrokerConfig(NodeConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A broker."""

    #: Replicas of a partition go to different racks first, then to different hosts.
    broker_rack: str = ""
    #: The host of the inter-broker listener where empty.
    broker_host: str = ""
    #: The name of the listener by which brokers and voters reach this broker; the first of grpc
    #: where empty.
    inter_broker_listener_name: str = ""

    #: A follower that has not caught up for so long leaves the ISR.
    replica_lag_time_max_ms: Milliseconds = 10_000
    #: Of one answer to a follower; one larger batch goes alone.
    replica_fetch_max_bytes: MessageBytes = 8 * MIB
    #: The leader answers a follower without news after so long.
    replica_fetch_wait_max_ms: Milliseconds = 250
    #: Bytes fetched from leaders and not yet written, of all streams.
    replica_queued_max_bytes: Bytes = 64 * MIB
    #: High watermarks are written to the disk so often.
    replica_high_watermark_checkpoint_interval_ms: Milliseconds = 5000

    #: Bytes of one stream that are produced and not yet appended; it is not read beyond them.
    stream_queued_max_bytes: Bytes = 16 * MIB
    #: Of all streams.
    queued_max_bytes: Bytes = 64 * MIB
    #: Produced batches of one stream that wait for their outcome; it is not read beyond them.
    stream_waiting_max: Count = 65_536
    #: Of one partition; more is refused as overload.
    partition_waiting_max: Count = 10_000
    #: Results that a client has not taken yet.
    stream_results_max: Count = 8192
    #: Partitions that one request may name.
    request_partitions_max: Count = 10_000
    #: The longest that acks=all may wait.
    produce_timeout_max_ms: Milliseconds = 600_000
    #: A partition forgets a producer that has sent it nothing for so long. None is forgotten
    #: within 15 minutes.
    producer_id_expiration_ms: ExpirationMilliseconds = 24 * 3600 * 1000
    #: Where a partition remembers more producers, those silent for 15 minutes go.
    partition_producers_max: Count = 10_000
    #: Memory for what one partition remembers of producers. A new producer that does not fit is
    #: refused, and tries again.
    partition_producer_state_max_bytes: Bytes = 8 * MIB
    #: Memory for what all partitions remember.
    producer_state_max_bytes: Bytes = 256 * MIB

    #: Of one fetch answer, whatever the client asks for; one larger batch goes alone.
    fetch_max_bytes: MessageBytes = 16 * MIB
    #: The longest that a fetch waits for news, whatever the client asks for.
    fetch_wait_max_ms: Milliseconds = 60_000
    #: Partitions that one fetch stream may name.
    fetch_session_partitions_max: Count = 10_000
    #: Requests in flight on one fetch stream; the rest waits unread.
    fetch_in_flight_max: Count = 2

    #: A watch silent for so long is opened elsewhere; a voter sends a frame every 250 ms.
    watch_silence_max_ms: Milliseconds = 1000
    #: A watched voter that does not know what the controller's heartbeats tell, for so long, is
    #: left for another.
    watch_lag_max_ms: Milliseconds = 1000
    #: Calls that wait until the image has applied an offset.
    image_waiters_max: Count = 100_000
    #: For one change of ISRs, which takes a round of the quorum.
    alter_partitions_timeout_ms: Milliseconds = 5000
    #: Changes of ISRs on their way to the controller.
    alter_partitions_in_flight_max: Count = 64
    #: Below what a producer gives one broker (2 s), so that it learns why there are none.
    producer_ids_timeout_ms: Milliseconds = 1_500
    #: Admin calls on their way to the controller.
    forward_in_flight_max: Count = 1000
    #: Of one such call: one that the controller does not take would break the stream of all.
    forward_request_max_bytes: MessageBytes = 32 * MIB
    #: Of all such calls together.
    forward_queued_max_bytes: Bytes = 64 * MIB

    #: Directories that the image does not know are removed after so long.
    stray_delete_delay_ms: Milliseconds = 60_000
    #: A clean stop waits so long at most for the controller to move leaders away.
    controlled_shutdown_timeout_ms: Milliseconds = 3000
    #: And so long without an answer of the controller.
    controlled_shutdown_silence_max_ms: Milliseconds = 1000

    @property
    def internal(self) -> ListenerAddress:
        return inter_broker(self.advertised_addresses, self.inter_broker_listener_name)

    @property
    def host(self) -> str:
        """The host that placement counts by."""
        return self.broker_host or self.internal.host
