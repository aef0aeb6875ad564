"""Which versions of which requests this broker serves, and which it tells to clients.

It serves every version whose messages are in `messages`, which are those of Kafka 4.3: a client
that Kafka 4 takes is taken here (KIP-896). It tells a request to clients as soon as a handler for
it is in the table of dispatch.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from quorate_broker.listeners.kafka.messages.apis import APIS

PRODUCE: Final = 0
FETCH: Final = 1
LIST_OFFSETS: Final = 2
METADATA: Final = 3
OFFSET_COMMIT: Final = 8
OFFSET_FETCH: Final = 9
FIND_COORDINATOR: Final = 10
JOIN_GROUP: Final = 11
HEARTBEAT: Final = 12
LEAVE_GROUP: Final = 13
SYNC_GROUP: Final = 14
DESCRIBE_GROUPS: Final = 15
LIST_GROUPS: Final = 16
SASL_HANDSHAKE: Final = 17
API_VERSIONS: Final = 18
CREATE_TOPICS: Final = 19
DELETE_TOPICS: Final = 20
DELETE_RECORDS: Final = 21
INIT_PRODUCER_ID: Final = 22
OFFSET_FOR_LEADER_EPOCH: Final = 23
DESCRIBE_ACLS: Final = 29
DESCRIBE_CONFIGS: Final = 32
ALTER_CONFIGS: Final = 33
ALTER_REPLICA_LOG_DIRS: Final = 34
DESCRIBE_LOG_DIRS: Final = 35
CREATE_PARTITIONS: Final = 37
DELETE_GROUPS: Final = 42
ELECT_LEADERS: Final = 43
INCREMENTAL_ALTER_CONFIGS: Final = 44
ALTER_PARTITION_REASSIGNMENTS: Final = 45
LIST_PARTITION_REASSIGNMENTS: Final = 46
OFFSET_DELETE: Final = 47
DESCRIBE_CLIENT_QUOTAS: Final = 48
DESCRIBE_USER_SCRAM_CREDENTIALS: Final = 50
DESCRIBE_QUORUM: Final = 55
DESCRIBE_CLUSTER: Final = 60
DESCRIBE_PRODUCERS: Final = 61
LIST_TRANSACTIONS: Final = 66
CONSUMER_GROUP_HEARTBEAT: Final = 68
CONSUMER_GROUP_DESCRIBE: Final = 69
LIST_CONFIG_RESOURCES: Final = 74
DESCRIBE_TOPIC_PARTITIONS: Final = 75

#: API key -> the versions that are served, where these are not all.
_SERVED: Final[Mapping[int, range]] = {
    SASL_HANDSHAKE: range(1, 2),  # version 0 means that frames without a header follow
}
#: API key -> the versions that clients are told, where these are not those that are served.
_TOLD: Final[Mapping[int, range]] = {
    # Kafka tells 0 to 2, too, and refuses them: librdkafka below 2.11.1 takes a broker without
    # them for one that cannot compress (KAFKA-18659).
    PRODUCE: range(APIS[PRODUCE].versions.stop),
}

#: API key -> what differs from Kafka 4.3 for clients. docs/kafka-clients.md shows it.
DIFFERS: Final[Mapping[int, str]] = {
    PRODUCE: "a producer id that is not known may begin with sequence 0 only",
    FETCH: "no sessions: each request names all its partitions",
    LIST_OFFSETS: "-3 finds nothing while that record is not committed",
    METADATA: "the controller is the broker that answers; the answer waits 1 s for a new topic",
    FIND_COORDINATOR: "groups only",
    INIT_PRODUCER_ID: "without a transactional id only; always a new producer id",
    CREATE_TOPICS: "a config that Quorate does not have is taken with Kafka's default only",
    DESCRIBE_ACLS: "SECURITY_DISABLED",
    ALTER_CONFIGS: "configs of topics only",
    ALTER_REPLICA_LOG_DIRS: "for the directory in which a replica is; none is moved to another one",
    INCREMENTAL_ALTER_CONFIGS: "configs of topics only",
    DESCRIBE_CLIENT_QUOTAS: "there are none",
    DESCRIBE_USER_SCRAM_CREDENTIALS: "there are none",
    DESCRIBE_PRODUCERS: "the last timestamp is when the leader heard the producer; at most 10,000",
    LIST_TRANSACTIONS: "there are none",
    CONSUMER_GROUP_HEARTBEAT: "a member that waits for its share is told to ask again after 1 s",
    CONSUMER_GROUP_DESCRIBE: "what a member gives back counts as assigned",
    LIST_CONFIG_RESOURCES: "topics and brokers only: nothing else has configs",
}


def served(api_key: int) -> range:
    """Return the versions of a request that can be decoded and answered.

    >>> served(PRODUCE), told(PRODUCE), served(1000)
    (range(3, 14), range(0, 14), range(0, 0))
    """
    if api_key not in APIS:
        return range(0)
    return _SERVED.get(api_key, APIS[api_key].versions)


def told(api_key: int) -> range:
    """Return the versions of a request that clients are told."""
    return _TOLD.get(api_key, served(api_key))
