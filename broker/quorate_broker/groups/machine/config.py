"""The bounds and times of consumer groups, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GroupsConfig:
    """What a coordinator allows, and how long it waits. The names of the settings are Kafka's."""

    #: group.consumer.session.timeout.ms: for members that name none; and what members may name.
    session_timeout_ms: int = 45_000
    session_timeout_ms_min: int = 1_000
    session_timeout_ms_max: int = 1_800_000
    #: For members that name no rebalance timeout; and the longest that they may name.
    rebalance_timeout_ms: int = 300_000
    rebalance_timeout_ms_max: int = 1_800_000
    #: group.consumer.heartbeat.interval.ms: told to the members with each state.
    heartbeat_interval_ms: int = 5_000
    #: group.disconnect.grace.ms: how long a dynamic member stays whose stream broke.
    disconnect_grace_ms: int = 500
    #: group.consumer.assignment.interval.ms: the time between two assignments of one group. The
    #: first change is assigned at once; those that follow it within this time, together.
    assignment_interval_ms: int = 100
    #: How long the member that was asked for an assignment (assignor "client") may take.
    proposal_timeout_ms: int = 5_000
    #: group.max.size: the most members of a group.
    members_max: int = 1_000
    #: The most groups of one shard; the most bytes of the id of a member or an instance.
    groups_max: int = 10_000
    id_bytes_max: int = 249
    #: The most topics that one subscription names, and that one pattern may match.
    subscription_topics_max: int = 10_000
    #: The most bytes of a pattern; the most different patterns of one shard.
    pattern_bytes_max: int = 4_096
    patterns_max: int = 2_000
    #: group.initial.rebalance.delay.ms: how long the first round of a classic group waits for
    #: further members.
    initial_rebalance_delay_ms: int = 3_000
    #: What a classic member may name as its session timeout (group.min.session.timeout.ms, ...).
    classic_session_timeout_ms_min: int = 6_000
    classic_session_timeout_ms_max: int = 1_800_000
    #: The most bytes of the members of a classic group and their assignments, which are one record;
    #: and of those of all classic groups of a shard.
    classic_group_bytes_max: int = 8 * 1024 * 1024
    classic_shard_bytes_max: int = 64 * 1024 * 1024
    #: offset.metadata.max.bytes: the most bytes (UTF-8) of the metadata of one committed offset.
    offset_metadata_bytes_max: int = 4_096
    #: offsets.retention.minutes, in ms: offsets of a group without members stay this long.
    offsets_retention_ms: int = 10_080 * 60_000
    #: offsets.retention.check.interval.ms.
    offsets_check_interval_ms: int = 600_000
    #: The most records of a step that the machine makes by itself (expiry, deleted topics).
    cleanup_records_max: int = 500
    #: The most members of one group that move on in one step.
    members_per_step: int = 250
    #: The most offsets that one step of a group's deletion takes away: some 8 ms.
    deleted_offsets_max: int = 2_000
    #: The most names of topics that a pattern is matched against in one step.
    names_per_step: int = 2_000
