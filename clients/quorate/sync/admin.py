"""The blocking admin."""

from __future__ import annotations

import inspect
from typing import Unpack

from quorate.admin import admin as asynchronous
from quorate.sync.client import BlockingClient, blocking
from quorate.sync.settings import AdminSettings

_Admin = asynchronous.Admin


class Admin(BlockingClient[asynchronous.Admin]):
    """Administers a cluster. The arguments and methods are those of quorate.Admin, and block."""

    def __init__(self, **settings: Unpack[AdminSettings]) -> None:
        super().__init__(_Admin(**settings))

    create_topic = blocking(_Admin.create_topic)
    create_topics = blocking(_Admin.create_topics)
    create_partitions = blocking(_Admin.create_partitions)
    delete_topics = blocking(_Admin.delete_topics)
    list_topics = blocking(_Admin.list_topics)
    describe_topics = blocking(_Admin.describe_topics)
    describe_configs = blocking(_Admin.describe_configs)
    alter_configs = blocking(_Admin.alter_configs)
    delete_records = blocking(_Admin.delete_records)
    describe_cluster = blocking(_Admin.describe_cluster)
    describe_log_dirs = blocking(_Admin.describe_log_dirs)
    describe_health = blocking(_Admin.describe_health)
    describe_features = blocking(_Admin.describe_features)
    update_feature = blocking(_Admin.update_feature)
    unregister_broker = blocking(_Admin.unregister_broker)
    explain_partition = blocking(_Admin.explain_partition)
    elect_leaders = blocking(_Admin.elect_leaders)
    drain_broker = blocking(_Admin.drain_broker)
    undrain_broker = blocking(_Admin.undrain_broker)
    reassign_partitions = blocking(_Admin.reassign_partitions)
    list_reassignments = blocking(_Admin.list_reassignments)
    list_groups = blocking(_Admin.list_groups)
    describe_groups = blocking(_Admin.describe_groups)
    list_group_offsets = blocking(_Admin.list_group_offsets)
    alter_group_offsets = blocking(_Admin.alter_group_offsets)
    delete_groups = blocking(_Admin.delete_groups)
    remove_members = blocking(_Admin.remove_members)
    describe_quorum = blocking(_Admin.describe_quorum)
    transfer_leadership = blocking(_Admin.transfer_leadership)
    add_voter = blocking(_Admin.add_voter)
    remove_voter = blocking(_Admin.remove_voter)


Admin.__signature__ = inspect.signature(_Admin)  # type: ignore[attr-defined]
