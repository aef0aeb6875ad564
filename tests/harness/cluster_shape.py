"""What a seed of the cluster is: its topic, its clients, and how much damage it must survive."""

from __future__ import annotations

import random
from dataclasses import dataclass

from quorate.record.compression import NAMES
from quorate_testing.simulated.cluster import DATA


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
    brokers: int = 3
    #: The log directories of each broker.
    log_dirs: tuple[str, ...] = (DATA,)
    producers: int = 1
    #: The rack of each consumer that runs all the time: it reads from followers there. Empty: it
    #: reads from leaders.
    reads_in: tuple[str, ...] = ("",)
    #: Producers and consumers die now and then, and new ones go on with their work.
    clients_die: bool = False
    #: The network between clients and brokers fails, too.
    clients_cut: bool = False
    #: An operator moves replicas between brokers, drains brokers, and elects leaders.
    moves: bool = False
    #: An administrator changes the topic's configuration now and then.
    configures: bool = False
    #: The operator asks for unclean elections, and at times the topic's configuration allows them:
    #: every loss must be told.
    unclean: bool = False
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
        words += [f"{self.brokers} brokers"] if self.brokers != 3 else []
        words += [f"{len(self.log_dirs)} log directories"] if len(self.log_dirs) > 1 else []
        words += [f"{self.producers} producers"] if self.producers > 1 else []
        words += ["flush on ack"] if self.syncs_on_ack else []
        words += [] if self.is_patient else [f"delivery in {self.delivery_timeout_ms} ms"]
        words += [f"kept for {self.retention_ms} ms"] if self.retention_ms else []
        words += [f"codec {self.codec}"] if self.codec != "none" else []
        words += [f"read in {rack}" for rack in self.reads_in if rack]
        words += [f"topic {self.topic_codec}"] if self.topic_codec != "producer" else []
        return ", ".join(words + [name for name in FLAGS if getattr(self, name)])

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole cluster, where everything may happen at once."""
        return self.producers > 1

    @property
    def may_lose(self) -> bool:
        """Whether acknowledged records may be lost within what this shape allows."""
        return self.beyond or self.unclean


#: The fields that a description names.
FLAGS = (
    "cancels",
    "clients_die",
    "clients_cut",
    "recreates",
    "grows",
    "trims",
    "compacts",
    "moves",
    "configures",
    "unclean",
    "beyond",
)


#: (replication factor, min ISR), the default most often.
REPLICATION = ((3, 2), (3, 2), (3, 2), (3, 3), (3, 1), (2, 2), (2, 1), (1, 1))
#: The values of compression.type, the default most often.
TOPIC_CODECS = ("producer", "producer", "producer", "uncompressed", *NAMES[1:])


#: The racks in which the consumers of a whole cluster read.
RACKS_READ = ("", "", "R1", "R1", "R2")


def draw_shape(chance: random.Random) -> Shape:
    """Return the shape that a seed stands for. Half of the seeds have the whole cluster."""
    return _draw_whole(chance) if chance.random() < 0.5 else _draw_small(chance)


def _draw_whole(chance: random.Random) -> Shape:
    """Draw a cluster of five brokers in two racks and ten clients or more.

    Three producers, five consumers, the operator and the one who configures; with trims, growth
    and re-creation there is a program more for each. All of it may happen in one seed.
    """
    replication_factor, min_isr = chance.choice(REPLICATION)
    recreates = chance.random() < 0.25
    return Shape(
        replication_factor=replication_factor,
        min_isr=min_isr,
        brokers=5,
        log_dirs=chance.choice(((DATA,), (DATA, "/data2"))),
        producers=3,
        reads_in=RACKS_READ,
        syncs_on_ack=chance.random() < 0.4,
        delivery_timeout_ms=chance.choice((60_000, 60_000, 60_000, 800, 2000)),
        request_timeout_ms=chance.choice((30_000, 30_000, 200, 1000)),
        max_batch_size=chance.choice((131_072, 131_072, 200, 1)),
        cancels=chance.random() < 0.3,
        clients_die=chance.random() < 0.4,
        clients_cut=chance.random() < 0.5,
        recreates=recreates,
        beyond=not recreates and chance.random() < 0.1,
        unclean=not recreates and chance.random() < 0.15,
        trims=chance.random() < 0.4,
        retention_ms=chance.choice((0, 0, 0, 1000, 4000)),
        compacts=chance.random() < 0.3,
        codec=chance.choice(NAMES),
        topic_codec=chance.choice(TOPIC_CODECS),
        grows=chance.random() < 0.4,
        moves=True,
        configures=True,
    )


def _draw_small(chance: random.Random) -> Shape:
    """Draw a cluster of three brokers with a producer and a consumer; of five with moves."""
    replication_factor, min_isr = chance.choice(REPLICATION)
    recreates = chance.random() < 0.2
    moves = not recreates and chance.random() < 0.4
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
        reads_in=(chance.choice(("", "R1", "R2")),),
        moves=moves,
        brokers=5 if moves else 3,
        configures=chance.random() < 0.3,
    )
