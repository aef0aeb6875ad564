"""The configuration of a node: each setting with its type, bounds, default and meaning.

The configuration has the bounds of the node's queues, buffers and waits: no other module declares
them again. A setting has Kafka's dotted name; its field has underscores: `broker.rack` is
`broker_rack`.

Defaults of topics are not here: they are configs of the cluster, so that two nodes can't disagree.
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
#: A time from 15 minutes to a year.
ExpirationMilliseconds = Annotated[int, Meta(ge=15 * 60 * 1000, le=365 * 24 * 3600 * 1000)]
Bytes = Annotated[int, Meta(ge=KIB, le=64 * GIB)]
#: The size of one message. Both sides of a connection must accept it.
MessageBytes = Annotated[int, Meta(ge=64 * KIB, le=GIB)]
#: A memory of at most 4 GiB, because the compaction process allocates all of it at once.
CleanerBytes = Annotated[int, Meta(ge=64 * KIB, le=4 * GIB)]
#: At least the files that the threads of a disk use at a time.
OpenFiles = Annotated[int, Meta(ge=64, le=65_536)]
CleanerRate = Annotated[int, Meta(ge=-1, le=64 * GIB)]
ScrubRate = Annotated[int, Meta(ge=0, le=64 * GIB)]
Count = Annotated[int, Meta(ge=1, le=1 << 31)]
LogLevel = Literal["debug", "info", "warning", "error"]


class ConfigError(Exception):
    """The configuration is invalid. The node has changed nothing; the process exits with 78."""


class CannotListen(ConfigError):
    """An address of the configuration can't be listened on: another program may do so."""


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings that every node has."""

    #: The id of this node, unique among all brokers and voters.
    node_id: NodeId
    #: The addresses to listen on, as [NAME=]PROTOCOL[+tls]://HOST:PORT. A bare HOST:PORT is grpc.
    #: NAME defaults to the protocol. Port 0 takes a free port.
    listeners: tuple[str, ...]
    #: The addresses that other nodes and clients dial: one for each name in listeners. Empty: the
    #: addresses in listeners.
    advertised_listeners: tuple[str, ...] = ()
    #: The directories for logs, one on each disk. `quorate storage format` must have formatted each
    #: of them. A new replica goes to the one with the most free bytes. A voter uses only the first.
    log_dirs: tuple[str, ...]
    #: Addresses of voters, as host:port. It is enough if one of them answers.
    quorum_bootstrap_servers: tuple[str, ...] = ()
    #: Whether listeners without TLS may be reachable from other machines.
    allow_insecure_listeners: bool = False
    #: The lowest level of the log lines that are written.
    log_level: LogLevel = "info"
    #: Whether all nodes run on this machine for one user. If so, callers may learn process ids.
    local_cluster: bool = False

    #: The longest time between two heartbeats of a broker.
    broker_heartbeat_interval_ms: Milliseconds = 500
    #: The timeout of one call to another node.
    request_timeout_ms: Milliseconds = 2000
    #: The first wait between two attempts to reach another node. Each further wait is longer.
    reconnect_backoff_ms: Milliseconds = 20
    #: The longest wait between two attempts to reach another node.
    reconnect_backoff_max_ms: Milliseconds = 500
    #: The largest request that the node accepts. Answers of other nodes may be larger.
    socket_request_max_bytes: MessageBytes = 64 * MIB
    #: The most open streams of clients and other nodes.
    streams_max: Count = 10_000

    @property
    def listener_addresses(self) -> tuple[ListenerAddress, ...]:
        """The addresses to listen on, in the order of the setting."""
        return parse_all(self.listeners, port_min=0)

    @property
    def advertised_addresses(self) -> tuple[ListenerAddress, ...]:
        """The addresses to dial, in the order of the listeners. A port may be 0 until bound."""
        told = {one.name: one for one in parse_all(self.advertised_listeners)}
        return tuple(told.get(one.name, one) for one in self.listener_addresses)

    @property
    def internal(self) -> ListenerAddress:
        """The listener by which other nodes reach this one. Its port may be 0 until it is bound."""
        return inter_broker(self.advertised_addresses, "")

    @property
    def advertised(self) -> str:
        """The host:port by which other nodes reach this one."""
        return self.internal.endpoint

    @property
    def is_insecure(self) -> bool:
        """Whether a listener without TLS can be reached from other machines."""
        return any(not is_loopback(one.host) for one in self.listener_addresses if not one.tls)


class QuorumConfig(NodeConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a voter. The first of log_dirs holds the metadata log."""

    #: The time without a fetch answer after which a follower asks for pre-votes. Each follower
    #: draws a random time, up to 1.5 times this value.
    quorum_fetch_timeout_ms: Milliseconds = 1000
    #: The time without a result after which an election starts again. Each candidate draws a random
    #: time, up to twice this value.
    quorum_election_timeout_ms: Milliseconds = 500
    #: The time after which the leader answers a fetch for which it has no news.
    quorum_fetch_wait_max_ms: Milliseconds = 250
    #: The most bytes of batches in one fetch answer. A larger batch is sent alone.
    quorum_fetch_max_bytes: MessageBytes = 1 * MIB
    #: The most bytes of a snapshot in one answer to a voter that downloads the snapshot.
    quorum_fetch_snapshot_max_bytes: MessageBytes = 1 * MIB
    #: The largest batch of metadata events.
    quorum_batch_max_bytes: MessageBytes = 8 * MIB
    #: The most bytes of uncommitted metadata events. Further proposals are refused as an overload.
    quorum_uncommitted_max_bytes: Bytes = 64 * MIB
    #: The most uncommitted batches. Further proposals are refused as an overload.
    quorum_uncommitted_batches_max: Count = 10_000
    #: The size of a file of the metadata log at which the next file begins.
    metadata_log_segment_bytes: Bytes = 64 * MIB
    #: The bytes of the log after which a snapshot is taken.
    metadata_log_max_record_bytes_between_snapshots: Bytes = 20 * MIB
    #: The time after which a snapshot is taken, if an event was committed since the last one.
    metadata_log_max_snapshot_interval_ms: Milliseconds = 3_600_000
    #: The most open watches: one for each broker, and some for tools.
    watches_max: Count = 1024
    #: The time after which a watch without news gets an empty frame: it shows that the voter lives.
    watch_wait_max_ms: Milliseconds = 250
    #: The most bytes of batches in one message of a watch. A larger batch is sent alone.
    watch_frame_max_bytes: MessageBytes = 1 * MIB
    #: The most requests of brokers and their clients that wait for the controller's answer.
    controller_requests_max: Count = 10_000

    #: The silence after which a broker is fenced.
    broker_session_timeout_ms: Milliseconds = 3000
    #: The time after which a broker is fenced if its stream broke and it does not answer.
    broker_disconnect_grace_ms: Milliseconds = 500
    #: The time for which an election that may lose records waits for all replicas. If the topic has
    #: unclean.leader.election.enable, the election does not wait for absent replicas.
    unclean_recovery_wait_ms: Milliseconds = 60_000
    #: Whether the controller lets preferred replicas lead again, if they may.
    auto_leader_rebalance_enable: bool = True
    #: The time between two looks at the leaders of all partitions.
    leader_imbalance_check_interval_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 300
    #: The longest time that a voter delays its own exit while brokers are shutting down.
    shutdown_hold_max_ms: Milliseconds = 2000


class BrokerConfig(NodeConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a broker."""

    #: The rack of this broker. Replicas of a partition are placed on different racks first, then on
    #: different hosts.
    broker_rack: str = ""
    #: The host of this broker, for placement. Empty: the host of the inter-broker listener.
    broker_host: str = ""
    #: The name of the listener by which brokers and voters reach this broker. Empty: the first grpc
    #: listener.
    inter_broker_listener_name: str = ""

    #: A follower that has not caught up for this time leaves the ISR.
    replica_lag_time_max_ms: Milliseconds = 10_000
    #: The most bytes of batches in one answer to a follower. A larger batch is sent alone.
    replica_fetch_max_bytes: MessageBytes = 8 * MIB
    #: The time after which the leader answers a follower for which it has no news.
    replica_fetch_wait_max_ms: Milliseconds = 250
    #: The most bytes, over all streams, that are fetched from leaders and not written yet.
    replica_queued_max_bytes: Bytes = 64 * MIB
    #: The interval at which high watermarks are written to the disk.
    replica_high_watermark_checkpoint_interval_ms: Milliseconds = 5000

    #: The interval at which logs are synced that were appended to, one after the other. After a
    #: crash, a start reads only what was appended since: above the recovery point.
    log_flush_offset_checkpoint_interval_ms: Milliseconds = 60_000
    #: The most files of logs that are open at a time, and never more than half of the process's
    #: limit. Above it, the least recently used ones are synced and closed until their next use. If
    #: more partitions than this are written all the time, a higher value makes that faster.
    log_open_files_max: OpenFiles = 512
    #: The interval at which all logs are checked for records to delete and segments to close.
    log_retention_check_interval_ms: Milliseconds = 300_000

    #: The most bytes of one stream that are produced and not appended yet. Above the bound, the
    #: broker does not read the stream.
    stream_queued_max_bytes: Bytes = 16 * MIB
    #: The most bytes, over all streams, that are produced and not appended yet.
    queued_max_bytes: Bytes = 64 * MIB
    #: The most produced batches of one stream that wait for their outcome. Above the bound, the
    #: broker does not read the stream.
    stream_waiting_max: Count = 65_536
    #: The most waiting produced batches of one partition. Further ones are refused as an overload.
    partition_waiting_max: Count = 10_000
    #: The most results of one stream that the client has not read yet.
    stream_results_max: Count = 8192
    #: The most partitions that one request may name.
    request_partitions_max: Count = 10_000
    #: The most open connections of Kafka clients. Further ones are closed at once.
    max_connections_total: Count = 10_000
    #: The most open connections of Kafka clients from one address.
    max_connections_per_ip: Count = 5000
    #: The time without a request after which the connection of a Kafka client is closed.
    connections_max_idle_ms: Milliseconds = 600_000
    #: The longest time that acks=all may wait.
    produce_timeout_max_ms: Milliseconds = 600_000
    #: The time after which a partition forgets a producer that sends nothing to it. No producer is
    #: forgotten within 15 minutes.
    producer_id_expiration_ms: ExpirationMilliseconds = 24 * 3600 * 1000
    #: A partition with more producers than this forgets those that were silent for 15 minutes.
    partition_producers_max: Count = 10_000
    #: The most memory for the producers of one partition. A new producer that does not fit is
    #: refused, and tries again.
    partition_producer_state_max_bytes: Bytes = 8 * MIB
    #: The most memory for the producers of all partitions.
    producer_state_max_bytes: Bytes = 256 * MIB

    #: The most bytes of batches in one fetch answer, even if the client asks for more. A larger
    #: batch is sent alone.
    fetch_max_bytes: MessageBytes = 16 * MIB
    #: The longest time that a fetch waits for news, even if the client asks for more.
    fetch_wait_max_ms: Milliseconds = 60_000
    #: The most partitions that one fetch stream may name.
    fetch_session_partitions_max: Count = 10_000
    #: The most requests in flight on one fetch stream. The broker reads no further ones meanwhile.
    fetch_in_flight_max: Count = 2

    #: The silence of a watch after which the broker watches another voter. A voter sends a frame at
    #: least every 250 ms.
    watch_silence_max_ms: Milliseconds = 1000
    #: How long a watched voter may lack records that are below the high watermark in the
    #: controller's heartbeats. After this time, the broker watches another voter.
    watch_lag_max_ms: Milliseconds = 1000
    #: The most calls that wait until the image has applied an offset.
    image_waiters_max: Count = 100_000
    #: The timeout of one change of ISRs, which must be committed by the quorum.
    alter_partitions_timeout_ms: Milliseconds = 5000
    #: The most changes of ISRs that wait for the controller's answer.
    alter_partitions_in_flight_max: Count = 64
    #: The timeout of a request for producer ids. It is shorter than the 2 s that a producer waits
    #: for one broker, so that the producer learns why it gets no id.
    producer_ids_timeout_ms: Milliseconds = 1_500
    #: The most admin calls that wait for the controller's answer.
    forward_in_flight_max: Count = 1000
    #: The most bytes of one admin call that is passed on. A call that is too large for the
    #: controller would break the stream of all calls.
    forward_request_max_bytes: MessageBytes = 32 * MIB
    #: The most bytes of all admin calls that wait for the controller's answer.
    forward_queued_max_bytes: Bytes = 64 * MIB

    #: The interval at which the broker looks for a log to compact. It grows after failures.
    log_cleaner_backoff_ms: Milliseconds = 15_000
    #: The memory for the keys of one pass over a log: 24 bytes for 0.75 keys. More keys need more
    #: passes.
    log_cleaner_dedupe_buffer_size: CleanerBytes = 64 * MIB
    #: The most bytes a second that compaction reads and writes; -1: as fast as it goes.
    log_cleaner_io_max_bytes_per_second: CleanerRate = -1

    #: The bytes a second that the broker reads to look for damage in its logs, one after the other;
    #: 0: it does not look.
    log_scrub_bytes_per_second: ScrubRate = 1 * MIB

    #: The longest time that a commit of offsets waits for its replicas.
    offsets_commit_timeout_ms: Milliseconds = 5000
    #: The most bytes (UTF-8) of the metadata of one committed offset.
    offset_metadata_max_bytes: Annotated[int, Meta(ge=0, le=MIB)] = 4096
    #: How long the offsets of a group without members are kept.
    offsets_retention_minutes: Annotated[int, Meta(ge=1, le=(1 << 31) - 1)] = 10_080
    #: The interval at which a coordinator looks for offsets that are past their retention.
    offsets_retention_check_interval_ms: Milliseconds = 600_000
    #: The most members of a consumer group.
    group_max_size: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    #: The time for which the first round of a group of Kafka's classic protocol waits for further
    #: members.
    group_initial_rebalance_delay_ms: Annotated[int, Meta(ge=0, le=600_000)] = 3000
    #: The shortest session timeout that a member of the classic protocol may name.
    group_min_session_timeout_ms: Milliseconds = 6000
    #: The longest session timeout that a member of the classic protocol may name.
    group_max_session_timeout_ms: Milliseconds = 1_800_000
    #: The silence after which a member is removed that names no time of its own.
    group_consumer_session_timeout_ms: Milliseconds = 45_000
    #: The shortest session timeout that a member may name.
    group_consumer_min_session_timeout_ms: Milliseconds = 1000
    #: The longest session timeout that a member may name.
    group_consumer_max_session_timeout_ms: Milliseconds = 1_800_000
    #: The interval at which members send heartbeats; three times within a shorter session timeout.
    group_consumer_heartbeat_interval_ms: Milliseconds = 5000
    #: The time between two assignments of one group. Changes within it are assigned together.
    group_consumer_assignment_interval_ms: Milliseconds = 100
    #: The time for which a member without a group_instance_id stays whose stream broke.
    group_disconnect_grace_ms: Milliseconds = 500

    #: The time after which directories that are not in the image are removed.
    stray_delete_delay_ms: Milliseconds = 60_000
    #: The longest time that a clean stop waits until the controller has moved leaders away.
    controlled_shutdown_timeout_ms: Milliseconds = 3000
    #: The longest time that a clean stop waits if the controller does not answer.
    controlled_shutdown_silence_max_ms: Milliseconds = 1000

    @property
    def internal(self) -> ListenerAddress:
        return inter_broker(self.advertised_addresses, self.inter_broker_listener_name)

    @property
    def host(self) -> str:
        """The host of this broker, for placement."""
        return self.broker_host or self.internal.host
