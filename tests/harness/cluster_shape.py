"""What a seed of the cluster is: its topic, its clients, and how much damage it must survive."""

from __future__ import annotations

import random
from dataclasses import dataclass

from quorate.record.compression import NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The shape of a seed's cluster and clients, drawn before anything runs."""

    replication_factor: int = 3
    min_isr: int = 2
    #: flush.on.ack: brokers may lose their power together.
    syncs_on_ack: bool = False
    delivery_timeout_ms: int = 60_000
    request_timeout_ms: int = 30_000
    max_batch_size: int = 131_072
    #: Callers give up their calls and go on.
    cancels: bool = False
    #: The topic is deleted and made again while it is written and read.
    recreates: bool = False
    #: An administrator gives the topic more partitions now and then.
    grows: bool = False
    #: An administrator deletes the oldest records now and then.
    trims: bool = False
    #: Records are kept for so long, and their segments are closed at a quarter of it; 0: for ever.
    retention_ms: int = 0
    #: The topic keeps the last record of each key, and compacts often.
    compacts: bool = False
    #: The codec of the producer, and compression.type of the topic.
    codec: str = "none"
    topic_codec: str = "producer"
    #: The rack of the consumer that runs all the time, which reads from followers there; empty: it
    #: reads from leaders.
    reads_in: str = ""
    #: An operator moves replicas between five brokers, drains brokers, and elects leaders.
    moves: bool = False
    #: More is damaged than the cluster is promised to survive: every loss must be told.
    beyond: bool = False

    @property
    def damaged_max(self) -> int:
        """Brokers whose disks may be damaged together without a loss: fewer than min ISR."""
        return self.min_isr - 1

    @property
    def is_patient(self) -> bool:
        """Whether the producer waits longer than any fault lasts."""
        return self.delivery_timeout_ms >= 30_000

    def __str__(self) -> str:
        words = [f"rf {self.replication_factor} min {self.min_isr}"]
        words += ["flush on ack"] if self.syncs_on_ack else []
        words += [] if self.is_patient else [f"delivery in {self.delivery_timeout_ms} ms"]
        words += [f"kept for {self.retention_ms} ms"] if self.retention_ms else []
        words += [f"codec {self.codec}"] if self.codec != "none" else []
        words += [f"read in {self.reads_in}"] if self.reads_in else []
        words += [f"topic {self.topic_codec}"] if self.topic_codec != "producer" else []
        named = ("cancels", "recreates", "grows", "trims", "compacts", "moves", "beyond")
        return ", ".join(words + [name for name in named if getattr(self, name)])


#: (replication factor, min ISR), the default most often.
REPLICATION = ((3, 2), (3, 2), (3, 2), (3, 3), (3, 1), (2, 2), (2, 1), (1, 1))
#: The values of compression.type, the default most often.
TOPIC_CODECS = ("producer", "producer", "producer", "uncompressed", *NAMES[1:])


def draw_shape(chance: random.Random) -> Shape:
    """Return the shape that a seed stands for."""
    replication_factor, min_isr = chance.choice(REPLICATION)
    recreates = chance.random() < 0.2
    return Shape(
        replication_factor=replication_factor,
        min_isr=min_isr,
        syncs_on_ack=chance.random() < 0.4,
        delivery_timeout_ms=chance.choice((60_000, 60_000, 60_000, 300, 800, 2000)),
        request_timeout_ms=chance.choice((30_000, 30_000, 200, 1000)),
        max_batch_size=chance.choice((131_072, 131_072, 200, 1)),
        cancels=chance.random() < 0.3,
        recreates=recreates,
        beyond=not recreates and chance.random() < 0.15,
        trims=chance.random() < 0.25,
        retention_ms=chance.choice((0, 0, 0, 1000, 4000)),
        compacts=chance.random() < 0.3,
        codec=chance.choice(NAMES),
        topic_codec=chance.choice(TOPIC_CODECS),
        grows=not recreates and chance.random() < 0.3,
        reads_in=chance.choice(("", "R1", "R2")),
        moves=not recreates and chance.random() < 0.4,
    )
