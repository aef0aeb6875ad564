"""One set of operations for a broker: its listeners share them, and with them the budgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quorate_broker.operations.admin import Admin
    from quorate_broker.operations.fetch import Fetch
    from quorate_broker.operations.metadata import Metadata
    from quorate_broker.operations.offsets import Offsets
    from quorate_broker.operations.produce import Produce
    from quorate_broker.operations.producer_ids import ProducerIds


@dataclass(frozen=True, slots=True)
class Operations:
    """What clients may ask of a broker, whatever the protocol: plain values and a Principal in."""

    produce: Produce
    fetch: Fetch
    offsets: Offsets
    producer_ids: ProducerIds
    metadata: Metadata
    admin: Admin
