"""The operations of a broker. All its listeners share one set, and so share the budgets."""

from __future__ import annotations

from dataclasses import dataclass

from quorate_broker.operations.active_producers import ActiveProducers
from quorate_broker.operations.admin import Admin
from quorate_broker.operations.classic_groups import ClassicGroups
from quorate_broker.operations.delete_records import DeleteRecords
from quorate_broker.operations.fetch import Fetch
from quorate_broker.operations.full_fetch import FullFetch
from quorate_broker.operations.group_members import GroupMembers
from quorate_broker.operations.groups import Groups
from quorate_broker.operations.log_dirs import LogDirs
from quorate_broker.operations.metadata import Metadata
from quorate_broker.operations.offsets import Offsets
from quorate_broker.operations.produce import Produce
from quorate_broker.operations.producer_ids import ProducerIds
from quorate_broker.operations.rights import Rights


@dataclass(frozen=True, slots=True)
class Operations:
    """The operations that clients may call, by any protocol.

    Their arguments are plain values and a Principal.
    """

    produce: Produce
    fetch: Fetch
    full_fetch: FullFetch
    offsets: Offsets
    delete_records: DeleteRecords
    producer_ids: ProducerIds
    active_producers: ActiveProducers
    metadata: Metadata
    admin: Admin
    log_dirs: LogDirs
    groups: Groups
    group_members: GroupMembers
    classic_groups: ClassicGroups
    rights: Rights
